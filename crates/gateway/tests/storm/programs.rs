//! The program's own clients, while the node they are connected to is replaced.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::harness::http::Http;
use crate::harness::{Node, alone};
use crate::process::{PATIENCE, Process, until};
use crate::proxy::Proxy;
use crate::redis::Redis;

/// Publications in all. Most come while the node goes away.
const COUNT: u64 = 300;

/// Clients come through this, as through a load balancer.
struct Balanced {
    _redis: Redis,
    nodes: [Node; 2],
    balancer: Proxy,
}

impl Balanced {
    fn start() -> Self {
        let redis = Redis::start(&[]);
        let nodes = [0, 1].map(|_| Node::start(&redis.url(), &[]));
        let balancer = Proxy::start(nodes[0].address, 1);
        Self { _redis: redis, nodes, balancer }
    }

    /// A client verb of the program, which is led to whichever node is there.
    fn client(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
        command.env_clear().args(arguments);
        command.args(["--url", &format!("http://{}", self.balancer.address())]);
        Process::start("tickcast", &mut command)
    }

    /// The first node goes away; whoever comes is led to the second.
    fn drain(&mut self) {
        let [old, new] = &mut self.nodes;
        self.balancer.lead_to(new.address);
        old.terminate();
        assert_eq!(old.until_ended(PATIENCE).code(), Some(0), "{}", old.log());
    }
}

/// Waits until a client has ended well, and returns what it has printed.
fn until_done(client: &mut Process) -> String {
    let mut status = None;
    until("done", PATIENCE, || {
        status = client.ended();
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{}", client.log());
    client.log()
}

/// Publishes a number to topic `t`, with itself as its key.
fn publish(node: SocketAddr, number: u64) {
    let (key, body) = (number.to_string(), number.to_string());
    let answer = Http::connect(node).and_then(|mut http| http.post("/v1/topics/t", &key, &body));
    assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
}

/// The offsets that a terminal has shown of topic `t`.
fn shown(log: &str) -> Vec<u64> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("t "));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn a_terminal_shows_everything_once_while_its_node_goes_away() {
    let _turn = alone();
    let mut scene = Balanced::start();
    publish(scene.nodes[1].address, 1);
    let count = COUNT.to_string();
    let mut terminal = scene.client(&["sub", "t", "--count", &count]);
    terminal.wait_for("the kept value", |line| line.starts_with("t ").then_some(()));

    let new = scene.nodes[1].address;
    let publisher = std::thread::spawn(move || {
        for number in 2..=COUNT {
            publish(new, number);
            // So that it takes longer than the end of the other node.
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    scene.drain();
    publisher.join().expect("everything is accepted");
    let log = until_done(&mut terminal);
    assert_eq!(shown(&log), (1..=COUNT).collect::<Vec<_>>(), "{log}");
    assert!(log.contains("-- moved to another connection"), "{log}");
    assert!(!log.contains("reconnecting"), "{log}");
}

#[test]
fn a_stream_is_published_once_while_its_node_goes_away() {
    let _turn = alone();
    let mut scene = Balanced::start();
    let mut lines = tempfile::NamedTempFile::new().expect("a file");
    for number in 1..=COUNT {
        writeln!(lines, r#"{{"topic":"t","data":{number}}}"#).expect("room on the disk");
    }
    let file = lines.path().to_str().expect("text");
    let mut stream = scene.client(&["pub", "--file", file, "--rate", "150", "--in-flight", "2"]);
    let offset = |node: &Node| node.get("/v1/topics/t").json()["offset"].as_u64().unwrap_or(0);
    until("under way", PATIENCE, || offset(&scene.nodes[1]) > COUNT / 10);
    scene.drain();
    let log = until_done(&mut stream);
    assert!(log.contains(&format!("published {COUNT} in ")), "{log}");
    let history = scene.nodes[1].get("/v1/topics/t?history=1000").json();
    let history = history["publications"].as_array().expect("a history").iter();
    let published: Vec<_> = history.filter_map(|one| one["data"].as_u64()).collect();
    assert_eq!(published, (1..=COUNT).collect::<Vec<_>>());
}
