//! Coming back with `since`: exactly what was missed, or a word that says why not.

use serde_json::{Value, json};
use tickcast::config::Config;

use crate::harness::{Node, Socket};

/// Publishes 1 to 50, in a topic that keeps some of them. Answers with the epoch.
async fn fifty(node: &Node) -> String {
    node.publish_numbers("a", 1..=49).await;
    node.publish("a", "50").await["epoch"].as_str().unwrap().to_owned()
}

fn little_history(config: &mut Config) {
    config.topics.defaults.history = 10;
}

#[tokio::test]
async fn a_new_connection_gets_exactly_what_was_missed() {
    let node = Node::start().await;
    let epoch = fifty(&node).await;
    for offset in [0, 1, 20, 48, 49] {
        let mut socket = node.connect().await;
        assert_eq!(socket.resume("a", &epoch, offset).await["offset"], 50);
        socket.expect_numbers("a", offset + 1..=50).await;
        socket.expect_quiet().await;
    }
    let mut up_to_date = node.connect().await;
    up_to_date.resume("a", &epoch, 50).await;
    up_to_date.expect_quiet().await;
    node.publish_numbers("a", 51..=53).await;
    up_to_date.expect_numbers("a", 51..=53).await;
    assert_eq!(node.metric(r#"tickcast_resumes_total{result="complete"}"#).await, 6.0);
    let replayed = node.metric("tickcast_resume_replayed_publications_total").await;
    assert_eq!(replayed, 50.0 + 49.0 + 30.0 + 2.0 + 1.0);
}

#[tokio::test]
async fn resuming_works_while_others_hold_the_topic() {
    let node = Node::start().await;
    let mut holder = node.connect().await;
    holder.subscribe(json!(["a"])).await;
    let epoch = fifty(&node).await;
    holder.expect_numbers("a", 1..=50).await;
    let mut late_holder = node.connect().await;
    late_holder.subscribe(json!(["a"])).await;
    late_holder.expect_numbers("a", 50..=50).await;
    for offset in [0, 25, 49] {
        let mut socket = node.connect().await;
        socket.resume("a", &epoch, offset).await;
        socket.expect_numbers("a", offset + 1..=50).await;
    }
}

#[tokio::test]
async fn a_client_that_was_cut_off_misses_nothing() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let topics = socket.subscribe(json!(["a", "b"])).await;
    node.publish_numbers("a", 1..=5).await;
    socket.expect_numbers("a", 1..=5).await;
    drop(socket);
    node.publish_numbers("a", 6..=30).await;
    node.publish_numbers("b", 1..=3).await;
    let since =
        |index: usize, offset: u64| json!({"epoch": topics[index]["epoch"], "offset": offset});
    let mut socket = node.connect().await;
    socket
        .subscribe(
            json!([{"topic": "a", "since": since(0, 5)}, {"topic": "b", "since": since(1, 0)}]),
        )
        .await;
    let mut offsets = [5, 0];
    for _ in 0..28 {
        let update = socket.update().await;
        let offset = &mut offsets[usize::from(update.topic == "b")];
        assert_eq!(update.offset, *offset + 1);
        *offset += 1;
    }
    assert_eq!(offsets, [30, 3]);
}

#[tokio::test]
async fn what_is_too_old_is_a_gap_and_the_current_value() {
    let node = Node::with(little_history).await;
    let epoch = fifty(&node).await;
    let mut socket = node.connect().await;
    socket.resume("a", &epoch, 5).await;
    socket
        .expect(json!({"type": "gap", "topic": "a", "from": 6, "to": 49, "reason": "expired"}))
        .await;
    socket.expect_numbers("a", 50..=50).await;
    node.publish_numbers("a", 51..=51).await;
    socket.expect_numbers("a", 51..=51).await;

    // The oldest that is kept is 41, so whoever has 40 misses nothing.
    let mut socket = node.connect().await;
    socket.resume("a", &epoch, 41).await;
    socket.expect_numbers("a", 42..=51).await;
    assert_eq!(node.metric(r#"tickcast_resumes_total{result="gap"}"#).await, 1.0);
}

#[tokio::test]
async fn a_gap_without_a_kept_value_goes_up_to_the_newest() {
    let node = Node::with(|config| {
        little_history(config);
        config.topics.defaults.retain_value = false;
    });
    let node = node.await;
    let epoch = fifty(&node).await;
    let mut socket = node.connect().await;
    socket.resume("a", &epoch, 5).await;
    socket
        .expect(json!({"type": "gap", "topic": "a", "from": 6, "to": 50, "reason": "expired"}))
        .await;
    node.publish_numbers("a", 51..=51).await;
    socket.expect_numbers("a", 51..=51).await;
}

#[tokio::test]
async fn without_history_there_is_what_the_node_still_has() {
    let node = Node::with(|config| config.topics.defaults.history = 0).await;
    let mut holder = node.connect().await;
    holder.subscribe(json!(["a"])).await;
    let epoch = fifty(&node).await;
    let mut socket = node.connect().await;
    socket.resume("a", &epoch, 30).await;
    socket.expect_numbers("a", 31..=50).await;
}

#[tokio::test]
async fn latest_resumes_with_the_newest_if_there_is_a_newer_one() {
    let node = Node::with(little_history).await;
    let epoch = fifty(&node).await;
    for (offset, is_newer) in [(0, true), (49, true), (50, false)] {
        let mut socket = node.connect().await;
        let since = json!({"epoch": epoch, "offset": offset});
        socket.subscribe(json!([{"topic": "a", "mode": "latest", "since": since}])).await;
        if is_newer {
            socket.expect_numbers("a", 50..=50).await;
        }
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_place_that_never_was_is_a_reset_and_the_current_value() {
    let node = Node::start().await;
    let epoch = fifty(&node).await;
    for (since, reason) in [
        (json!({"epoch": "zzzz", "offset": 5}), "unknown_epoch"),
        (json!({"epoch": "zzzz", "offset": 50}), "unknown_epoch"),
        (json!({"epoch": epoch, "offset": 51}), "offset_ahead"),
        (json!({"epoch": epoch, "offset": u64::MAX}), "offset_ahead"),
    ] {
        for mode in ["all", "latest"] {
            let mut socket = node.connect().await;
            socket.subscribe(json!([{"topic": "a", "mode": mode, "since": since}])).await;
            expect_reset(&mut socket, &epoch, 50, reason).await;
            socket.expect_numbers("a", 50..=50).await;
            socket.expect_quiet().await;
        }
    }
    assert_eq!(node.metric(r#"tickcast_resumes_total{result="reset"}"#).await, 8.0);
}

#[tokio::test]
async fn a_damaged_since_names_no_place() {
    let node = Node::start().await;
    let epoch = fifty(&node).await;
    for since in [
        json!({"epoch": "NOT BASE 36", "offset": 5}),
        json!({"epoch": epoch, "offset": -1}),
        json!({"epoch": epoch, "offset": "5"}),
        json!({"epoch": epoch, "offset": 1e30}),
        json!({"epoch": 5, "offset": 5}),
    ] {
        let mut socket = node.connect().await;
        let topics = json!([{"topic": "a", "since": since}]);
        socket.subscribe(topics).await;
        expect_reset(&mut socket, &epoch, 50, "unknown_epoch").await;
        socket.expect_numbers("a", 50..=50).await;
    }
}

#[tokio::test]
async fn a_reset_without_a_value_waits_for_the_next_publication() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    let since = json!({"epoch": "zzzz", "offset": 5});
    let topics = socket.subscribe(json!([{"topic": "a", "since": since}])).await;
    socket.expect_quiet().await;
    node.publish("a", "1").await;
    let epoch = topics[0]["epoch"].as_str().unwrap();
    expect_reset(&mut socket, epoch, 1, "unknown_epoch").await;
    socket.expect_numbers("a", 1..=1).await;
}

async fn expect_reset(socket: &mut Socket, epoch: &str, offset: u64, reason: &str) {
    let reset: Value =
        json!({"type": "reset", "topic": "a", "epoch": epoch, "offset": offset, "reason": reason});
    socket.expect(reset).await;
}
