//! Publishers that connect anew for each publication, while thousands of clients stand in line at every node.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::scope;
use std::time::{Duration, Instant};

use super::deployment::{Deployment, fetch};
use crate::exposition;
use crate::harness::alone;
use crate::harness::http::Http;
use crate::process::{PATIENCE, until};

/// Connections that a node lets in per second.
const RATE: &str = "40";

/// Clients that come at once. A node has a third of them, and needs five seconds.
const CROWD: usize = 600;

/// Clients in line at each node, so that one more would wait for longer than a publisher may.
const IN_LINE: f64 = 80.0;

const PUBLISHERS: usize = 4;

/// Pause of each publisher between two publications.
const PAUSE: Duration = Duration::from_millis(40);

/// Publications before the crowd comes, and beside it.
const COUNT: usize = 100;

/// Each publication is answered within this time, whether the load balancer has a connection to a node at hand or not.
const ANSWERED: Duration = Duration::from_secs(1);

/// Publishers at work, and what they were told.
struct Publishers<'a> {
    deployment: &'a Deployment,
    key: String,
    answered: AtomicUsize,
}

impl Publishers<'_> {
    /// Publishes until it is over, each time on a connection of its own: how long the slowest answer took.
    fn publish(&self, number: usize, is_over: &Receiver<()>) -> Duration {
        let (mut slowest, mut count) = (Duration::ZERO, 0);
        while is_over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            count += 1;
            let start = Instant::now();
            let http = Http::connect(self.deployment.http()).expect("it listens");
            let key = format!("{number}-{count}");
            let answer = http.with_key(Some(&self.key)).post("/v1/topics/aside", &key, "1");
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "after {:?}: {answer:?}", start.elapsed());
            slowest = slowest.max(start.elapsed());
            self.answered.fetch_add(1, Relaxed);
        }
        slowest
    }

    /// Waits until so many publications more were answered.
    fn until_answered(&self, more: usize) -> Duration {
        let before = self.answered.load(Relaxed);
        until("answered", PATIENCE, || self.answered.load(Relaxed) >= before + more)
    }
}

/// Connections that wait to be let in at the node where fewest do.
fn fewest_in_line(deployment: &Deployment) -> f64 {
    let waiting = |node| {
        let text = fetch(deployment.admin(node), "/metrics").expect("it is there");
        exposition::value(&text, "tickcast_connections_waiting").expect("it is there")
    };
    (1..=3).map(waiting).fold(f64::INFINITY, f64::min)
}

/// A client that wants to become a WebSocket. Nobody waits for the answer.
fn begin(deployment: &Deployment) -> TcpStream {
    let mut stream = TcpStream::connect(deployment.http()).expect("it listens");
    let head = crate::handshake::head(&crate::handshake::LINES);
    stream.write_all(head.as_bytes()).expect("an open connection");
    stream
}

#[test]
fn publishers_go_on_while_clients_stand_in_line() {
    let _turn = alone();
    let settings = [("RESTART_AFTER", "1"), ("TICKCAST__SERVER__ACCEPT_RATE", RATE)];
    let deployment = Deployment::start(&settings);
    let publishers = Publishers {
        deployment: &deployment,
        key: deployment.key(),
        answered: AtomicUsize::new(0),
    };
    let slowest = scope(|scope| {
        let publishers = &publishers;
        let start = |number| {
            // It is over when this end of the channel is gone, also in a panic.
            let (going_on, is_over) = channel();
            (going_on, scope.spawn(move || publishers.publish(number, &is_over)))
        };
        let (going_on, threads): (Vec<_>, Vec<_>) = (0..PUBLISHERS).map(start).unzip();
        publishers.until_answered(COUNT);
        let crowd: Vec<_> = (0..CROWD).map(|_| begin(&deployment)).collect();
        until("a storm", PATIENCE, || fewest_in_line(&deployment) > IN_LINE);
        let took = publishers.until_answered(COUNT);
        let left = fewest_in_line(&deployment);
        drop(going_on);
        let slowest = threads.into_iter().map(|thread| thread.join().expect("all are answered"));
        let slowest = slowest.max().expect("some");
        println!("{COUNT} in {took:?}, the slowest in {slowest:?}; {left} still in line");
        assert!(left > 0.0, "the storm was over before");
        drop(crowd);
        slowest
    });
    let reused = |node| {
        let labels = format!(r#"{{proxy="publish",server="node-{node}"}}"#);
        let reuses = format!("haproxy_server_connection_reuses_total{labels}");
        deployment.balancer(&reuses).expect("it is there")
    };
    assert!((1..=3).map(reused).sum::<f64>() > COUNT as f64);
    assert!(slowest < ANSWERED, "{slowest:?}");
}
