//! Keys that are changed while the node runs.

use serde_json::{Value, json};

use super::{FEED, SLOW, VIEW, bearer};
use crate::harness::{Socket, until};
use crate::reload::Rig;
use tickcast::config::KeyHash;

/// A third key with the right `subscribe`.
const GUEST: &str = "tck_guestAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The table of a key.
fn table(name: &str, text: &str, rest: &str) -> String {
    format!("[[access.key]]\nname = '{name}'\nhash = '{}'\n{rest}\n", KeyHash::of(text))
}

fn feed() -> String {
    table("feed", FEED, "rights = ['publish']")
}

/// A table of a key that may subscribe to these topics, such as `'a', 'b'`.
fn viewer(name: &str, text: &str, topics: &str) -> String {
    table(name, text, &format!("rights = ['subscribe']\ntopics = [{topics}]"))
}

/// Topics with these names are closed.
fn closed(pattern: &str) -> String {
    format!("[[topics.pattern]]\nmatch = '{pattern}'\nsubscribe = 'closed'\n")
}

/// A connection with a key, subscribed to these topics.
async fn open(rig: &Rig, key: &str, topics: Value) -> Socket {
    let header = format!("Bearer {key}");
    let headers = [("authorization", header.as_str())];
    let mut socket = Socket::open_with(rig.program.address, "/v1/ws", &headers).await;
    socket.subscribe(topics).await;
    socket
}

/// A connection without one.
async fn anonymous(rig: &Rig, topics: Value) -> Socket {
    let mut socket = rig.connect().await;
    socket.subscribe(topics).await;
    socket
}

async fn publish(rig: &Rig, topic: &str) {
    let answer = rig.raw().await.post(&format!("/v1/topics/{topic}"), &bearer(FEED), "1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A node that ends takes a key away when it is told to, as any other: it may go on serving for minutes.
#[tokio::test]
async fn a_key_can_be_taken_away_from_a_node_that_leaves() {
    let view = viewer("view", VIEW, "'c.*'");
    let slowly = [("drain.delay", "10m"), ("drain.timeout", "1h")];
    let mut rig = Rig::start_with(&(feed() + &view), &slowly);
    publish(&rig, "a").await;
    rig.program.terminate();
    until("leaving", || async { rig.program.log().contains("stopping") }).await;
    publish(&rig, "a").await;
    rig.reload(&view, true).await;
    let answer = rig.raw().await.post("/v1/topics/a", &bearer(FEED), "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"));
}

/// The key is judged when the request comes, and again when its body is there.
#[tokio::test]
async fn a_key_that_is_taken_away_while_a_body_comes_publishes_nothing() {
    let view = viewer("view", VIEW, "'c.*'");
    let mut rig = Rig::start(&(feed() + &view));
    let mut waiting = Vec::new();
    let batch = r#"{"publications":[{"topic":"a","data":1}]}"#;
    for (target, body) in [("/v1/topics/a", "12"), ("/v1/publish", batch)] {
        let mut raw = rig.raw().await;
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            bearer(FEED),
            body.len()
        );
        raw.write(head).await;
        assert_eq!(raw.head().await.status, 100, "the key was good");
        waiting.push((raw, body));
    }
    rig.reload(&view, true).await;
    for (raw, body) in &mut waiting {
        raw.write(*body).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"));
    }
    assert_eq!(rig.raw().await.get("/v1/topics/a", "").await.status, 404);
}

#[tokio::test]
async fn a_node_without_keys_any_more_says_so() {
    const WARNING: &str = "there are no keys any more";
    let mut rig = Rig::start(&feed());
    rig.reload(&(feed() + &viewer("view", VIEW, "'c.*'")), true).await;
    assert!(!rig.program.log().contains(WARNING));
    rig.reload("", true).await;
    until(WARNING, || async { rig.program.log().contains(WARNING) }).await;
}

#[tokio::test]
async fn a_key_that_is_taken_away_ends_its_connections_and_no_other() {
    let all = [feed(), viewer("view", VIEW, "'c.*'"), viewer("guest", GUEST, "'c.*'")].concat();
    let mut rig = Rig::start(&(closed("c.*") + &all));
    let mut gone = open(&rig, VIEW, json!(["c.a"])).await;
    let mut idle = open(&rig, VIEW, json!([])).await;
    let mut late = anonymous(&rig, json!([])).await;
    assert_eq!(late.ask(json!({"type": "auth", "token": VIEW})).await["type"], "authenticated");
    let mut other = open(&rig, GUEST, json!(["c.a"])).await;
    let mut nobody = anonymous(&rig, json!(["open"])).await;

    rig.reload(&(closed("c.*") + &feed() + &viewer("guest", GUEST, "'c.*'")), true).await;
    for socket in [&mut gone, &mut idle, &mut late] {
        assert_eq!(socket.closed().await, (4501, "key revoked".to_owned()));
    }
    publish(&rig, "c.a").await;
    publish(&rig, "open").await;
    assert_eq!(other.update().await.topic, "c.a");
    assert_eq!(nobody.update().await.topic, "open");
    assert_eq!(rig.raw().await.get("/v1/topics/c.a", &bearer(VIEW)).await.status, 401);
    let closed =
        "tickcast_connections_closed_total{transport=\"websocket\",reason=\"key_revoked\"}";
    until("count", || async { rig.metric(closed).await == 3.0 }).await;
}

/// A connection that has the answer to its handshake, and is a worker's only after the next reload.
#[cfg(feature = "testing")]
async fn half_open(rig: &Rig, key: &str, query: &str) -> Socket {
    let header = format!("Bearer {key}");
    let headers = [("authorization", header.as_str()), ("x-await-reload", "1")];
    Socket::open_with(rig.program.address, &format!("/v1/ws?{query}"), &headers).await
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_key_that_is_taken_away_during_a_handshake_ends_its_connection() {
    let keys = [
        table("slow", SLOW, "rights = ['publish']"),
        viewer("view", VIEW, "'c.*'"),
        viewer("guest", GUEST, "'c.*'"),
    ];
    let mut rig = Rig::start(&(closed("c.*") + &feed() + &keys.concat()));
    let mut subscriber = half_open(&rig, VIEW, "topics=c.a").await;
    let mut publisher = half_open(&rig, SLOW, "").await;
    publisher.command(&json!({"type": "publish", "topic": "early", "data": 1})).await;
    let mut narrowed = half_open(&rig, GUEST, "topics=c.a,c.b").await;
    let websockets = "tickcast_connections{transport=\"websocket\"}";
    assert_eq!(rig.metric(websockets).await, 0.0);

    rig.reload(&(closed("c.*") + &feed() + &viewer("guest", GUEST, "'c.a'")), true).await;
    for socket in [&mut subscriber, &mut publisher] {
        // It is told nothing else before.
        let message = socket.next().await.expect("a close frame");
        let (code, reason) = message.as_close().unwrap_or_else(|| panic!("{message:?}"));
        assert_eq!((u16::from(code), reason), (4501, "key revoked"));
    }
    assert_eq!(rig.raw().await.get("/v1/topics/early", "").await.status, 404);
    // A key that stays has the rights that it has now.
    let ack = narrowed.value().await;
    assert_eq!(
        (&ack["topics"][0]["topic"], &ack["errors"][0]["topic"], &ack["errors"][0]["code"]),
        (&json!("c.a"), &json!("c.b"), &json!("forbidden"))
    );
    publish(&rig, "c.a").await;
    assert_eq!(narrowed.update().await.topic, "c.a");
    let closed =
        "tickcast_connections_closed_total{transport=\"websocket\",reason=\"key_revoked\"}";
    until("count", || async { rig.metric(closed).await == 2.0 }).await;
}

#[tokio::test]
async fn a_topic_that_is_taken_away_ends_the_connections_that_hold_it() {
    let view = |topics| closed("c.*") + &feed() + &viewer("view", VIEW, topics);
    let mut rig = Rig::start(&view("'c.*'"));
    let mut gone = open(&rig, VIEW, json!(["open", "c.b"])).await;
    let mut stays = open(&rig, VIEW, json!(["open", "c.a"])).await;
    rig.reload(&view("'c.a', 'c.c'"), true).await;
    assert_eq!(gone.closed().await, (4010, "access changed".to_owned()));
    publish(&rig, "c.a").await;
    assert_eq!(stays.update().await.topic, "c.a");
    // It has the rights of the new table: what it lost is refused, what it gained is there.
    let ack = stays.ask(json!({"type": "subscribe", "topics": ["c.b", "c.c"]})).await;
    assert_eq!(
        (&ack["errors"][0]["code"], &ack["topics"][0]["topic"]),
        (&json!("forbidden"), &json!("c.c"))
    );
}

#[tokio::test]
async fn a_topic_that_is_closed_is_left_by_those_without_a_key() {
    let keys = feed() + &viewer("view", VIEW, "'*'");
    let mut rig = Rig::start(&keys);
    let mut gone = anonymous(&rig, json!(["a", "b"])).await;
    let mut stays = anonymous(&rig, json!(["b"])).await;
    let mut keyed = open(&rig, VIEW, json!(["a"])).await;
    rig.reload(&(closed("a") + &keys), true).await;
    assert_eq!(gone.closed().await.0, 4010);
    publish(&rig, "a").await;
    publish(&rig, "b").await;
    assert_eq!(keyed.update().await.topic, "a");
    assert_eq!(stays.update().await.topic, "b");
    assert_eq!(rig.raw().await.get("/v1/topics/a", "").await.status, 401);
}

#[tokio::test]
async fn a_publisher_keeps_its_connection_and_loses_its_right() {
    let mut rig = Rig::start(&feed());
    let mut socket = open(&rig, FEED, json!([])).await;
    let publish = || json!({"type": "publish", "topic": "a", "data": 1});
    assert_eq!(socket.ask(publish()).await["type"], "published");
    rig.reload(&table("feed", FEED, "rights = ['publish']\ntopics = ['b']"), true).await;
    until_error(&mut socket, publish, "forbidden").await;
    assert_eq!(rig.raw().await.post("/v1/topics/a", &bearer(FEED), "1").await.status, 403);
}

/// Asks until the answer is this error: workers look at the keys with each turn, within a second at the latest.
async fn until_error(socket: &mut Socket, command: impl Fn() -> Value, code: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while socket.ask(command()).await["code"] != code {
        assert!(std::time::Instant::now() < deadline, "not {code}");
    }
}

#[tokio::test]
async fn what_was_used_of_a_rate_stays_used() {
    let slow = |name| table(name, SLOW, "rights = ['publish']\nrate = 1");
    let mut rig = Rig::start(&slow("slow"));
    let items = vec![r#"{"topic":"a","data":1}"#; 600].join("\n");
    let answer = rig.raw().await.post("/v1/publish", &bearer(SLOW), &items).await;
    assert_eq!(answer.status, 200);
    rig.reload(&slow("renamed"), true).await;
    let answer = rig.raw().await.post("/v1/topics/a", &bearer(SLOW), "1").await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((500..=600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_damaged_file_of_keys_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, feed()).unwrap();
    let text = format!("[access]\nkeys_file = '{}'\n", keys.display());
    let mut rig = Rig::start(&text);
    publish(&rig, "a").await;
    for damaged in
        ["", "[[access.key]]\nname = 'feed'\n", "[[access.key", "[server]\nworkers = 1\n"]
    {
        std::fs::write(&keys, damaged).unwrap();
        rig.reload(&text, false).await;
        publish(&rig, "a").await;
        assert_eq!(rig.raw().await.post("/v1/topics/a", "", "1").await.status, 401);
    }
    std::fs::write(&keys, feed() + &viewer("view", VIEW, "'*'")).unwrap();
    rig.reload(&text, true).await;
    assert_eq!(rig.raw().await.get("/v1/topics/a", &bearer(VIEW)).await.status, 200);
}

/// More than a worker judges in one turn.
#[tokio::test]
async fn many_connections_are_judged() {
    let text = |rest: &str| format!("[server]\nworkers = 1\n{rest}{}", feed());
    let mut rig = Rig::start(&text(""));
    let topics: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let mut gone = Vec::new();
    for _ in 0..60 {
        gone.push(anonymous(&rig, json!(topics)).await);
    }
    let mut stays = anonymous(&rig, json!(topics[..99])).await;
    rig.reload(&text(&closed("t99")), true).await;
    for socket in &mut gone {
        assert_eq!(socket.closed().await.0, 4010);
    }
    publish(&rig, "t7").await;
    assert_eq!(stays.update().await.topic, "t7");
}
