//! Reading over HTTP: the last value, history, validators, and what browsers and load balancers ask.

use serde_json::json;
use tickcast::config::Config;

use crate::harness::Node;

#[tokio::test]
async fn the_last_value_is_read_as_it_was_published() {
    let node = Node::start().await;
    let answer = node.get("/v1/topics/a", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "no_value"));
    for n in 1..=20 {
        node.publish("a", &format!("{{\"n\": {n}.00}}")).await;
        let text = node.get("/v1/topics/a", "").await.text();
        assert!(
            text.contains(&format!("\"offset\":{n},")),
            "a publisher reads its own writes: {text}"
        );
        assert!(text.ends_with(&format!("\"data\":{{\"n\": {n}.00}}}}\n")), "{text}");
    }
}

#[tokio::test]
async fn a_reader_that_has_the_value_gets_no_second_one() {
    let node = Node::start().await;
    let published = node.publish("a", "1").await;
    let tag = format!("\"{}:1\"", published["epoch"].as_str().unwrap());
    let answer = node.get("/v1/topics/a", "").await;
    assert_eq!(
        (answer.header("etag"), answer.header("cache-control")),
        (Some(tag.as_str()), Some("no-cache"))
    );
    for held in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let answer = node.get("/v1/topics/a", &format!("If-None-Match: {held}\r\n")).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{held}");
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    node.publish("a", "2").await;
    let answer = node.get("/v1/topics/a", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((answer.status, &answer.json()["data"]), (200, &json!(2)));
}

#[tokio::test]
async fn history_is_what_was_published_oldest_first() {
    let node = Node::with(|config| config.topics.defaults.history = 5).await;
    node.publish_numbers("a", 1..=8).await;
    let read = async |query: &str| node.get(&format!("/v1/topics/a?history={query}"), "").await;
    let body = read("3").await.json();
    let publications: Vec<_> = (6..=8).map(|n| json!({"offset": n, "data": n})).collect();
    assert_eq!((&body["offset"], &body["publications"]), (&json!(8), &json!(publications)));
    assert_eq!(read("5").await.json()["publications"].as_array().map(Vec::len), Some(5));
    assert_eq!(read("0").await.json()["publications"], json!([]));
    for query in ["6", "-1", "all", ""] {
        let answer = read(query).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_option"), "{query}");
    }
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let answer = node.get("/v1/topics/a", "").await;
    let mut raw = node.raw().await;
    raw.write_head(&["HEAD /v1/topics/a HTTP/1.1", "Host: localhost"]).await;
    let head = raw.head().await;
    assert_eq!(head.status, 200);
    for name in ["content-length", "content-type", "etag"] {
        assert_eq!(head.header(name), answer.header(name), "{name}");
    }
    // Nothing of a body is in front of the next answer.
    raw.write_head(&["HEAD /healthz HTTP/1.1", "Host: localhost"]).await;
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(raw.get("/v1/topics/a", "").await.body, answer.body);
}

#[tokio::test]
async fn what_is_not_there_says_what_is() {
    let node = Node::start().await;
    for path in
        ["/", "/v1", "/v1/topics", "/v2/publish", "/metrics", "/admin/", "//v1/ws", "/v1/publish/"]
    {
        let answer = node.get(path, "").await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"), "{path}");
    }
    for (request, allow) in [
        ("DELETE /v1/topics/a", "GET, HEAD, POST, OPTIONS"),
        ("GET /v1/publish", "POST, OPTIONS"),
        ("PUT /v1/ws", "GET, OPTIONS"),
        ("POST /healthz", "GET, HEAD, OPTIONS"),
    ] {
        let mut raw = node.raw().await;
        raw.write_head(&[&format!("{request} HTTP/1.1"), "Host: localhost", "Content-Length: 0"])
            .await;
        let answer = raw.answer().await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (405, "method_not_allowed"),
            "{request}"
        );
        assert_eq!(answer.header("allow"), Some(allow), "{request}");
    }
}

fn with_pages(config: &mut Config) {
    config.cors.origins = vec!["https://app.example".to_owned()];
}

#[tokio::test]
async fn pages_ask_before_they_publish() {
    let node = Node::with(with_pages).await;
    let preflight = async |origin: &str| {
        let mut raw = node.raw().await;
        let lines = [
            "OPTIONS /v1/topics/a HTTP/1.1",
            "Host: localhost",
            "Access-Control-Request-Method: POST",
        ];
        raw.write_head(&[&lines[..], &[&format!("Origin: {origin}")]].concat()).await;
        raw.answer().await
    };
    let answer = preflight("https://app.example").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .is_some_and(|methods| methods.contains("POST"))
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .is_some_and(|names| names.contains("idempotency-key"))
    );
    assert_eq!(answer.header("vary"), Some("origin"));
    assert_eq!(preflight("https://evil.example").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn pages_of_other_origins_publish_nothing() {
    let node = Node::with(with_pages).await;
    let answer = node.post("/v1/topics/a", "Origin: https://evil.example\r\n", "1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "bad_origin"));
    let answer = node.post("/v1/publish", "Origin: null\r\n", "[]").await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "bad_origin"));
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404);

    let answer = node.post("/v1/topics/a", "Origin: https://app.example\r\n", "1").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let answer = node.get("/v1/topics/b", "Origin: https://app.example\r\n").await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example"),
        "problems too"
    );
}

#[tokio::test]
async fn load_balancers_are_told_little() {
    let node = Node::start().await;
    let answer = node.get("/healthz", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"status\":\"ok\"}\n"));
}
