//! Requests as an attacker sends them, byte by byte as they go over the wire: one table, one answer each, and after every
//! one of them the node serves as before.

use std::time::{Duration, Instant};

use serde_json::json;
use tickcast::config::{Config, Size};
use tokio::time::sleep;

use crate::harness::{Answer, Node, Opcode, Raw, frame};

const HOST: &str = "Host: localhost";
const KEY: &str = "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==";
const URI_BYTES: usize = 8 * 1024;
const HEADER_BYTES: usize = 16 * 1024;

/// What a request is answered with.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// This status and a body of its own.
    Served(u16),
    /// A problem document with this code.
    Problem(u16, &'static str),
    /// This status and nothing else, from below the API; then the end.
    Bare(u16),
}
use Expected::{Bare, Problem, Served};

/// A request of these lines. A line that is empty ends the header, and what follows is the body.
async fn check(node: &Node, lines: &[&str], expected: Expected) -> Answer {
    check_bytes(node, (lines.join("\r\n") + "\r\n\r\n").as_bytes(), expected).await
}

async fn check_bytes(node: &Node, request: &[u8], expected: Expected) -> Answer {
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    let mut raw = node.raw().await;
    raw.write(request).await;
    let answer = raw.answer().await;
    match expected {
        Served(status) => assert_eq!(answer.status, status, "{shown}: {answer:?}"),
        Problem(status, code) => {
            assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{shown}");
        }
        Bare(status) => {
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{shown}: {answer:?}");
            assert!(raw.end().await.is_empty(), "nothing is read behind it: {shown}");
        }
    }
    assert_eq!(node.get("/healthz", "").await.status, 200, "after {shown}");
    answer
}

/// `GET` of a path, with a `Host`.
async fn get(node: &Node, target: &str, expected: Expected) -> Answer {
    check(node, &[&format!("GET {target} HTTP/1.1"), HOST], expected).await
}

/// The good handshake with the lines that begin with `name` replaced by others.
async fn handshake(node: &Node, name: &str, lines: &[&str], expected: Expected) {
    let kept = Raw::HANDSHAKE.iter().filter(|line| !line.starts_with(name)).copied();
    let (first, rest): (Vec<&str>, Vec<&str>) = kept
        .chain(lines.iter().copied())
        .partition(|line| line.ends_with("HTTP/1.1") || line.ends_with("HTTP/1.0"));
    check(node, &[first, rest].concat(), expected).await;
}

#[tokio::test]
async fn a_header_and_its_parts_have_bounds() {
    let node = Node::start().await;
    let target = |length: usize| format!("/v1/ws?{}", "x".repeat(length - "/v1/ws?".len()));
    get(&node, &target(URI_BYTES), Problem(400, "bad_option")).await;
    get(&node, &target(URI_BYTES + 1), Problem(414, "uri_too_long")).await;
    for target in ["/v1/topics/", "/v1/publish?", "/healthz?", "/nothing?"] {
        let target = format!("{target}{}", "x".repeat(URI_BYTES));
        get(&node, &target, Problem(414, "uri_too_long")).await;
        check(&node, &[&format!("POST {target} HTTP/1.1"), HOST], Problem(414, "uri_too_long"))
            .await;
    }
    // The rest of the header counts together with it.
    let head = ["GET /healthz HTTP/1.1", HOST, "X: "].join("\r\n");
    let line = |length: usize| format!("X: {}", "x".repeat(length - head.len() - 4));
    check(&node, &["GET /healthz HTTP/1.1", HOST, &line(HEADER_BYTES)], Served(200)).await;
    check(&node, &["GET /healthz HTTP/1.1", HOST, &line(HEADER_BYTES + 1)], Bare(431)).await;
    get(&node, &target(64 * 1024), Bare(431)).await;

    let lines: Vec<String> = (1..=100).map(|number| format!("X-{number}: 1")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let first = ["GET /healthz HTTP/1.1", HOST];
    check(&node, &[&first[..], &lines[..99]].concat(), Served(200)).await;
    check(&node, &[&first[..], &lines].concat(), Bare(431)).await;
}

#[tokio::test]
async fn a_query_of_64_kib_is_too_long_also_where_headers_may_be_larger() {
    let node =
        Node::with(|config: &mut Config| config.http.header_bytes = Size::new(256 * 1024)).await;
    for length in [60_000, 65_000] {
        let target = format!("/v1/ws?{}", "x".repeat(length));
        let answer = get(&node, &target, Problem(414, "uri_too_long")).await;
        assert!(answer.body.len() < 1000, "nobody gets it back");
    }
    // More than a request line can be at all.
    get(&node, &format!("/v1/ws?{}", "x".repeat(70_000)), Bare(414)).await;
}

#[tokio::test]
async fn every_request_says_whom_it_is_for() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    let bad = Problem(400, "bad_request");
    for (request, good) in [
        ("GET /healthz", Served(200)),
        ("GET /v1/topics/a", Served(200)),
        ("HEAD /nothing", Served(404)),
        ("OPTIONS /v1/topics/a", Served(204)),
        ("OPTIONS *", Served(204)),
        ("POST /v1/topics/a", Problem(400, "bad_json")),
        ("POST /v1/publish", Served(200)),
        ("PUT /v1/publish", Problem(405, "method_not_allowed")),
        ("GET /nothing", Problem(404, "not_found")),
    ] {
        let first = format!("{request} HTTP/1.1");
        let no_body = request.starts_with("HEAD");
        if !no_body {
            check(&node, &[&first, HOST], good).await;
            check(&node, &[&first, "Host: "], good).await;
            check(&node, &[&first, "Host: [::1]:8080"], good).await;
            check(&node, &[&first], bad).await;
            check(&node, &[&first, HOST, HOST], bad).await;
            check(&node, &[&first, HOST, "Host: other"], bad).await;
            check(&node, &[&first, "Host: a b"], bad).await;
            check(&node, &[&first, "Host: a/b"], bad).await;
            check(&node, &[&first, "Host: http://a"], bad).await;
        }
        // As load balancers ask whether a node is well.
        let old = format!("{request} HTTP/1.0");
        let expected = if no_body { continue } else { good };
        check(&node, &[&old], expected).await;
        check(&node, &[&old, HOST, HOST], bad).await;
    }
    check(&node, &["GET http://elsewhere/healthz HTTP/1.1", HOST], Served(200)).await;
    check(&node, &["CONNECT elsewhere:443 HTTP/1.1", HOST], Problem(404, "not_found")).await;
    check(&node, &["GET /healthz HTTP/2.0", HOST], Bare(400)).await;
}

/// Behind a request with both lengths nothing is read, whichever of them somebody in front goes by.
#[tokio::test]
async fn of_two_lengths_the_chunks_count_and_nothing_follows() {
    let node = Node::start().await;
    let smuggled = "POST /v1/topics/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
    let chunks = format!("1\r\n7\r\n0\r\n\r\n{smuggled}");
    let all = chunks.len();
    let both = [
        format!("Content-Length: {all}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {all}"),
        "Content-Length: 6\r\nTransfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 0".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: nonsense".to_owned(),
        "Content-Length: 6\r\nTransfer-Encoding: identity, chunked".to_owned(),
    ];
    for (offset, lengths) in (1..).zip(&both) {
        let mut raw = node.raw().await;
        let head = format!("POST /v1/topics/a HTTP/1.1\r\n{HOST}\r\n{lengths}\r\n\r\n");
        raw.write(head + &chunks).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(offset)), "{lengths}");
        assert_eq!(answer.header("connection"), Some("close"), "{lengths}");
        assert!(raw.end().await.is_empty(), "nothing is read behind it: {lengths}");
        assert_eq!(node.get("/v1/topics/a", "").await.json()["data"], 7, "the chunk");
    }
    // Also where the route takes no body.
    let mut raw = node.raw().await;
    let head = format!("GET /healthz HTTP/1.1\r\n{HOST}\r\n{}\r\n\r\n", both[0]);
    raw.write(head + &chunks).await;
    assert_eq!(raw.answer().await.header("connection"), Some("close"));
    assert!(raw.end().await.is_empty());
    assert_eq!(node.get("/v1/topics/smuggled", "").await.status, 404);

    for lengths in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 1",
        "Content-Length: -1",
        "Content-Length: 0x1",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \u{b}chunked",
        " Transfer-Encoding: chunked",
    ] {
        let head = format!("POST /v1/topics/b HTTP/1.1\r\n{HOST}\r\n{lengths}\r\n\r\n");
        check_bytes(&node, (head + &chunks).as_bytes(), Bare(400)).await;
    }
    // The largest number that there is, less than the ones above, is a length; it is larger than anything.
    let most =
        format!("POST /v1/topics/b HTTP/1.1\r\n{HOST}\r\nContent-Length: {}\r\n\r\n", u64::MAX);
    check_bytes(&node, (most + &chunks).as_bytes(), Bare(431)).await;
    let old = format!("POST /v1/topics/b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    check_bytes(&node, old.as_bytes(), Bare(400)).await;
    assert_eq!(node.get("/v1/topics/b", "").await.status, 404);
}

#[tokio::test]
async fn chunks_that_cannot_be_are_refused() {
    let node = Node::start().await;
    let head =
        format!("POST /v1/topics/a HTTP/1.1\r\n{HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunks in [
        "x\r\n1\r\n0\r\n\r\n",
        "-1\r\n1\r\n0\r\n\r\n",
        "+1\r\n1\r\n0\r\n\r\n",
        "0x1\r\n1\r\n0\r\n\r\n",
        "\r\n1\r\n0\r\n\r\n",
        "1 1\r\n1\r\n0\r\n\r\n",
        "1\n1\r\n0\r\n\r\n",
        "1\r1\r\n0\r\n\r\n",
        "1\r\n11\r\n0\r\n\r\n",
        "10000000000000001\r\n1\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n1\r\n0\r\n\r\n",
    ] {
        check_bytes(&node, (head.clone() + chunks).as_bytes(), Problem(400, "bad_json")).await;
    }
    // Extensions and trailers may be, in bounds. They are passed over.
    let good = "1;name=value\r\n1\r\n0\r\nX-Trailer: 1\r\n\r\n";
    check_bytes(&node, (head.clone() + good).as_bytes(), Served(200)).await;
    let long = format!("1;{}\r\n1\r\n0\r\n\r\n", "x".repeat(20 * 1024));
    check_bytes(&node, (head.clone() + &long).as_bytes(), Problem(400, "bad_json")).await;
    let trailers = format!("1\r\n1\r\n0\r\n{}\r\n", "X-Trailer: 1\r\n".repeat(2000));
    check_bytes(&node, (head.clone() + &trailers).as_bytes(), Problem(400, "bad_json")).await;
    // As large as it likes to be called, it is bounded by what comes.
    let huge = format!("7fffffffffffffff\r\n{}", "1".repeat(65_537));
    check_bytes(&node, (head + &huge).as_bytes(), Problem(413, "payload_too_large")).await;
}

/// What a client writes is quoted in details and, as far as it is a name, in bodies. No byte of it becomes a header.
#[tokio::test]
async fn nothing_of_a_request_becomes_a_header() {
    let node =
        Node::with(|config| config.cors.origins = vec!["https://a.example".to_owned()]).await;
    let injected = "a%0d%0aX-Injected:%20yes%0d%0a%0d%0abody";
    for (target, code) in [
        (format!("/v1/topics/{injected}"), "bad_topic"),
        (format!("/v1/topics/a?history={injected}"), "bad_option"),
        (format!("/v1/topics/a?{injected}=1"), "bad_option"),
        (format!("/v1/ws?topics={injected}"), "bad_topic"),
        (format!("/v1/ws?mode={injected}"), "bad_option"),
        (format!("/v1/ws?max_rate={injected}"), "bad_option"),
        (format!("/v1/ws?{injected}=1"), "bad_option"),
        ("/v1/topics/a%00b".to_owned(), "bad_topic"),
        ("/v1/topics/a%7fb".to_owned(), "bad_topic"),
        ("/v1/topics/a%ff".to_owned(), "bad_topic"),
        ("/v1/topics/%C3%A4".to_owned(), "bad_topic"),
    ] {
        let first = format!("GET {target} HTTP/1.1");
        let lines = [&[first.as_str()], &Raw::HANDSHAKE[1..]].concat();
        let answer = check(&node, &lines, Problem(400, code)).await;
        assert_eq!(answer.header("x-injected"), None, "{target}");
    }
    let answer = get(&node, &format!("/{injected}"), Problem(404, "not_found")).await;
    assert_eq!(answer.header("x-injected"), None);
    for line in ["Origin: https://a.example\rX-Injected: yes", "X: a\0b", "X Y: 1", ": 1", "X\r\n"]
    {
        check(&node, &["GET /healthz HTTP/1.1", HOST, line], Bare(400)).await;
    }
    // A line that goes on in the next one is a thing of the past.
    check(&node, &["GET /healthz HTTP/1.1", HOST, "X: a", " b"], Bare(400)).await;
    // Bytes beyond ASCII may stand in a value; what is not looked at does no harm.
    let bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \xff\xfe\r\n\r\n";
    check_bytes(&node, bytes, Served(200)).await;
}

#[tokio::test]
async fn paths_lead_nowhere_but_to_routes() {
    let node = Node::start().await;
    node.publish("a", "1").await;
    for target in [
        "/",
        "//",
        "//v1/ws",
        "/v1//ws",
        "/v1/ws/",
        "/v1/./ws",
        "/v1/x/../ws",
        "/V1/ws",
        "/v1%2Fws",
        "/%2e%2e/etc/passwd",
        "/../../etc/passwd",
        "/v1/publish/..",
        "/healthz/",
        "/healthz;a=b",
        "/%00",
        "/v1/topics",
        "/metrics",
        "/admin/status",
    ] {
        get(&node, target, Problem(404, "not_found")).await;
    }
    for topic in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        ".",
        "a/..",
        "a/../b",
        "../../etc/passwd",
        "%2e%2e",
        "%2e%2e%2fa",
        "a%2f%2e%2e%2fb",
        "%2fa",
        "a%2f",
        "..%5ca",
        "a;b",
        "a%3fb",
        "%61%20",
        "$sys",
        "*",
        "a*",
        "%",
        "%4",
        "%zz",
        "a%25",
        "{a}",
        "a%7b",
    ] {
        get(&node, &format!("/v1/topics/{topic}"), Problem(400, "bad_topic")).await;
    }
    get(&node, "/v1/topics/%61", Served(200)).await;
}

#[tokio::test]
async fn request_lines_are_what_they_must_be() {
    let node = Node::start().await;
    // Bytes that are no ASCII, as they are.
    for (target, expected) in [
        (&b"/\xff\xfe"[..], [400, 404]),
        (b"/v1/topics/\xc3\xa4", [400, 400]),
        (b"/v1/topics/a\xff", [400, 400]),
        (b"/healthz?\xff", [400, 200]),
        (b"/v1/ws?topics=\xc3\xa4", [400, 400]),
    ] {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let mut raw = node.raw().await;
        raw.write(&request).await;
        let status = raw.answer().await.status;
        assert!(expected.contains(&status), "{status} for {target:?}");
    }
    for first in [
        "GET  /healthz HTTP/1.1",
        "GET /healthz  HTTP/1.1",
        "GET /heal thz HTTP/1.1",
        "GET /healthz",
        "G\0T /healthz HTTP/1.1",
        "GET /healthz HTTP/1.1 x",
    ] {
        check(&node, &[first, HOST], Bare(400)).await;
    }
}

#[tokio::test]
async fn handshakes_that_are_none() {
    let node = Node::start().await;
    let bad = Problem(400, "bad_handshake");
    for keys in [
        &[][..],
        &[KEY, KEY],
        &[KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        &["Sec-WebSocket-Key: "],
        &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBg="],
        &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw"],
        &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDx=="],
        &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhX-w=="],
        &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==, x3JJHMbDL1EzLkh9GBhXDw=="],
    ] {
        handshake(&node, "Sec-WebSocket-Key", keys, bad).await;
    }
    let long = format!("Sec-WebSocket-Key: {}==", "A".repeat(8 * 1024));
    handshake(&node, "Sec-WebSocket-Key", &[&long], bad).await;
    handshake(&node, "Host", &[], bad).await;
    handshake(&node, "Host", &[HOST, HOST], bad).await;
    handshake(&node, "Connection", &[], bad).await;
    handshake(&node, "Connection", &["Connection: close"], bad).await;
    handshake(&node, "Upgrade", &["Upgrade: h2c"], bad).await;
    handshake(&node, "GET", &["GET /v1/ws HTTP/1.0"], bad).await;
    handshake(&node, "GET", &["POST /v1/ws HTTP/1.1"], Problem(405, "method_not_allowed")).await;
    for version in [&[][..], &["Sec-WebSocket-Version: 12"], &["Sec-WebSocket-Version: 13, 8"]] {
        handshake(&node, "Sec-WebSocket-Version", version, Problem(426, "bad_handshake")).await;
    }
    // An upgrade elsewhere is none.
    let elsewhere = [&["GET /healthz HTTP/1.1"], &Raw::HANDSHAKE[1..]].concat();
    check(&node, &elsewhere, Served(200)).await;
}

/// A request with a body becomes no WebSocket whose first frames are the body: what comes behind the header is read as
/// frames, and a body is none.
#[tokio::test]
async fn what_stands_behind_a_handshake_is_frames() {
    let node = Node::start().await;
    let ping = frame(true, Opcode::Text, r#"{"type":"ping"}"#);
    let head = Raw::HANDSHAKE.join("\r\n");
    let mut raw = node.raw().await;
    raw.write([format!("{head}\r\n\r\n").as_bytes(), &ping, &ping[..5]].concat()).await;
    assert_eq!(raw.answer().await.status, 101);
    assert_eq!(raw.value().await, json!({"type": "pong"}));
    raw.write(&ping[5..]).await;
    assert_eq!(raw.value().await, json!({"type": "pong"}));

    // A second request is no frame either.
    let mut raw = node.raw().await;
    raw.write(format!("{head}\r\n\r\nGET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.status, 101);
    assert_eq!(raw.closed().await, 1002);
}

#[tokio::test]
async fn publications_that_are_none() {
    let node = Node::with(|config| {
        config.limits.payload_bytes = Size::new(100);
        config.limits.batch_bytes = Size::new(2048);
        config.limits.batch_items = 20;
    });
    let node = node.await;
    let post = async |target: &str, headers: &str, body: &str, expected: Expected| {
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\n{HOST}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        check_bytes(&node, request.as_bytes(), expected).await
    };
    let bad_json = Problem(400, "bad_json");
    let topic = "/v1/topics/g";
    for (body, expected) in [
        ("", bad_json),
        (" ", bad_json),
        ("1 2", bad_json),
        ("{} x", bad_json),
        ("{\"a\":1}}", bad_json),
        ("\u{feff}1", bad_json),
        ("1\0", bad_json),
        (&"1".repeat(100), Served(200)),
        (&"1".repeat(101), Problem(413, "payload_too_large")),
    ] {
        post(topic, "", body, expected).await;
    }
    let deep = "[".repeat(50) + &"]".repeat(50);
    post(topic, "", &deep, Served(200)).await;
    let unsupported = Problem(415, "unsupported_media_type");
    for coding in ["gzip", "br", "identity, gzip", "gzip\r\nContent-Encoding: identity"] {
        post(topic, &format!("Content-Encoding: {coding}\r\n"), "1", unsupported).await;
    }
    let item = r#"{"topic":"g","data":1}"#;
    let many = |count: usize| vec![item; count].join("\n");
    post("/v1/publish", "", &many(20), Served(200)).await;
    post("/v1/publish", "", &many(21), Problem(413, "batch_too_large")).await;
    post("/v1/publish", "", &" ".repeat(2048), Served(200)).await;
    post("/v1/publish", "", &" ".repeat(2049), Problem(413, "batch_too_large")).await;
    post("/v1/publish", "", "[1", bad_json).await;
    let mixed = format!("{item}\n{{\"topic\":\"..\",\"data\":1}}");
    let results = post("/v1/publish", "", &mixed, Served(207)).await.json()["results"].clone();
    assert!(
        results[0]["offset"].is_u64() && results[1]["error"]["code"] == "bad_topic",
        "{results}"
    );
}

/// Ten thousand topics in one batch: in bounds it is one request like any other.
#[tokio::test]
async fn a_batch_of_ten_thousand_topics() {
    const COUNT: usize = 10_000;
    let node = Node::with(|config| config.limits.batch_items = COUNT).await;
    let items: Vec<String> =
        (0..COUNT).map(|number| format!(r#"{{"topic":"t.{number}","data":{number}}}"#)).collect();
    let answer = node.post("/v1/publish", "", &items.join("\n")).await;
    assert_eq!(
        (answer.status, answer.json()["results"].as_array().map(Vec::len)),
        (200, Some(COUNT))
    );
    for number in [0, COUNT / 2, COUNT - 1] {
        let answer = node.get(&format!("/v1/topics/t.{number}"), "").await;
        assert_eq!(answer.json()["data"], number);
    }
}

/// Whether it is published is a matter of how far it came; a retry with its key publishes it once.
#[tokio::test]
async fn a_publisher_that_hangs_up_has_published_once_at_most() {
    let node = Node::start().await;
    for round in 0..20_u64 {
        let mut raw = node.raw().await;
        let body = round.to_string();
        raw.write(format!(
            "POST /v1/topics/a HTTP/1.1\r\n{HOST}\r\nIdempotency-Key: {round}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        if round % 2 == 0 {
            raw.reset();
        } else {
            drop(raw);
        }
        let key = format!("Idempotency-Key: {round}\r\n");
        let answer = node.post("/v1/topics/a", &key, &body).await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(round + 1)));
    }
    // Half of a body is none.
    let mut raw = node.raw().await;
    raw.write(format!("POST /v1/topics/b HTTP/1.1\r\n{HOST}\r\nContent-Length: 2\r\n\r\n1")).await;
    drop(raw);
    node.until_metric(r#"tickcast_connections{transport="http"}"#, |open| open == 0.0).await;
    assert_eq!(node.get("/v1/topics/b", "").await.status, 404);
}

/// Who sends one byte at a time gets no more time than who sends none.
#[tokio::test]
async fn a_byte_now_and_then_is_no_request() {
    const BOUND: Duration = Duration::from_millis(500);
    let node = Node::with(|config| {
        config.http.header_timeout = BOUND;
        config.http.body_timeout = BOUND;
    });
    let node = node.await;
    let post = format!("POST /v1/topics/a HTTP/1.1\r\n{HOST}\r\n");
    for (before, drip, status) in [
        (String::new(), "G", None),
        ("GET /healthz HTTP/1.1\r\nX: ".to_owned(), "x", None),
        ("GET /healthz HTTP/1.1\r\n".to_owned(), "X: 1\r\n", None),
        // Empty lines before a request are passed over, but they are no request.
        (String::new(), "\r\n", None),
        (format!("{post}Content-Length: 1000\r\n\r\n"), "1", Some(408)),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n1\r\n", Some(408)),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n1;"), "x", Some(408)),
    ] {
        let started = Instant::now();
        let mut raw = node.raw().await;
        raw.write(&before).await;
        while raw.try_write(drip).await && started.elapsed() < BOUND * 4 {
            sleep(BOUND / 10).await; // A rate, and no wait for anything.
        }
        let elapsed = started.elapsed();
        assert!(elapsed >= BOUND && elapsed < BOUND * 4, "{before:?} {drip:?}: {elapsed:?}");
        let said = raw.end().await;
        match status {
            Some(status) => {
                let line = format!("HTTP/1.1 {status} ");
                assert!(said.starts_with(line.as_bytes()), "{}", String::from_utf8_lossy(&said));
            }
            None => assert!(!said.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&said)),
        }
    }
    assert_eq!(node.get("/v1/topics/a", "").await.status, 404);
}
