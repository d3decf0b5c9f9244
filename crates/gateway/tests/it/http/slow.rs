//! Bodies that come slowly and answers that nobody takes: how much of a node's memory they may hold together.

use std::time::{Duration, Instant};

use serde_json::json;
use tickcast::config::{Config, Size};
use tokio::time::sleep;

use crate::harness::{Node, Raw};

const MIB: usize = 1024 * 1024;
const REQUESTS: &str = r#"tickcast_http_held_bytes{what="request"}"#;
const ANSWERS: &str = r#"tickcast_http_held_bytes{what="answer"}"#;
const HTTP: &str = r#"tickcast_connections{transport="http"}"#;

fn tight(config: &mut Config) {
    config.http.memory = Size::new(MIB);
    config.limits.batch_bytes = Size::new(2 * MIB);
    config.http.body_timeout = Duration::from_secs(60);
}

/// Begins a batch of white space and gives so much of it.
async fn begin(node: &Node, length: usize, given: usize) -> Raw {
    let mut raw = node.raw().await;
    raw.write(format!("POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"))
        .await;
    raw.write(vec![b' '; given]).await;
    raw
}

async fn refused(node: &Node, what: &str) -> f64 {
    node.metric(&format!("tickcast_http_held_refused_total{{what=\"{what}\"}}")).await
}

fn expect_refused(answer: &crate::harness::Answer) {
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    let seconds = answer.header("retry-after").and_then(|text| text.parse().ok());
    assert!(seconds.is_some_and(|seconds: u32| (1..=10).contains(&seconds)), "{answer:?}");
}

#[tokio::test]
async fn bodies_that_come_slowly_have_one_bound() {
    const HALF: usize = MIB / 2;
    let node = Node::with(tight).await;
    assert_eq!(node.metric("tickcast_http_held_max_bytes").await, MIB as f64);
    let mut first = begin(&node, HALF, HALF - 1).await;
    let second = begin(&node, HALF, HALF - 1).await;
    let all = 2.0 * (HALF - 1) as f64;
    node.until_metric(REQUESTS, |held| held == all).await;
    // Two bytes are left; who needs more is sent away, and told when to come back.
    let mut third = begin(&node, 100_000, 50_000).await;
    let answer = third.answer().await;
    expect_refused(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!((node.metric(REQUESTS).await, refused(&node, "request").await), (all, 1.0));
    // Who comes in one piece is not concerned, nor are readers.
    for number in 1..=20 {
        assert_eq!(node.publish("a", &number.to_string()).await["offset"], number);
    }
    assert_eq!(node.get("/v1/topics/a?history=20", "").await.status, 200);
    // Those who were there first may end, and leave room.
    first.write(" ").await;
    assert_eq!(first.answer().await.json(), json!({"results": []}));
    node.until_metric(REQUESTS, |held| held == all / 2.0).await;
    let mut fourth = begin(&node, 100_000, 50_000).await;
    fourth.write(vec![b' '; 50_000]).await;
    assert_eq!(fourth.answer().await.status, 200);
    second.reset();
    node.until_metric(REQUESTS, |held| held == 0.0).await;
}

#[tokio::test]
async fn a_body_that_is_alone_may_be_larger_than_the_bound() {
    let node = Node::with(tight).await;
    let mut raw = begin(&node, 2 * MIB, MIB + MIB / 2).await;
    node.until_metric(REQUESTS, |held| held == 1.5 * MIB as f64).await;
    expect_refused(&begin(&node, 100_000, 50_000).await.answer().await);
    raw.write(vec![b' '; MIB / 2]).await;
    assert_eq!(raw.answer().await.status, 200);
    node.until_metric(REQUESTS, |held| held == 0.0).await;
}

/// A topic whose history is larger than what sockets take, and smaller than the bound.
async fn large_history(node: &Node) -> String {
    let payload = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..10 {
        node.publish("large", &payload).await;
    }
    "GET /v1/topics/large?history=10 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()
}

#[tokio::test]
async fn answers_that_are_not_taken_have_one_bound() {
    let node = Node::with(tight).await;
    let request = large_history(&node).await;
    let mut stuck = node.raw().await;
    stuck.write(&request).await;
    node.until_metric(ANSWERS, |held| held > 600_000.0).await;
    let held = node.metric(ANSWERS).await;
    let mut late = node.raw().await;
    late.write(&request).await;
    expect_refused(&late.answer().await);
    assert_eq!((node.metric(ANSWERS).await, refused(&node, "answer").await), (held, 1.0));
    // The connection goes on; small answers and publishers are not concerned.
    assert_eq!(late.get("/healthz", "").await.status, 200);
    for number in 1..=20 {
        assert_eq!(node.publish("a", &number.to_string()).await["offset"], number);
        assert_eq!(node.get("/v1/topics/a", "").await.json()["data"], number);
    }
    // Once it is taken there is room, for one at a time.
    assert_eq!(stuck.answer().await.json()["publications"].as_array().map(Vec::len), Some(10));
    node.until_metric(ANSWERS, |held| held == 0.0).await;
    for _ in 0..5 {
        late.write(&request).await;
        assert_eq!(late.answer().await.status, 200);
    }
    node.until_metric(ANSWERS, |held| held == 0.0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_goes_with_its_connection() {
    let node = Node::with(|config| {
        tight(config);
        // Also for HTTP, where nothing else ends it.
        config.websocket.user_timeout = Duration::from_secs(2);
    });
    let node = node.await;
    let request = large_history(&node).await;
    let mut stuck = node.raw().await;
    stuck.write(&request).await;
    node.until_metric(ANSWERS, |held| held > 600_000.0).await;
    node.until_metric(ANSWERS, |held| held == 0.0).await;
    node.until_metric(HTTP, |open| open == 0.0).await;
    drop(stuck);
}

#[tokio::test]
async fn who_takes_an_answer_byte_by_byte_has_no_more_time_than_others() {
    const BOUND: Duration = Duration::from_secs(1);
    const CUT: &str = "tickcast_http_answers_cut_total";
    let node = Node::with(|config| {
        tight(config);
        config.http.answer_timeout = BOUND;
    });
    let node = node.await;
    let request = large_history(&node).await;
    let started = Instant::now();
    let mut slow = node.raw().await;
    slow.write(&request).await;
    slow.begin(100).await;
    while node.metric(CUT).await == 0.0 {
        assert!(started.elapsed() < BOUND * 10, "it goes on");
        slow.begin(100).await;
        sleep(BOUND / 20).await; // A rate, and no wait for anything.
    }
    assert!(started.elapsed() >= BOUND, "{:?}", started.elapsed());
    node.until_metric(ANSWERS, |held| held == 0.0).await;
    assert!(slow.end().await.len() < 600_000, "it has not got all");
    // Who takes it in time may ask again and again, for longer than that.
    let mut quick = node.raw().await;
    let started = Instant::now();
    while started.elapsed() < BOUND * 2 {
        quick.write(&request).await;
        assert_eq!(quick.answer().await.status, 200);
    }
    assert_eq!(node.metric(CUT).await, 1.0);
}
