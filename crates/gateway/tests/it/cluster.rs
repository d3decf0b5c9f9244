//! `scripts/cluster`, which is what `make cluster` runs: a cluster to try out, that delivers, heals and leaves nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{Raw, Socket, until};
use crate::port::Port;
use crate::process::{PATIENCE, Process, until as until_blocking};

/// The script with a program that is built already, on free ports.
struct Cluster {
    script: Process,
    folder: PathBuf,
    ports: Vec<Port>,
}

impl Cluster {
    fn start() -> Self {
        let ports: Vec<Port> = (0..7).map(|_| Port::free()).collect();
        let numbers: Vec<_> = ports.iter().map(|port| port.address.port().to_string()).collect();
        let (redis, nodes) = numbers.split_first().expect("seven");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new("bash");
        command
            .arg(root.join("scripts/cluster"))
            .env("TICKCAST_BIN", env!("CARGO_BIN_EXE_tickcast"))
            .env("REDIS_PORT", redis)
            .env("NODE_PORTS", nodes.join(" "))
            .env("RESTART_AFTER", "0");
        let script = Process::start("cluster", &mut command);
        let folder = script.wait_for("page", |line| {
            let logs = line.trim_start().strip_prefix("logs")?.trim();
            Some(PathBuf::from(logs).parent()?.to_owned())
        });
        script.wait_for("page", |line| line.starts_with("Ctrl-C ends").then_some(()));
        Self { script, folder, ports }
    }

    /// The public address of a node, counted from 1.
    fn node(&self, number: usize) -> SocketAddr {
        self.ports[2 * number - 1].address
    }

    /// The admin address of a node, counted from 1.
    fn admin(&self, number: usize) -> SocketAddr {
        self.ports[2 * number].address
    }

    fn id(&self, name: &str) -> Pid {
        let text = std::fs::read_to_string(self.folder.join(format!("{name}.pid")));
        let number = text.expect("a file").trim().parse().expect("a number");
        Pid::from_raw(number).expect("not 0")
    }
}

impl Drop for Cluster {
    /// The script ends what it has started; killed, it could not.
    fn drop(&mut self) {
        if self.script.ended().is_none() {
            self.script.signal(Signal::INT);
            until_blocking("ended", PATIENCE, || self.script.ended().is_some());
        }
    }
}

async fn publish(address: SocketAddr, data: &str) -> bool {
    Raw::connect(address).await.post("/v1/topics/demo", "", data).await.status == 200
}

#[tokio::test]
async fn a_cluster_to_try_out_delivers_heals_and_leaves_nothing() {
    let mut cluster = Cluster::start();
    let mut socket = Socket::open(cluster.node(3), "/v1/ws?topics=stocks.AAPL").await;
    assert_eq!(socket.value().await["type"], "subscribed");
    // The feed of node 1: a value that is there, and one that comes.
    let first = socket.update().await;
    assert_eq!(socket.update().await.offset, first.offset + 1);

    let mut socket = Socket::open(cluster.node(3), "/v1/ws?topics=demo").await;
    assert_eq!(socket.value().await["type"], "subscribed");
    assert!(publish(cluster.node(2), "1").await);
    assert_eq!(socket.update().await.data, "1");

    kill_process(cluster.id("redis"), Signal::KILL).expect("it runs");
    cluster.script.wait_for("restart", |line| (line == "redis has started again").then_some(()));
    let ready =
        async || Raw::connect(cluster.admin(3)).await.get("/readyz", "").await.status == 200;
    until("ready", async || ready().await && publish(cluster.node(2), "2").await).await;
    loop {
        // Before it comes what there is to say: that the broker was down, that offsets begin anew.
        let message = socket.value().await;
        if message["data"] == 2 {
            break;
        }
        assert!(message["type"] == "status" || message["type"] == "reset", "{message}");
    }

    let names = ["redis", "node-1", "node-2", "node-3"];
    let ids = names.map(|name| cluster.id(name));
    cluster.script.signal(Signal::INT);
    until_blocking("ended", PATIENCE, || cluster.script.ended().is_some());
    let status = cluster.script.ended().expect("it has ended");
    assert_eq!(status.code(), Some(0), "{}", cluster.script.log());
    for (name, id) in names.into_iter().zip(ids) {
        assert!(test_kill_process(id).is_err(), "{name} still runs: {}", cluster.script.log());
    }
    assert!(!cluster.folder.exists());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/cluster");
    let output = Command::new("bash")
        .arg(script)
        .env("TICKCAST_BIN", env!("CARGO_BIN_EXE_tickcast"))
        .env("REDIS_PORT", port.to_string())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("something listens on port {port} already")), "{said}");
}
