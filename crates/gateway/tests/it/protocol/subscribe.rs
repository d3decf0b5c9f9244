//! Subscribing and unsubscribing: the acknowledgement, then the snapshot, then everything after it.

use serde_json::json;
use tickcast::config::Config;

use crate::harness::{Node, Raw, Update};

#[tokio::test]
async fn the_acknowledgement_comes_first_then_the_snapshot_then_what_follows() {
    let node = Node::start().await;
    node.publish("stocks.AAPL", "1").await;
    let last = node.publish("stocks.AAPL", r#"{"px": 189.30, "n":1e400}"#).await;
    let mut socket = node.connect().await;
    let epoch = &last["epoch"];
    socket.command(&json!({"type": "subscribe", "id": "first", "topics": ["stocks.AAPL"]})).await;
    let topics = json!([{"topic": "stocks.AAPL", "epoch": epoch, "offset": 2, "mode": "all"}]);
    let acknowledgement =
        json!({"type": "subscribed", "id": "first", "topics": topics, "errors": []});
    socket.expect(acknowledgement).await;
    let snapshot = Update::new("stocks.AAPL", 2, r#"{"px": 189.30, "n":1e400}"#);
    assert_eq!(socket.update().await, snapshot, "the payload is verbatim");
    node.publish_numbers("stocks.AAPL", 3..=20).await;
    socket.expect_numbers("stocks.AAPL", 3..=20).await;
}

#[tokio::test]
async fn a_topic_without_a_value_has_an_epoch_and_no_snapshot() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let topics = socket.subscribe(json!(["a"])).await;
    assert_eq!((&topics[0]["offset"], topics[0]["epoch"].is_string()), (&json!(0), true));
    socket.expect_quiet().await;
    let published = node.publish("a", "1").await;
    assert_eq!(published["epoch"], topics[0]["epoch"]);
    socket.expect_numbers("a", 1..=1).await;
}

#[tokio::test]
async fn a_topic_that_keeps_no_value_gives_what_follows_the_acknowledgement() {
    let node = Node::with(|config| config.topics.defaults.retain_value = false).await;
    node.publish_numbers("a", 1..=3).await;
    let mut socket = node.connect().await;
    assert_eq!(socket.subscribe(json!(["a"])).await[0]["offset"], 3);
    socket.expect_quiet().await;
    node.publish_numbers("a", 4..=5).await;
    socket.expect_numbers("a", 4..=5).await;
}

#[tokio::test]
async fn every_subscriber_sees_one_order() {
    let node = Node::start().await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = node.connect().await;
        socket.subscribe(json!(["a"])).await;
        sockets.push(socket);
    }
    let publish = async |first: u64| node.publish_numbers("a", first..=first + 49).await;
    tokio::join!(publish(1000), publish(2000), publish(3000));
    let mut orders = Vec::new();
    for socket in &mut sockets {
        let mut order = Vec::new();
        for offset in 1..=150 {
            let update = socket.update().await;
            assert_eq!(update.offset, offset);
            order.push(update.data);
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
    // What one publisher sent one after the other stays in its order.
    let first: Vec<_> = orders[0].iter().filter(|data| data.starts_with('1')).collect();
    assert!(first.is_sorted() && first.len() == 50, "{first:?}");
}

#[tokio::test]
async fn subscribing_again_changes_options_and_brings_no_second_snapshot() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    socket.expect_numbers("a", 1..=1).await;
    let again = socket.subscribe(json!([{"topic": "a", "mode": "latest", "max_rate": 4}])).await;
    assert_eq!((&again[0]["mode"], &again[0]["max_rate"]), (&json!("latest"), &json!(4)));
    socket.expect_quiet().await;
    let again = socket.subscribe(json!([{"topic": "a", "mode": "all"}])).await;
    assert_eq!((&again[0]["mode"], again[0].get("max_rate")), (&json!("all"), None));
    socket.expect_quiet().await;
    node.publish_numbers("a", 2..=9).await;
    socket.expect_numbers("a", 2..=9).await;
    let held = node.metric(r#"tickcast_subscriptions{transport="websocket"}"#).await;
    assert_eq!(held, 1.0);
}

#[tokio::test]
async fn what_is_unsubscribed_stays_away_until_it_is_subscribed_anew() {
    let node = Node::start().await;
    node.publish_numbers("a", 1..=2).await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    socket.expect_numbers("a", 2..=2).await;
    let reply = socket.ask(json!({"type": "unsubscribe", "topics": ["a", "never.held"]})).await;
    assert_eq!(
        (&reply["type"], &reply["topics"]),
        (&json!("unsubscribed"), &json!(["a", "never.held"]))
    );
    node.publish_numbers("a", 3..=4).await;
    socket.expect_quiet().await;
    assert_eq!(socket.subscribe(json!(["a"])).await[0]["offset"], 4);
    socket.expect_numbers("a", 4..=4).await;
}

#[tokio::test]
async fn a_bad_name_is_an_error_of_its_own_in_the_clients_order() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let topics =
        json!(["good", "a*", {"topic": "a/../b"}, {"topic": "c", "mode": "all", "max_rate": 1}]);
    let reply = socket.ask(json!({"type": "subscribe", "topics": topics})).await;
    assert_eq!(reply["topics"][0]["topic"], "good");
    let errors = reply["errors"].as_array().unwrap();
    let found: Vec<_> = errors.iter().map(|error| (&error["topic"], &error["code"])).collect();
    assert_eq!(
        found,
        [
            (&json!("a*"), &json!("bad_topic")),
            (&json!("a/../b"), &json!("bad_topic")),
            (&json!("c"), &json!("bad_option"))
        ]
    );
    assert!(errors.iter().all(|error| error["message"].is_string()));
}

#[tokio::test]
async fn a_connection_holds_as_many_topics_as_it_may() {
    let few = |config: &mut Config| config.limits.subscriptions_per_connection = 3;
    let node = Node::with(few).await;
    let mut socket = node.connect().await;
    let reply = socket.ask(json!({"type": "subscribe", "topics": ["a", "b", "c", "d"]})).await;
    assert_eq!(reply["topics"].as_array().map(Vec::len), Some(3));
    assert_eq!(reply["errors"][0]["topic"], "d");
    assert_eq!(reply["errors"][0]["code"], "too_many_subscriptions");
    // One more only changes options, so it has room.
    socket.subscribe(json!([{"topic": "a", "mode": "latest"}])).await;
    socket.ask(json!({"type": "unsubscribe", "topics": ["a"]})).await;
    socket.subscribe(json!(["d"])).await;

    let answer = node.get("/v1/ws?topics=a,b,c,d", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "too_many_subscriptions"));
}

#[tokio::test]
async fn the_url_subscribes_with_the_same_acknowledgement_but_no_id() {
    let node = Node::start().await;
    let last = node.publish("a", "1").await;
    let mut socket = node.connect_to("topics=a,b%2Fc&mode=latest&max_rate=2.5").await;
    let acknowledgement = socket.value().await;
    let option = json!({"topic": "a", "epoch": last["epoch"], "offset": 1, "mode": "latest", "max_rate": 2.5});
    assert_eq!(acknowledgement["topics"][0], option);
    assert_eq!(acknowledgement["topics"][1]["topic"], "b/c");
    assert_eq!(acknowledgement["errors"], json!([]));
    assert_eq!((&acknowledgement["type"], acknowledgement.get("id")), (&json!("subscribed"), None));
    socket.expect_numbers("a", 1..=1).await;

    // Without topics there is nothing to acknowledge.
    let mut socket = node.connect_to("topics=").await;
    socket.expect_quiet().await;
}

#[tokio::test]
async fn a_bad_url_is_refused_before_the_upgrade() {
    let node = Node::start().await;
    for (query, code) in [
        ("topics=a,b*", "bad_topic"),
        ("topics=a,,b", "bad_topic"),
        ("topics=%ff", "bad_option"),
        ("topics=a&mode=newest", "bad_option"),
        ("topics=a&mode=all&max_rate=1", "bad_option"),
        ("topics=a&max_rate=0", "bad_option"),
        ("topic=a", "bad_option"),
        ("topics=a&topics=b", "bad_option"),
    ] {
        let mut raw = node.raw().await;
        let target = format!("GET /v1/ws?{query} HTTP/1.1");
        raw.write_head(&[&[target.as_str()], &Raw::HANDSHAKE[1..]].concat()).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, code), "{query}");
    }
}
