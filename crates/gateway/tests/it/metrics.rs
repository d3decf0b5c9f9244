//! What operators read: the admin listener.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::Node;

#[tokio::test]
async fn the_metrics_are_as_prometheus_wants_them() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    node.publish_numbers("a", 1..=3).await;
    socket.expect_numbers("a", 1..=3).await;
    let answer = node.admin("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool =
        promtool.expect("promtool is installed (Debian: `apt-get install prometheus`)");
    promtool.stdin.take().expect("piped").write_all(&answer.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn the_numbers_are_those_of_what_happened() {
    let node = Node::start().await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = node.connect().await;
        socket.subscribe(json!(["a", "b"])).await;
        sockets.push(socket);
    }
    node.publish_numbers("a", 1..=10).await;
    for socket in &mut sockets {
        socket.expect_numbers("a", 1..=10).await;
    }
    node.get("/nowhere", "").await;
    for (series, expected) in [
        (r#"tickcast_connections{transport="websocket"}"#, 3.0),
        (r#"tickcast_connections_opened_total{transport="websocket"}"#, 3.0),
        (r#"tickcast_subscriptions{transport="websocket"}"#, 6.0),
        ("tickcast_topics", 2.0),
        (r#"tickcast_subscribe_requests_total{result="accepted"}"#, 6.0),
        (r#"tickcast_publications_total{result="accepted"}"#, 10.0),
        ("tickcast_broker_publications_received_total", 10.0),
        (r#"tickcast_deliveries_total{transport="websocket"}"#, 30.0),
        (r#"tickcast_http_requests_total{route="publish",method="POST",code="2xx"}"#, 10.0),
        (r#"tickcast_http_requests_total{route="ws",method="GET",code="1xx"}"#, 3.0),
        (r#"tickcast_http_requests_total{route="other",method="GET",code="4xx"}"#, 1.0),
        ("tickcast_ready", 1.0),
        ("tickcast_draining", 0.0),
        ("tickcast_workers", 2.0),
    ] {
        node.until_metric(series, |value| value == expected).await;
    }
    assert!(node.metric("process_resident_memory_bytes").await > 0.0);
    assert!(node.metric(r#"tickcast_worker_cpu_seconds_total{worker="1"}"#).await > 0.0);
    assert!(node.metric("tickcast_turn_duration_seconds_count").await > 0.0);
    let requests = node.metric("tickcast_broker_publish_duration_seconds_count").await;
    assert_eq!(requests, 10.0);
}

#[tokio::test]
async fn the_life_of_a_connection_is_measured() {
    let node = Node::start().await;
    let socket = node.connect().await;
    let handshakes = r#"tickcast_handshake_duration_seconds_count{transport="websocket"}"#;
    node.until_metric(handshakes, |count| count == 1.0).await;
    let ended = r#"tickcast_connection_duration_seconds_count{transport="websocket"}"#;
    assert_eq!(node.metric(ended).await, 0.0);
    drop(socket);
    node.until_metric(ended, |count| count == 1.0).await;
}

#[tokio::test]
async fn a_node_that_runs_is_alive_and_ready() {
    let node = Node::start().await;
    assert_eq!(node.admin("/livez").await.status, 200);
    let ready = node.admin("/readyz").await;
    assert_eq!(ready.status, 200);
    let report = json!({"status": "ready", "degraded": false, "draining": false, "broker": "up", "reasons": []});
    assert_eq!(ready.json(), report);
    assert_eq!(node.admin("/readyz?for=subscribe").await.status, 200);
    assert_eq!(node.admin("/readyz?for=tea").await.status, 400);
    assert_eq!(node.admin("/nowhere").await.status, 404);
}
