//! How a node sends its clients away: who is told when, who is closed when, and how long all of it may take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tickcast::config::Config;
use tickcast::server::Server;
use tokio::net::TcpStream;
use tokio_websockets::Message;

use crate::harness::{Node, Opcode, Raw, Socket, frame, until, within};
use crate::program::Program;
use crate::reload::Rig;

/// How long a client may stay beyond the delay that it was told.
const FAREWELL: Duration = Duration::from_secs(4);

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(3);

async fn connect(program: &Program, topic: &str) -> Socket {
    let mut socket = Socket::open(program.address, &format!("/v1/ws?topics={topic}")).await;
    assert_eq!(socket.value().await["type"], "subscribed");
    socket
}

/// The delay of the `goaway` that must be the next message.
async fn goaway(socket: &mut Socket) -> u64 {
    let message = socket.value().await;
    assert_eq!(message["type"], "goaway", "{message}");
    message["reconnect_in_ms"].as_u64().expect("a delay")
}

async fn until_logged(program: &Program, text: &str) {
    until(text, || async { program.log().contains(text) }).await;
}

async fn until_refused(program: &Program) {
    until("a closed listener", || async { TcpStream::connect(program.address).await.is_err() })
        .await;
}

/// The last word of the program: connections at the beginning, and how many followed, were closed, lost, and cut.
fn expect_summary(program: &Program, expected: [u64; 5]) {
    let log = program.log();
    let mut events = log.lines().map(|line| serde_json::from_str(line).unwrap_or_default());
    let last = events.rfind(|event: &Value| event["message"] == "stopped");
    let last = last.unwrap_or_else(|| panic!("no summary in {log}"));
    let keys = ["connections", "followed", "closed", "lost", "cut"];
    assert_eq!(keys.map(|key| last[key].as_u64()), expected.map(Some), "{log}");
    assert_eq!(last["in_time"], true, "{log}");
}

/// An answer to the only request of an admin connection.
async fn admin(program: &Program, target: &str) -> crate::harness::Answer {
    Raw::connect(program.admin).await.get(target, "").await
}

#[tokio::test]
async fn a_node_that_leaves_says_that_it_is_not_ready_and_serves_all_the_same() {
    let settings = [("drain.delay", "10m"), ("drain.timeout", "20m")];
    let mut program = Program::serve(&settings);
    let mut socket = connect(&program, "a").await;
    let mut kept_alive = Raw::connect(program.address).await;
    let answer = kept_alive.post("/v1/topics/a", "", "1").await;
    assert_eq!((answer.status, answer.header("connection")), (200, None), "{answer:?}");
    socket.expect_numbers("a", 1..=1).await;

    program.terminate();
    until_logged(&program, "stopping").await;
    for form in ["/readyz", "/readyz?for=publish", "/readyz?for=subscribe"] {
        let answer = admin(&program, form).await;
        assert_eq!(answer.status, 503, "{form}");
        assert_eq!(
            (&answer.json()["draining"], &answer.json()["reasons"]),
            (&json!(true), &json!(["draining"]))
        );
    }
    assert_eq!(admin(&program, "/livez").await.status, 200);
    let metrics = admin(&program, "/metrics").await.text();
    assert!(metrics.contains("tickcast_draining 1\n") && metrics.contains("tickcast_ready 0\n"));
    let mut prober = Raw::connect(program.address).await;
    let answer = prober.get("/healthz", "").await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{answer:?}");

    // Whoever was sent here before the load balancer knew finds nothing missing.
    let answer = kept_alive.post("/v1/topics/a", "", "2").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert!(kept_alive.end().await.is_empty());
    let mut late = connect(&program, "a").await;
    late.expect_numbers("a", 2..=2).await;
    socket.expect_numbers("a", 2..=2).await;

    program.terminate();
    for socket in [&mut socket, &mut late] {
        goaway(socket).await;
        assert_eq!(socket.closed().await, (1012, "the node is stopping".to_owned()));
    }
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    expect_summary(&program, [2, 0, 2, 0, 0]);
}

#[tokio::test]
async fn clients_are_told_at_once_to_go_at_times_of_their_own() {
    const CLIENTS: usize = 40;
    let settings = [("drain.rate", "2"), ("server.workers", "2"), ("websocket.publish", "true")];
    let mut program = Program::serve(&settings);
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        sockets.push(connect(&program, "a").await);
    }
    let begun = Instant::now();
    program.terminate();
    let mut delays = Vec::new();
    for socket in &mut sockets {
        delays.push(goaway(socket).await);
    }
    // 40 clients at 2 per second: 20 s, in which each of the two workers has one slot per client.
    let told = u64::try_from(begun.elapsed().as_millis()).unwrap();
    let mut order = delays.clone();
    order.sort_unstable();
    assert_ne!(delays, order, "who came first need not go first");
    for (rank, delay) in order.iter().enumerate() {
        let slot = u64::try_from(rank).unwrap() / 2 * 1000;
        assert!((slot.saturating_sub(told)..=slot + 1000).contains(delay), "{rank}: {order:?}");
    }

    // Meanwhile nobody else can come, and whoever is here gets and gives what there is.
    until_refused(&program).await;
    assert_eq!(admin(&program, "/readyz").await.status, 503);
    let reply = sockets[0].ask(json!({"type": "publish", "topic": "a", "data": 1})).await;
    assert_eq!(reply["type"], "published", "{reply}");
    for socket in &mut sockets {
        socket.expect_numbers("a", 1..=1).await;
    }

    // They are gone early, and so is the node.
    drop(sockets);
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?} although all clients have gone");
    expect_summary(&program, [40, 40, 0, 0, 0]);
}

#[tokio::test]
async fn a_client_that_does_not_follow_is_closed_after_its_time() {
    let mut program = Program::serve(&[("drain.rate", "1"), ("server.workers", "1")]);
    let mut sockets = [connect(&program, "a").await, connect(&program, "a").await];
    program.terminate();
    let told = [goaway(&mut sockets[0]).await, goaway(&mut sockets[1]).await];
    let begun = Instant::now();
    // The one whose time comes first.
    let (first, delay) = if told[0] < told[1] { (0, told[0]) } else { (1, told[1]) };
    let due = Duration::from_millis(delay) + FAREWELL;
    let (code, _) = sockets[first].closed().await;
    let elapsed = begun.elapsed();
    assert_eq!(code, 1012);
    // What was measured began a little after the node's own clock.
    assert!(
        elapsed + Duration::from_millis(200) > due && elapsed < due + SLACK,
        "{elapsed:?} {due:?}"
    );
    sockets[1 - first].expect_quiet().await;
    drop(sockets);
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    expect_summary(&program, [2, 1, 1, 0, 0]);
}

#[tokio::test]
async fn a_third_signal_ends_the_program_at_once() {
    let mut program = Program::serve(&[("drain.delay", "10m"), ("drain.timeout", "20m")]);
    // It does not hang up when it is closed, so the node would wait for it.
    let mut silent = Raw::connect(program.address).await;
    silent.upgrade().await;
    program.terminate();
    until_logged(&program, "stopping").await;
    program.terminate();
    assert_eq!(silent.closed().await, 1012);
    program.terminate();
    assert_eq!(program.wait().code(), Some(1), "{}", program.log());
    assert!(!program.log().contains("stopped"), "{}", program.log());
}

/// Those who have begun a request and do not end it have their time as long as there is any, and no more of it in a hurry.
#[tokio::test]
async fn the_second_signal_does_not_wait_for_requests_that_are_not_there() {
    let mut program = Program::serve(&[
        ("drain.timeout", "1h"),
        ("http.body_timeout", "1m"),
        ("http.header_timeout", "1m"),
    ]);
    let mut body = Raw::connect(program.address).await;
    let head =
        ["POST /v1/topics/a HTTP/1.1", "Host: x", "Content-Length: 2", "Expect: 100-continue"];
    body.write_head(&head).await;
    assert_eq!(body.head().await.status, 100);
    let mut header = Raw::connect(program.address).await;
    header.write("POST /v1/topics/a HTTP/1.1\r\nHost").await;
    program.terminate();
    until_refused(&program).await;
    program.terminate();
    let begun = Instant::now();
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", begun.elapsed());
    expect_summary(&program, [2, 0, 0, 0, 2]);
    assert!(body.end().await.is_empty() && header.end().await.is_empty());
}

#[tokio::test]
async fn a_handshake_that_ends_after_the_beginning_is_told_to_go_at_once() {
    let mut program = Program::serve(&[]);
    let mut witness = connect(&program, "a").await;
    let mut late = Raw::connect(program.address).await;
    let (first, rest) = Raw::HANDSHAKE.split_at(3);
    late.write(first.join("\r\n") + "\r\n").await;
    // An answer on another connection of each worker: what was sent before it has been read.
    for _ in 0..4 {
        assert_eq!(Raw::connect(program.address).await.get("/healthz", "").await.status, 200);
    }
    program.terminate();
    goaway(&mut witness).await;
    late.write_head(rest).await;
    assert_eq!(late.answer().await.status, 101);
    let told = Instant::now();
    // At most what the clients of the beginning are told: one thousandth of a second for each.
    let message = late.value().await;
    assert_eq!(message["type"], "goaway", "{message}");
    assert!(message["reconnect_in_ms"].as_u64().is_some_and(|delay| delay <= 2), "{message}");
    let subscribe = json!({"type": "subscribe", "id": 1, "topics": ["a"]}).to_string();
    late.write(frame(true, Opcode::Text, subscribe)).await;
    assert_eq!(late.value().await["type"], "subscribed", "it is served until it goes");
    assert_eq!(late.closed().await, 1012);
    let elapsed = told.elapsed();
    assert!(
        elapsed + Duration::from_millis(200) > FAREWELL && elapsed < FAREWELL + SLACK,
        "{elapsed:?}"
    );
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn a_connection_that_has_just_come_gets_its_first_answer() {
    let mut program = Program::serve(&[]);
    let mut fresh = Raw::connect(program.address).await;
    let mut idle = Raw::connect(program.address).await;
    assert_eq!(idle.get("/healthz", "").await.status, 200);
    program.terminate();
    let answer = fresh.post("/v1/topics/a", "", "1").await;
    // It may have been answered before the signal arrived; then it is idle, as the other one.
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(fresh.end().await.is_empty() && idle.end().await.is_empty());
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn all_of_it_fits_into_the_time_whatever_clients_do() {
    let mut program = Program::serve(&[("drain.timeout", "3s"), ("drain.rate", "1")]);
    let mut sockets = [connect(&program, "a").await, connect(&program, "a").await];
    // A request without an end, and a client that never hangs up.
    let mut endless = Raw::connect(program.address).await;
    endless
        .write_head(&[
            "POST /v1/topics/a HTTP/1.1",
            "Host: x",
            "Content-Length: 9",
            "Expect: 100-continue",
        ])
        .await;
    assert_eq!(endless.head().await.status, 100);
    let mut silent = Raw::connect(program.address).await;
    silent.upgrade().await;
    let begun = Instant::now();
    program.terminate();
    for socket in &mut sockets {
        // There is no time to be slow: what is left is kept for the farewell.
        assert!(goaway(socket).await < 100);
        assert_eq!(socket.closed().await.0, 1012);
    }
    let last_call = begun.elapsed();
    assert!(last_call > Duration::from_millis(1800), "they had their time: {last_call:?}");
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(3) + SLACK, "{elapsed:?}");
    expect_summary(&program, [4, 0, 3, 0, 1]);
    assert!(endless.end().await.is_empty());
}

#[tokio::test]
async fn a_node_in_a_hurry_waits_for_nobody() {
    let mut config = Config::default();
    config.server.listen.set_port(0);
    config.server.admin_listen.set_port(0);
    let server = Server::start(config).await.expect("free ports");
    let address = server.address();
    let mut sockets = Vec::new();
    for _ in 0..300 {
        let mut socket = Socket::open(address, "/v1/ws").await;
        socket.subscribe(json!(["a"])).await;
        sockets.push(socket);
    }
    let mut idle = Raw::connect(address).await;
    assert_eq!(idle.get("/healthz", "").await.status, 200);

    server.haste().cancel();
    let begun = Instant::now();
    assert!(within("the end", server.stop()).await, "no part of the node has failed");
    // Their ends of the connections are open still: the node gives them two seconds.
    assert!(begun.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", begun.elapsed());
    let mut delays = Vec::new();
    for socket in &mut sockets {
        delays.push(goaway(socket).await);
        assert_eq!(socket.closed().await.0, 1012);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 200, "they come back spread over time: {delays:?}");
    assert!(idle.end().await.is_empty());
}

const TOLD_BY_AGE: &str = r#"tickcast_goaways_total{reason="max_age"}"#;

fn closed(reason: &str) -> String {
    format!(r#"tickcast_connections_closed_total{{transport="websocket",reason="{reason}"}}"#)
}

#[tokio::test]
async fn a_connection_of_age_is_told_to_go_and_closed_if_it_does_not() {
    let node = Node::with(|config| {
        // Every connection is looked at once a second, and none is pinged before it is told.
        config.websocket.ping_interval = Duration::from_secs(9);
        config.websocket.max_age = Duration::from_secs(2);
    })
    .await;
    let begun = Instant::now();
    let (mut plain, mut able) = (node.connect().await, node.connect().await);
    for socket in [&mut plain, &mut able] {
        assert!(goaway(socket).await < 1000);
    }
    // The clock of a worker ticks in seconds.
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    able.send(Message::close(None, "")).await;
    node.until_metric(&closed("client"), |count| count == 1.0).await;
    let (code, reason) = plain.closed().await;
    assert_eq!((code, reason.as_str()), (1012, "the connection is old"));
    let elapsed = begun.elapsed();
    assert!(elapsed > FAREWELL + Duration::from_millis(900), "{elapsed:?}");
    node.until_metric(&closed("max_age"), |count| count == 1.0).await;
    assert_eq!(node.metric(TOLD_BY_AGE).await, 2.0, "each is told once");
    assert_eq!(node.admin("/readyz").await.status, 200);
}

/// A bound that comes late finds nearly everybody beyond it.
#[tokio::test]
async fn those_of_age_go_at_the_rate_of_a_drain_however_many_they_are() {
    const COUNT: usize = 300;
    const RATE: usize = 60;
    let text = |max_age: &str| {
        format!(
            "[server]\nworkers = 2\n[drain]\nrate = {RATE}\n[websocket]\nping_interval = '9s'\nmax_age = '{max_age}'\n"
        )
    };
    let mut rig = Rig::start(&text("0ms"));
    let mut sockets = Vec::new();
    for _ in 0..COUNT {
        sockets.push(rig.connect().await);
    }
    let all_came = Instant::now();
    until("age", || async { all_came.elapsed() >= Duration::from_secs(3) }).await;

    let begun = Instant::now();
    rig.reload(&text("1s"), true).await;
    let mut told = 0.0;
    let told = &mut told;
    while *told < COUNT as f64 {
        *told = rig.metric(TOLD_BY_AGE).await;
        // A worker begins as many seconds in this time as have passed, and one more; one of them may have begun late.
        let most = RATE as u64 * ((begun.elapsed() + Duration::from_millis(200)).as_secs() + 1);
        assert!(*told <= most as f64, "{told} after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(30), "{told} of {COUNT}");
    }
    assert_eq!(*told, COUNT as f64, "each is told once");
    for socket in &mut sockets {
        while socket.value().await["type"] != "goaway" {}
    }
}

#[tokio::test]
async fn without_a_bound_no_connection_gets_too_old() {
    let node = Node::with(|config| config.websocket.ping_interval = Duration::from_secs(1)).await;
    let mut raw = node.raw().await;
    raw.upgrade().await;
    // The worker has looked at it several times.
    for _ in 0..3 {
        assert_eq!(raw.frame().await.map(|frame| frame.opcode), Some(Opcode::Ping as u8));
        raw.write(frame(true, Opcode::Pong, "")).await;
    }
    assert_eq!(node.metric(TOLD_BY_AGE).await, 0.0);
}
