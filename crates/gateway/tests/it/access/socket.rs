//! Subscribing and publishing over WebSocket.

use serde_json::{Value, json};

use super::{FEED, OPS, SLOW, VIEW, WRONG, bearer, failures, guarded};
use crate::harness::{Node, Raw, Socket, Update};

fn auth(key: &str) -> Value {
    json!({"type": "auth", "token": key})
}

fn publish(topic: &str) -> Value {
    json!({"type": "publish", "topic": topic, "data": 1})
}

/// The errors of an acknowledgement, as `topic code`.
fn errors(ack: &Value) -> Vec<String> {
    let line = |error: &Value| {
        let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("topic"), word("code"))
    };
    ack["errors"].as_array().expect("an acknowledgement").iter().map(line).collect()
}

fn topics(ack: &Value) -> Vec<&str> {
    let topics = ack["topics"].as_array().expect("an acknowledgement");
    topics.iter().filter_map(|topic| topic["topic"].as_str()).collect()
}

const BOTH: &str = "closed.a,open.a";

/// Asks for a closed and an open topic, and gives the acknowledgement.
async fn subscribe(socket: &mut Socket) -> Value {
    socket.ask(json!({"type": "subscribe", "topics": ["closed.a", "open.a"]})).await
}

#[tokio::test]
async fn closed_topics_are_subscribed_with_a_key() {
    let node = guarded().await;
    let mut socket = node.connect().await;
    let ack = subscribe(&mut socket).await;
    assert_eq!(
        (topics(&ack), errors(&ack)),
        (vec!["open.a"], vec!["closed.a unauthorized".into()])
    );

    assert_eq!(socket.ask(auth(VIEW)).await["type"], "authenticated");
    assert_eq!(topics(&subscribe(&mut socket).await), ["closed.a", "open.a"]);
    assert_eq!(node.post("/v1/topics/closed.a", &bearer(FEED), "7").await.status, 200);
    assert_eq!(socket.update().await, Update::new("closed.a", 1, "7"));
    assert_eq!(failures(&node, "missing_key").await, 1.0);
}

#[tokio::test]
async fn a_key_without_the_right_gets_the_open_topics() {
    let node = guarded().await;
    for key in [FEED, OPS, SLOW] {
        let mut socket = node.connect().await;
        assert_eq!(socket.ask(auth(key)).await["type"], "authenticated");
        let ack = subscribe(&mut socket).await;
        assert_eq!(
            (topics(&ack), errors(&ack)),
            (vec!["open.a"], vec!["closed.a forbidden".into()])
        );
    }
}

#[tokio::test]
async fn the_handshake_may_present_the_key() {
    let node = guarded().await;
    let target = format!("/v1/ws?topics={BOTH}");
    let protocol = format!("tickcast.v1, bearer.{VIEW}");
    for header in
        [("authorization", format!("Bearer {VIEW}")), ("sec-websocket-protocol", protocol)]
    {
        let header = [(header.0, header.1.as_str())];
        let mut socket = Socket::open_with(node.address, &target, &header).await;
        let ack = socket.value().await;
        assert_eq!((topics(&ack), errors(&ack)), (vec!["closed.a", "open.a"], vec![]));
    }
}

/// The answer to a handshake with these lines besides.
async fn shake(node: &Node, lines: &[&str]) -> (Raw, crate::harness::Answer) {
    let mut raw = node.raw().await;
    raw.write_head(&[Raw::HANDSHAKE, lines].concat()).await;
    let answer = raw.answer().await;
    (raw, answer)
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_upgrade() {
    let node = guarded().await;
    let wrong = [
        vec![format!("Authorization: Bearer {WRONG}")],
        vec![format!("Sec-WebSocket-Protocol: tickcast.v1, bearer.{WRONG}")],
        vec!["Sec-WebSocket-Protocol: tickcast.v1, bearer.".to_owned()],
        // Which one is meant?
        vec![format!("Sec-WebSocket-Protocol: tickcast.v1, bearer.{VIEW}, bearer.{FEED}")],
        vec![
            format!("Authorization: Bearer {VIEW}"),
            format!("Sec-WebSocket-Protocol: tickcast.v1, bearer.{VIEW}"),
        ],
    ];
    for lines in wrong {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (_raw, answer) = shake(&node, &lines).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"), "{lines:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.text().contains("tck_"), "{answer:?}");
    }
    // It is one of two sub-protocols, and not the one that is spoken.
    let (_raw, answer) = shake(&node, &[&format!("Sec-WebSocket-Protocol: bearer.{VIEW}")]).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_handshake"));
    assert!(!answer.text().contains("tck_"), "{answer:?}");
    // The URL takes no key.
    let answer = node.get(&format!("/v1/ws?token={VIEW}"), "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_option"));
}

#[tokio::test]
async fn the_sub_protocol_with_the_key_is_not_echoed() {
    let node = guarded().await;
    let lines = format!("Sec-WebSocket-Protocol: bearer.{VIEW}, tickcast.v1");
    let (_raw, answer) = shake(&node, &[&lines]).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-protocol"), Some("tickcast.v1"));
}

#[tokio::test]
async fn topics_of_the_url_are_judged_one_by_one() {
    let node = guarded().await;
    let mut socket = node.connect_to(&format!("topics={BOTH}")).await;
    let ack = socket.value().await;
    assert_eq!(ack["type"], "subscribed");
    assert_eq!(
        (topics(&ack), errors(&ack)),
        (vec!["open.a"], vec!["closed.a unauthorized".into()])
    );
    socket.expect_quiet().await;
}

#[tokio::test]
async fn wrong_keys_change_nothing_and_the_fifth_ends_it() {
    let node = guarded().await;
    let mut socket = node.connect().await;
    assert_eq!(socket.ask(auth(VIEW)).await["type"], "authenticated");
    for wrong in [WRONG, "", "hello", FEED.strip_suffix('A').unwrap()] {
        let reply = socket.ask(auth(wrong)).await;
        assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("unauthorized")));
        assert!(!reply.to_string().contains("tck_"), "{reply}");
    }
    assert_eq!(errors(&subscribe(&mut socket).await), [""; 0], "the first key still counts");
    assert_eq!(socket.ask(auth(WRONG)).await["code"], "unauthorized");
    assert_eq!(socket.closed().await.0, 1008);
    let closed =
        "tickcast_connections_closed_total{transport=\"websocket\",reason=\"unauthorized\"}";
    node.until_metric(closed, |count| count == 1.0).await;
    assert_eq!(failures(&node, "unknown_key").await, 5.0);
}

#[tokio::test]
async fn another_key_must_cover_what_is_held() {
    let node = guarded().await;
    let mut socket = node.connect().await;
    assert_eq!(socket.ask(auth(VIEW)).await["type"], "authenticated");
    assert_eq!(errors(&subscribe(&mut socket).await), [""; 0]);
    let reply = socket.ask(auth(FEED)).await;
    assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("forbidden")));
    assert!(reply["message"].as_str().unwrap().contains("`closed.a`"), "{reply}");
    assert_eq!(socket.ask(publish("stocks.a")).await["code"], "forbidden", "the key is the same");

    socket.ask(json!({"type": "unsubscribe", "topics": ["closed.a"]})).await;
    assert_eq!(socket.ask(auth(FEED)).await["type"], "authenticated");
    assert_eq!(socket.ask(publish("stocks.a")).await["type"], "published");
    assert_eq!(errors(&subscribe(&mut socket).await), ["closed.a forbidden"]);
}

#[tokio::test]
async fn publishing_over_a_socket_follows_the_key() {
    let node = guarded().await;
    let mut socket = node.connect().await;
    assert_eq!(socket.ask(publish("stocks.a")).await["code"], "unauthorized");
    assert_eq!(socket.ask(auth(FEED)).await["type"], "authenticated");
    assert_eq!(socket.ask(publish("stocks.a")).await["type"], "published");
    assert_eq!(socket.ask(publish("nba")).await["code"], "forbidden");
    assert_eq!(socket.ask(auth(SLOW)).await["type"], "authenticated");
    for _ in 0..2 {
        assert_eq!(socket.ask(publish("nba")).await["type"], "published");
    }
    let reply = socket.ask(publish("nba")).await;
    assert_eq!(reply["code"], "rate_limited");
    assert!(reply["message"].as_str().unwrap().ends_with("try again in 1 s"), "{reply}");
    assert_eq!(node.get("/v1/topics/nba", "").await.json()["offset"], 2);

    // The switch is for nodes without keys.
    let node = Node::with(|config| {
        super::guard(config);
        config.websocket.publish = true;
    })
    .await;
    let mut socket = node.connect().await;
    assert_eq!(socket.ask(publish("stocks.a")).await["code"], "unauthorized");
}
