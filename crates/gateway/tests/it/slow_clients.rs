//! Clients that do not keep up: what it costs the others (nothing), and what they get when they go on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tickcast::config::{Config, Size};

use crate::harness::{Node, Socket, Update};
use crate::oracle::{Follower, Oracle, Place};

/// Publications that a topic keeps here.
const HISTORY: usize = 50;

/// Bytes of one payload: more publications than this history, and more bytes than the buffers of a stuck socket.
const PAYLOAD_BYTES: usize = 4 * 1024;

const PUBLICATIONS: u64 = 400;

const FULL: &str = r#"tickcast_socket_full_total{transport="websocket"}"#;

fn narrow(config: &mut Config) {
    config.topics.defaults.history = HISTORY;
    config.websocket.send_buffer_bytes = Size::new(4096);
    config.websocket.unsent_bytes = Size::new(1024);
}

fn payload(number: u64) -> String {
    format!("\"{number}-{}\"", "x".repeat(PAYLOAD_BYTES))
}

/// Publishes all of them, while a healthy client reads each as soon as it is published. Answers with their epoch.
async fn publish_all(node: &Node, healthy: &mut Socket, oracle: &mut Oracle) -> String {
    let (mut raw, mut place) = (node.raw().await, None);
    let mut slowest = Duration::ZERO;
    for number in 1..=PUBLICATIONS {
        let answer = raw.post("/v1/topics/a", "", &payload(number)).await;
        assert_eq!(answer.status, 200);
        let published = Place::from(&answer.json());
        oracle.published("a", &published, &payload(number));
        place = Some(published);
        let started = Instant::now();
        assert_eq!(healthy.update().await, Update::new("a", number, &payload(number)));
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a client that reads waited {slowest:?} for another");
    place.expect("there were publications").epoch
}

/// Reads until the client is up to date.
async fn catch_up(socket: &mut Socket, follower: &mut Follower, oracle: &mut Oracle) -> Vec<Value> {
    let mut messages = Vec::new();
    while !follower.is_up_to_date(oracle) {
        let text = socket.text().await;
        follower.receives(&text, oracle);
        messages.push(serde_json::from_str(&text).unwrap());
    }
    messages
}

/// A client that subscribes and does not read.
async fn stuck(node: &Node, mode: &str) -> (Socket, Follower) {
    let mut socket = Socket::narrow(node.address, "/v1/ws").await;
    let mut follower = Follower::new(mode);
    follower.asks("a", false);
    let topics = json!([{"topic": "a", "mode": mode}]);
    socket.command(&json!({"type": "subscribe", "topics": topics})).await;
    (socket, follower)
}

async fn healthy(node: &Node) -> Socket {
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    socket
}

#[tokio::test]
async fn in_mode_all_it_gets_a_gap_and_goes_on_from_the_newest() {
    let node = Node::with(narrow).await;
    let mut oracle = Oracle::default();
    let (mut socket, mut follower) = stuck(&node, "all").await;
    let mut healthy = healthy(&node).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 2.0).await;
    publish_all(&node, &mut healthy, &mut oracle).await;
    assert!(node.metric(FULL).await > 0.0);
    node.until_metric("tickcast_slow_consumers", |slow| slow == 1.0).await;
    let pending = node.metric(r#"tickcast_output_pending_bytes{transport="websocket"}"#).await;
    assert!(pending <= (PAYLOAD_BYTES + 200) as f64, "{pending} bytes are more than one frame");
    let bytes = node.metric("tickcast_hub_log_bytes").await;
    let most = 2 * HISTORY * (PAYLOAD_BYTES + 200);
    assert!(bytes <= most as f64, "{bytes} bytes are kept for one client that does not read");

    let messages = catch_up(&mut socket, &mut follower, &mut oracle).await;
    let gaps: Vec<_> = messages.iter().filter(|message| message["type"] == "gap").collect();
    // One, or a few if its socket took some more meanwhile.
    assert!(
        !gaps.is_empty() && gaps.iter().all(|gap| gap["reason"] == "slow_consumer"),
        "{gaps:?}"
    );
    assert_eq!(messages.last().map(|message| &message["offset"]), Some(&json!(PUBLICATIONS)));
    // From here on it is a client like any other.
    node.publish("a", "1").await;
    assert_eq!(socket.update().await, Update::new("a", PUBLICATIONS + 1, "1"));
    node.until_metric("tickcast_slow_consumers", |slow| slow == 0.0).await;
    let counted = node.metric(r#"tickcast_gap_notices_total{reason="slow_consumer"}"#).await;
    assert_eq!(counted, gaps.len() as f64);

    follower.loses_connection();
    let tally = oracle.verdict().expect("nothing was lost without a word");
    assert_eq!(tally.delivered + tally.named, PUBLICATIONS);
}

#[tokio::test]
async fn in_mode_latest_it_gets_the_newest() {
    let node = Node::with(narrow).await;
    let mut oracle = Oracle::default();
    let (mut socket, mut follower) = stuck(&node, "latest").await;
    let mut healthy = healthy(&node).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 2.0).await;
    publish_all(&node, &mut healthy, &mut oracle).await;
    assert!(node.metric(FULL).await > 0.0);

    let messages = catch_up(&mut socket, &mut follower, &mut oracle).await;
    // What the sockets held, and then the newest at once.
    assert!(messages.len() < usize::try_from(PUBLICATIONS).unwrap() / 2, "{}", messages.len());
    follower.is_done(&mut oracle);
    let tally = oracle.verdict().expect("nothing came twice or out of order");
    assert_eq!(tally.delivered + tally.conflated, PUBLICATIONS);
    assert_eq!(tally.gaps, 0);
}

#[tokio::test]
async fn one_that_stays_stuck_is_closed_and_can_resume() {
    let node = Node::with(|config| {
        narrow(config);
        config.topics.defaults.history = 2 * usize::try_from(PUBLICATIONS).unwrap();
        config.topics.defaults.history_bytes = Size::new(16 << 20);
        config.websocket.stall_timeout = Duration::from_secs(1);
    });
    let node = node.await;
    let mut oracle = Oracle::default();
    let (mut socket, mut follower) = stuck(&node, "all").await;
    let mut healthy = healthy(&node).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 2.0).await;
    let epoch = publish_all(&node, &mut healthy, &mut oracle).await;
    let closed =
        r#"tickcast_connections_closed_total{transport="websocket",reason="slow_consumer"}"#;
    node.until_metric(closed, |closed| closed == 1.0).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 1.0).await;
    healthy.expect_quiet().await;

    // It learns why once it reads on: whole frames, and the close frame behind them.
    let reason = loop {
        let message = socket.next().await.expect("a close frame before the end");
        match message.as_text() {
            Some(text) => follower.receives(text, &mut oracle),
            None => break message.as_close().map(|(code, _)| u16::from(code)),
        }
    };
    assert_eq!(reason, Some(4008));
    follower.loses_connection();

    let mut socket = node.connect().await;
    let since = follower.asks("a", true).cloned().expect("it has received something");
    assert_eq!(since.epoch, epoch);
    let topics = json!([{"topic": "a", "since": {"epoch": since.epoch, "offset": since.offset}}]);
    socket.command(&json!({"type": "subscribe", "topics": topics})).await;
    catch_up(&mut socket, &mut follower, &mut oracle).await;
    follower.is_done(&mut oracle);
    let tally = oracle.verdict().expect("nothing is missing");
    assert_eq!((tally.delivered, tally.gaps, tally.resumed), (PUBLICATIONS, 0, 1));
}

#[tokio::test]
async fn many_stuck_clients_cost_the_others_nothing() {
    let node = Node::with(narrow).await;
    let mut oracle = Oracle::default();
    let mut stuck_clients = Vec::new();
    for index in 0..40 {
        stuck_clients.push(stuck(&node, if index % 2 == 0 { "all" } else { "latest" }).await);
    }
    let mut healthy = healthy(&node).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 41.0)
        .await;
    publish_all(&node, &mut healthy, &mut oracle).await;
    node.until_metric("tickcast_slow_consumers", |slow| slow == 40.0).await;
    for (socket, follower) in &mut stuck_clients {
        catch_up(socket, follower, &mut oracle).await;
        follower.is_done(&mut oracle);
    }
    oracle.verdict().expect("each of them is told what it missed");
}
