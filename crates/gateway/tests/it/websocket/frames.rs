//! Frames: what is taken in whatever pieces it comes, and what ends the connection with which code.

use serde_json::{Value, json};
use tokio_websockets::Message;

use crate::harness::{Frame, Node, Opcode, Raw, frame};

const PING: &str = r#"{"type":"ping"}"#;

async fn upgraded(node: &Node) -> Raw {
    let mut raw = node.raw().await;
    raw.upgrade().await;
    raw
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    for payload in ["", "hello", &"x".repeat(125)] {
        raw.write(frame(true, Opcode::Ping, payload)).await;
        let pong = Frame { opcode: Opcode::Pong as u8, payload: payload.into() };
        assert_eq!(raw.frame().await, Some(pong));
    }
    // A pong that nobody asked for is no event.
    raw.write(frame(true, Opcode::Pong, "unasked")).await;
    raw.write(frame(true, Opcode::Text, PING)).await;
    assert_eq!(raw.value().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_close_is_echoed_and_nothing_follows() {
    let node = Node::start().await;
    for (payload, expected) in [(&b"\x03\xe8bye"[..], 1000), (b"\x0f\xa0", 4000), (b"", 1000)] {
        let mut raw = upgraded(&node).await;
        let mut bytes = frame(true, Opcode::Close, payload);
        bytes.extend(frame(true, Opcode::Text, PING));
        raw.write(bytes).await;
        assert_eq!(raw.closed().await, expected);
    }
    let by_clients = r#"tickcast_connections_closed_total{transport="websocket",reason="client"}"#;
    node.until_metric(by_clients, |closed| closed == 3.0).await;
}

#[tokio::test]
async fn a_client_that_closes_and_does_not_hang_up_holds_nobody_up() {
    let node = Node::with(|config| config.server.workers = 1).await;
    let mut other = node.connect().await;
    other.subscribe(json!(["a"])).await;
    let mut raw = upgraded(&node).await;
    raw.write(frame(true, Opcode::Text, r#"{"type":"subscribe","topics":["a"]}"#)).await;
    assert_eq!(raw.value().await["type"], "subscribed");
    raw.write(frame(true, Opcode::Close, "")).await;
    assert_eq!(raw.closed().await, 1000);
    // It is still there, and still has its topic.
    node.publish_numbers("a", 1..=3).await;
    other.expect_numbers("a", 1..=3).await;
    other.expect_quiet().await;
    node.until_metric(r#"tickcast_connections{transport="websocket"}"#, |open| open == 1.0).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_gone() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    assert_eq!(node.metric("tickcast_topics").await, 1.0);
    drop(socket);
    node.until_metric(r#"tickcast_connections{transport="websocket"}"#, |open| open == 0.0).await;
    node.until_metric(r#"tickcast_subscriptions{transport="websocket"}"#, |held| held == 0.0).await;
    // The topic is given back a second after its last subscriber went.
    node.until_metric("tickcast_topics", |topics| topics == 0.0).await;
}

#[tokio::test]
async fn a_command_may_come_in_fragments_with_control_frames_between() {
    let node = Node::start().await;
    let mut raw = upgraded(&node).await;
    let (first, rest) = PING.split_at(5);
    raw.write(frame(false, Opcode::Text, first)).await;
    raw.write(frame(true, Opcode::Ping, "between")).await;
    let pong = Frame { opcode: Opcode::Pong as u8, payload: b"between".to_vec() };
    assert_eq!(raw.frame().await, Some(pong));
    raw.write(frame(false, Opcode::Continuation, "")).await;
    raw.write(frame(true, Opcode::Continuation, rest)).await;
    assert_eq!(raw.value().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    let node = Node::start().await;
    let unmasked = [b"\x81\x0f", PING.as_bytes()].concat();
    let announced = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes()].concat();
    let many_fragments =
        [frame(false, Opcode::Text, " "), frame(false, Opcode::Continuation, " ").repeat(64)]
            .concat();
    let split_character =
        [frame(false, Opcode::Text, b"\"\xc3"), frame(true, Opcode::Continuation, b"(\"")].concat();
    let with_mask = |head: &[u8]| [head, &[0; 4]].concat();
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("fragmented ping", frame(false, Opcode::Ping, ""), 1002),
        ("fragmented pong", frame(false, Opcode::Pong, ""), 1002),
        ("fragmented close", frame(false, Opcode::Close, ""), 1002),
        ("long ping", frame(true, Opcode::Ping, [0; 126]), 1002),
        ("long pong", frame(true, Opcode::Pong, [0; 126]), 1002),
        ("long close", frame(true, Opcode::Close, [b'x'; 126]), 1002),
        ("continuation of nothing", frame(true, Opcode::Continuation, PING), 1002),
        ("text inside a message", frame(false, Opcode::Text, "").repeat(2), 1002),
        ("long form of a short length", with_mask(b"\x81\xfe\x00\x01"), 1002),
        ("longest form of a long length", with_mask(&announced(0xffff)), 1002),
        ("close of one byte", frame(true, Opcode::Close, b"\x03"), 1002),
        ("not UTF-8", frame(true, Opcode::Text, b"\"\xff\""), 1007),
        ("not UTF-8 across fragments", split_character, 1007),
        ("not UTF-8 in a close reason", frame(true, Opcode::Close, b"\x03\xe8\xff"), 1007),
        ("a megabyte announced", announced(1 << 20), 1009),
        ("a gigabyte announced", announced(1 << 30), 1009),
        ("the top bit of the length", announced(1 << 63), 1009),
        ("more than there is", announced(u64::MAX), 1009),
        ("too many fragments", many_fragments, 1008),
    ] {
        let mut raw = upgraded(&node).await;
        raw.write(bytes).await;
        assert_eq!(raw.closed().await, code, "{what}");
    }
}

#[tokio::test]
async fn what_the_protocol_has_reserved_is_closed_with_1002() {
    let node = Node::start().await;
    let opcodes = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|opcode| vec![0x80 | opcode, 0x80]);
    let bits = [0x40, 0x20, 0x10, 0x70].map(|bits| vec![0x81 | bits, 0x80]);
    for mut bytes in opcodes.into_iter().chain(bits) {
        let mut raw = upgraded(&node).await;
        bytes.extend([0; 4]);
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await, 1002, "{bytes:x?}");
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let mut raw = upgraded(&node).await;
        raw.write(frame(true, Opcode::Close, code.to_be_bytes())).await;
        assert_eq!(raw.closed().await, 1002, "a close with {code}");
    }
    let breaches =
        r#"tickcast_connections_closed_total{transport="websocket",reason="protocol_error"}"#;
    node.until_metric(breaches, |closed| closed == 24.0).await;
}

#[tokio::test]
async fn a_message_may_be_as_large_as_a_payload_and_its_command() {
    let node = Node::with(|config| config.websocket.publish = true).await;
    let mut socket = node.connect().await;
    let largest = "x".repeat(64 * 1024 - 2);
    let command = json!({"type": "publish", "topic": "a", "data": largest});
    assert_eq!(socket.ask(command).await["type"], "published");
    let command = json!({"type": "publish", "topic": "a", "data": largest + "x"});
    assert_eq!(socket.ask(command).await["code"], "payload_too_large");

    // In fragments the sum counts.
    let mut raw = upgraded(&node).await;
    let half = " ".repeat(50 * 1024);
    raw.write(frame(false, Opcode::Text, &half)).await;
    raw.write(frame(true, Opcode::Continuation, &half)).await;
    assert_eq!(raw.closed().await, 1009);
}

#[tokio::test]
async fn a_binary_message_is_an_error_and_no_end() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.send(Message::binary(&b"\x00\x01"[..])).await;
    let reply = socket.value().await;
    assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("bad_command")));
    socket.expect_quiet().await;
}

#[tokio::test]
async fn commands_may_be_cut_anywhere() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let command = r#"{"type":"subscribe","id":"x","topics":["a"]}"#;
    let bytes = [
        frame(true, Opcode::Text, command),
        frame(true, Opcode::Ping, "p"),
        frame(true, Opcode::Text, PING),
    ];
    let bytes = bytes.concat();
    for cut in 1..bytes.len() {
        let mut raw = upgraded(&node).await;
        // The first piece is read alone: the pong to a ping in front of it says so.
        raw.write([&frame(true, Opcode::Ping, "first")[..], &bytes[..cut]].concat()).await;
        assert_eq!(raw.frame().await.map(|frame| frame.payload), Some(b"first".to_vec()));
        raw.write(&bytes[cut..]).await;
        expect_all_replies(&mut raw, cut).await;
    }
}

#[tokio::test]
async fn commands_may_come_byte_by_byte() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let mut raw = upgraded(&node).await;
    let command = r#"{"type":"subscribe","id":"x","topics":["a"]}"#;
    let bytes = [
        frame(true, Opcode::Text, command),
        frame(true, Opcode::Ping, "p"),
        frame(true, Opcode::Text, PING),
    ];
    for byte in bytes.concat() {
        raw.write([byte]).await;
        tokio::task::yield_now().await;
    }
    expect_all_replies(&mut raw, 0).await;
}

/// A `subscribed`, a snapshot and two pongs, in an order that only binds the first two.
async fn expect_all_replies(raw: &mut Raw, cut: usize) {
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let frame = raw.frame().await.expect("a frame, not the end");
        seen.push(if frame.opcode == Opcode::Pong as u8 {
            "control pong"
        } else {
            let message: Value = serde_json::from_slice(&frame.payload).unwrap();
            match message["type"].as_str() {
                Some("subscribed") => "subscribed",
                Some("pong") => "pong",
                _ => "snapshot",
            }
        });
    }
    let place = |what| seen.iter().position(|seen| *seen == what);
    assert!(place("subscribed") < place("snapshot"), "cut at {cut}: {seen:?}");
    assert!(place("control pong") < place("pong"), "cut at {cut}: {seen:?}");
}

/// A node that lets a connection command as often as it likes.
async fn unhurried() -> Node {
    Node::with(|config| config.limits.commands_per_second = 0).await
}

#[tokio::test]
async fn a_thousand_commands_in_one_segment_have_a_thousand_answers() {
    let node = unhurried().await;
    let mut raw = upgraded(&node).await;
    let commands: Vec<u8> = (0..1000)
        .flat_map(|id| frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":{id}}}"#)))
        .collect();
    raw.write(commands).await;
    for id in 0..1000 {
        assert_eq!(raw.value().await, json!({"type": "pong", "id": id}));
    }
}

/// Half a megabyte of answers stops the reading of commands several times; going on must not wait for a timer.
#[tokio::test]
async fn many_commands_at_once_are_answered_without_a_pause() {
    const COMMANDS: usize = 20_000;
    let node = unhurried().await;
    let mut raw = upgraded(&node).await;
    let started = std::time::Instant::now();
    let commands: Vec<u8> = (0..COMMANDS)
        .flat_map(|id| frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":{id}}}"#)))
        .collect();
    raw.write(commands).await;
    for id in 0..COMMANDS {
        assert_eq!(raw.value().await, json!({"type": "pong", "id": id}));
    }
    assert!(started.elapsed().as_secs() < 5, "a pause of a second for each 64 KiB");
}

#[tokio::test]
async fn a_client_that_does_not_read_answers_is_not_read_either() {
    const COMMANDS: usize = 20_000;
    let node = unhurried().await;
    let mut raw = upgraded(&node).await;
    let id = |number: usize| format!("{number}-{}", "n".repeat(50));
    let commands: Vec<u8> = (0..COMMANDS)
        .flat_map(|number| {
            frame(true, Opcode::Text, format!(r#"{{"type":"ping","id":"{}"}}"#, id(number)))
        })
        .collect();
    let length = commands.len();
    let writing = raw.write_aside(commands);
    node.until_metric(r#"tickcast_socket_full_total{transport="websocket"}"#, |full| full > 0.0)
        .await;
    let read = node.metric(r#"tickcast_received_bytes_total{transport="websocket"}"#).await;
    assert!(
        read < length as f64 / 2.0,
        "{read} of {length} bytes were read, and nobody takes the answers"
    );

    for number in 0..COMMANDS {
        assert_eq!(raw.value().await["id"], id(number));
    }
    let _writer = writing.await.expect("it has written all");
}
