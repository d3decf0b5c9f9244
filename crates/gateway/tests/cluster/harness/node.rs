//! A node as a process, and what operators see of it.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::http::{Answer, Http};
use crate::exposition;
use crate::process::{PATIENCE, Process, until};

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

/// The program, ready to serve on free ports, with settings such as `("topics.history", "50")`.
pub(crate) fn command(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.env_clear();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]);
    // There is no load balancer that must notice the end first.
    command.env("TICKCAST__DRAIN__DELAY", "0s");
    for (key, value) in settings {
        let name = format!("TICKCAST__{}", key.to_ascii_uppercase().replace('.', "__"));
        command.env(name, value);
    }
    command
}

impl Node {
    /// Starts a node and waits until a publication would arrive.
    pub(crate) fn start(redis: &str, settings: &[(&str, &str)]) -> Self {
        let node = Self::run(command(settings).args(["--redis", redis]));
        node.until_ready();
        node
    }

    /// Starts a node and waits until it listens.
    pub(crate) fn run(command: &mut Command) -> Self {
        let process = Process::start("tickcast", command);
        let (address, admin) = process.wait_for("addresses", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let address = |key| event[key].as_str().and_then(|text| text.parse().ok());
            (event["message"] == "serving").then(|| address("listen").zip(address("admin")))?
        });
        Self { process, address, admin }
    }

    /// Takes over a node whose addresses are known, because its log goes somewhere else; waits until it is ready.
    pub(crate) fn adopt(child: Child, address: SocketAddr, admin: SocketAddr) -> Self {
        let node = Self { process: Process::adopt("tickcast", child), address, admin };
        until("ready", PATIENCE, || !node.is_gone_or_unready());
        node
    }

    pub(crate) fn until_ready(&self) -> Duration {
        until("ready", PATIENCE, || self.readiness().0 == 200)
    }

    /// How long it takes from `start` on until the node says so itself.
    pub(crate) fn until_not_ready(&self, start: Instant) -> Duration {
        until("not ready", PATIENCE, || self.readiness().0 == 503);
        start.elapsed()
    }

    /// One answer of the public listener.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    /// Publishes one payload with a key.
    pub(crate) fn publish(&self, topic: &str, key: &str, payload: &str) -> Answer {
        self.post(&format!("/v1/topics/{topic}"), key, payload)
    }

    /// One answer to a body with a key.
    pub(crate) fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        let answer = Http::connect(self.address).and_then(|mut http| http.post(path, key, body));
        answer.expect("an answer")
    }

    /// One answer of the admin listener.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        get(self.admin, path)
    }

    /// Whether a publication would arrive, and what there is to say about it.
    pub(crate) fn readiness(&self) -> (u16, Value) {
        let answer = self.admin("/readyz");
        (answer.status, answer.json())
    }

    /// What a load balancer would find: it answers that it is not ready, or does not answer at all.
    pub(crate) fn is_gone_or_unready(&self) -> bool {
        let answer = Http::connect(self.admin).and_then(|mut http| http.get("/readyz"));
        answer.map_or(true, |answer| answer.status != 200)
    }

    /// The same for clients that only subscribe.
    pub(crate) fn readiness_for_subscribers(&self) -> (u16, Value) {
        let answer = self.admin("/readyz?for=subscribe");
        (answer.status, answer.json())
    }

    /// One number of the metrics now.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let exposition = self.admin("/metrics").body;
        exposition::value(&exposition, series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    pub(crate) fn resident_bytes(&self) -> f64 {
        self.metric("process_resident_memory_bytes")
    }

    pub(crate) fn open_files(&self) -> f64 {
        self.metric("process_open_fds")
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, as an operator would.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Has it read its configuration again.
    pub(crate) fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Waits for its end.
    pub(crate) fn until_ended(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        until("ended", patience, || {
            status = self.process.ended();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Stops it in the middle of what it does.
    pub(crate) fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub(crate) fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }
}

fn get(address: SocketAddr, path: &str) -> Answer {
    Http::connect(address).and_then(|mut http| http.get(path)).expect("an answer")
}
