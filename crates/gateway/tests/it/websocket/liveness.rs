//! Silence: pings to whoever says nothing, and the end of whoever does not answer.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Node, Opcode, frame};

/// A ping after the interval, its answer after another, and the grain of looking at it.
const REAPED: Duration = Duration::from_secs(8);

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

/// A client whose network has changed: nobody has told the node, and the old socket stays open.
#[tokio::test]
async fn who_comes_back_counts_twice_until_the_old_connection_is_found_out() {
    let node = Node::with(|config| {
        // Seconds are what traffic is noted in: within one, a ping may come beside it.
        config.websocket.ping_interval = 2 * INTERVAL;
        config.server.max_connections = 3;
    });
    let node = node.await;
    let mut publisher = node.raw().await;
    let mut old = node.raw().await;
    old.upgrade().await;
    let command = r#"{"type":"subscribe","id":1,"topics":["a"]}"#;
    old.write(frame(true, Opcode::Text, command)).await;
    let reply = old.value().await;
    let epoch = reply["topics"][0]["epoch"].as_str().expect("an epoch").to_owned();
    for number in 1..=3 {
        let answer = publisher.post("/v1/topics/a", "", &number.to_string()).await;
        assert_eq!(answer.status, 200);
    }

    let returned = Instant::now();
    let mut new = node.connect().await;
    new.resume("a", &epoch, 0).await;
    new.expect_numbers("a", 1..=3).await;
    new.subscribe(json!(["b"])).await;
    let websockets = r#"tickcast_connections{transport="websocket"}"#;
    node.until_metric(websockets, |open| open == 2.0).await;
    let refused = node.raw().await.answer().await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "too_many_connections"));

    // The new one has traffic all the time. The old one answers nothing.
    let old = tokio::spawn(async move { old.closed().await });
    for number in 1.. {
        let answer = publisher.post("/v1/topics/b", "", &number.to_string()).await;
        assert_eq!(answer.status, 200);
        new.expect_numbers("b", number..=number).await;
        if old.is_finished() {
            break;
        }
    }
    assert_eq!(old.await.expect("no panic"), 4009);
    assert!(returned.elapsed() < REAPED, "{:?}", returned.elapsed());
    node.until_metric(websockets, |open| open == 1.0).await;
    let subscriptions = r#"tickcast_subscriptions{transport="websocket"}"#;
    node.until_metric(subscriptions, |count| count == 2.0).await;
    // Its place is free.
    let mut next = node.connect().await;
    next.subscribe(json!(["a"])).await;
    new.expect_quiet().await;
}

#[tokio::test]
async fn traffic_in_either_direction_spares_the_ping() {
    let node = Node::with(|config| config.websocket.ping_interval = Duration::from_secs(2)).await;
    let mut listener = node.connect().await;
    listener.subscribe(json!(["a"])).await;
    // Publications for twice the interval, each awaited: if there is a ping, it is among them.
    let started = Instant::now();
    let mut offset = 0;
    while started.elapsed() < 2 * Duration::from_secs(2) {
        offset += 1;
        node.publish("a", "1").await;
        assert_eq!(listener.update().await.offset, offset);
    }
    assert_eq!(node.metric("tickcast_pings_total").await, 0.0);
}
