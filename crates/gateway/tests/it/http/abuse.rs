//! Requests as nobody should send them: slow, too large, ambiguous, many at once.

use std::time::{Duration, Instant};

use serde_json::json;
use tickcast::config::Config;

use crate::harness::Node;

const SHORT: Duration = Duration::from_millis(300);

fn impatient(config: &mut Config) {
    config.http.header_timeout = SHORT;
    config.http.body_timeout = SHORT;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let node = Node::with(impatient).await;
    let mut raw = node.raw().await;
    let started = Instant::now();
    raw.write("POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123")
        .await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.problem().as_str()), (408, "request_timeout"));
    assert!(started.elapsed() >= SHORT);
    assert_eq!(answer.header("connection"), Some("close"));
    raw.end().await;
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404);
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let node = Node::with(impatient).await;
    let mut silent = node.raw().await;
    let mut slow = node.raw().await;
    let mut idle = node.raw().await;
    slow.write("GET /healthz HTTP/1.1\r\nHost: loc").await;
    assert_eq!(idle.get("/healthz", "").await.status, 200);
    // Whether anything is said on the way out is hyper's affair; that they end is ours.
    silent.end().await;
    slow.end().await;
    assert!(idle.end().await.is_empty());
    node.until_metric(r#"tickcast_connections{transport="http"}"#, |open| open == 0.0).await;
}

#[tokio::test]
async fn a_websocket_is_not_subject_to_the_timeouts_of_http() {
    let node = Node::with(impatient).await;
    let mut socket = node.connect().await;
    let mut raw = node.raw().await;
    raw.end().await; // The header timeout has passed.
    socket.expect_quiet().await;
}

#[tokio::test]
async fn a_header_has_a_bound() {
    let node = Node::start().await;
    let mut raw = node.raw().await;
    let mut lines = vec!["GET /healthz HTTP/1.1", "Host: localhost"];
    let long = format!("X-Long: {}", "x".repeat(20 * 1024));
    lines.push(&long);
    raw.write_head(&lines).await;
    assert_eq!(raw.answer().await.status, 431);
    raw.end().await;

    let mut raw = node.raw().await;
    let many: Vec<String> = (0..150).map(|n| format!("X-{n}: 1")).collect();
    let lines = ["GET /healthz HTTP/1.1", "Host: localhost"].into_iter();
    let lines: Vec<&str> = lines.chain(many.iter().map(String::as_str)).collect();
    raw.write_head(&lines).await;
    assert_eq!(raw.answer().await.status, 431);

    let mut raw = node.raw().await;
    let target = format!("GET /v1/ws?topics={} HTTP/1.1", "x".repeat(64 * 1024));
    raw.write_head(&[target.as_str(), "Host: localhost"]).await;
    let status = raw.answer().await.status;
    assert!([414, 431].contains(&status), "{status}");
}

#[tokio::test]
async fn a_request_of_ambiguous_length_is_refused() {
    let node = Node::start().await;
    let smuggled =
        "0\r\n\r\nPOST /v1/topics/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
    for lengths in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", smuggled.len()),
        "Content-Length: 1\r\nContent-Length: 2".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
        "Content-Length: +5".to_owned(),
    ] {
        let mut raw = node.raw().await;
        raw.write(format!("POST /v1/topics/a HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n{smuggled}"))
            .await;
        assert_eq!(raw.answer().await.status, 400, "{lengths}");
        assert!(raw.end().await.is_empty(), "nothing is read behind it: {lengths}");
    }
    assert_eq!(node.get("/v1/topics/smuggled", "").await.status, 404);
}

#[tokio::test]
async fn a_body_may_come_in_chunks() {
    let node = Node::start().await;
    let mut raw = node.raw().await;
    raw.write("POST /v1/topics/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for chunk in ["5\r\n{\"px\"\r\n", "1\r\n:\r\n", "5\r\n 1.10\r\n", "1\r\n}\r\n0\r\n\r\n"] {
        raw.write(chunk).await;
    }
    assert_eq!(raw.answer().await.status, 200);
    assert!(node.get("/v1/topics/a", "").await.text().ends_with("\"data\":{\"px\": 1.10}}\n"));

    // The bound holds for what comes, not for what was announced.
    raw.write("POST /v1/topics/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    raw.write(format!("11170\r\n{}", "1".repeat(70_000))).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_compressed_body_is_not_unpacked() {
    let node = Node::start().await;
    let answer = node.post("/v1/topics/a", "Content-Encoding: gzip\r\n", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported_media_type"));
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
    assert_eq!(node.post("/v1/topics/a", "Content-Encoding: identity\r\n", "1").await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start().await;
    let mut socket = node.connect().await;
    socket.subscribe(json!(["a"])).await;
    let mut raw = node.raw().await;
    let requests = (1..=100).map(|number: u64| {
        let body = number.to_string();
        format!(
            "POST /v1/topics/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    raw.write(requests.collect::<String>()).await;
    for offset in 1..=100 {
        let answer = raw.answer().await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(offset)));
    }
    socket.expect_numbers("a", 1..=100).await;
    // The connection goes on.
    assert_eq!(raw.get("/v1/topics/a", "").await.json()["data"], 100);
}

#[tokio::test]
async fn a_refused_request_takes_its_unread_body_with_it() {
    let node = Node::start().await;
    let mut raw = node.raw().await;
    let inner = "GET /v1/topics/a HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = 100_000 + inner.len();
    raw.write(format!(
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{inner}"
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert!(raw.end().await.is_empty(), "the body is not taken for a request");
}

#[tokio::test]
async fn nonsense_is_refused() {
    let node = Node::start().await;
    for nonsense in [
        "\x16\x03\x01\x02\x00\x01\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut raw = node.raw().await;
        raw.write(nonsense).await;
        let answer = raw.end().await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    assert_eq!(node.get("/healthz", "").await.status, 200);
}
