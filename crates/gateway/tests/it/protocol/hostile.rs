//! What no honest client sends. Each row is one text and the one reply to it; the connection stays, and the next command
//! is answered as if nothing had been.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tickcast::config::{Config, KeyHash};

use crate::harness::{Frame, Node, Opcode, Raw, frame};
use crate::reload::Rig;

/// How deep the values are nested that are too deep for a reader that recurses.
const DEPTH: usize = 10_000;

/// What a client wrote comes back in a reply only cut to this length or a little more.
const MESSAGE_BYTES_MAX: usize = 1000;

fn deep() -> String {
    "[".repeat(DEPTH) + &"]".repeat(DEPTH)
}

/// A connection that sends texts as they are.
async fn upgraded(node: &Node) -> Raw {
    let mut raw = node.raw().await;
    raw.upgrade().await;
    raw
}

async fn send(raw: &mut Raw, text: &str) {
    raw.write(frame(true, Opcode::Text, text)).await;
}

/// Sends a text as it is. Answers with the reply, without the sentences in it, which must be there and short.
async fn ask(raw: &mut Raw, text: &str) -> Value {
    send(raw, text).await;
    let mut reply = raw.value().await;
    if reply["type"] == "error" {
        take_message(&mut reply);
    }
    let errors = reply.get_mut("errors").and_then(Value::as_array_mut);
    errors.into_iter().flatten().for_each(take_message);
    reply
}

fn take_message(of: &mut Value) {
    let message = of.as_object_mut().and_then(|object| object.remove("message"));
    let message = message.as_ref().and_then(Value::as_str).unwrap_or_default();
    assert!((1..MESSAGE_BYTES_MAX).contains(&message.len()), "{message:?} in {of}");
}

/// Nothing else has come, and the connection is as good as before.
async fn expect_quiet(raw: &mut Raw) {
    assert_eq!(ask(raw, r#"{"type":"ping","id":"quiet"}"#).await["id"], "quiet");
}

/// Sends every text in one connection, and compares the replies.
async fn expect_replies(node: &Node, rows: Vec<(String, Value)>) {
    let mut raw = upgraded(node).await;
    for (text, expected) in rows {
        let reply = ask(&mut raw, &text).await;
        assert_eq!(reply, expected, "{text:.200}");
        expect_quiet(&mut raw).await;
    }
}

fn error(code: &str) -> Value {
    json!({"type": "error", "code": code})
}

fn error_to(id: u64, code: &str) -> Value {
    json!({"type": "error", "id": id, "code": code})
}

/// The reply to a subscribe command of which nothing could be taken.
fn refused(topic: &str, code: &str) -> Value {
    json!({"type": "subscribed", "id": 1, "topics": [], "errors": [{"topic": topic, "code": code}]})
}

/// A command that subscribes to these items, which are written in JSON.
fn subscribe(items: &str) -> String {
    format!(r#"{{"type":"subscribe","id":1,"topics":[{items}]}}"#)
}

/// Whether publishing is allowed must not matter before a command is understood.
fn may_publish(config: &mut Config) {
    // Each of these tables is longer than the commands that may come at once.
    config.limits.commands_per_second = 0;
    config.websocket.publish = true;
}

#[tokio::test]
async fn texts_that_are_too_deep_are_errors() {
    let node = Node::with(may_publish).await;
    let deep = deep();
    let open = "[".repeat(DEPTH);
    let objects = r#"{"a":"#.repeat(DEPTH) + "1" + &"}".repeat(DEPTH);
    let echo = &deep[..200];
    expect_replies(
        &node,
        vec![
            (deep.clone(), error("bad_command")),
            (open, error("bad_json")),
            (objects, error("bad_command")),
            (format!(r#"{{"type":{deep},"id":1}}"#), error_to(1, "bad_command")),
            (format!(r#"{{"type":"ping","id":{deep}}}"#), error("bad_command")),
            (format!(r#"{{"type":"ping","id":1,"x":{deep}}}"#), error_to(1, "bad_command")),
            (format!(r#"{{"type":"auth","id":1,"token":{deep}}}"#), error_to(1, "bad_command")),
            (
                format!(r#"{{"type":"publish","id":1,"topic":{deep},"data":1}}"#),
                error_to(1, "bad_command"),
            ),
            (subscribe(&deep), refused(echo, "bad_topic")),
            (
                subscribe(&format!(r#"{{"topic":"a","max_rate":{deep}}}"#)),
                refused("a", "bad_option"),
            ),
            (subscribe(&format!(r#"{{"topic":"a","since":{deep}}}"#)), refused("a", "bad_option")),
            (
                format!(r#"{{"type":"unsubscribe","id":1,"topics":[{deep}]}}"#),
                json!({"type": "unsubscribed", "id": 1, "topics": [],
                       "errors": [{"topic": echo, "code": "bad_topic"}]}),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn keys_that_come_twice_are_errors() {
    let node = Node::with(may_publish).await;
    let rows = [
        (r#"{"type":"ping","type":"subscribe"}"#, error("bad_command")),
        (r#"{"type":"ping","id":1,"id":2}"#, error("bad_command")),
        (
            r#"{"type":"subscribe","id":1,"topics":["a"],"topics":["b"]}"#,
            error_to(1, "bad_command"),
        ),
        (r#"{"type":"auth","id":1,"token":"a","token":"b"}"#, error_to(1, "bad_command")),
        (
            r#"{"type":"publish","id":1,"topic":"a","topic":"b","data":1}"#,
            error_to(1, "bad_command"),
        ),
        (r#"{"type":"publish","id":1,"topic":"a","data":1,"data":2}"#, error_to(1, "bad_command")),
        // The same key, once with an escape in it.
        (
            r#"{"type":"publish","id":1,"topic":"a","data":1,"d\u0061ta":2}"#,
            error_to(1, "bad_command"),
        ),
    ];
    let mut rows: Vec<_> = rows.map(|(text, reply)| (text.to_owned(), reply)).into();
    for item in [
        r#"{"topic":"a","topic":"a"}"#,
        r#"{"topic":"a","mode":"all","mode":"latest"}"#,
        r#"{"topic":"a","max_rate":1,"max_rate":2}"#,
        r#"{"topic":"a","since":{"epoch":"k3f9","offset":1,"offset":2}}"#,
    ] {
        // A name that comes twice is no name, so the whole item is quoted.
        let name = if item.matches("topic").count() == 2 { item } else { "a" };
        rows.push((subscribe(item), refused(name, "bad_option")));
    }
    expect_replies(&node, rows).await;
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404, "nothing was published");
}

#[tokio::test]
async fn numbers_and_texts_at_the_edge_of_json_are_errors() {
    let node = Node::with(may_publish).await;
    let rows = [
        // Numbers that no machine holds.
        (r#"{"type":"ping","id":1e400}"#, error("bad_command")),
        (r#"{"type":"ping","id":-1}"#, error("bad_command")),
        (r#"{"type":"ping","id":18446744073709551616}"#, error("bad_command")),
        (r#"{"type":1e400,"id":1}"#, error_to(1, "bad_command")),
        (r#"{"type":"ping","id":NaN}"#, error("bad_json")),
        (r#"{"type":"ping","id":01}"#, error("bad_json")),
        (r#"{"type":"ping","id":+1}"#, error("bad_json")),
        // NUL, as it is and escaped.
        ("{\"type\":\"ping\"}\0", error("bad_json")),
        ("\0{\"type\":\"ping\"}", error("bad_json")),
        ("{\"type\":\"pi\0ng\",\"id\":1}", error("bad_json")),
        (r#"{"type":"ping\u0000","id":1}"#, error_to(1, "bad_command")),
        (
            r#"{"type":"publish","id":1,"topic":"a","data":1,"key":"\u0000"}"#,
            error_to(1, "bad_key"),
        ),
        // Half a character.
        (r#"{"type":"\ud800","id":1}"#, error_to(1, "bad_command")),
        (r#"{"type":"ping","id":"\udfff"}"#, error("bad_command")),
        (r#"{"type":"auth","id":1,"token":"\ud800"}"#, error_to(1, "bad_command")),
        (r#"{"type":"publish","id":1,"topic":"\ud800","data":1}"#, error_to(1, "bad_command")),
        (
            r#"{"type":"publish","id":1,"topic":"a","data":1,"key":"\ud800\u0061"}"#,
            error_to(1, "bad_command"),
        ),
        // Other people's JSON.
        ("\u{feff}{\"type\":\"ping\"}", error("bad_json")),
        ("{\"type\":\"ping\",}", error("bad_json")),
        ("{'type':'ping'}", error("bad_json")),
        ("{\"type\":\"ping\"}//", error("bad_json")),
        ("{\"type\":\"ping\"}{\"type\":\"ping\"}", error("bad_json")),
        ("{\"type\":\"ping\\x41\"}", error("bad_json")),
    ];
    expect_replies(&node, rows.map(|(text, reply)| (text.to_owned(), reply)).into()).await;

    for rate in ["1e400", "-1e400", "-1", "0", "1e-400", "true", "\"4\""] {
        let item = format!(r#"{{"topic":"a","max_rate":{rate}}}"#);
        expect_replies(&node, vec![(subscribe(&item), refused("a", "bad_option"))]).await;
    }
}

#[tokio::test]
async fn a_payload_is_carried_whatever_it_is_as_long_as_it_is_json() {
    let node = Node::with(may_publish).await;
    let mut reader = node.connect().await;
    reader.subscribe(json!(["a"])).await;
    let mut writer = upgraded(&node).await;
    let deep = deep();
    for (offset, data) in (1..).zip([
        r#""\ud800""#,
        r#""\u0000""#,
        "1e400",
        r#"{"a":1,"a":2}"#,
        r#"{"type":"gap","topic":"a"}"#,
        deep.as_str(),
    ]) {
        let text = format!(r#"{{"type":"publish","id":1,"topic":"a","data":{data}}}"#);
        assert_eq!(ask(&mut writer, &text).await["offset"], offset, "{data:.80}");
        let start = format!(r#"{{"topic":"a","offset":{offset},"time":"#);
        let update = reader.text().await;
        assert!(update.starts_with(&start), "{update:.200}");
        assert!(update.ends_with(&format!(r#","data":{data}}}"#)), "{data:.80}");
    }
}

#[tokio::test]
async fn fields_that_no_command_has_are_errors() {
    let node = Node::with(may_publish).await;
    let rows = [
        r#"{"type":"fly","id":1}"#,
        r#"{"type":"","id":1}"#,
        r#"{"type":null,"id":1}"#,
        r#"{"type":"ping","id":1,"colour":1}"#,
        r#"{"type":"ping","id":1,"__proto__":{"x":1}}"#,
        r#"{"type":"auth","id":1,"token":"a","colour":1}"#,
        r#"{"type":"publish","id":1,"topic":"a","data":1,"offset":5}"#,
        r#"{"type":"unsubscribe","id":1,"topics":[],"colour":1}"#,
        r#"{"type":"subscribe","id":1,"topics":{"a":1}}"#,
        r#"{"type":"subscribe","id":1,"topics":null}"#,
        r#"{"type":"subscribed","id":1,"topics":[]}"#,
        r#"{"type":"goaway","id":1}"#,
    ];
    let rows = rows.map(|text| (text.to_owned(), error_to(1, "bad_command")));
    expect_replies(&node, rows.into()).await;
    let item = r#"{"topic":"a","colour":1}"#;
    expect_replies(&node, vec![(subscribe(item), refused("a", "bad_option"))]).await;
}

/// What means something to Redis, to a path, to HTTP, to a terminal or to an eye.
const BAD_NAMES: &[&str] = &[
    "",
    " ",
    "a b",
    "a\tb",
    "a\r\nb",
    "a\nSUBSCRIBE b",
    "a\0",
    "a\u{1b}[2J",
    "a\u{7f}",
    "*",
    "a*",
    "a?",
    "[a-z]",
    "a\\",
    "{a}",
    "a{b}c",
    "a,b",
    "a\"b",
    "a'b",
    "a%2e",
    "a#b",
    "a;b",
    "a&b",
    "a<b>",
    "a|b",
    "a~",
    "a^",
    "a`",
    "a!",
    "a(b)",
    "a+b",
    "$sys",
    "a$",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/./b",
    "a/../b",
    "../../etc/passwd",
    "http://a",
    // Twins that look the same, and letters that look like others.
    "caf\u{e9}",
    "cafe\u{301}",
    "\u{430}",
    "a\u{200b}",
    "a\u{202e}b",
    "\u{ff0a}",
    "\u{1f4c8}",
];

/// Names that look like something and are only names.
const GOOD_NAMES: &[&str] = &[
    "__proto__",
    "__internal",
    "constructor",
    "...",
    "a..b",
    "-",
    "--help",
    "-1",
    "0",
    "null",
    "a:b",
    "tickcast:a",
    "http:a",
    "a=b",
    "a@b",
    "A",
];

#[tokio::test]
async fn a_topic_has_a_name_that_means_one_thing_everywhere() {
    let node = Node::with(may_publish).await;
    let long = ["t".repeat(201), "t".repeat(20_000)];
    let mut raw = upgraded(&node).await;
    for name in BAD_NAMES.iter().copied().chain(long.iter().map(String::as_str)) {
        let echo = &name[..name.floor_char_boundary(200)];
        let quoted = json!(name);
        for item in [quoted.to_string(), format!(r#"{{"topic":{quoted}}}"#)] {
            let reply = ask(&mut raw, &subscribe(&item)).await;
            assert_eq!(reply, refused(echo, "bad_topic"), "{name:?}");
        }
        let text = format!(r#"{{"type":"unsubscribe","id":1,"topics":[{quoted}]}}"#);
        let reply = ask(&mut raw, &text).await;
        assert_eq!(reply["errors"], json!([{"topic": echo, "code": "bad_topic"}]), "{name:?}");
        let text = format!(r#"{{"type":"publish","id":1,"topic":{quoted},"data":1}}"#);
        assert_eq!(ask(&mut raw, &text).await, error_to(1, "bad_topic"), "{name:?}");
    }
    for (items, echo) in
        [("7", "7"), ("null", "null"), (r#"["a"]"#, r#"["a"]"#), (r#""\ud800""#, r#""\ud800""#)]
    {
        assert_eq!(ask(&mut raw, &subscribe(items)).await, refused(echo, "bad_topic"));
    }
    expect_quiet(&mut raw).await;

    let longest = "t".repeat(200);
    for name in GOOD_NAMES.iter().copied().chain([longest.as_str()]) {
        let reply = ask(&mut raw, &subscribe(&json!(name).to_string())).await;
        assert_eq!(reply["topics"][0]["topic"], *name, "{reply}");
        assert_eq!(reply["errors"], json!([]), "{reply}");
    }
    expect_quiet(&mut raw).await;
}

#[tokio::test]
async fn more_topics_than_a_connection_may_hold_are_refused_one_by_one() {
    const MAY: usize = 2_000;
    const ASKED: usize = 10_001;
    let node = Node::with(|config| config.limits.subscriptions_per_connection = MAY).await;
    let names: Vec<String> = (0..ASKED).map(|number| format!("t{number}")).collect();
    let mut raw = upgraded(&node).await;
    // More names than one command may have.
    for names in [&names[..], &names[..1001]] {
        let text = subscribe(&json!(names).to_string().replace(['[', ']'], ""));
        assert_eq!(ask(&mut raw, &text).await, error_to(1, "bad_command"));
    }
    let (mut held, mut refused) = (0, 0);
    for names in names.chunks(1000) {
        let text = subscribe(&json!(names).to_string().replace(['[', ']'], ""));
        let reply = ask(&mut raw, &text).await;
        let topics = reply["topics"].as_array().unwrap();
        let errors = reply["errors"].as_array().unwrap();
        assert_eq!(topics.len() + errors.len(), names.len());
        assert!(errors.iter().all(|error| error["code"] == "too_many_subscriptions"));
        held += topics.len();
        refused += errors.len();
    }
    assert_eq!((held, refused), (MAY, ASKED - MAY));
    expect_quiet(&mut raw).await;
    let series = r#"tickcast_subscriptions{transport="websocket"}"#;
    node.until_metric(series, |count| count == MAY as f64).await;
    drop(raw);
    node.until_metric(series, |count| count == 0.0).await;
}

#[tokio::test]
async fn a_topic_that_is_named_twice_is_held_once() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let mut socket = node.connect().await;
    let command =
        json!({"type": "subscribe", "topics": ["a", "a", {"topic": "a", "mode": "latest"}]});
    let reply = socket.ask(command).await;
    assert_eq!(reply["topics"].as_array().map(Vec::len), Some(3), "{reply}");
    assert_eq!(reply["errors"], json!([]));
    // All three say what is in effect when the reply is made: what came last.
    for topic in reply["topics"].as_array().unwrap() {
        assert_eq!((&topic["topic"], &topic["mode"]), (&json!("a"), &json!("latest")), "{reply}");
    }
    socket.expect_numbers("a", 1..=1).await;
    socket.expect_quiet().await;
    node.publish_numbers("a", 2..=2).await;
    socket.expect_numbers("a", 2..=2).await;
    let series = r#"tickcast_subscriptions{transport="websocket"}"#;
    node.until_metric(series, |count| count == 1.0).await;
    // Given back once, it is given back, however often it was named.
    let reply = socket.ask(json!({"type": "unsubscribe", "topics": ["a", "a"]})).await;
    assert_eq!(reply["topics"], json!(["a", "a"]));
    node.publish_numbers("a", 3..=3).await;
    socket.expect_quiet().await;
}

/// Every place that a client may claim to have been at, in a topic that stands at offset 3.
#[tokio::test]
async fn a_place_that_no_node_gave_out_leads_to_a_reset() {
    let node = Node::start().await;
    node.publish_numbers("a", 1..=2).await;
    let epoch = node.publish("a", "3").await["epoch"].as_str().unwrap().to_owned();
    let known = json!(epoch).to_string();
    let huge = json!("k".repeat(10_000)).to_string();
    let deep = deep();
    let rows: &[(&str, &str, Option<&str>)] = &[
        (&known, "3", None),
        (&known, "4", Some("offset_ahead")),
        (&known, "9007199254740993", Some("offset_ahead")),
        (&known, "18446744073709551614", Some("offset_ahead")),
        (&known, "18446744073709551615", Some("offset_ahead")),
        (&known, "18446744073709551616", Some("unknown_epoch")),
        (&known, "-1", Some("unknown_epoch")),
        (&known, "-0", Some("unknown_epoch")),
        (&known, "3.0", Some("unknown_epoch")),
        (&known, "1e400", Some("unknown_epoch")),
        (&known, "\"3\"", Some("unknown_epoch")),
        (&known, "null", Some("unknown_epoch")),
        (&known, &deep, Some("unknown_epoch")),
        ("\"zzzz\"", "3", Some("unknown_epoch")),
        ("\"3w5e11264sgsg\"", "3", Some("unknown_epoch")),
        ("\"\"", "3", Some("unknown_epoch")),
        ("\"0k3f9\"", "3", Some("unknown_epoch")),
        ("\"K3F9\"", "3", Some("unknown_epoch")),
        ("\"\\ud800\"", "3", Some("unknown_epoch")),
        ("\"*\"", "3", Some("unknown_epoch")),
        (&huge, "3", Some("unknown_epoch")),
        (&deep, "3", Some("unknown_epoch")),
        ("7", "3", Some("unknown_epoch")),
        ("null", "null", Some("unknown_epoch")),
    ];
    for (claimed, offset, reason) in rows {
        let item = format!(r#"{{"topic":"a","since":{{"epoch":{claimed},"offset":{offset}}}}}"#);
        let mut raw = upgraded(&node).await;
        let reply = ask(&mut raw, &subscribe(&item)).await;
        let topic = json!({"topic": "a", "epoch": epoch, "offset": 3, "mode": "all"});
        assert_eq!(reply["topics"], json!([topic]), "{item:.200}");
        if let Some(reason) = reason {
            let reset = json!({"type": "reset", "topic": "a", "epoch": epoch, "offset": 3, "reason": reason});
            assert_eq!(raw.value().await, reset, "{item:.200}");
            assert_eq!(raw.value().await["data"], 3, "the current value follows");
        }
        expect_quiet(&mut raw).await;
    }
    // What has not the shape of a place is an error of the item.
    for since in [
        "7",
        "\"k3f9:3\"",
        "[\"k3f9\",3]",
        "{}",
        r#"{"epoch":"k3f9"}"#,
        r#"{"offset":3}"#,
        r#"{"epoch":"k3f9","offset":3,"x":1}"#,
    ] {
        let item = format!(r#"{{"topic":"a","since":{since}}}"#);
        expect_replies(&node, vec![(subscribe(&item), refused("a", "bad_option"))]).await;
    }
}

#[tokio::test]
async fn who_is_far_behind_gets_a_bounded_answer() {
    const PUBLISHED: u64 = 300_000;
    const KEPT: u64 = 1_000;
    let node = Node::start().await;
    let mut publisher = node.raw().await;
    let mut epoch = String::new();
    for first in (1..=PUBLISHED).step_by(1000) {
        let items = (first..first + 1000).map(|number| json!({"topic": "a", "data": number}));
        let body = json!(items.collect::<Vec<_>>()).to_string();
        let answer =
            publisher.post("/v1/publish", "Content-Type: application/json\r\n", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["results"][0]["epoch"].as_str().unwrap().clone_into(&mut epoch);
    }
    // All of it is gone but what the topic keeps, so there is one notice and the current value.
    for offset in [0, 1, PUBLISHED - KEPT - 1] {
        let mut socket = node.connect().await;
        assert_eq!(socket.resume("a", &epoch, offset).await["offset"], PUBLISHED);
        let gap = json!({"type": "gap", "topic": "a", "from": offset + 1, "to": PUBLISHED - 1, "reason": "expired"});
        socket.expect(gap).await;
        socket.expect_numbers("a", PUBLISHED..=PUBLISHED).await;
        socket.expect_quiet().await;
    }
    // The most that anybody gets at once.
    let mut socket = node.connect().await;
    socket.resume("a", &epoch, PUBLISHED - KEPT).await;
    socket.expect_numbers("a", PUBLISHED - KEPT + 1..=PUBLISHED).await;
    socket.expect_quiet().await;
}

#[tokio::test]
async fn publishing_where_it_is_not_allowed_leaves_no_trace() {
    let node = Node::start().await;
    let rows = [
        (r#"{"type":"publish","id":1,"topic":"a","data":1}"#, "forbidden"),
        (r#"{"type":"publish","id":1,"topic":"a","data":1,"key":"k"}"#, "forbidden"),
        (r#"{"type":"publish","id":1,"topic":"$sys","data":1}"#, "bad_topic"),
    ];
    let rows = rows.map(|(text, code)| (text.to_owned(), error_to(1, code)));
    expect_replies(&node, rows.into()).await;
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404);
}

#[tokio::test]
async fn a_key_that_is_revoked_ends_its_connections_in_seconds() {
    const PROMISED: Duration = Duration::from_secs(5);
    const KEY: &str = "tck_viewAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let table = |name: &str, hash: KeyHash| {
        format!("[[access.key]]\nname = '{name}'\nhash = '{hash}'\nrights = ['subscribe']\n")
    };
    let other = table("other", KeyHash::of("another"));
    let mut rig = Rig::start(&(table("view", KeyHash::of(KEY)) + &other));
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut raw = rig.raw().await;
        let key = format!("Authorization: Bearer {KEY}");
        raw.write_head(&[Raw::HANDSHAKE, &[key.as_str()]].concat()).await;
        assert_eq!(raw.answer().await.status, 101);
        let reply = ask(&mut raw, &subscribe(r#""a""#)).await;
        assert_eq!(reply["errors"], json!([]));
        connections.push(raw);
    }
    let revoked = Instant::now();
    rig.reload(&other, true).await;
    for raw in &mut connections {
        let Frame { opcode, payload } = raw.frame().await.expect("a close frame before the end");
        assert_eq!((opcode, &payload[..2]), (Opcode::Close as u8, &4501_u16.to_be_bytes()[..]));
        assert!(raw.frame().await.is_none(), "nothing follows a close frame");
    }
    assert!(revoked.elapsed() < PROMISED, "{:?}", revoked.elapsed());
}
