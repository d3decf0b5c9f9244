//! Commands beside subscribing: publish, ping, auth, and what is no command at all.

use serde_json::{Value, json};
use tokio_websockets::Message;

use crate::harness::{Node, Update};

#[tokio::test]
async fn a_ping_has_a_pong_with_its_id() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.command(&json!({"type": "ping", "id": "x"})).await;
    socket.expect(json!({"type": "pong", "id": "x"})).await;
    socket.command(&json!({"type": "ping"})).await;
    socket.expect(json!({"type": "pong"})).await;
}

#[tokio::test]
async fn without_keys_there_is_nothing_to_present() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let reply = socket.ask(json!({"type": "auth", "token": "secret"})).await;
    assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("not_configured")));
}

#[tokio::test]
async fn publishing_over_a_socket_is_forbidden_unless_it_is_allowed() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let reply = socket.ask(json!({"type": "publish", "topic": "a", "data": 1})).await;
    assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("forbidden")));
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404);
}

#[tokio::test]
async fn publishing_over_a_socket_follows_the_rules_of_http() {
    let node = Node::with(|config| config.websocket.publish = true).await;
    let mut reader = node.connect().await;
    let epoch = reader.subscribe(json!(["a"])).await[0]["epoch"].take();
    let mut writer = node.connect().await;
    writer
        .send(Message::text(r#"{"type":"publish","id":1,"topic":"a","data":{"px": 1.10}}"#))
        .await;
    writer
        .expect(json!({"type": "published", "id": 1, "topic": "a", "epoch": epoch, "offset": 1}))
        .await;
    assert_eq!(reader.update().await, Update::new("a", 1, r#"{"px": 1.10}"#));

    let with_key = |data: u64| json!({"type": "publish", "topic": "a", "data": data, "key": "k"});
    for _ in 0..3 {
        assert_eq!(writer.ask(with_key(2)).await["offset"], 2);
    }
    assert_eq!(writer.ask(with_key(3)).await["code"], "idempotency_conflict");
    // The same key over HTTP is the same key.
    let answer = node.post("/v1/topics/a", "Idempotency-Key: k\r\n", "2").await;
    assert_eq!(answer.json()["offset"], 2);
    node.publish("a", "3").await;
    reader.expect_numbers("a", 2..=3).await;

    for (command, code) in [
        (json!({"type": "publish", "topic": "a*", "data": 1}), "bad_topic"),
        (json!({"type": "publish", "topic": "a", "data": 1, "key": ""}), "bad_key"),
        (json!({"type": "publish", "topic": "a"}), "bad_command"),
    ] {
        assert_eq!(writer.ask(command).await["code"], code);
    }
}

#[tokio::test]
async fn publications_of_one_socket_keep_their_order() {
    let node = Node::with(|config| config.websocket.publish = true).await;
    let mut reader = node.connect().await;
    reader.subscribe(json!(["a"])).await;
    let mut writer = node.connect().await;
    for number in 1..=500 {
        writer
            .command(&json!({"type": "publish", "id": number, "topic": "a", "data": number}))
            .await;
    }
    reader.expect_numbers("a", 1..=500).await;
    for number in 1..=500 {
        let reply = writer.value().await;
        assert_eq!((&reply["id"], &reply["offset"]), (&json!(number), &json!(number)));
    }
}

#[tokio::test]
async fn what_is_no_command_is_an_error_and_no_end() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let mut count = 0;
    for (text, code) in [
        ("", "bad_json"),
        ("hello", "bad_json"),
        ("{\"type\":\"ping\"", "bad_json"),
        ("{\"type\":\"ping\"} {}", "bad_json"),
        ("\u{0}", "bad_json"),
        (deep.as_str(), "bad_json"),
        ("[]", "bad_command"),
        ("null", "bad_command"),
        ("{}", "bad_command"),
        (r#"{"type":5}"#, "bad_command"),
        (r#"{"type":"fly"}"#, "bad_command"),
        (r#"{"type":"PING"}"#, "bad_command"),
        (r#"{"type":"subscribe"}"#, "bad_command"),
        (r#"{"type":"subscribe","topics":"a"}"#, "bad_command"),
        (r#"{"type":"subscribe","topics":["a"],"colour":1}"#, "bad_command"),
        (r#"{"type":"ping","type":"ping"}"#, "bad_command"),
    ] {
        count += 1;
        socket.send(Message::text(text.to_owned())).await;
        let reply = socket.value().await;
        assert_eq!(reply["type"], "error", "{text:.80}: {reply}");
        assert!(
            reply["code"] == code || (text == deep && reply["code"] == "bad_command"),
            "{text:.80}: {reply}"
        );
        assert!(reply["message"].as_str().is_some_and(|message| message.len() < 1000), "{reply}");
    }
    socket.expect_quiet().await;
    assert_eq!(node.metric("tickcast_commands_invalid_total").await, f64::from(count));
}

#[tokio::test]
async fn a_bad_command_is_answered_under_its_id() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    for id in [json!(7), json!("seven"), json!(u64::MAX), json!("x".repeat(64))] {
        socket.command(&json!({"type": "fly", "id": id})).await;
        let reply = socket.value().await;
        assert_eq!((&reply["id"], &reply["code"]), (&id, &json!("bad_command")));
    }
    for id in [json!(-1), json!(1.5), json!([1]), json!("x".repeat(65)), json!({"a": 1})] {
        socket.command(&json!({"type": "ping", "id": id})).await;
        let reply: Value = socket.value().await;
        assert_eq!((&reply["type"], reply.get("id")), (&json!("error"), None), "{id}");
    }
}
