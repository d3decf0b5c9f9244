//! Mode `latest`: the newest value, at the client's rate, and never a queue.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Node, Socket};

/// Publishes numbers as fast as the node takes them, for a while. Answers with the last one.
async fn flood(node: &Node, first: u64, time: Duration) -> u64 {
    let mut raw = node.raw().await;
    let started = Instant::now();
    let mut number = first;
    while started.elapsed() < time {
        raw.post("/v1/topics/a", "", &number.to_string()).await;
        number += 1;
    }
    number - 1
}

/// Reads up to an offset: how many values came.
async fn values_up_to(socket: &mut Socket, last: u64) -> u32 {
    let (mut count, mut before) = (0, 0);
    while before < last {
        let update = socket.update().await;
        assert!(update.offset > before, "{} after {before}", update.offset);
        assert_eq!(update.data, update.offset.to_string());
        before = update.offset;
        count += 1;
    }
    count
}

#[tokio::test]
async fn a_rate_is_kept_and_the_last_value_always_comes() {
    const HZ: u32 = 10;
    let node = Node::start().await;
    node.publish("a", "1").await;
    let started = Instant::now();
    let mut socket = node.connect().await;
    let topics = socket.subscribe(json!([{"topic": "a", "max_rate": HZ}])).await;
    assert_eq!((&topics[0]["mode"], &topics[0]["max_rate"]), (&json!("latest"), &json!(HZ)));
    let last = flood(&node, 2, Duration::from_millis(1500)).await;
    let count = values_up_to(&mut socket, last).await;
    // The snapshot at once, then at most one per interval of the time that has passed.
    let most = 2 + u32::try_from(started.elapsed().as_millis()).unwrap() * HZ / 1000;
    assert!(
        (5..=most).contains(&count),
        "{count} values, at most {most} are allowed; {last} published"
    );
    assert!(u64::from(count) < last / 2, "there was nothing to pass over: {count} of {last}");
    let conflated =
        r#"tickcast_deliveries_dropped_total{transport="websocket",reason="conflated"}"#;
    // The worker shows its counts at the end of its turn, and the last value is on its way before.
    let skipped = (last - u64::from(count)) as f64;
    node.until_metric(conflated, |shown| shown == skipped).await;
}

#[tokio::test]
async fn the_rate_can_be_changed_while_it_runs() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let mut socket = node.connect().await;
    // One value in 100 seconds: after the snapshot nothing comes.
    socket.subscribe(json!([{"topic": "a", "max_rate": 0.01}])).await;
    socket.expect_numbers("a", 1..=1).await;
    node.publish_numbers("a", 2..=30).await;
    socket.expect_quiet().await;
    let topics = socket.subscribe(json!([{"topic": "a", "max_rate": 100}])).await;
    assert_eq!(topics[0]["max_rate"], 100);
    socket.expect_numbers("a", 30..=30).await;
    let started = Instant::now();
    let last = flood(&node, 31, Duration::from_millis(500)).await;
    let count = values_up_to(&mut socket, last).await;
    let most = 2 + u32::try_from(started.elapsed().as_millis()).unwrap() / 10;
    assert!((5..=most).contains(&count), "{count} values, at most {most} are allowed");
}

#[tokio::test]
async fn a_rate_is_kept_for_each_topic_by_itself() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket
        .subscribe(json!([{"topic": "a", "max_rate": 0.01}, {"topic": "b", "max_rate": 0.01}]))
        .await;
    node.publish_numbers("a", 1..=1).await;
    socket.expect_numbers("a", 1..=1).await;
    node.publish_numbers("a", 2..=5).await;
    node.publish_numbers("b", 1..=1).await;
    socket.expect_numbers("b", 1..=1).await;
    socket.expect_quiet().await;
}

#[tokio::test]
async fn latest_without_a_rate_jumps_but_is_never_behind() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!([{"topic": "a", "mode": "latest"}])).await;
    let last = flood(&node, 1, Duration::from_millis(300)).await;
    assert!(values_up_to(&mut socket, last).await >= 1);
    socket.expect_quiet().await;
}

#[tokio::test]
async fn the_mode_of_a_topic_may_be_set_by_the_operator() {
    use tickcast::config::{TopicOptions, TopicPattern};
    use tickcast_protocol::Mode;
    let node = Node::with(|config| {
        let options = TopicOptions { mode: Mode::Latest, ..TopicOptions::default() };
        config.topics.patterns = vec![TopicPattern { matches: "fast.*".to_owned(), options }];
    });
    let node = node.await;
    let mut socket = node.connect().await;
    let topics =
        socket.subscribe(json!(["fast.a", "slow.a", {"topic": "fast.b", "mode": "all"}])).await;
    let modes: Vec<_> = (0..3).map(|index| topics[index]["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["latest", "all", "all"]);
}
