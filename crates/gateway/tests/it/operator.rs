//! What an operator does to a node: through its admin listener, with the program's own verbs, and as systemd does.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;
#[cfg(feature = "testing")]
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
#[cfg(feature = "testing")]
use tokio_websockets::Message;

use tickcast::config::KeyHash;

use crate::harness::{Answer, Node, Raw, Socket, until};
use crate::program::{Program, command};

async fn get(program: &Program, target: &str) -> Answer {
    Raw::connect(program.admin).await.get(target, "").await
}

async fn post(program: &Program, target: &str) -> Answer {
    Raw::connect(program.admin).await.post(target, "", "").await
}

async fn subscriber(program: &Program) -> Socket {
    let mut socket = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(socket.value().await["type"], "subscribed");
    socket
}

/// Runs a verb beside the test.
fn start(arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// The exit code of a verb, and what it said.
async fn end(verb: Child) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(|| verb.wait_with_output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    end(start(arguments)).await
}

/// The first signal after a drain that was asked for is the supervisor's and changes nothing; the second ends the waiting.
async fn hurry_after_drain(program: &Program) {
    program.terminate();
    until("the first signal", || async { program.log().contains("drains already") }).await;
    program.terminate();
}

/// The events of the log with this message.
fn events(program: &Program, message: &str) -> Vec<Value> {
    let log = program.log();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    events.filter(|event| event["message"] == message).collect()
}

#[tokio::test]
async fn a_signal_after_an_operators_drain_leaves_it_its_time() {
    let mut program = Program::serve(&[("drain.delay", "1s"), ("drain.rate", "1")]);
    let mut sockets = [subscriber(&program).await, subscriber(&program).await];
    let url = format!("http://{}", program.admin);
    assert_eq!(run(&["drain", "--admin-url", &url]).await.0, Some(0));
    until("a node that knows", || async { program.log().contains("stopping") }).await;
    program.terminate();
    until("the first signal", || async { program.log().contains("drains already") }).await;
    // Hurried, the node would have closed both by now: they are told to go, and have four seconds beyond their time.
    for socket in &mut sockets {
        assert_eq!(socket.value().await["type"], "goaway");
    }
    for socket in &mut sockets {
        socket.expect_quiet().await;
    }
    drop(sockets);
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let log = program.log();
    assert!(!log.contains("closing all connections now"), "{log}");
    assert_eq!(
        events(&program, "stopping; a second signal ends the waiting")[0]["by"],
        "POST /admin/drain"
    );
    let stopped = &events(&program, "stopped")[0];
    assert_eq!((&stopped["followed"], &stopped["closed"]), (&json!(2), &json!(0)), "{log}");
}

#[tokio::test]
async fn a_third_signal_after_an_operators_drain_ends_the_program_at_once() {
    let mut program = Program::serve(&[("drain.delay", "10m"), ("drain.timeout", "20m")]);
    // It does not hang up when it is closed, so the node would wait for it.
    let mut silent = Raw::connect(program.address).await;
    silent.upgrade().await;
    assert_eq!(post(&program, "/admin/drain").await.status, 202);
    until("a node that knows", || async { program.log().contains("stopping") }).await;
    hurry_after_drain(&program).await;
    assert_eq!(silent.closed().await, 1012);
    program.terminate();
    assert_eq!(program.wait().code(), Some(1), "{}", program.log());
}

#[tokio::test]
async fn a_node_drains_when_its_admin_listener_is_told_to() {
    let mut program = Program::serve(&[("drain.delay", "10m"), ("drain.timeout", "20m")]);
    let mut socket = subscriber(&program).await;
    let status = get(&program, "/admin/status").await.json();
    assert_eq!(
        (&status["life"], &status["version"]),
        (&json!("serving"), &json!(env!("CARGO_PKG_VERSION")))
    );
    // A worker's number is that of its last turn.
    let one = json!({"http": 0, "websocket": 1});
    let connections = async || get(&program, "/admin/status").await.json()["connections"].take();
    until("the connection", || async { connections().await == one }).await;
    assert!(status["since"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{status}");
    assert_eq!(status["since"], status["started"], "{status}");

    let answer = post(&program, "/admin/drain").await;
    assert_eq!((answer.status, &answer.json()["life"]), (202, &json!("leaving")), "{answer:?}");
    assert_eq!(get(&program, "/readyz").await.status, 503, "it is true when the answer is there");
    // Asked again it goes on as before.
    assert_eq!(post(&program, "/admin/drain").await.status, 202);
    socket.expect_quiet().await;

    until("a node that knows", || async { program.log().contains("stopping") }).await;
    hurry_after_drain(&program).await;
    assert_eq!(socket.value().await["type"], "goaway");
    let later = get(&program, "/admin/status").await.json();
    assert_eq!((&later["life"], &later["started"]), (&json!("draining"), &status["started"]));
    assert!(later["since"].as_u64() > status["since"].as_u64(), "{later}");
    assert_eq!(socket.closed().await.0, 1012);
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn actions_take_post_and_questions_take_get() {
    let node = Node::start().await;
    for action in ["/admin/drain", "/admin/reload"] {
        let answer = node.admin(action).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{answer:?}");
    }
    assert_eq!(node.admin("/admin").await.status, 404);
    assert_eq!(node.admin("/admin/status").await.json()["life"], "serving");
    // It was started without a file or anything else that could be read again.
    let mut raw = Raw::connect(node.admin_address()).await;
    let answer = raw.post("/admin/reload", "", "").await;
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("bad_configuration")));
}

#[tokio::test]
async fn from_elsewhere_a_node_obeys_a_key_and_never_a_page() {
    const OPS: &str = "tck_opsAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let hash = KeyHash::of(OPS);
    let name = "name = 'ops'\nrights = ['admin']";
    writeln!(file, "[[access.key]]\n{name}\nhash = '{hash}'").unwrap();
    let path = file.path().to_str().unwrap();
    let listen = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"];
    let rest = ["--log-format", "json", "--config", path];
    let mut program = Program::start(command(&[&listen[..], &rest].concat()), &[]);
    program.admin.set_ip(Ipv4Addr::LOCALHOST.into());
    let url = format!("http://{}", program.admin);
    let (code, said) = run(&["drain", "--admin-url", &url]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the node refuses: unauthorized"), "{said}");
    // A probe needs no key.
    assert_eq!(run(&["health", "--admin-url", &url]).await.0, Some(0));
    let page = format!("Origin: {url}\r\nAuthorization: Bearer {OPS}\r\n");
    let answer = Raw::connect(program.admin).await.post("/admin/drain", &page, "").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(get(&program, "/readyz").await.status, 200);

    let (code, said) = run(&["drain", "--key", OPS, "--wait", "--admin-url", &url]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let asked = &events(&program, "an operator has asked for the end of the node")[0];
    assert_eq!((&asked["key"], &asked["client"]), (&json!("ops"), &json!("127.0.0.1")), "{asked}");
}

#[tokio::test]
async fn a_reload_answers_with_what_it_has_changed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[log]\nfilter = 'info'\n").unwrap();
    let arguments =
        [&Program::ARGUMENTS[..], &["--config", file.path().to_str().unwrap()]].concat();
    let program = Program::start(command(&arguments), &[]);
    std::fs::write(file.path(), "[websocket]\nping_interval = '5s'\n[server]\nworkers = 3\n")
        .unwrap();
    let answer = post(&program, "/admin/reload").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let reloaded =
        json!({"changed": ["websocket.ping_interval"], "needs_restart": ["server.workers"]});
    assert_eq!(answer.json(), reloaded);

    std::fs::write(file.path(), "[websocket]\nping_interval = 5\n[sever]\n").unwrap();
    let answer = post(&program, "/admin/reload").await;
    let document = answer.json();
    assert_eq!(
        (answer.status, &document["code"]),
        (422, &json!("bad_configuration")),
        "{document}"
    );
    let errors = document["errors"].as_array().unwrap();
    let names = |error: &Value, name| error.as_str().is_some_and(|text| text.contains(name));
    assert!(names(&errors[0], "sever") && names(&errors[1], "ping_interval"), "{document}");
    assert_eq!(get(&program, "/readyz").await.status, 200);
}

#[tokio::test]
async fn the_verb_drain_shows_how_clients_go_and_waits_for_the_end() {
    let mut program = Program::serve(&[("drain.rate", "1")]);
    let mut sockets = [subscriber(&program).await, subscriber(&program).await];
    let url = format!("http://{}", program.admin);
    let verb = start(&["drain", "--wait", "--admin-url", &url]);
    for socket in &mut sockets {
        assert_eq!(socket.value().await["type"], "goaway");
    }
    drop(sockets);
    let (code, said) = end(verb).await;
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "leaving: 2 WebSocket connections, 0 others", "{said}");
    let last = lines.last().copied().unwrap_or_default();
    assert!(last.starts_with("ended after "), "{said}");
    assert!(last.ends_with(" s: 2 followed, 0 closed, 0 lost, 0 cut"), "{said}");
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());

    let (code, said) = run(&["drain", "--admin-url", &url]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot reach"), "{said}");
}

#[tokio::test]
async fn the_verb_health_ends_with_the_health_of_the_node() {
    let mut program = Program::serve(&[("drain.delay", "10m"), ("drain.timeout", "20m")]);
    let url = format!("http://{}", program.admin);
    let health = async |what: &str| run(&["health", "--for", what, "--admin-url", &url]).await;
    for (what, line) in [("publish", "ready\n"), ("subscribe", "ready\n"), ("live", "ok\n")] {
        assert_eq!(health(what).await, (Some(0), line.to_owned()), "{what}");
    }
    assert_eq!(run(&["health", "--admin-url", &url]).await.0, Some(0));
    assert_eq!(run(&["drain", "--admin-url", &url]).await.0, Some(0));
    for what in ["publish", "subscribe"] {
        let said = "tickcast: not ready: draining\n".to_owned();
        assert_eq!(health(what).await, (Some(1), said), "{what}");
    }
    assert_eq!(health("live").await.0, Some(0));
    // On the public listener there is no such thing.
    let public = format!("http://{}", program.address);
    let (code, said) = run(&["health", "--admin-url", &public]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no node answers there"), "{said}");

    until("a node that knows", || async { program.log().contains("stopping") }).await;
    hurry_after_drain(&program).await;
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let (code, said) = health("live").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot reach"), "{said}");
}

/// The socket on which systemd listens to a program.
struct Systemd {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Systemd {
    /// Starts a node as systemd would, which wants to hear of it so often.
    fn start(watchdog: Option<Duration>) -> (Self, Program) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = command(&Program::ARGUMENTS);
        command.env("NOTIFY_SOCKET", &path);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        (Self { socket, _folder: folder }, Program::start(command, &[]))
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn systemd_is_told_how_the_program_lives() {
    let (systemd, mut program) = Systemd::start(None);
    let status = format!("STATUS=serving on {}, admin on {}", program.address, program.admin);
    assert_eq!(systemd.next(), ["READY=1".to_owned(), status]);

    program.signal(Signal::HUP);
    let reloading = systemd.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let clock =
        reloading[1].strip_prefix("MONOTONIC_USEC=").and_then(|text| text.parse::<u64>().ok());
    assert!(clock.is_some_and(|clock| clock > 0), "{reloading:?}");
    assert_eq!(systemd.next(), ["READY=1"]);

    program.terminate();
    assert_eq!(systemd.next()[0], "STOPPING=1");
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

/// Holds up the worker of a connection: a deadlock would look like that.
#[cfg(feature = "testing")]
async fn hang(socket: &mut Socket, seconds: u32) {
    socket.send(Message::text(format!(r#"{{"type":"hang","seconds":{seconds}}}"#))).await;
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_node_takes_nobody_while_a_worker_hangs() {
    let node = Node::with(|config| config.server.workers = 2).await;
    let mut socket = node.connect().await;
    hang(&mut socket, 9).await;
    let is_ready = async |query: &str| node.admin(query).await.status == 200;
    for query in ["/readyz", "/readyz?for=subscribe"] {
        until("a node that is not ready", || async { !is_ready(query).await }).await;
    }
    let report = node.admin("/readyz?for=subscribe").await.json();
    assert_eq!(report["reasons"], json!(["worker_hangs"]), "{report}");
    assert!(node.metric("tickcast_worker_silence_seconds").await >= 5.0);
    assert_eq!(node.metric("tickcast_ready").await, 0.0);
    assert_eq!(node.admin("/livez").await.status, 200);
    // Those who come all the same get a worker that does not.
    for _ in 0..4 {
        assert_eq!(node.get("/v1/topics/none", "").await.problem(), "no_value");
    }
    assert!(node.metric("tickcast_worker_silence_seconds").await >= 5.0);
    until("a node that is ready again", || is_ready("/readyz?for=subscribe")).await;
    assert!(node.metric("tickcast_worker_silence_seconds").await < 5.0);
    socket.expect_quiet().await;
}

/// Beside a worker that hangs everything else goes on, and could feed the watchdog.
#[cfg(feature = "testing")]
#[tokio::test]
async fn the_watchdog_is_not_fed_while_a_worker_hangs() {
    /// After so many feedings that did not come there will be none.
    const QUIET: Duration = Duration::from_secs(5);
    let (systemd, program) = Systemd::start(Some(Duration::from_millis(400)));
    let mut socket = Socket::open(program.address, "/v1/ws").await;
    let begun = Instant::now();
    hang(&mut socket, 600).await;
    systemd.socket.set_read_timeout(Some(QUIET)).unwrap();
    let fed = tokio::task::spawn_blocking(move || {
        let mut last = Instant::now();
        while systemd.socket.recv(&mut [0; 64]).is_ok() {
            last = Instant::now();
            assert!(begun.elapsed() < Duration::from_secs(90), "it goes on and on");
        }
        last - begun
    });
    let fed = fed.await.unwrap();
    assert!(fed > Duration::from_secs(28), "a worker may be held up for long: {fed:?}");
    let alive = get(&program, "/livez").await;
    assert_eq!((alive.status, &alive.json()["status"]), (503, &json!("hanging")), "{alive:?}");
    until("a line", || async { program.log().contains("a worker hangs") }).await;
}

#[test]
fn the_watchdog_is_fed_while_the_workers_are_alive() {
    let (systemd, mut program) = Systemd::start(Some(Duration::from_millis(200)));
    let mut messages = Vec::new();
    while messages.iter().filter(|lines| **lines == ["WATCHDOG=1"]).count() < 5 {
        messages.push(systemd.next());
    }
    assert!(messages.iter().any(|lines| lines[0] == "READY=1"), "{messages:?}");
    program.terminate();
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}
