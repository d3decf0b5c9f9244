use std::io;
use std::time::Instant;

use serde_json::{Value, json};
use tickcast_broker::{MemoryBroker, MemoryLimits};
use tickcast_hub::{Hub, HubLimits, Inbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::crowd::CONNECTIONS_MAX;
use super::*;
use crate::access::Access;
use crate::config::{Config, Live};
use crate::metrics::{Metrics, WorkerCell, WorkerCounters};
use crate::node::life::{Life, Stage};
use crate::node::pulse::Pulse;
use crate::node::warnings::Warnings;
use crate::node::{Intake, Rules};
use crate::server::{Connections, Reloader};

/// A node with one worker that never ran.
fn node() -> (Arc<Node>, Arc<WorkerCell>) {
    node_since(Instant::now())
}

/// A node that started then.
fn node_since(started: Instant) -> (Arc<Node>, Arc<WorkerCell>) {
    let config = Config::default();
    let inboxes = vec![Arc::new(Inbox::new(64, || {}))];
    let cell = Arc::new(WorkerCell::default());
    let metrics = Arc::new(Metrics::new(vec![Arc::clone(&cell)], inboxes.clone()));
    let limits = HubLimits { log_bytes: config.log_memory().bytes() };
    let access = Access::new(&config);
    let live = Arc::new(Live::new(config));
    let hub = Arc::new(Hub::new(limits, Arc::new(Rules(Arc::clone(&live))), inboxes, || {}));
    let intake = Intake::new(Arc::clone(&hub), Arc::clone(&metrics), Arc::default());
    let broker = Arc::new(MemoryBroker::new(MemoryLimits::default(), Arc::new(intake)));
    let connections = Arc::new(Connections::new(10));
    let failed = CancellationToken::new();
    let (reloader, life) = (Reloader::default(), Life::default());
    let pulse = Pulse::new(1, started);
    let warnings = Warnings::default();
    let node = Node {
        live,
        reloader,
        access,
        hub,
        broker,
        metrics,
        connections,
        http_memory: Arc::default(),
        failed,
        life,
        pulse,
        warnings,
    };
    (Arc::new(node), cell)
}

/// An admin listener, and what ends it.
struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(node: &Arc<Node>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, Arc::clone(node), stop.clone()));
    Running { address, stop, task }
}

impl Running {
    /// Sends a request and gives the head and the body of the answer, read until the node closes.
    async fn ask(&self, request_line: &str) -> (String, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request_line} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn ready(&self, query: &str) -> (u16, Value) {
        let (head, body) = self.ask(&format!("GET /readyz{query}")).await;
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        (status(&head), serde_json::from_str(&body).unwrap())
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_node_is_alive_whatever_happens() {
    let (node, _) = node();
    let admin = start(&node).await;
    node.metrics.set_broker_up(false);
    node.life.advance(Stage::Leaving);
    let (head, body) = admin.ask("GET /livez").await;
    assert_eq!((status(&head), body.as_str()), (200, "{\"status\":\"ok\"}\n"));
}

#[tokio::test]
async fn a_node_whose_worker_hangs_is_not_alive() {
    let (node, _) = node_since(Instant::now().checked_sub(Duration::from_secs(31)).unwrap());
    let admin = start(&node).await;
    let (head, body) = admin.ask("GET /livez").await;
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status(&head), &report["status"], &report["worker"]),
        (503, &json!("hanging"), &json!(0))
    );
    assert!(report["silent_seconds"].as_u64().is_some_and(|seconds| seconds >= 31), "{report}");
    node.pulse.beat(0);
    assert_eq!(status(&admin.ask("GET /livez").await.0), 200);
}

#[tokio::test]
async fn a_node_whose_worker_hangs_takes_nobody_long_before_it_is_given_up() {
    let (node, _) = node_since(Instant::now().checked_sub(Duration::from_secs(6)).unwrap());
    node.metrics.set_broker_up(true);
    let admin = start(&node).await;
    let silence = async |admin: &Running| {
        let (_, body) = admin.ask("GET /metrics").await;
        let line = body.lines().find(|line| line.starts_with("tickcast_worker_silence_seconds "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).unwrap()
    };
    for query in ["", "?for=subscribe"] {
        let (code, report) = admin.ready(query).await;
        let expected = (503, &json!("not_ready"), &json!(["worker_hangs"]));
        assert_eq!((code, &report["status"], &report["reasons"]), expected, "{query}");
    }
    assert!(silence(&admin).await >= 6);
    assert_eq!(status(&admin.ask("GET /livez").await.0), 200, "it may come back");
    node.pulse.beat(0);
    assert_eq!(admin.ready("?for=subscribe").await.0, 200);
    assert!(silence(&admin).await < 5);
}

#[tokio::test]
async fn who_waits_to_be_let_in_is_shown_as_no_request() {
    let (node, cell) = node();
    let admin = start(&node).await;
    cell.set(&WorkerCounters { connections: 1, ..WorkerCounters::default() });
    let places: Vec<_> = (0..4).filter_map(|_| node.connections.enter()).collect();
    assert_eq!(places.len(), 4);
    node.connections.set_waiting(2);
    let (_, body) = admin.ask("GET /metrics").await;
    for line in ["tickcast_connections{transport=\"http\"} 1", "tickcast_connections_waiting 2"] {
        assert!(body.lines().any(|other| other == line), "{line} is not in\n{body}");
    }
    let (_, body) = admin.ask("GET /admin/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["connections"], json!({"http": 1, "websocket": 1}));
}

#[tokio::test]
async fn readiness_follows_the_broker_and_the_end_of_the_node() {
    let (node, _) = node();
    let admin = start(&node).await;
    let report = |status: &str, degraded: bool, draining: bool, broker: &str, reasons: &[&str]| json!({ "status": status, "degraded": degraded, "draining": draining, "broker": broker, "reasons": reasons });

    node.metrics.set_broker_up(true);
    let fine = report("ready", false, false, "up", &[]);
    for query in ["", "?for=publish", "?for=subscribe"] {
        assert_eq!(admin.ready(query).await, (200, fine.clone()), "{query}");
    }

    node.metrics.set_broker_up(false);
    let down = ["broker_down"];
    assert_eq!(admin.ready("").await, (503, report("not_ready", false, false, "down", &down)));
    assert_eq!(
        admin.ready("?for=subscribe").await,
        (200, report("ready", true, false, "down", &down))
    );

    node.life.advance(Stage::Leaving);
    let both = report("not_ready", false, true, "down", &["draining", "broker_down"]);
    node.metrics.set_broker_up(true);
    let draining = report("not_ready", false, true, "up", &["draining"]);
    for query in ["", "?for=subscribe"] {
        assert_eq!(admin.ready(query).await, (503, draining.clone()), "{query}");
    }
    node.metrics.set_broker_up(false);
    assert_eq!(admin.ready("?for=subscribe").await, (503, both));
}

#[tokio::test]
async fn metrics_show_what_the_node_holds_now() {
    let (node, cell) = node();
    let admin = start(&node).await;
    cell.set(&WorkerCounters { connections: 3, ..WorkerCounters::default() });
    let places: Vec<_> = (0..5).filter_map(|_| node.connections.enter()).collect();
    assert_eq!(places.len(), 5);
    node.metrics.set_broker_up(true);
    let (head, body) = admin.ask("GET /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        "tickcast_connections{transport=\"http\"} 2",
        "tickcast_connections{transport=\"websocket\"} 3",
        "tickcast_connections_max 10",
        "tickcast_broker_up{broker=\"memory\"} 1",
        "tickcast_ready 1",
        "tickcast_hub_log_max_bytes 268435456",
        "tickcast_hub_inbox_max_items 16384",
    ] {
        assert!(body.lines().any(|other| other == line), "{line} is not in\n{body}");
    }
}

#[tokio::test]
async fn other_requests_are_refused_with_a_reason() {
    let (node, _) = node();
    let admin = start(&node).await;
    for (request, code, word) in [
        ("GET /", 404, "not_found"),
        ("POST /healthz", 404, "not_found"),
        ("GET /metrics/", 404, "not_found"),
        ("POST /metrics", 405, "method_not_allowed"),
        ("OPTIONS /readyz", 405, "method_not_allowed"),
        ("GET /readyz?for=all", 400, "bad_option"),
        ("GET /readyz?fro=subscribe", 400, "bad_option"),
    ] {
        let (head, body) = admin.ask(request).await;
        let document: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status(&head), &document["code"]), (code, &json!(word)), "{request}");
        assert_eq!(document["status"], code, "{request}");
        assert!(head.contains("content-type: application/problem+json"), "{request}: {head}");
        assert_eq!(code == 405, head.contains("allow: GET, HEAD"), "{request}: {head}");
    }
}

#[tokio::test]
async fn head_has_the_length_but_no_body() {
    let (node, _) = node();
    let admin = start(&node).await;
    let (head, body) = admin.ask("HEAD /livez").await;
    assert!(head.contains("content-length: 16"), "{head}");
    assert_eq!((status(&head), body.as_str()), (200, ""));
}

/// More connections than may be served come, and say nothing: the oldest make room, and whoever asks is answered.
#[tokio::test]
async fn silent_connections_make_room_for_who_asks() {
    const MORE: usize = 40;
    let (node, _) = node();
    let admin = start(&node).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX + MORE {
        silent.push(TcpStream::connect(admin.address).await.unwrap());
    }
    let begun = Instant::now();
    let (head, _) = admin.ask("GET /livez").await;
    assert_eq!(status(&head), 200);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // One more went for the one that asked.
    for socket in &mut silent[..=MORE] {
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    for socket in &mut silent[MORE + 1..] {
        let read = socket.try_read(&mut [0; 8]);
        assert!(read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
}

/// Those that wait for their answer are not sent away: the next one waits, and is served once one has gone.
#[tokio::test]
async fn connections_do_not_grow_without_bound() {
    let mut crowd = Crowd::default();
    let mut ends = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        assert!(crowd.has_room());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        crowd.enter(|asked| async move {
            asked.store(true, Relaxed);
            drop(ended.await);
        });
        ends.push(end);
    }
    // Each of them asks when it has its first turn.
    let full = async {
        while crowd.has_room() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), full).await.unwrap();
    drop(ends.pop());
    crowd.ended().await.unwrap();
    assert!(crowd.has_room());
}

#[tokio::test]
async fn the_listener_ends_with_its_token() {
    let (node, _) = node();
    let admin = start(&node).await;
    let mut open = TcpStream::connect(admin.address).await.unwrap();
    // An answer shows that the connection before it was accepted.
    admin.ask("GET /livez").await;
    admin.stop.cancel();
    admin.task.await.unwrap();
    assert_eq!(open.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(admin.address).await.is_err());
}
