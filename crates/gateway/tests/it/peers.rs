//! Who a connection belongs to, as the log says it: with proxies in front that are trusted, and with others.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exposition;
use crate::harness::{Opcode, Raw, frame, until};
use crate::program::Program;

const REJECTED: &str = r#"tickcast_connections_rejected_total{reason="proxy"}"#;

/// The header of the PROXY protocol for a client of IPv4.
pub(crate) fn tcp4(address: [u8; 4]) -> Vec<u8> {
    let rest = [&address[..], &[127, 0, 0, 1], &[0x30, 0x39], &[0, 80]].concat();
    header(0x21, 0x11, &rest)
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
}

fn program(proxy_protocol: &str, trusted: &str) -> Program {
    Program::serve(&[
        ("server.proxy_protocol", proxy_protocol),
        ("server.trusted_proxies", trusted),
        ("log.filter", "info,tickcast=debug"),
        ("drain.delay", "0ms"),
    ])
}

const OPENED: &str = "a WebSocket connection is open";

/// The events of the log with this message.
fn events(program: &Program, message: &str) -> Vec<Value> {
    let log = program.log();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["message"] == message).collect()
}

fn client(event: &Value) -> String {
    event["client"].as_str().expect("an address").to_owned()
}

/// The clients of all WebSocket connections so far.
fn clients(program: &Program) -> Vec<String> {
    events(program, OPENED).iter().map(client).collect()
}

/// Waits until so many connections are open, and gives the client of the last one.
async fn last_client(program: &Program, count: usize) -> String {
    until("line in the log", || async { clients(program).len() >= count }).await;
    clients(program).pop().expect("at least one")
}

/// Opens a WebSocket with these bytes before its request, and this line in it.
async fn open(program: &Program, before: &[u8], line: &str) -> Raw {
    let mut raw = Raw::connect(program.address).await;
    raw.write(before).await;
    let lines: Vec<_> = Raw::HANDSHAKE.iter().copied().chain([line]).collect();
    raw.write_head(&lines).await;
    assert_eq!(raw.answer().await.status, 101);
    raw
}

async fn metric(program: &Program, series: &str) -> f64 {
    let text = Raw::connect(program.admin).await.get("/metrics", "").await.text();
    exposition::value(&text, series).expect("it is there")
}

/// A connection that begins like this is closed without an answer.
async fn closed(program: &Program, bytes: &[u8]) {
    let mut raw = Raw::connect(program.address).await;
    raw.write(bytes).await;
    assert_eq!(raw.end().await, b"");
}

#[tokio::test]
async fn the_proxy_says_whose_connection_it_is() {
    let program = program("required", "127.0.0.1");
    let _four = open(&program, &tcp4([192, 0, 2, 7]), "X-Forwarded-For: 1.1.1.1").await;
    assert_eq!(last_client(&program, 1).await, "192.0.2.7", "and not the header of the request");

    let mut rest = [0; 36];
    rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    rest[15] = 9;
    let _six = open(&program, &header(0x21, 0x21, &rest), "X-Nothing: 1").await;
    assert_eq!(last_client(&program, 2).await, "2001:db8::9");

    // The proxy itself: its health check, a request like any other.
    let mut check = Raw::connect(program.address).await;
    check.write(header(0x20, 0, &[])).await;
    assert_eq!(check.get("/healthz", "").await.status, 200);
    let _local = open(&program, &header(0x20, 0, &[]), "X-Nothing: 1").await;
    assert_eq!(last_client(&program, 3).await, "127.0.0.1");

    // In pieces, as networks do.
    let mut slow = Raw::connect(program.address).await;
    for byte in tcp4([192, 0, 2, 8]) {
        slow.write([byte]).await;
    }
    slow.upgrade().await;
    assert_eq!(last_client(&program, 4).await, "192.0.2.8");
    assert_eq!(metric(&program, REJECTED).await, 0.0);
}

#[tokio::test]
async fn a_connection_without_a_good_header_is_closed() {
    let program = program("required", "127.0.0.0/8");
    closed(&program, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    closed(&program, b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\n\r\n").await;
    closed(&program, &header(0x21, 0x12, &[0; 12])).await;
    closed(&program, &header(0x21, 0x11, &[0; 60_000])).await;
    until("count", || async { metric(&program, REJECTED).await == 4.0 }).await;
    let http = r#"tickcast_connections{transport="http"}"#;
    until("end", || async { metric(&program, http).await == 0.0 }).await;
}

#[tokio::test]
async fn a_header_that_does_not_come_is_waited_for_two_seconds() {
    let program = program("required", "127.0.0.1");
    let started = Instant::now();
    let mut silent = Raw::connect(program.address).await;
    let mut partial = Raw::connect(program.address).await;
    partial.write(&tcp4([192, 0, 2, 7])[..20]).await;
    assert_eq!((silent.end().await, partial.end().await), (Vec::new(), Vec::new()));
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(1900), "{elapsed:?}");
    // The timeout for a request's header, ten seconds, is another one.
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    until("count", || async { metric(&program, REJECTED).await == 2.0 }).await;
}

#[tokio::test]
async fn a_header_from_anybody_else_is_no_help() {
    let program = program("required", "192.0.2.1, 10.0.0.0/8, fd00::/8");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    closed(&program, &[&tcp4([10, 0, 0, 1])[..], request].concat()).await;
    closed(&program, request).await;
    until("count", || async { metric(&program, REJECTED).await == 2.0 }).await;
    assert_eq!(clients(&program), [""; 0]);
}

/// The warnings of the log that begin like this.
fn warnings(program: &Program, beginning: &str) -> Vec<Value> {
    let log = program.log();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let is_it = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["level"] == "WARN" && message.starts_with(beginning)
    };
    events.filter(is_it).collect()
}

#[tokio::test]
async fn the_log_warns_once_a_minute_of_connections_that_nobody_introduces() {
    const WARNING: &str = "a connection was closed because server.proxy_protocol is";
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (trusted, reason) in [("10.0.0.0/8", "it is no trusted proxy"), ("127.0.0.1", "")] {
        let program = program("required", trusted);
        for _ in 0..5 {
            closed(&program, request).await;
        }
        until("count", || async { metric(&program, REJECTED).await == 5.0 }).await;
        // Lines come in order: the last one of the debug level is there after all warnings.
        let line = "a connection that is not introduced by a trusted proxy is closed";
        until("lines", || async { program.log().matches(line).count() == 5 }).await;
        let said = warnings(&program, WARNING);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!((&said[0]["peer"], &said[0]["count"]), (&json!("127.0.0.1"), &json!(1)));
        assert!(reason.is_empty() || said[0]["reason"] == reason, "{said:?}");
    }
}

#[tokio::test]
async fn the_log_says_once_a_minute_which_origin_to_list() {
    let program = Program::serve(&[
        ("access.origins", "https://app.example"),
        ("log.filter", "info,tickcast=debug"),
    ]);
    let refused = async |origin: &str| {
        let mut raw = Raw::connect(program.address).await;
        let line = format!("Origin: {origin}");
        let lines: Vec<_> = Raw::HANDSHAKE.iter().copied().chain([&line[..]]).collect();
        raw.write_head(&lines).await;
        assert_eq!(raw.answer().await.status, 403);
    };
    for origin in ["https://shop.example:8443", "https://shop.example:8443", "null"] {
        refused(origin).await;
    }
    let line = "\"message\":\"a request was refused\"";
    until("lines", || async { program.log().matches(line).count() == 3 }).await;
    let said = warnings(&program, "a page was refused");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        said[0]["message"],
        "a page was refused because access.origins does not list its origin; \
         if it is yours, add \"https://shop.example:8443\" to it"
    );
    assert_eq!(said[0]["origin"], "https://shop.example:8443");
}

#[tokio::test]
async fn the_header_of_a_request_counts_from_a_trusted_proxy() {
    let program = program("off", "127.0.0.1, 10.0.0.0/8");
    let line = "X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.3";
    let _one = open(&program, b"", line).await;
    assert_eq!(last_client(&program, 1).await, "192.0.2.7");
    let _two = open(&program, b"", "X-Forwarded-For: 2001:db8::9").await;
    assert_eq!(last_client(&program, 2).await, "2001:db8::9");
    let _three = open(&program, b"", "X-Nothing: 1").await;
    assert_eq!(last_client(&program, 3).await, "127.0.0.1");
    // One connection of the proxy carries requests of many.
    let mut shared = Raw::connect(program.address).await;
    for client in ["192.0.2.20", "192.0.2.21"] {
        let key = format!("X-Forwarded-For: {client}\r\nAuthorization: Bearer nonsense\r\n");
        assert_eq!(shared.get("/v1/topics/a", &key).await.status, 401);
    }
    let refused = |client: &str| {
        let of = format!("\"message\":\"a request was refused\",\"client\":\"{client}\"");
        program.log().contains(&of)
    };
    until("lines", || async { refused("192.0.2.20") && refused("192.0.2.21") }).await;
    assert!(!program.log().contains("nonsense"), "{}", program.log());
}

/// A key that may publish to one topic.
const FEED: &str = "tck_feedAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A file with that key.
fn feed() -> tempfile::NamedTempFile {
    let keys = tempfile::NamedTempFile::new().expect("a file");
    let hash = tickcast::config::KeyHash::of(FEED);
    let text = format!("name = 'feed'\nhash = '{hash}'\nrights = ['publish']\ntopics = ['b']\n");
    std::fs::write(&keys, format!("[[access.key]]\n{text}")).expect("a file");
    keys
}

/// At the usual level of the log, where clients must not decide how much is written.
#[tokio::test]
async fn who_is_denied_something_is_told_of_once_in_a_while() {
    let keys = feed();
    let program =
        Program::serve(&[("access.keys_file", keys.path().to_str().expect("a plain path"))]);
    let key = format!("Authorization: Bearer {FEED}\r\n");
    for _ in 0..3 {
        for (key, status) in [("", 401), (key.as_str(), 403)] {
            let mut raw = Raw::connect(program.address).await;
            assert_eq!(raw.post("/v1/topics/a", key, "1").await.status, status);
        }
    }
    let refused = || {
        let log = program.log();
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let is_refusal = |event: &Value| {
            event["message"].as_str().is_some_and(|text| text.starts_with("somebody was refused"))
        };
        events.filter(is_refusal).collect::<Vec<_>>()
    };
    until("a line of each kind", || async { refused().len() >= 2 }).await;
    let events = refused();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert!(events.iter().all(|event| client(event) == "127.0.0.1" && event["count"] == 1));
    let names = [&events[0]["key"], &events[1]["key"]];
    assert_eq!(names, [&Value::Null, &Value::from("feed")]);
    let reason = "the key `feed` has the right `publish`, but not for `a`";
    assert_eq!(events[1]["reason"], reason);
    assert!(!program.log().contains(FEED), "{}", program.log());
}

#[tokio::test]
async fn who_is_denied_something_is_in_the_log() {
    let keys = feed();
    let program = Program::serve(&[
        ("server.proxy_protocol", "required"),
        ("server.trusted_proxies", "127.0.0.1"),
        ("access.keys_file", keys.path().to_str().expect("a plain path")),
        ("topics.subscribe", "closed"),
        ("log.filter", "info,tickcast=debug"),
    ]);
    let denied = || events(&program, "not allowed");

    let (feed, wrong) = (format!("Bearer {FEED}"), "Bearer nonsense".to_owned());
    let item = r#"{"topic":"a","data":1}"#;
    let requests = [
        ("GET /v1/topics/a", None, "", 401, None),
        ("POST /v1/topics/a", None, "1", 401, None),
        ("POST /v1/topics/a", Some(&feed), "1", 403, Some("feed")),
        ("POST /v1/publish", None, item, 401, None),
        ("POST /v1/publish", Some(&feed), item, 207, Some("feed")),
        ("POST /v1/publish", Some(&wrong), item, 401, None),
    ];
    for (number, (request, key, body, status, name)) in (1..).zip(requests) {
        let mut raw = Raw::connect(program.address).await;
        raw.write(tcp4([192, 0, 2, number])).await;
        let key = key.map(|key| format!("Authorization: {key}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}");
        raw.write(format!("{head}\r\n{key}\r\n{body}")).await;
        assert_eq!(raw.answer().await.status, status, "{request} {key}");
        until("line", || async { denied().len() == usize::from(number) }).await;
        let event = &denied()[usize::from(number) - 1];
        let expected = (format!("192.0.2.{number}"), name);
        assert_eq!((client(event), event["key"].as_str()), expected, "{event}");
    }
    let mut raw = Raw::connect(program.address).await;
    raw.write(tcp4([192, 0, 2, 7])).await;
    raw.write_head(&[Raw::HANDSHAKE, &[&format!("Authorization: {wrong}")]].concat()).await;
    assert_eq!(raw.answer().await.status, 401);
    until("line", || async { denied().len() == 7 }).await;
    assert_eq!(client(&denied()[6]), "192.0.2.7");

    // A WebSocket is named by two numbers, with which the log has its client.
    let _other = open(&program, &tcp4([192, 0, 2, 8]), "X-Nothing: 1").await;
    let mut socket = open(&program, &tcp4([192, 0, 2, 9]), "X-Nothing: 1").await;
    let commands = [
        json!({"type": "subscribe", "topics": ["a"]}),
        json!({"type": "publish", "topic": "b", "data": 1}),
        json!({"type": "auth", "token": "nonsense"}),
    ];
    for (command, count) in commands.iter().zip(8..) {
        socket.write(frame(true, Opcode::Text, command.to_string())).await;
        assert!(socket.value().await.to_string().contains("unauthorized"));
        until("line", || async { denied().len() == count }).await;
        let event = denied().pop().expect("at least one");
        let is_it = |opened: &&Value| {
            ["worker", "session"].iter().all(|name| opened[*name] == event[*name])
        };
        let opened = events(&program, OPENED);
        let opened: Vec<_> = opened.iter().filter(is_it).map(client).collect();
        assert_eq!(opened, ["192.0.2.9"], "{event}");
    }
    let line = format!("Authorization: {wrong}\r\n");
    assert_eq!(Raw::connect(program.admin).await.get("/admin/status", &line).await.status, 401);
    until("line", || async { denied().len() == 11 }).await;
    assert_eq!(client(&denied()[10]), "127.0.0.1");
    let log = program.log();
    assert!(!log.contains("nonsense") && !log.contains(&FEED[4..]), "{log}");
}

#[tokio::test]
async fn the_header_of_a_request_is_nothing_from_others() {
    let program = program("off", "10.0.0.0/8");
    let _one = open(&program, b"", "X-Forwarded-For: 10.0.0.1").await;
    assert_eq!(last_client(&program, 1).await, "127.0.0.1");
    // Without the PROXY protocol its header is no HTTP.
    let mut raw = Raw::connect(program.address).await;
    raw.write(tcp4([10, 0, 0, 1])).await;
    raw.write_head(Raw::HANDSHAKE).await;
    let said = String::from_utf8_lossy(&raw.end().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    assert_eq!(clients(&program).len(), 1);
}

#[test]
fn required_without_proxies_is_a_mistake() {
    let mut command = crate::program::command(&Program::ARGUMENTS);
    command.env("TICKCAST__SERVER__PROXY_PROTOCOL", "required");
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("without `server.trusted_proxies`"), "{said}");
}
