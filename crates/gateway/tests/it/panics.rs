//! A bug that panics while one connection is served: it ends that connection, and everybody else goes on.

use std::sync::Once;
use std::time::Duration;

use serde_json::{Value, json};
use tickcast_broker::testing::Hold;

use crate::harness::{Node, Opcode, Raw, Socket, frame, within};
use crate::program::Program;

const PANICS: &str = r#"tickcast_connection_panics_total{transport="websocket"}"#;
const HTTP_PANICS: &str = r#"tickcast_connection_panics_total{transport="http"}"#;
const CLOSED: &str =
    r#"tickcast_connections_closed_total{transport="websocket",reason="internal"}"#;
const WEBSOCKETS: &str = r#"tickcast_connections{transport="websocket"}"#;
const HTTP: &str = r#"tickcast_connections{transport="http"}"#;
const SUBSCRIPTIONS: &str = r#"tickcast_subscriptions{transport="websocket"}"#;

/// All connections on one worker: what one breaks there, the others would feel.
async fn node() -> Node {
    Node::with(|config| {
        config.server.workers = 1;
        config.websocket.publish = true;
        // Each connection is looked at every second, and pinged only after longer than a test takes.
        config.websocket.ping_interval = Duration::from_secs(9);
    })
    .await
}

/// A panic that was asked for prints no backtrace: in a test build that can take longer than a subscribe command waits.
fn expect_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or_default();
            if !text.starts_with("a test asked for it") {
                print(panic);
            }
        }));
    });
}

/// A connection that is to die.
async fn victim(node: &Node, topics: Value) -> Raw {
    expect_panics();
    let mut victim = node.raw().await;
    victim.upgrade().await;
    say(&mut victim, json!({"type": "subscribe", "topics": topics})).await;
    victim
}

async fn say(raw: &mut Raw, command: Value) {
    raw.write(frame(true, Opcode::Text, command.to_string())).await;
}

async fn expect_goes_on(
    node: &Node,
    others: &mut [Socket],
    numbers: std::ops::RangeInclusive<u64>,
) {
    node.publish_numbers("a", numbers.clone()).await;
    for other in others.iter_mut() {
        other.expect_numbers("a", numbers.clone()).await;
    }
    assert_eq!(node.admin("/readyz").await.status, 200);
}

/// Lets a connection panic at a place, by its own doing or that of `trigger`.
async fn check(place: &str, trigger: impl AsyncFnOnce(&Node, &mut Raw)) {
    let node = node().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = node.connect().await;
        other.subscribe(json!(["a"])).await;
        others.push(other);
    }
    let mut victim = victim(&node, json!(["a", "b", {"topic": "c", "max_rate": 5}])).await;
    assert_eq!(victim.value().await["type"], "subscribed");
    expect_goes_on(&node, &mut others, 1..=10).await;

    say(&mut victim, json!({"type": "panic", "at": place})).await;
    trigger(&node, &mut victim).await;
    within("the end of the connection", victim.end()).await;
    node.until_metric(PANICS, |count| count == 1.0).await;
    for (series, expected) in [(CLOSED, 1.0), (WEBSOCKETS, 3.0), (SUBSCRIPTIONS, 3.0), (HTTP, 0.0)]
    {
        node.until_metric(series, |value| value == expected).await;
    }
    expect_goes_on(&node, &mut others, 11..=200).await;

    // The place of the one that died is taken by the next, who has nothing of it.
    let mut next = node.connect().await;
    next.expect_quiet().await;
    next.subscribe(json!(["b"])).await;
    node.publish_numbers("b", 1..=3).await;
    next.expect_numbers("b", 1..=3).await;
    expect_goes_on(&node, &mut others, 201..=210).await;
    next.expect_quiet().await;
}

#[tokio::test]
async fn a_panic_in_a_command_ends_its_connection_only() {
    check("command", async |_, _| {}).await;
}

#[tokio::test]
async fn a_panic_in_a_flush_ends_its_connection_only() {
    check("flush", async |node, _| {
        node.publish("c", "1").await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_a_look_at_the_age_ends_its_connection_only() {
    check("tick", async |_, _| {}).await;
}

#[tokio::test]
async fn a_panic_in_a_publish_ends_its_connection_only() {
    check("publish", async |_, victim| {
        say(victim, json!({"type": "publish", "topic": "c", "data": 1})).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_dies_waiting_does_not_keep_others_waiting() {
    let (node, broker) = Node::with_faults(|config| config.server.workers = 1).await;
    broker.hold_reads(Hold::Request);
    let mut victim = victim(&node, json!(["held", "other"])).await;
    let mut socket = node.connect().await;
    socket.command(&json!({"type": "subscribe", "id": 1, "topics": ["held"]})).await;
    within("a read", broker.until_reads_held(1)).await;
    say(&mut victim, json!({"type": "panic", "at": "command"})).await;
    within("the end of the connection", victim.end()).await;
    broker.release_reads();
    assert_eq!(socket.value().await["topics"][0]["topic"], "held");
    node.publish_numbers("held", 1..=3).await;
    socket.expect_numbers("held", 1..=3).await;
    node.until_metric(SUBSCRIPTIONS, |count| count == 1.0).await;
    assert_eq!(node.metric(PANICS).await, 1.0);
}

#[tokio::test]
async fn a_request_that_panics_is_answered_500_and_concerns_nobody_else() {
    let node = node().await;
    let mut other = node.raw().await;
    assert_eq!(other.get("/healthz", "").await.status, 200);
    let mut subscriber = node.connect().await;
    subscriber.subscribe(json!(["a"])).await;
    for number in 1..=3 {
        let mut raw = node.raw().await;
        let answer = raw.post("/v1/topics/a", "X-Panic: 1\r\n", "1").await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.json()["status"], 500);
        assert!(raw.end().await.is_empty());
        assert_eq!(node.metric(HTTP_PANICS).await, f64::from(number));
    }
    assert_eq!(other.post("/v1/topics/a", "", "1").await.status, 200);
    subscriber.expect_numbers("a", 1..=1).await;
    node.until_metric(HTTP, |count| count == 1.0).await;
    assert_eq!(node.metric(PANICS).await, 0.0);
    assert_eq!(node.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_panic_is_in_the_log_and_not_the_end_of_the_program() {
    let mut program = Program::serve(&[]);
    let mut victim = Raw::connect(program.address).await;
    victim.upgrade().await;
    say(&mut victim, json!({"type": "panic", "at": "command"})).await;
    within("the end of the connection", victim.end()).await;
    let mut socket = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(socket.value().await["type"], "subscribed");

    program.terminate();
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let log = program.log();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let errors: Vec<Value> = lines.filter(|line: &Value| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 2, "{log}");
    assert_eq!(errors[0]["message"], "panic: a test asked for it: Command");
    assert!(errors[0]["place"].as_str().is_some_and(|place| place.contains("faults.rs")), "{log}");
    assert_eq!(errors[1]["panic"], "a test asked for it: Command");
}
