//! `docs/reference/openapi.yaml` says what nodes answer: nodes in every state are asked for every answer that stands in
//! it, and `tests/clients/openapi.py` holds what they say against it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use crate::handshake::{LINES, head};
use crate::packages::packages;
use crate::page::root;
use crate::program::{Program, command};
use crate::redis::Redis;

/// Time for an answer, and for a node to get into a state.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries per second while waiting for a state.
const GLANCE: Duration = Duration::from_millis(20);

const TOPIC: &str = "/v1/topics/{topic}";
const BATCH: &str = "/v1/publish";
const WEBSOCKET: &str = "/v1/ws";
const HEALTH: &str = "/healthz";

/// A request for every operation of the public listener.
const OPERATIONS: [(&str, &str); 5] = [
    (TOPIC, "POST /v1/topics/a"),
    (TOPIC, "GET /v1/topics/a"),
    (BATCH, "POST /v1/publish"),
    (WEBSOCKET, "GET /v1/ws"),
    (HEALTH, "GET /healthz"),
];

/// All answers so far.
#[derive(Debug, Default)]
struct Samples(Vec<Value>);

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Map<String, Value>,
    body: String,
}

impl Answer {
    /// The error code in it.
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that keeps its place.
fn connect(node: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(node).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    socket
}

/// Sends a request, such as `POST /v1/topics/a`, with header lines and a body.
fn send(node: SocketAddr, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut socket = connect(node);
    let mut text = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
    let has_length = headers.iter().any(|line| line.starts_with("Content-Length"));
    let length = format!("Content-Length: {}", body.len());
    let length = (!body.is_empty() && !has_length).then_some(length.as_str());
    for line in headers.iter().copied().chain(length) {
        text.extend([line, "\r\n"]);
    }
    text.extend(["\r\n", body]);
    // A node that is full answers before it is asked.
    drop(socket.write_all(text.as_bytes()));
    receive(socket, request)
}

/// Reads the answer to a request.
fn receive(socket: TcpStream, request: &str) -> Answer {
    let mut socket = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).expect("an answer");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let headers: Map<String, Value> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into()))
        .collect();
    let length = headers.get("content-length").and_then(Value::as_str).and_then(|n| n.parse().ok());
    let mut body = vec![0; length.filter(|_| !request.starts_with("HEAD")).unwrap_or(0)];
    socket.read_exact(&mut body).expect("the body");
    Answer { status, headers, body: String::from_utf8(body).expect("a text") }
}

impl Samples {
    /// Asks a node, keeps the answer as one of the operation at `path`, and checks its status.
    fn ask(
        &mut self,
        status: u16,
        (node, path): (SocketAddr, &str),
        request: &str,
        more: (&[&str], &str),
    ) -> String {
        let answer = send(node, request, more.0, more.1);
        assert_eq!(answer.status, status, "{request} {more:?}: {answer:?}");
        let code = answer.code();
        self.keep(path, request, answer);
        code
    }

    fn keep(&mut self, path: &str, request: &str, answer: Answer) {
        let method = request.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        let Answer { status, headers, body } = answer;
        self.0.push(json!({
            "path": path, "method": method, "status": status, "headers": headers, "body": body,
        }));
    }

    /// Asks until the answer is the one that is waited for; only that one is kept.
    fn ask_until(
        &mut self,
        node: SocketAddr,
        path: &str,
        request: (&str, &str),
        is_it: impl Fn(&Answer) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = send(node, request.0, &["Connection: close"], request.1);
            if is_it(&answer) {
                return self.keep(path, request.0, answer);
            }
            assert!(Instant::now() < deadline, "{request:?}: {answer:?}");
            std::thread::park_timeout(GLANCE);
        }
    }
}

/// A node that takes little, for the mistakes of its clients.
fn mistakes(samples: &mut Samples) {
    let node = Program::serve(&[
        ("limits.payload_bytes", "64B"),
        ("limits.batch_bytes", "1KiB"),
        ("limits.batch_items", "4"),
        ("limits.subscriptions_per_connection", "2"),
        ("http.body_timeout", "100ms"),
        ("access.origins", "https://a.example"),
    ]);
    publications(samples, node.address);
    batches(samples, node.address);
    handshakes(samples, node.address);
    let admin = node.admin;
    for path in ["/metrics", "/livez", "/readyz"] {
        samples.ask(200, (admin, path), &format!("GET {path}"), (&[], ""));
    }
    samples.ask(200, (admin, "/readyz"), "GET /readyz?for=subscribe", (&[], ""));
    samples.ask(400, (admin, "/readyz"), "GET /readyz?for=fun", (&[], ""));
    samples.ask(200, (node.address, HEALTH), "GET /healthz", (&[], ""));
    samples.ask(404, (admin, "/nothing"), "GET /nothing", (&[], ""));
    other_methods(samples, &node);
    rules_of_http(samples, node.address);
}

/// What is refused on every route before it is looked at.
fn rules_of_http(samples: &mut Samples, node: SocketAddr) {
    let long = "x".repeat(8 * 1024);
    for (path, request) in OPERATIONS {
        samples.ask(414, (node, path), &format!("{request}?{long}"), (&[], ""));
        samples.ask(400, (node, path), request, (&["Host: another"], ""));
    }
}

fn publications(samples: &mut Samples, node: SocketAddr) {
    let large = "1".repeat(65);
    let publish = "POST /v1/topics/a/b";
    let key = "Idempotency-Key: k";
    let cases: [(u16, &str, &[&str], &str); 13] = [
        (200, publish, &[key], "1"),
        (200, publish, &[key], "1"),
        (409, publish, &[key], "2"),
        (400, "POST /v1/topics/a%20b", &[], "1"),
        (400, "POST /v1/topics/a?b=c", &[], "1"),
        (400, publish, &["Idempotency-Key: a b"], "1"),
        (400, publish, &[], "hello"),
        (403, publish, &["Origin: https://b.example"], "1"),
        (408, publish, &["Content-Length: 9"], "1"),
        (413, publish, &[], &large),
        (415, publish, &["Content-Encoding: gzip"], "1"),
        (404, "GET /v1/topics/none", &[], ""),
        (400, "GET /v1/topics/a%2F%2Fb", &[], ""),
    ];
    for (status, request, headers, body) in cases {
        samples.ask(status, (node, TOPIC), request, (headers, body));
    }
    samples.ask(400, (node, TOPIC), "GET /v1/topics/a?limit=1", (&[], ""));
    samples.ask(200, (node, TOPIC), "GET /v1/topics/a/b?history=2", (&[], ""));
    samples.ask(200, (node, TOPIC), "GET /v1/topics/a%2Fb", (&[], ""));
    samples.ask(304, (node, TOPIC), "GET /v1/topics/a/b", (&["If-None-Match: *"], ""));
    samples.ask(404, (node, "/nothing"), "GET /nothing", (&[], ""));
}

fn batches(samples: &mut Samples, node: SocketAddr) {
    let publish = "POST /v1/publish";
    let item = r#"{"topic":"a","data":1,"key":"k"}"#;
    let large = format!(r#"[{{"topic":"a","data":"{}"}}]"#, "x".repeat(64));
    let huge = " ".repeat(1025);
    let many = "{\"topic\":\"a\",\"data\":1}\n".repeat(5);
    let cases: [(u16, &str, &[&str], &str); 13] = [
        (200, publish, &[], item),
        (207, publish, &[], r#"[{"topic":"a","data":2,"key":"k"},{"topic":"b"},{}]"#),
        (207, publish, &[], r#"[{"topic":"a b","data":2},{"topic":"b","data":2,"key":""}]"#),
        (207, publish, &[], &large),
        (400, "POST /v1/publish?a=b", &[], item),
        (400, publish, &["Idempotency-Key: a b"], item),
        (400, publish, &[], "[1"),
        (403, publish, &["Origin: https://b.example"], item),
        (408, publish, &["Content-Length: 99"], "["),
        (413, publish, &[], &huge),
        (413, publish, &[], &many),
        (415, publish, &["Content-Encoding: gzip"], item),
        (200, publish, &[], "[]"),
    ];
    for (status, request, headers, body) in cases {
        samples.ask(status, (node, BATCH), request, (headers, body));
    }
}

fn handshakes(samples: &mut Samples, node: SocketAddr) {
    let good = handshake();
    let old: Vec<&str> = good
        .iter()
        .map(|line| if line.ends_with("13") { "Sec-WebSocket-Version: 8" } else { line })
        .collect();
    let foreign = [good, &["Origin: https://b.example"]].concat();
    let cases: [(u16, &str, &[&str]); 7] = [
        (101, "GET /v1/ws?topics=a", good),
        (400, "GET /v1/ws", &[]),
        (400, "GET /v1/ws?topics=a%20b", good),
        (400, "GET /v1/ws?topic=a", good),
        (400, "GET /v1/ws?topics=a,b,c", good),
        (426, "GET /v1/ws", &old),
        (403, "GET /v1/ws", &foreign),
    ];
    for (status, request, headers) in cases {
        samples.ask(status, (node, WEBSOCKET), request, (headers, ""));
    }
}

/// The headers of a good handshake, without `Host`.
fn handshake() -> &'static [&'static str] {
    &LINES[2..]
}

/// What holds for all routes.
fn other_methods(samples: &mut Samples, node: &Program) {
    let public =
        [(TOPIC, "/v1/topics/a"), (BATCH, BATCH), (WEBSOCKET, WEBSOCKET), (HEALTH, HEALTH)];
    for (path, target) in public {
        samples.ask(405, (node.address, path), &format!("PUT {target}"), (&[], ""));
        assert_eq!(
            send(node.address, &format!("OPTIONS {target}"), &[], "").status,
            204,
            "{target}"
        );
    }
    for (listener, path) in [
        (node.address, HEALTH),
        (node.admin, "/metrics"),
        (node.admin, "/livez"),
        (node.admin, "/readyz"),
    ] {
        assert_eq!(send(listener, &format!("HEAD {path}"), &[], "").status, 200, "{path}");
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        samples.ask(405, (node.admin, path), &format!("PUT {path}"), (&[], ""));
    }
}

/// A node with keys: who has none, a wrong one, or too little.
fn keys(samples: &mut Samples) {
    // The SHA-256 of `tck_` and 43 times `A`.
    let file = NamedTempFile::new().expect("room on the disk");
    let settings = "\
        [access]\n\
        [[access.key]]\nname = \"feed\"\nrights = [\"publish\"]\ntopics = [\"a\"]\nrate = 1\n\
        hash = \"sha256:HASH\"\n\
        [[topics.pattern]]\nmatch = \"closed\"\nsubscribe = \"closed\"\n";
    std::fs::write(file.path(), settings.replace("HASH", HASH)).expect("room on the disk");
    let path = file.path().display().to_string();
    let node =
        Program::start(command(&[&Program::ARGUMENTS[..], &["--config", &path]].concat()), &[]);
    let bearer = format!("Authorization: Bearer tck_{}", "A".repeat(43));
    let wrong = "Authorization: Bearer tck_wrong";
    let (node, key) = (node.address, &[bearer.as_str()][..]);
    let item = r#"{"topic":"a","data":1}"#;
    samples.ask(401, (node, TOPIC), "POST /v1/topics/a", (&[], "1"));
    samples.ask(403, (node, TOPIC), "POST /v1/topics/b", (key, "1"));
    samples.ask(401, (node, TOPIC), "GET /v1/topics/closed", (&[], ""));
    samples.ask(403, (node, TOPIC), "GET /v1/topics/closed", (key, ""));
    samples.ask(401, (node, BATCH), "POST /v1/publish", (&[], item));
    samples.ask(207, (node, BATCH), "POST /v1/publish", (key, r#"{"topic":"b","data":1}"#));
    samples.ask(401, (node, WEBSOCKET), "GET /v1/ws", (&[handshake(), &[wrong]].concat(), ""));
    // Far more than the rate of a second: the balance stays below 0 for a while.
    let items = vec![item; 60].join("\n");
    samples.ask(200, (node, BATCH), "POST /v1/publish", (key, &items));
    samples.ask(429, (node, BATCH), "POST /v1/publish", (key, item));
    samples.ask(429, (node, TOPIC), "POST /v1/topics/a", (key, "1"));
}

/// `sha256` of the key above.
const HASH: &str = "197dc7ed7532d8304af43f66c2b3a374101974450a3340530cc7fcec7678066a";

/// Nodes at their bounds.
fn full(samples: &mut Samples) {
    let node = Program::serve(&[("broker.memory.topics_max", "1")]);
    samples.ask(200, (node.address, TOPIC), "POST /v1/topics/a", (&[], "1"));
    let code = samples.ask(503, (node.address, TOPIC), "POST /v1/topics/b", (&[], "1"));
    assert_eq!(code, "broker_full");
    samples.ask(207, (node.address, BATCH), "POST /v1/publish", (&[], r#"{"topic":"b","data":1}"#));

    let node = Program::serve(&[("server.max_connections", "1")]);
    let mut held = connect(node.address);
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("an open socket");
    let mut first = [0; 12];
    held.read_exact(&mut first).expect("an answer");
    for (path, request) in OPERATIONS {
        let code = samples.ask(503, (node.address, path), request, (&[], ""));
        assert_eq!(code, "too_many_connections");
    }

    let node = Program::serve(&[("limits.connections_per_address", "1")]);
    let held = connect(node.address);
    for (path, request) in OPERATIONS {
        let code = samples.ask(429, (node.address, path), request, (&[], ""));
        assert_eq!(code, "too_many_from_address");
    }
    drop(held);
}

/// A node whose Redis hangs, and then is gone.
fn without_redis(samples: &mut Samples) {
    let mut redis = Redis::start(&[]);
    let node = Program::serve(&[("broker.redis.url", &redis.url())]);
    let item = r#"{"topic":"a","data":1}"#;
    samples.ask_until(node.admin, "/readyz", ("GET /readyz", ""), |answer| answer.status == 200);
    redis.stop();
    let code = samples.ask(503, (node.address, TOPIC), "POST /v1/topics/a", (&[], "1"));
    assert_eq!(code, "outcome_unknown");
    samples.ask(207, (node.address, BATCH), "POST /v1/publish", (&[], item));
    redis.go_on();
    redis.kill();
    let is_down = |answer: &Answer| answer.code() == "broker_unavailable";
    samples.ask_until(node.address, TOPIC, ("POST /v1/topics/a", "1"), is_down);
    samples.ask_until(node.address, TOPIC, ("GET /v1/topics/a", ""), is_down);
    samples.ask(207, (node.address, BATCH), "POST /v1/publish", (&[], item));
    samples.ask_until(node.admin, "/readyz", ("GET /readyz", ""), |answer| answer.status == 503);
    samples.ask(200, (node.admin, "/readyz"), "GET /readyz?for=subscribe", (&[], ""));
}

/// What an operator does, and who is none.
fn operator(samples: &mut Samples) {
    let file = NamedTempFile::new().expect("room on the disk");
    let write = |text: &str| std::fs::write(file.path(), text).expect("room on the disk");
    write("[topics]\nhistory = 10\n");
    let path = file.path().display().to_string();
    let arguments = [&Program::ARGUMENTS[..], &["--config", &path]].concat();
    let node =
        Program::start(command(&arguments), &[("drain.delay", "1m"), ("drain.timeout", "2m")]);
    let actions = [
        (200, "/admin/status", "GET /admin/status"),
        (200, "/admin/reload", "POST /admin/reload"),
        (202, "/admin/drain", "POST /admin/drain"),
    ];
    for (_, path, request) in actions {
        samples.ask(403, (node.admin, path), request, (&["Origin: http://localhost"], ""));
        samples.ask(401, (node.admin, path), request, (&["Authorization: Bearer tck_wrong"], ""));
        samples.ask(405, (node.admin, path), &format!("PUT {path}"), (&[], ""));
    }
    write("[topics]\nhistroy = 20\n");
    samples.ask(422, (node.admin, "/admin/reload"), "POST /admin/reload", (&[], ""));
    write("[topics]\nhistory = 20\n[server]\nworkers = 3\n");
    for (status, path, request) in actions {
        samples.ask(status, (node.admin, path), request, (&[], ""));
    }
}

/// A node that leaves.
fn leaving(samples: &mut Samples) {
    let node = Program::serve(&[("drain.delay", "1m"), ("drain.timeout", "2m")]);
    node.terminate();
    samples.ask_until(node.address, HEALTH, ("GET /healthz", ""), |answer| answer.status == 503);
    samples.ask(503, (node.admin, "/readyz"), "GET /readyz?for=subscribe", (&[], ""));
}

/// A node that ends while connections wait to be let in.
fn ending(samples: &mut Samples) {
    let node = Program::serve(&[("server.accept_rate", "4"), ("drain.delay", "0ms")]);
    // As many publishers as are let in at once, 16 at everybody's pace and 16 at theirs, and a few that are not; then
    // clients, which are not either.
    let words = std::iter::repeat_n("POST ", 36).chain(std::iter::repeat_n("GET ", 10));
    let crowd: Vec<TcpStream> = words
        .map(|word| {
            let mut socket = connect(node.address);
            socket.write_all(word.as_bytes()).expect("an open socket");
            socket
        })
        .collect();
    let mut waiting: Vec<(TcpStream, &str, &str)> = OPERATIONS
        .iter()
        .map(|(path, request)| {
            let mut socket = connect(node.address);
            let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            socket.write_all(text.as_bytes()).expect("an open socket");
            (socket, *path, *request)
        })
        .collect();
    samples.ask_until(node.admin, "/metrics", ("GET /metrics", ""), |answer| {
        let waiting =
            answer.body.lines().find_map(|line| line.strip_prefix("tickcast_connections_waiting "));
        waiting
            .and_then(|count| count.parse().ok())
            .is_some_and(|count: usize| count >= OPERATIONS.len())
    });
    node.terminate();
    for (socket, path, request) in waiting.drain(..) {
        let answer = receive(socket, request);
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{request}");
        samples.keep(path, request, answer);
    }
    drop(crowd);
}

/// A node whose files are taken: by its clients, and by connections to the admin listener that say nothing.
fn without_files(samples: &mut Samples) {
    let mut shell = Command::new("bash");
    let limit = r#"ulimit -n 256; exec "$0" "$@""#;
    shell.env_clear().args(["-c", limit, env!("CARGO_BIN_EXE_tickcast")]).args(Program::ARGUMENTS);
    let node = Program::start(shell, &[("server.workers", "2")]);
    let silent: Vec<TcpStream> = (0..60).map(|_| connect(node.admin)).collect();
    let clients: Vec<TcpStream> = (0..191).map(|_| connect(node.address)).collect();
    samples.ask_until(node.admin, "/readyz", ("GET /readyz", ""), |answer| {
        answer.status == 503 && answer.body.contains("open_files")
    });
    drop((silent, clients));
}

/// A node with a worker that hangs for a while.
fn hanging(samples: &mut Samples) {
    const ORDER: &[u8] = br#"{"type":"hang","seconds":8}"#;
    let node = Program::start(command(&Program::ARGUMENTS), &[]);
    let mut socket = connect(node.address);
    socket.write_all(head(&LINES).as_bytes()).expect("an open socket");
    // A text frame, masked with nothing.
    let length = u8::try_from(ORDER.len()).expect("a short one");
    let head = [0x81, 0x80 | length, 0, 0, 0, 0];
    socket.write_all(&[&head, ORDER].concat()).expect("an open socket");
    samples.ask_until(node.admin, "/readyz", ("GET /readyz", ""), |answer| {
        answer.status == 503 && answer.body.contains("worker_hangs")
    });
}

#[test]
fn every_answer_is_documented_and_every_documented_answer_is_given() {
    let mut samples = Samples::default();
    mistakes(&mut samples);
    keys(&mut samples);
    full(&mut samples);
    without_redis(&mut samples);
    operator(&mut samples);
    leaving(&mut samples);
    ending(&mut samples);
    without_files(&mut samples);
    hanging(&mut samples);

    let mut judge = Command::new(packages().join("venv/bin/python"));
    judge.arg(root().join("crates/gateway/tests/clients/openapi.py"));
    judge.arg(root().join("docs/reference/openapi.yaml"));
    let mut judge = judge.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python");
    let lines: String = samples.0.iter().map(|sample| format!("{sample}\n")).collect();
    judge.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let output = judge.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_document_is_of_this_version() {
    let text = std::fs::read_to_string(root().join("docs/reference/openapi.yaml")).expect("there");
    assert!(text.contains(&format!("\n  version: {}\n", env!("CARGO_PKG_VERSION"))));
}
