//! How connections are let in when many come at once, and what a node does that has no more open files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use tickcast::config::Config;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::exposition;
use crate::harness::{Node, Raw, Socket, until, within};
use crate::program::{Program, command};

/// So many come at once, however low the rate.
const BURST: usize = 16;

const WAITING: &str = "tickcast_connections_waiting";
const HTTP: &str = r#"tickcast_connections{transport="http"}"#;
const WEBSOCKET: &str = r#"tickcast_connections{transport="websocket"}"#;
const OPENED: &str = r#"tickcast_connections_opened_total{transport="websocket"}"#;

fn paced(rate: usize) -> impl FnOnce(&mut Config) {
    move |config| config.server.accept_rate = rate
}

/// Connections that take all that may come at once. They are served.
async fn fill(node: &Node) -> Vec<Raw> {
    let mut served = Vec::new();
    for _ in 0..BURST {
        let mut raw = node.raw().await;
        assert_eq!(raw.get("/healthz", "").await.status, 200);
        served.push(raw);
    }
    served
}

#[tokio::test]
async fn they_are_let_in_in_the_order_in_which_they_came_and_at_the_rate() {
    const COUNT: usize = 50;
    const RATE: usize = 50;
    let node = Node::with(paced(RATE)).await;
    let started = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..BURST + COUNT {
        let mut raw = node.raw().await;
        raw.write_head(Raw::HANDSHAKE).await;
        crowd.push(raw);
    }
    let waiting = node.metric(WAITING).await;
    assert!(waiting > 0.0 && waiting <= COUNT as f64, "{waiting}");
    assert_eq!(node.metric("tickcast_connections_waiting_max").await, 10.0 * RATE as f64);
    for (number, raw) in crowd.iter_mut().enumerate() {
        assert_eq!(raw.answer().await.status, 101);
        // Everybody before it is in, and of those after it at most as many as come at once.
        let came = node.metric("tickcast_admission_wait_seconds_count").await;
        let may_be = (number + 1) as f64..=(number + 1 + BURST) as f64;
        assert!(may_be.contains(&came), "{came}, and {may_be:?} may be");
    }
    // The last of them had to wait for those before it.
    let least = Duration::from_millis(900 * COUNT as u64 / RATE as u64);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    assert_eq!(node.metric(WAITING).await, 0.0);
    // Half of them waited longer than half of the time.
    let waits = node.metric("tickcast_admission_wait_seconds_count").await;
    assert_eq!(waits, (BURST + COUNT) as f64);
    let waited = node.metric("tickcast_admission_wait_seconds_sum").await;
    assert!(waited > 0.5 * 0.4 * COUNT as f64, "{waited} s in all");
}

/// Clients wait for their turn for seconds, publishers do not, although each of them comes on a connection of its own.
#[tokio::test]
async fn publishers_are_answered_at_once_beside_a_crowd() {
    const CROWD: usize = 150;
    const RATE: usize = 20;
    const PUBLICATIONS: u64 = 10;
    let node = Node::with(paced(RATE)).await;
    let _served = fill(&node).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut raw = node.raw().await;
        raw.write_head(Raw::HANDSHAKE).await;
        crowd.push(raw);
    }
    for number in 0..PUBLICATIONS {
        let asked = Instant::now();
        let answer = node.raw().await.post("/v1/topics/aside", "", &number.to_string()).await;
        assert_eq!(answer.json()["offset"], number + 1);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let waiting = node.metric(WAITING).await;
    assert!(waiting > 2.0 * RATE as f64, "they had nobody to pass: {waiting}");
}

#[tokio::test]
async fn publishers_keep_their_order_too() {
    const COUNT: usize = 50;
    const RATE: usize = 50;
    let node = Node::with(|config| {
        config.server.workers = 1;
        config.server.accept_rate = RATE;
    });
    let node = node.await;
    let started = Instant::now();
    let mut crowd = Vec::new();
    for number in 0..BURST + COUNT {
        let mut raw = node.raw().await;
        let number = number.to_string();
        let head = "POST /v1/topics/order HTTP/1.1\r\nHost: localhost";
        raw.write(format!("{head}\r\nContent-Length: {}\r\n\r\n{number}", number.len())).await;
        crowd.push(raw);
    }
    for raw in &mut crowd {
        assert_eq!(raw.answer().await.status, 200);
    }
    // Beside the pace of everybody there is theirs, a quarter of it. After both bursts the last had to wait.
    let least = Duration::from_millis(900 * (COUNT - BURST) as u64 / (RATE + RATE / 4) as u64);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());

    let history = node.get("/v1/topics/order?history=100", "").await.json();
    let order: Vec<_> = history["publications"].as_array().expect("a list").iter().collect();
    let numbers: Vec<_> = order.iter().map(|item| item["data"].as_u64().expect("one")).collect();
    assert_eq!(numbers, (0..(BURST + COUNT) as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_waits_is_open_but_not_served() {
    let node = Node::with(paced(1)).await;
    let served = fill(&node).await;
    let _waiting = [node.raw().await, node.raw().await, node.raw().await];
    node.until_metric(WAITING, |waiting| waiting >= 2.0).await;
    let (http, waiting) = (node.metric(HTTP).await, node.metric(WAITING).await);
    assert!(http <= served.len() as f64 + 3.0 - waiting, "{http} and {waiting}");
}

#[tokio::test]
async fn when_as_many_wait_as_may_the_next_is_told_to_come_back() {
    let node = Node::with(paced(1)).await;
    let mut served = fill(&node).await;
    // Ten may wait at this rate, and in this moment nobody is let in any more.
    let mut crowd = Vec::new();
    for _ in 0..30 {
        let mut raw = node.raw().await;
        raw.write_head(Raw::HANDSHAKE).await;
        crowd.push(raw);
    }
    let mut late = crowd.pop().expect("it was pushed");
    let answer = late.answer().await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_connections"));
    let seconds = answer.header("retry-after").and_then(|text| text.parse().ok());
    assert!(seconds.is_some_and(|seconds: u32| (1..=10).contains(&seconds)), "{answer:?}");
    assert!(late.end().await.is_empty());
    assert!(node.metric(r#"tickcast_connections_rejected_total{reason="queue"}"#).await >= 1.0);
    assert_eq!(node.metric("tickcast_connections_waiting_max").await, 10.0);
    for raw in &mut served {
        assert_eq!(raw.get("/healthz", "").await.status, 200);
    }
}

/// Whoever connects and says nothing keeps nobody's place from those who speak.
#[tokio::test]
async fn who_says_nothing_makes_room_for_a_publisher() {
    let node = Node::with(paced(1)).await;
    let _served = fill(&node).await;
    publish_beside_silence(&node, "queue").await;
    let answer = node.raw().await.post("/v1/topics/aside", "", "2").await;
    assert_eq!(answer.json()["offset"], 2);
}

/// The same where all places of the node are taken, and not only those of the line.
#[tokio::test]
async fn who_says_nothing_makes_room_where_no_more_connections_may_be() {
    let node = Node::with(|config| {
        paced(1)(config);
        config.server.max_connections = BURST + 4;
    });
    let node = node.await;
    let _served = fill(&node).await;
    publish_beside_silence(&node, "limit").await;
    let refused = r#"tickcast_connections_rejected_total{reason="queue"}"#;
    assert_eq!(node.metric(refused).await, 0.0);
}

/// A publication is answered, and the oldest of 30 who say nothing is told that there is no place, for this reason.
async fn publish_beside_silence(node: &Node, reason: &str) {
    let mut crowd = Vec::new();
    for _ in 0..30 {
        crowd.push(node.raw().await);
    }
    let answer = node.raw().await.post("/v1/topics/aside", "", "1").await;
    assert_eq!(answer.json()["offset"], 1);
    // The first one may have been let in meanwhile.
    let answer = crowd[1].answer().await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_connections"));
    let refused = format!(r#"tickcast_connections_rejected_total{{reason="{reason}"}}"#);
    assert!(node.metric(&refused).await >= 10.0);
}

#[tokio::test]
async fn a_connection_has_its_place_at_every_moment_of_its_handshake() {
    let node = Node::with(|config| config.server.max_connections = 1).await;
    for _ in 0..200 {
        let mut first = node.raw().await;
        let others = async {
            for _ in 0..5 {
                let answer = node.raw().await.answer().await;
                let refused = (503, "too_many_connections");
                assert_eq!((answer.status, answer.problem().as_str()), refused);
            }
        };
        tokio::join!(first.upgrade(), others);
        drop(first);
        until("room", || async { node.metric(HTTP).await + node.metric(WEBSOCKET).await == 0.0 })
            .await;
    }
}

#[tokio::test]
async fn who_gives_up_holds_nobody_up() {
    let node = Node::with(paced(2)).await;
    let _served = fill(&node).await;
    // Alone they would take seven seconds.
    let mut fickle = Vec::new();
    for _ in 0..15 {
        let mut raw = node.raw().await;
        raw.write_head(Raw::HANDSHAKE).await;
        fickle.push(raw);
    }
    node.until_metric(WAITING, |waiting| waiting >= 13.0).await;
    drop(fickle);
    let started = Instant::now();
    assert_eq!(node.get("/healthz", "").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    // One or two had their turn before they were known to have gone.
    let abandoned = node.metric("tickcast_admission_abandoned_total").await;
    assert!((10.0..=15.0).contains(&abandoned), "{abandoned}");
    node.until_metric(HTTP, |open| open == BURST as f64).await;
    let opened = node.metric(OPENED).await;
    assert!(opened < 6.0, "nothing is done for who has gone: {opened}");
}

#[tokio::test]
async fn who_waits_when_the_node_ends_is_sent_elsewhere() {
    let settings = [("server.accept_rate", "1"), ("drain.delay", "0ms"), ("drain.timeout", "10s")];
    let mut program = Program::serve(&settings);
    let mut served = Vec::new();
    for _ in 0..BURST {
        let mut raw = Raw::connect(program.address).await;
        assert_eq!(raw.get("/healthz", "").await.status, 200);
        served.push(raw);
    }
    // At this rate there are ten places in the line, and two of them are not for clients.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(program.address).await;
        raw.write_head(Raw::HANDSHAKE).await;
        waiting.push(raw);
    }
    let waits = || async {
        let text = Raw::connect(program.admin).await.get("/metrics", "").await.text();
        exposition::value(&text, WAITING).expect("it is there") >= 7.0
    };
    until("crowd", waits).await;
    program.terminate();
    let mut sent_away = 0;
    for raw in &mut waiting {
        let answer = raw.answer().await;
        if answer.status == 503 {
            assert_eq!(answer.problem(), "unavailable");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            assert!(raw.end().await.is_empty());
            sent_away += 1;
        } else {
            assert_eq!(answer.status, 101, "one may come in each second");
        }
    }
    assert!(sent_away >= 5, "{sent_away}");
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn a_crowd_costs_live_clients_little_and_comes_in_no_faster_than_allowed() {
    const CROWD: usize = 1000;
    const RATE: usize = 500;
    let node = Arc::new(Node::with(paced(RATE)).await);
    let mut live = node.connect_to("topics=live").await;
    assert_eq!(live.value().await["type"], "subscribed");
    let mut publisher = node.raw().await;

    let is_over = Arc::new(AtomicBool::new(false));
    let (address, started) = (node.address, Instant::now());
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        crowd.spawn(async move {
            let mut socket = Socket::open(address, "/v1/ws").await;
            socket.subscribe(json!(["crowd"])).await;
            socket
        });
    }
    let over = Arc::clone(&is_over);
    let crowd = tokio::spawn(async move {
        let sockets = within("crowd", crowd.join_all()).await;
        over.store(true, Relaxed);
        sockets
    });

    let mut worst = Duration::ZERO;
    for number in 1.. {
        let sent = Instant::now();
        let answer = publisher.post("/v1/topics/live", "", &number.to_string()).await;
        assert_eq!(answer.status, 200);
        live.expect_numbers("live", number..=number).await;
        worst = worst.max(sent.elapsed());
        let opened = node.metric(OPENED).await;
        let most = RATE as f64 * (started.elapsed().as_secs_f64() + 0.1) + 3.0;
        assert!(opened <= most, "{opened} are in, {most} may be");
        if is_over.load(Relaxed) {
            break;
        }
    }
    assert!(started.elapsed().as_secs_f64() > 0.8 * (CROWD as f64 / RATE as f64));
    // On a machine of its own it is a few milliseconds.
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    assert_eq!(crowd.await.expect("no panic").len(), CROWD);
}

/// What the program has used of the processors so far.
fn cpu_time(program: &Program) -> Duration {
    let pid = program.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is running");
    // The name in brackets may have spaces. User and system time are fields 14 and 15, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks =
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// The reasons why a node is not ready, or none.
async fn unready(program: &Program, purpose: &str) -> Vec<String> {
    let answer = Raw::connect(program.admin).await.get(&format!("/readyz?for={purpose}"), "").await;
    let report = answer.json();
    let reasons = report["reasons"].as_array().expect("a list").iter();
    let reasons: Vec<_> = reasons.map(|word| word.as_str().expect("a word").to_owned()).collect();
    assert_eq!(answer.status == 503, !reasons.is_empty(), "{report}");
    reasons
}

/// Two hundred and fifty-six open files: some of them taken by connections to the admin listener that say nothing, until
/// those have had their time, the others by clients.
#[tokio::test]
async fn without_open_files_a_node_waits_says_so_and_recovers() {
    let script = r#"ulimit -n 256; exec "$0" "$@""#;
    let program = command(&Program::ARGUMENTS);
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(script).arg(program.get_program()).args(program.get_args()).env_clear();
    let mut program = Program::start(shell, &[("server.workers", "2")]);
    assert!(unready(&program, "publish").await.is_empty());

    let mut live = Socket::open(program.address, "/v1/ws?topics=a").await;
    assert_eq!(live.value().await["type"], "subscribed");
    let mut publisher = Raw::connect(program.address).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(Raw::connect(program.admin).await);
    }
    // This one comes after them.
    assert!(unready(&program, "publish").await.is_empty());
    let mut clients = Vec::new();
    for _ in 0..189 {
        clients.push(Raw::connect(program.address).await);
    }
    let is_out = || async { unready(&program, "subscribe").await == ["open_files"] };
    until("lack of files", is_out).await;
    assert_eq!(unready(&program, "publish").await, ["open_files"], "{}", program.log());
    assert_eq!(Raw::connect(program.admin).await.get("/livez", "").await.status, 200);

    // Nobody is accepted, and that costs next to nothing; who is there notices nothing.
    let (before, started) = (cpu_time(&program), Instant::now());
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(2) {
        number += 1;
        let answer = publisher.post("/v1/topics/a", "", &number.to_string()).await;
        assert_eq!(answer.status, 200);
        live.expect_numbers("a", number..=number).await;
        sleep(Duration::from_millis(50)).await; // A rate of publications, and no wait for anything.
    }
    let busy = cpu_time(&program) - before;
    assert!(busy < Duration::from_millis(400), "{busy:?} of {:?}", started.elapsed());

    // The admin connections that said nothing have had their time.
    until("files", || async { unready(&program, "publish").await.is_empty() }).await;
    assert_eq!(clients.last_mut().expect("many").get("/healthz", "").await.status, 200);
    assert_eq!(Raw::connect(program.address).await.get("/healthz", "").await.status, 200);
    until("word", || async { program.log().contains("there are open files again") }).await;
    assert_eq!(program.log().matches("no more open files").count(), 1, "{}", program.log());
    program.terminate();
    drop((live, publisher, clients, silent));
    assert_eq!(program.wait().code(), Some(0), "{}", program.log());
}
