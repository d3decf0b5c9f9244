//! How much a client may send, and how slowly: at each bound, below it and above it.

use std::time::Duration;

use serde_json::json;
use tickcast::config::Size;

use crate::harness::{Frame, Node, Opcode, Raw, frame, until, within};

const PING: &str = r#"{"type":"ping"}"#;

const FLOODS: &str = r#"tickcast_connections_closed_total{transport="websocket",reason="flood"}"#;

const FULL: &str = r#"tickcast_socket_full_total{transport="websocket"}"#;

const UNFINISHED: &str = r#"tickcast_input_unfinished_bytes{transport="websocket"}"#;

async fn upgraded(node: &Node) -> Raw {
    let mut raw = node.raw().await;
    raw.upgrade().await;
    raw
}

/// It is still a client like any other.
async fn expect_served(raw: &mut Raw) {
    raw.write(frame(true, Opcode::Text, PING)).await;
    assert_eq!(raw.value().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_hundred_pings_in_a_second_are_answered_and_one_more_is_a_flood() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    raw.write(frame(true, Opcode::Ping, "p").repeat(100)).await;
    let pong = Frame { opcode: Opcode::Pong as u8, payload: b"p".to_vec() };
    for _ in 0..100 {
        assert_eq!(raw.frame().await.as_ref(), Some(&pong));
    }
    expect_served(&mut raw).await;

    let mut raw = upgraded(&node).await;
    raw.write(frame(true, Opcode::Ping, "p").repeat(101)).await;
    for _ in 0..100 {
        assert_eq!(raw.frame().await.as_ref(), Some(&pong));
    }
    assert_eq!(raw.closed().await, 1008);
    node.until_metric(FLOODS, |floods| floods == 1.0).await;
}

#[tokio::test]
async fn a_hundred_pongs_that_nobody_asked_for_are_nothing_and_one_more_is_a_flood() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    raw.write(frame(true, Opcode::Pong, "p").repeat(100)).await;
    expect_served(&mut raw).await;

    // Pings and pongs count together.
    let mut raw = upgraded(&node).await;
    let pongs = frame(true, Opcode::Pong, "").repeat(98);
    raw.write([pongs, frame(true, Opcode::Ping, "").repeat(3)].concat()).await;
    assert_eq!(raw.closed().await, 1008);
    node.until_metric(FLOODS, |floods| floods == 1.0).await;
}

#[tokio::test]
async fn the_count_begins_anew_with_each_second() {
    let node = Node::with(|config| config.websocket.message_timeout = Duration::from_secs(1)).await;
    let mut raw = upgraded(&node).await;
    let pong = Frame { opcode: Opcode::Pong as u8, payload: b"p".to_vec() };
    for _ in 0..2 {
        raw.write(frame(true, Opcode::Ping, "p").repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(raw.frame().await.as_ref(), Some(&pong));
        }
        // Another one runs out of its time: a second of the node is over.
        let mut other = upgraded(&node).await;
        other.write(&frame(true, Opcode::Text, PING)[..3]).await;
        assert_eq!(other.closed().await, 1008);
    }
    expect_served(&mut raw).await;
}

/// A client whose socket is full, and which reads nothing.
async fn full(node: &Node) -> Raw {
    let mut raw = upgraded(node).await;
    let command = r#"{"type":"subscribe","topics":[{"topic":"a","mode":"latest"}]}"#;
    raw.write(frame(true, Opcode::Text, command)).await;
    assert_eq!(raw.value().await["type"], "subscribed");
    let payload = format!("\"{}\"", "x".repeat(60 * 1024));
    loop {
        let before = node.metric(FULL).await;
        for _ in 0..20 {
            node.publish("a", &payload).await;
        }
        // A socket that stays full is not found full again.
        if node.metric("tickcast_slow_consumers").await == 1.0 && node.metric(FULL).await == before
        {
            return raw;
        }
    }
}

#[tokio::test]
async fn sixteen_pongs_may_wait_for_a_full_socket() {
    let node = Node::with(|config| config.websocket.send_buffer_bytes = Size::new(16 * 1024)).await;
    let mut raw = full(&node).await;
    raw.write(frame(true, Opcode::Ping, "p").repeat(16)).await;
    // The pings were read before this command, to which there is no answer either as long as the socket is full.
    raw.write(frame(true, Opcode::Text, "no command")).await;
    node.until_metric("tickcast_commands_invalid_total", |bad| bad == 1.0).await;
    assert_eq!(node.metric(FLOODS).await, 0.0);
    raw.write(frame(true, Opcode::Ping, "p")).await;
    node.until_metric(FLOODS, |floods| floods == 1.0).await;
    assert_eq!(raw.closed().await, 1008);
}

#[tokio::test]
async fn who_does_not_end_a_message_is_closed_in_time() {
    let node = Node::with(|config| {
        config.server.workers = 1;
        config.limits.commands_per_second = 0;
        config.websocket.message_timeout = Duration::from_secs(1);
    });
    let node = node.await;
    let text = frame(true, Opcode::Text, PING);
    let beginnings: [Vec<u8>; 5] = [
        text[..1].to_vec(),
        text[..8].to_vec(),
        frame(false, Opcode::Text, "{"),
        [frame(false, Opcode::Text, "{"), frame(true, Opcode::Ping, "")].concat(),
        frame(true, Opcode::Ping, "p")[..3].to_vec(),
    ];
    let mut silent = Vec::new();
    for beginning in &beginnings {
        let mut raw = upgraded(&node).await;
        raw.write(beginning).await;
        silent.push(raw);
    }
    // Who is always in the middle of a message, each of them a new one, is welcome; and so is who says nothing.
    let mut quiet = upgraded(&node).await;
    let mut steady = upgraded(&node).await;
    steady.write(&text[..8]).await;
    within("the end of those who say no more", async {
        while node.metric(FLOODS).await < silent.len() as f64 {
            steady.write(&text[8..]).await;
            assert_eq!(steady.value().await, json!({"type": "pong"}));
            steady.write(&text[..8]).await;
        }
    })
    .await;
    for raw in &mut silent {
        assert_eq!(raw.closed().await, 1008);
    }
    steady.write(&text[8..]).await;
    assert_eq!(steady.value().await, json!({"type": "pong"}));
    expect_served(&mut quiet).await;
    node.until_metric(UNFINISHED, |bytes| bytes == 0.0).await;
}

#[tokio::test]
async fn the_clock_of_a_message_stands_while_its_client_takes_no_replies() {
    const COMMANDS: usize = 20_000;
    let node = Node::with(|config| {
        config.server.workers = 1;
        config.limits.commands_per_second = 0;
        config.websocket.message_timeout = Duration::from_secs(1);
        config.websocket.send_buffer_bytes = Size::new(16 * 1024);
    });
    let node = node.await;
    let mut raw = upgraded(&node).await;
    let id = |number: usize| format!("{number}-{}", "n".repeat(50));
    let commands: Vec<u8> = (0..COMMANDS)
        .flat_map(|number| {
            frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":"{}"}}"#, id(number)))
        })
        .collect();
    let writing = raw.write_aside(commands);
    node.until_metric("tickcast_slow_consumers", |slow| slow == 1.0).await;
    // It is paused in the middle of a message, and stays so until another one has run out of its time.
    let mut other = upgraded(&node).await;
    other.write(&frame(true, Opcode::Text, PING)[..3]).await;
    assert_eq!(other.closed().await, 1008);
    for number in 0..COMMANDS {
        assert_eq!(raw.value().await["id"], id(number));
    }
    let _writer = writing.await.expect("it has written all");
    assert_eq!(node.metric(FLOODS).await, 1.0);
}

#[tokio::test]
async fn unfinished_messages_hold_only_so_much_memory_together() {
    const BOUND: f64 = 32.0 * 1024.0 * 1024.0;
    let node = Node::with(|config| config.server.workers = 1).await;
    let first = [&[0x81, 0xff][..], &(90_000_u64).to_be_bytes(), &[0; 4]].concat();
    let begun = [first, vec![b' '; 80_000]].concat();
    let mut raws = Vec::new();
    while node.metric(FLOODS).await == 0.0 {
        let before = node.metric(UNFINISHED).await;
        let mut raw = upgraded(&node).await;
        raw.write(&begun).await;
        raws.push(raw);
        assert!(raws.len() < 500, "40 MB, and nobody was closed");
        let is_kept = async || node.metric(UNFINISHED).await >= before + begun.len() as f64;
        until("a message kept, or refused", || async {
            is_kept().await || node.metric(FLOODS).await > 0.0
        })
        .await;
    }
    assert!(raws.len() > 200, "the first of them was closed at {}", raws.len());
    let held = node.metric(UNFINISHED).await;
    assert!((BOUND / 2.0..=BOUND).contains(&held), "{held}");
    // Who sends a command in pieces is served all the same.
    let mut small = upgraded(&node).await;
    let text = frame(true, Opcode::Text, PING);
    small.write(&text[..8]).await;
    small.write(&text[8..]).await;
    assert_eq!(small.value().await, json!({"type": "pong"}));
    // The one that was too much learns why. The others may go on, and their memory comes back.
    let mut last = raws.pop().expect("one of them");
    assert_eq!(last.closed().await, 1013);
    for raw in &mut raws {
        raw.write(vec![b' '; 10_000]).await;
        assert_eq!(raw.value().await["code"], "bad_json");
    }
    node.until_metric(UNFINISHED, |bytes| bytes == 0.0).await;
    assert_eq!(node.metric(FLOODS).await, 1.0);
}

const REFUSED: &str = "tickcast_commands_refused_total";

fn pings(ids: std::ops::Range<u64>) -> Vec<u8> {
    ids.flat_map(|id| frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":{id}}}"#)))
        .collect()
}

async fn expect_pongs(raw: &mut Raw, ids: std::ops::Range<u64>) {
    for id in ids {
        assert_eq!(raw.value().await, json!({"type": "pong", "id": id}));
    }
}

async fn expect_refused(raw: &mut Raw, id: u64) {
    let reply = raw.value().await;
    let expected = (&json!("error"), &json!(id), &json!("rate_limited"));
    assert_eq!((&reply["type"], &reply["id"], &reply["code"]), expected, "{reply}");
}

#[tokio::test]
async fn two_hundred_commands_at_once_are_carried_out_and_one_more_is_refused() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    raw.write(pings(0..200)).await;
    expect_pongs(&mut raw, 0..200).await;
    assert_eq!(node.metric(REFUSED).await, 0.0);

    // Some that are no commands count too. What is refused is not done, and the connection goes on.
    let mut raw = upgraded(&node).await;
    raw.write(pings(0..198)).await;
    raw.write(frame(true, Opcode::Text, "nonsense")).await;
    raw.write(frame(true, Opcode::Text, r#"{"type":"publish","topic":"a","data":1}"#)).await;
    raw.write(frame(true, Opcode::Text, r#"{"type":"subscribe","id":7,"topics":["a"]}"#)).await;
    expect_pongs(&mut raw, 0..198).await;
    assert_eq!(raw.value().await["code"], "bad_json");
    assert_eq!(raw.value().await["code"], "forbidden");
    expect_refused(&mut raw, 7).await;
    node.until_metric(REFUSED, |refused| refused == 1.0).await;
    assert_eq!(node.metric(r#"tickcast_subscriptions{transport="websocket"}"#).await, 0.0);
    assert_eq!(node.metric(FLOODS).await, 0.0);
    // Others are not concerned.
    expect_served(&mut upgraded(&node).await).await;
}

#[tokio::test]
async fn every_second_gives_its_share_back() {
    const RATE: u64 = 10;
    let node = Node::with(|config| {
        config.server.workers = 1;
        config.limits.commands_per_second = 10;
    });
    let node = node.await;
    let mut raw = upgraded(&node).await;
    raw.write(pings(0..4 * RATE)).await;
    expect_pongs(&mut raw, 0..4 * RATE).await;
    // Until a second of the node is over.
    let mut refused = 0;
    within("another second", async {
        loop {
            raw.write(pings(7..8)).await;
            let reply = raw.value().await;
            if reply["type"] == "pong" {
                break;
            }
            assert_eq!(reply["code"], "rate_limited");
            refused += 1;
            tokio::time::sleep(Duration::from_millis(50)).await; // Below the bound for who is refused.
        }
    })
    .await;
    // That was one of its ten; and if another second is over meanwhile, ten more.
    raw.write(pings(0..3 * RATE)).await;
    let mut taken = 1;
    for _ in 0..3 * RATE {
        taken += u64::from(raw.value().await["type"] == "pong");
    }
    assert!(taken == RATE || taken == 2 * RATE, "{taken} after {refused} were refused");
    assert_eq!(node.metric(FLOODS).await, 0.0);
}

#[tokio::test]
async fn who_does_not_heed_the_refusals_is_closed() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    raw.write(pings(0..1000)).await;
    expect_pongs(&mut raw, 0..200).await;
    let (mut taken, mut refused) = (200, 0);
    let code = loop {
        let frame = raw.frame().await.expect("a close frame before the end");
        match frame.opcode {
            opcode if opcode == Opcode::Close as u8 => {
                break u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
            _ if frame.payload.starts_with(br#"{"type":"pong"#) => taken += 1,
            _ => refused += 1,
        }
    };
    assert_eq!(code, 1008);
    // At the edge of a second both begin anew.
    assert!(taken <= 250 && (200..=400).contains(&refused), "{taken} and {refused}");
    node.until_metric(FLOODS, |floods| floods == 1.0).await;
}

#[tokio::test]
async fn publications_are_no_commands_and_without_a_rate_nothing_is_refused() {
    let node = Node::with(|config| {
        config.websocket.publish = true;
        config.limits.commands_per_second = 1;
    });
    let node = node.await;
    let mut raw = upgraded(&node).await;
    for number in 1..=300 {
        let command = format!(r#"{{"type":"publish","id":{number},"topic":"a","data":{number}}}"#);
        raw.write(frame(true, Opcode::Text, command)).await;
    }
    for number in 1..=300 {
        assert_eq!(raw.value().await["offset"], number);
    }
    raw.write(pings(0..5)).await;
    expect_pongs(&mut raw, 0..4).await;
    expect_refused(&mut raw, 4).await;

    let node = Node::with(|config| config.limits.commands_per_second = 0).await;
    let mut raw = upgraded(&node).await;
    raw.write(pings(0..2000)).await;
    expect_pongs(&mut raw, 0..2000).await;
    assert_eq!(node.metric(REFUSED).await, 0.0);
}
