//! The opening handshake: what it answers, what it refuses, and how it hands the connection over.

use serde_json::json;
use tickcast::config::Config;

use crate::handshake::head;
use crate::harness::{Node, Opcode, Raw, frame, until};

#[tokio::test]
async fn the_accept_value_answers_the_key() {
    let node = Node::start().await;
    let mut raw = node.raw().await;
    raw.write_head(Raw::HANDSHAKE).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("HSmrc0sMlYUkAGmm5OPpG2HaGWk="));
    assert_eq!(answer.header("upgrade").map(str::to_ascii_lowercase), Some("websocket".to_owned()));
    assert_eq!(
        answer.header("connection").map(str::to_ascii_lowercase),
        Some("upgrade".to_owned())
    );
    assert_eq!(answer.header("sec-websocket-protocol"), None);
}

/// A good handshake with lines added.
async fn handshake_with(node: &Node, lines: &[&str]) -> (Raw, crate::harness::Answer) {
    let mut raw = node.raw().await;
    raw.write_head(&[Raw::HANDSHAKE, lines].concat()).await;
    let answer = raw.answer().await;
    (raw, answer)
}

#[tokio::test]
async fn compression_is_declined() {
    let node = Node::start().await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99, x-webkit-deflate-frame";
    let (mut raw, answer) = handshake_with(&node, &[offer]).await;
    assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None));
    raw.write(frame(true, Opcode::Text, r#"{"type":"ping"}"#)).await;
    assert_eq!(raw.value().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn the_sub_protocol_is_named_if_it_was_offered() {
    let node = Node::start().await;
    let (_raw, answer) =
        handshake_with(&node, &["Sec-WebSocket-Protocol: graphql-ws, tickcast.v1"]).await;
    assert_eq!(
        (answer.status, answer.header("sec-websocket-protocol")),
        (101, Some("tickcast.v1"))
    );

    let (_raw, answer) = handshake_with(&node, &["Sec-WebSocket-Protocol: graphql-ws"]).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_handshake"));

    // A long list of nothing is read once, not for ever.
    let spaces = format!("Sec-WebSocket-Protocol: tickcast.v1,{}x", " ".repeat(8 * 1024));
    let (_raw, answer) = handshake_with(&node, &[&spaces]).await;
    assert_eq!(
        (answer.status, answer.header("sec-websocket-protocol")),
        (101, Some("tickcast.v1"))
    );
}

/// The good handshake with the line that begins with `name` replaced by `lines`.
async fn changed(node: &Node, name: &str, lines: &[&str]) -> crate::harness::Answer {
    let mut raw = node.raw().await;
    let index =
        Raw::HANDSHAKE.iter().position(|line| line.starts_with(name)).expect("a line of it");
    let (before, after) = (&Raw::HANDSHAKE[..index], &Raw::HANDSHAKE[index + 1..]);
    raw.write_head(&[before, lines, after].concat()).await;
    raw.answer().await
}

#[tokio::test]
async fn a_bad_handshake_is_refused_with_a_reason() {
    let node = Node::start().await;
    let good_key = "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==";
    for (name, lines) in [
        ("Sec-WebSocket-Key", &[][..]),
        ("Sec-WebSocket-Key", &[good_key, good_key]),
        ("Sec-WebSocket-Key", &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBg="]),
        ("Sec-WebSocket-Key", &["Sec-WebSocket-Key: "]),
        ("Sec-WebSocket-Key", &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDx=="]),
        ("Upgrade", &[]),
        ("Upgrade", &["Upgrade: h2c"]),
        ("Connection", &["Connection: keep-alive"]),
        ("Host", &[]),
        ("Host", &["Host: a", "Host: a"]),
        ("Host", &["Host: a b"]),
        ("Host", &["Host: a/b"]),
        ("Host", &["Host: [::1"]),
        ("Host", &["Host: <x>"]),
        ("GET", &["GET /v1/ws HTTP/1.0"]),
    ] {
        let answer = changed(&node, name, lines).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_handshake"), "{lines:?}");
    }
}

#[tokio::test]
async fn another_version_is_told_the_right_one() {
    let node = Node::start().await;
    for lines in [&["Sec-WebSocket-Version: 12"][..], &["Sec-WebSocket-Version: 8"], &[]] {
        let answer = changed(&node, "Sec-WebSocket-Version", lines).await;
        assert_eq!((answer.status, answer.problem().as_str()), (426, "bad_handshake"), "{lines:?}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
}

#[tokio::test]
async fn another_method_is_refused() {
    let node = Node::start().await;
    let answer = changed(&node, "GET", &["POST /v1/ws HTTP/1.1"]).await;
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("GET, OPTIONS"));
}

#[tokio::test]
async fn frames_may_follow_the_handshake_at_once() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let mut raw = node.raw().await;
    let mut bytes = head(Raw::HANDSHAKE).into_bytes();
    bytes.extend(frame(true, Opcode::Text, r#"{"type":"subscribe","id":1,"topics":["a"]}"#));
    bytes.extend(frame(true, Opcode::Text, r#"{"type":"ping","id":2}"#));
    raw.write(bytes).await;
    assert_eq!(raw.answer().await.status, 101);
    let replies = [raw.value().await, raw.value().await, raw.value().await];
    let ids: Vec<_> = replies.iter().filter_map(|reply| reply["id"].as_u64()).collect();
    assert_eq!(ids.len(), 2, "two replies and a snapshot: {replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply["data"] == 1).count(), 1);
}

/// How far a client gets before it resets its connection.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connected,
    HalfOfTheHead,
    Head,
    FirstByteOfTheAnswer,
    Answer,
    Command,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Connected,
        Self::HalfOfTheHead,
        Self::Head,
        Self::FirstByteOfTheAnswer,
        Self::Answer,
        Self::Command,
    ];

    async fn go(self, raw: &mut Raw) {
        let head = head(Raw::HANDSHAKE);
        match self {
            Self::Connected => {}
            Self::HalfOfTheHead => raw.write(&head[..head.len() / 2]).await,
            Self::Head => raw.write(&head).await,
            Self::FirstByteOfTheAnswer => {
                raw.write(&head).await;
                assert_eq!(raw.begin(1).await, b"H");
            }
            Self::Answer => raw.upgrade().await,
            Self::Command => {
                raw.upgrade().await;
                let command = r#"{"type":"subscribe","id":1,"topics":["a"]}"#;
                raw.write(frame(true, Opcode::Text, command)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_on_its_way_to_a_websocket_leaves_nothing() {
    const ROUNDS: u64 = 40;
    // The witness, its publisher, and the clients of one round: a place that is not given back would be missing.
    let places = 2 + Step::ALL.len();
    let node = Node::with(|config| config.server.max_connections = places).await;
    let mut witness = node.connect().await;
    witness.subscribe(json!(["a"])).await;
    let mut publisher = node.raw().await;
    for round in 1..=ROUNDS {
        for step in Step::ALL {
            let mut raw = node.raw().await;
            step.go(&mut raw).await;
            raw.reset();
        }
        assert_eq!(publisher.post("/v1/topics/a", "", &round.to_string()).await.status, 200);
        witness.expect_numbers("a", round..=round).await;
        let open = |transport: &str| format!("tickcast_connections{{transport=\"{transport}\"}}");
        let (http, websocket) = (open("http"), open("websocket"));
        until("places", || async {
            (node.metric(&http).await, node.metric(&websocket).await) == (1.0, 1.0)
        })
        .await;
    }
    let metrics = node.admin("/metrics").await.text();
    let sum = |name: &str| {
        let head = format!("{name}{{transport=\"websocket\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&head));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let opened = sum("tickcast_connections_opened_total");
    assert!(opened > ROUNDS as f64, "{opened}");
    assert_eq!(sum("tickcast_connections_closed_total") + 1.0, opened, "each has ended once");
    assert_eq!(sum("tickcast_subscriptions"), 1.0);
    for transport in ["http", "websocket"] {
        let panics = format!("tickcast_connection_panics_total{{transport=\"{transport}\"}}");
        assert_eq!(node.metric(&panics).await, 0.0);
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_if_origins_are_listed() {
    let list = |config: &mut Config| config.access.origins = vec!["https://app.example".to_owned()];
    let node = Node::with(list).await;
    let (_raw, answer) = handshake_with(&node, &["Origin: https://app.example"]).await;
    assert_eq!(answer.status, 101);
    for origin in ["Origin: https://evil.example", "Origin: null", "Origin: http://app.example"] {
        let (_raw, answer) = handshake_with(&node, &[origin]).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "bad_origin"), "{origin}");
    }
    let (_raw, answer) = handshake_with(&node, &[]).await;
    assert_eq!(answer.status, 101, "what is no page sends no origin");
    assert_eq!(rejected(&node, "origin").await, 3.0);
    assert_eq!((rejected(&node, "auth").await, rejected(&node, "bad_handshake").await), (0.0, 0.0));
}

async fn rejected(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("tickcast_connections_rejected_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn refused_requests_for_a_websocket_are_counted_by_their_reason() {
    let node = Node::start().await;
    let (_raw, answer) = handshake_with(&node, &["Authorization: Bearer nonsense"]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(rejected(&node, "auth").await, 1.0);
    assert_eq!(node.get("/v1/ws", "").await.status, 400, "no handshake at all");
    assert_eq!(node.get("/v1/ws?topics=..", "").await.status, 400);
    assert_eq!(rejected(&node, "bad_handshake").await, 2.0);
    // Other requests with the same mistakes are not about connections.
    assert_eq!(node.get("/v1/topics/a", "Authorization: Bearer nonsense\r\n").await.status, 401);
    assert_eq!((rejected(&node, "auth").await, rejected(&node, "origin").await), (1.0, 0.0));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused() {
    let node = Node::with(|config| config.server.max_connections = 2).await;
    let first = node.connect().await;
    let _second = node.connect().await;
    let mut third = node.raw().await;
    let answer = third.answer().await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_connections"));
    assert!(third.end().await.is_empty());
    assert_eq!(node.metric(r#"tickcast_connections_rejected_total{reason="limit"}"#).await, 1.0);

    drop(first);
    let websockets = r#"tickcast_connections{transport="websocket"}"#;
    node.until_metric(websockets, |open| open < 2.0).await;
    let mut again = node.connect().await;
    again.expect_quiet().await;
}
