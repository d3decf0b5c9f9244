//! Reading the configuration of a running node again.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast::config::{Flags, Inputs};
use tickcast::server::{ReloadError, Server};

use crate::exposition;
use crate::harness::{Raw, Socket, until, within};
use crate::program::{Program, command};

/// The program with a file that the test writes anew.
pub(crate) struct Rig {
    _folder: tempfile::TempDir,
    file: PathBuf,
    pub(crate) program: Program,
    /// Reloads so far that succeeded, and that failed.
    reloads: (u32, u32),
}

impl Rig {
    pub(crate) fn start(text: &str) -> Self {
        Self::start_with(text, &[])
    }

    /// With settings of the environment, which come before those of the file.
    pub(crate) fn start_with(text: &str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tickcast.toml");
        std::fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a plain path");
        let arguments = [&Program::ARGUMENTS[..], &["--config", path]].concat();
        let program = Program::start(command(&arguments), settings);
        Self { _folder: folder, file, program, reloads: (0, 0) }
    }

    /// Writes the file, and waits until the node has taken it or refused it.
    pub(crate) async fn reload(&mut self, text: &str, is_good: bool) {
        std::fs::write(&self.file, text).expect("a file");
        self.program.signal(Signal::HUP);
        let result = if is_good {
            self.reloads.0 += 1;
            "success"
        } else {
            self.reloads.1 += 1;
            "failure"
        };
        let series = format!("tickcast_config_reloads_total{{result=\"{result}\"}}");
        let count = f64::from(if is_good { self.reloads.0 } else { self.reloads.1 });
        let this = &*self;
        until("reload", || async { this.metric(&series).await >= count }).await;
        let (success, failure) = self.reloads;
        for (result, count) in [("success", success), ("failure", failure)] {
            let series = format!("tickcast_config_reloads_total{{result=\"{result}\"}}");
            assert_eq!(self.metric(&series).await, f64::from(count), "{}", self.program.log());
        }
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = Raw::connect(self.program.admin).await.get("/metrics", "").await.text();
        exposition::value(&text, series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    pub(crate) async fn connect(&self) -> Socket {
        Socket::open(self.program.address, "/v1/ws").await
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.program.address).await
    }

    /// The messages of the log, with their level.
    fn messages(&self) -> Vec<(String, String)> {
        let events = self.program.log();
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events.map(|event| (text(&event, "level"), text(&event, "message"))).collect()
    }

    /// Waits for a line of the log: a thread of its own writes it.
    async fn expect_said(&self, level: &str, beginning: &str) {
        let is_it = |(at, text): &(String, String)| at == level && text.starts_with(beginning);
        until(beginning, || async { self.messages().iter().any(is_it) }).await;
    }
}

/// Whether one more topic was accepted.
async fn can_subscribe(socket: &mut Socket, topic: &str) -> bool {
    let reply = socket.ask(json!({"type": "subscribe", "topics": [topic]})).await;
    assert_eq!(reply["type"], "subscribed", "{reply}");
    let error = &reply["errors"][0]["code"];
    assert!(error.is_null() || error == "too_many_subscriptions", "{reply}");
    error.is_null()
}

#[tokio::test]
async fn new_limits_count_for_live_connections() {
    const OLD: &str = "
        [limits]
        subscriptions_per_connection = 2
        payload_bytes = '10B'
    ";
    let mut rig = Rig::start(OLD);
    let (mut socket, mut raw) = (rig.connect().await, rig.raw().await);
    assert!(can_subscribe(&mut socket, "a").await && can_subscribe(&mut socket, "b").await);
    assert!(!can_subscribe(&mut socket, "c").await);
    assert_eq!(raw.post("/v1/topics/x", "", "1").await.status, 200);
    let answer = rig.raw().await.post("/v1/topics/x", "", "\"0123456789\"").await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "payload_too_large"));

    let new = OLD.replace("= 2", "= 3").replace("10B", "20B");
    rig.reload(&new, true).await;
    assert_eq!(raw.post("/v1/topics/x", "", "\"0123456789\"").await.status, 200);
    let socket = &mut tokio::sync::Mutex::new(socket);
    until("a third topic", || async { can_subscribe(&mut *socket.lock().await, "c").await }).await;
    let socket = socket.get_mut();
    assert!(!can_subscribe(socket, "d").await);

    // Fewer than are held: nobody loses what they have.
    rig.reload(&OLD.replace("= 2", "= 1"), true).await;
    let answer = raw.post("/v1/topics/c", "", "1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(socket.update().await.topic, "c");
    rig.expect_said("INFO",
        "configuration reloaded; in force: \
         limits.payload_bytes = \"10B\" (was \"20B\"), limits.subscriptions_per_connection = 1 (was 3)").await;
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_everything_wrong_with_it_is_said() {
    const GOOD: &str = "[limits]\nsubscriptions_per_connection = 1\n";
    let mut rig = Rig::start(GOOD);
    let started = rig.metric("tickcast_config_last_reload_success_timestamp_seconds").await;
    assert!(started > 1.7e9, "{started}");
    assert_eq!(rig.metric("tickcast_config_last_reload_successful").await, 1.0);

    let bad = "[limits]\nsubscriptions_per_connection = 2\npayload_bytes = '64KB'\nbatch = 5\n";
    rig.reload(bad, false).await;
    assert_eq!(rig.metric("tickcast_config_last_reload_successful").await, 0.0);
    let path = rig.file.display().to_string();
    for beginning in [
        &format!("{path}:3:17: `limits.payload_bytes` = \"64KB\" cannot be used"),
        &format!("{path}:4:1: unknown key `limits.batch`"),
        "configuration not reloaded, the old one stays in force: 2 errors",
    ] {
        rig.expect_said("ERROR", beginning).await;
    }
    let mut socket = rig.connect().await;
    assert!(can_subscribe(&mut socket, "a").await && !can_subscribe(&mut socket, "b").await);

    // Without its file there is no configuration at all.
    std::fs::remove_file(&rig.file).expect("it is there");
    rig.program.signal(Signal::HUP);
    let series = "tickcast_config_reloads_total{result=\"failure\"}";
    until("failure", || async { rig.metric(series).await >= 2.0 }).await;
    rig.reloads.1 = 2;
    rig.expect_said("ERROR", &format!("{path}: cannot be read")).await;
    assert!(can_subscribe(&mut rig.connect().await, "a").await);

    rig.reload(GOOD, true).await;
    assert_eq!(rig.metric("tickcast_config_last_reload_successful").await, 1.0);
    assert!(rig.metric("tickcast_config_last_reload_success_timestamp_seconds").await >= started);
    rig.expect_said("INFO", "configuration reloaded; no change is in force").await;
}

#[tokio::test]
async fn what_needs_a_restart_is_listed_and_secrets_are_not_shown() {
    let mut rig = Rig::start("");
    let text = "
        [server]
        workers = 3
        max_connections = 77
        [broker.redis]
        url = 'redis://:hunter2@localhost:1'
        [log]
        format = 'compact'
    ";
    rig.reload(text, true).await;
    rig.expect_said(
        "WARN",
        "changed, but in force only after a restart: server.workers = 3 (was 0), broker.redis.url",
    )
    .await;
    rig.expect_said(
        "INFO",
        "configuration reloaded; in force: server.max_connections = 77 (was 0)",
    )
    .await;
    assert_eq!(rig.metric("tickcast_connections_max").await, 77.0);
    assert_eq!(rig.raw().await.post("/v1/topics/a", "", "1").await.status, 200, "no Redis yet");
    assert!(!rig.program.log().contains("hunter2"), "{}", rig.program.log());

    // What is in force stays what the next reload is compared with.
    rig.reload(&text.replace("77", "78"), true).await;
    let warnings = || rig.messages().into_iter().filter(|(level, _)| level == "WARN").count();
    until("a second warning", || async { warnings() == 2 }).await;
}

#[tokio::test]
async fn a_new_value_beside_an_old_one_that_stays_must_fit_it() {
    let mut rig = Rig::start("[hub]\nlog_memory = '2MiB'\n");
    rig.reload("[hub]\nlog_memory = '8MiB'\n[topics]\nhistory_bytes = '4MiB'\n", false).await;
    let problem =
        "default: `topics.history_bytes` = \"4MiB\" is larger than `hub.log_memory` = \"2MiB\"";
    rig.expect_said("ERROR", problem).await;
}

#[tokio::test]
async fn the_log_follows_its_filter() {
    let mut rig = Rig::start("");
    let debug_lines =
        |rig: &Rig| rig.messages().into_iter().filter(|(level, _)| level == "DEBUG").count();
    /// A connection that breaks HTTP, which is worth a line for whoever looks closely. It is over and done with.
    async fn misbehave(rig: &Rig) {
        let mut raw = rig.raw().await;
        raw.write("nonsense\r\n\r\n").await;
        raw.end().await;
        let open = "tickcast_connections{transport=\"http\"}";
        until("its end", || async { rig.metric(open).await == 0.0 }).await;
    }
    misbehave(&rig).await;
    rig.reload("[log]\nfilter = 'warn,tickcast=debug'\n", true).await;
    assert_eq!(debug_lines(&rig), 0, "{}", rig.program.log());
    misbehave(&rig).await;
    until("a line", || async { debug_lines(&rig) > 0 }).await;

    // Lines come in order: once this one is there, so are those before it.
    rig.reload("[log]\nfilter = 'warn,tickcast=debug'\n", true).await;
    rig.expect_said("INFO", "configuration reloaded; no change").await;

    rig.reload("[log]\nfilter = 'error'\n", true).await;
    let lines = debug_lines(&rig);
    misbehave(&rig).await;
    rig.reload("[log]\nfilter = 'loud'\n[log]\n", false).await;
    assert_eq!(debug_lines(&rig), lines, "{}", rig.program.log());
    rig.reload("[log]\nfilter = 'tickcast=loud'\n", false).await;
    rig.expect_said("ERROR", &format!("{}:2:10: `log.filter`", rig.file.display())).await;
}

#[tokio::test]
async fn the_number_of_connections_follows_at_once() {
    let mut rig = Rig::start("[server]\nmax_connections = 2\n");
    let mut first = rig.connect().await;
    let mut second = rig.connect().await;
    let third = rig.raw().await.answer().await;
    assert_eq!((third.status, third.problem().as_str()), (503, "too_many_connections"));

    rig.reload("[server]\nmax_connections = 3\n", true).await;
    let third = rig.connect().await;
    assert_eq!(rig.raw().await.answer().await.status, 503);

    // Fewer than are open: they stay, and nobody else comes in until enough have left.
    rig.reload("[server]\nmax_connections = 1\n", true).await;
    first.expect_quiet().await;
    second.expect_quiet().await;
    drop((second, third));
    let open = "tickcast_connections{transport=\"websocket\"}";
    until("two less", || async { rig.metric(open).await == 1.0 }).await;
    assert_eq!(rig.raw().await.answer().await.status, 503);
    first.expect_quiet().await;
}

#[tokio::test]
async fn who_waits_to_be_let_in_profits_from_a_higher_rate() {
    const SLOW: &str = "[server]\naccept_rate = 1\n";
    let mut rig = Rig::start(SLOW);
    // Sixteen come at once, and eight clients may wait at this rate.
    let mut crowd = Vec::new();
    for _ in 0..24 {
        crowd.push(rig.raw().await);
    }
    let waiting = "tickcast_connections_waiting";
    until("crowd", || async { rig.metric(waiting).await >= 5.0 }).await;
    rig.reload(&SLOW.replace("= 1", "= 1000"), true).await;
    let started = Instant::now();
    until("nobody to wait", || async { rig.metric(waiting).await == 0.0 }).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(crowd[23].get("/healthz", "").await.status, 200);
    assert_eq!(rig.metric("tickcast_connections_waiting_max").await, 10_000.0);
}

#[tokio::test]
async fn open_topics_keep_their_options_until_they_are_left() {
    async fn mode(socket: &mut Socket, topic: &str) -> Value {
        socket.subscribe(json!([topic])).await[0]["mode"].take()
    }
    let mut rig = Rig::start("");
    let mut first = rig.connect().await;
    assert_eq!(mode(&mut first, "a").await, "all");
    rig.reload("[topics]\nmode = 'latest'\n", true).await;
    let mut second = rig.connect().await;
    assert_eq!(mode(&mut second, "a").await, "all", "it is open");
    assert_eq!(mode(&mut second, "b").await, "latest");
    drop((first, second));
    until("no topic", || async { rig.metric("tickcast_topics").await == 0.0 }).await;
    assert_eq!(mode(&mut rig.connect().await, "a").await, "latest");
}

/// A program that has a lease on a file: whoever opens that waits until it is given back, as on a network share that does
/// not answer. The kernel takes a lease away after 45 s.
struct Lease {
    program: Child,
    said: BufReader<ChildStdout>,
}

impl Lease {
    fn take(file: &Path) -> Self {
        // The kernel tells who has a lease that somebody waits.
        const SCRIPT: &str = "
import fcntl, signal, sys
signal.signal(signal.SIGIO, lambda *_: print('somebody waits', flush=True))
file = open(sys.argv[1])
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
while True:
    signal.pause()
";
        let mut python = std::process::Command::new("python3");
        python.args(["-c", SCRIPT]).arg(file).stdout(Stdio::piped());
        let mut program = python.spawn().expect("python3");
        let said = BufReader::new(program.stdout.take().expect("a pipe"));
        let mut lease = Self { program, said };
        lease.expect_said("held");
        lease
    }

    fn expect_said(&mut self, expected: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

/// Whoever reads the file waits. Answers when the node does, and the node goes on waiting for as long as the answer is
/// kept.
async fn hang_reload(rig: &Rig) -> Lease {
    let mut lease = Lease::take(&rig.file);
    rig.program.signal(Signal::HUP);
    let waits = tokio::task::spawn_blocking(move || {
        lease.expect_said("somebody waits");
        lease
    });
    within("a reader", waits).await.expect("no panic")
}

#[tokio::test]
async fn a_node_whose_reload_hangs_ends_when_it_is_told_to() {
    for by_signal in [true, false] {
        let mut rig = Rig::start("");
        let _lease = hang_reload(&rig).await;
        let begun = Instant::now();
        if by_signal {
            rig.program.terminate();
        } else {
            let answer = Raw::connect(rig.program.admin).await.post("/admin/drain", "", "").await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        assert_eq!(rig.program.wait().code(), Some(0), "{}", rig.program.log());
        // The reload alone would have taken five.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(!rig.program.log().contains("not reloaded"), "{}", rig.program.log());
    }
}

#[tokio::test]
async fn a_reload_that_hangs_fails_in_time_and_the_next_one_waits_for_its_end() {
    let mut rig = Rig::start("");
    let lease = hang_reload(&rig).await;
    let failures = "tickcast_config_reloads_total{result=\"failure\"}";
    until("failure", || async { rig.metric(failures).await == 1.0 }).await;
    let hangs = "configuration not reloaded, the old one stays in force: reading the configuration takes longer than 5 s";
    rig.expect_said("ERROR", hangs).await;
    assert_eq!(rig.metric("tickcast_config_last_reload_successful").await, 0.0);
    assert_eq!(rig.raw().await.post("/v1/topics/a", "", "1").await.status, 200);

    // Whoever asks now is told in time, and no second thread is lost to the file.
    let threads = || {
        let folder = format!("/proc/{}/task", rig.program.pid().as_raw_nonzero());
        std::fs::read_dir(folder).expect("it runs").count()
    };
    let before = threads();
    let answer = Raw::connect(rig.program.admin).await.post("/admin/reload", "", "").await;
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("bad_configuration")));
    let error = answer.json()["errors"][0].take();
    assert!(error.as_str().is_some_and(|text| text.contains("takes longer than 5 s")), "{error}");
    assert!(threads() <= before, "{before} and then {}", threads());

    drop(lease);
    rig.reloads.1 = 2;
    rig.reload("[drain]\nrate = 7\n", true).await;
    rig.expect_said("INFO", "configuration reloaded; in force: drain.rate = 7").await;
}

#[tokio::test]
async fn a_reload_tells_its_caller_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tickcast.toml");
    let ports = "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n";
    std::fs::write(&file, ports).expect("a file");
    let inputs = Inputs::new(Some(&file), std::iter::empty(), Flags::default());
    let (config, _) = inputs.load().expect("a good file");
    let server = Server::start(config).await.expect("free ports");
    assert!(matches!(server.reload().await, Err(ReloadError::NoInputs)));

    server.set_inputs(inputs);
    let reloaded = server.reload().await.expect("nothing has changed");
    assert_eq!(json!(reloaded), json!({"changed": [], "needs_restart": []}));
    std::fs::write(&file, format!("{ports}workers = 9\n[drain]\nrate = 5\n")).expect("a file");
    let reloaded = server.reload().await.expect("a good file");
    assert_eq!(
        json!(reloaded),
        json!({"changed": ["drain.rate"], "needs_restart": ["server.workers"]})
    );
    std::fs::write(&file, "[drain]\nrate = 0\n").expect("a file");
    let Err(ReloadError::Config(errors)) = server.reload().await else { panic!("a bad file") };
    assert_eq!(errors.problems()[0].key, "drain.rate");
    server.stop().await;
}
