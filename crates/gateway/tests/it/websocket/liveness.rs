//! Silence: pings to whoever says nothing, and the end of whoever does not answer.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Node, Opcode, frame};

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_silent_client_is_pinged_and_may_stay_if_it_answers() {
    let node = Node::with(|config| config.websocket.ping_interval = INTERVAL).await;
    let mut raw = node.raw().await;
    raw.upgrade().await;
    for _ in 0..3 {
        let ping = raw.frame().await.expect("an open connection");
        assert_eq!(ping.opcode, Opcode::Ping as u8);
        // Pongs that answer no ping are no measurements.
        raw.write(frame(true, Opcode::Pong, &ping.payload).repeat(2)).await;
    }
    raw.write(frame(true, Opcode::Text, r#"{"type":"ping"}"#)).await;
    while raw.frame().await.expect("an open connection").opcode != Opcode::Text as u8 {}
    let pings = node.metric("tickcast_pings_total").await;
    assert!(pings >= 3.0);
    let measured = node.metric("tickcast_ping_rtt_seconds_count").await;
    assert!((3.0..=pings).contains(&measured), "{measured} of {pings}");
    // A clock of another kind in the payload would show as years.
    assert!(node.metric("tickcast_ping_rtt_seconds_sum").await < 60.0);
}

#[tokio::test]
async fn a_pong_with_another_payload_is_no_measurement() {
    let node = Node::with(|config| config.websocket.ping_interval = INTERVAL).await;
    let mut raw = node.raw().await;
    raw.upgrade().await;
    // Zeros stand for the start of the worker, which is not yet long ago at the first ones.
    for payload in ["", "nonsense?", "nonsense", "\0\0\0\0\0\0\0\0", "\0\0\0\0\0\0\0\0"] {
        let ping = raw.frame().await.expect("an open connection");
        assert_eq!(ping.opcode, Opcode::Ping as u8);
        raw.write(frame(true, Opcode::Pong, payload)).await;
    }
    raw.write(frame(true, Opcode::Text, r#"{"type":"ping"}"#)).await;
    while raw.frame().await.expect("an open connection").opcode != Opcode::Text as u8 {}
    assert_eq!(node.metric("tickcast_ping_rtt_seconds_count").await, 0.0);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let node = Node::with(|config| config.websocket.ping_interval = INTERVAL).await;
    let mut raw = node.raw().await;
    raw.upgrade().await;
    assert_eq!(raw.frame().await.map(|frame| frame.opcode), Some(Opcode::Ping as u8));
    assert_eq!(raw.closed().await, 4009);
    let timeouts =
        r#"tickcast_connections_closed_total{transport="websocket",reason="ping_timeout"}"#;
    node.until_metric(timeouts, |closed| closed == 1.0).await;
}

#[tokio::test]
async fn traffic_in_either_direction_spares_the_ping() {
    let node = Node::with(|config| config.websocket.ping_interval = Duration::from_secs(2)).await;
    let mut listener = node.connect().await;
    listener.subscribe(json!(["a"])).await;
    // Publications for twice the interval, each awaited: if there is a ping, it is among them.
    let started = std::time::Instant::now();
    let mut offset = 0;
    while started.elapsed() < 2 * Duration::from_secs(2) {
        offset += 1;
        node.publish("a", "1").await;
        assert_eq!(listener.update().await.offset, offset);
    }
    assert_eq!(node.metric("tickcast_pings_total").await, 0.0);
}
