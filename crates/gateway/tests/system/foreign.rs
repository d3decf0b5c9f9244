//! Clients in processes of their own, written by others, that print every message as a line.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::oracle::{Follower, Oracle};
use crate::packages::packages;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that may wait for the test. More than any client is ahead of it.
const LINES_MAX: usize = 100_000;

/// A client of the npm package `ws`.
pub(crate) fn ws() -> Command {
    script("node", "ws.mjs")
}

/// What a page in a browser does.
pub(crate) fn browser() -> Command {
    script("node", "browser.mjs")
}

/// A client of the Python package `websockets`.
pub(crate) fn python() -> Command {
    let python = packages().join("venv/bin/python");
    script(python.to_str().expect("a readable path"), "python.py")
}

fn script(program: &str, script: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// One client, through all its processes.
pub(crate) struct Client {
    pub(crate) follower: Follower,
    name: &'static str,
    process: Option<(Child, Receiver<String>)>,
}

impl Client {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { follower: Follower::new(name), name, process: None }
    }

    /// Starts a process that subscribes to topics, in its URL or by a command, and waits for the acknowledgement.
    pub(crate) fn start(&mut self, mut command: Command, oracle: &mut Oracle) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name));
        let (sender, lines) = sync_channel(LINES_MAX);
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || follow(stdout, &sender));
        self.process = Some((child, lines));
        let acknowledgement = self.line(Instant::now() + PATIENCE);
        assert!(acknowledgement.contains(r#""type":"subscribed""#), "{acknowledgement}");
        self.follower.receives(&acknowledgement, oracle);
    }

    /// Reads that many messages.
    pub(crate) fn read(&mut self, count: usize, oracle: &mut Oracle) {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..count {
            let line = self.line(deadline);
            self.follower.receives(&line, oracle);
        }
    }

    /// Reads until the client has everything that was published.
    pub(crate) fn catch_up(&mut self, oracle: &mut Oracle) {
        let deadline = Instant::now() + PATIENCE;
        while !self.follower.is_up_to_date(oracle) {
            let line = self.line(deadline);
            self.follower.receives(&line, oracle);
        }
    }

    /// Kills the process without a word. What it has printed counts as received.
    pub(crate) fn kill(&mut self, oracle: &mut Oracle) {
        let (mut child, lines) = self.process.take().expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        lines.iter().for_each(|line| self.follower.receives(&line, oracle));
        self.follower.loses_connection();
    }

    fn line(&self, deadline: Instant) -> String {
        let (_, lines) = self.process.as_ref().expect("it runs");
        let patience = deadline.saturating_duration_since(Instant::now());
        lines.recv_timeout(patience).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => panic!("{} has nothing more to say", self.name),
            RecvTimeoutError::Disconnected => panic!("{} has ended", self.name),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.process {
            // It may have ended by itself; what matters is that nothing is left.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Hands on whole lines: the last one of a process that was killed may be cut.
fn follow(stdout: ChildStdout, lines: &SyncSender<String>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = String::new();
        let is_whole = stdout.read_line(&mut line).is_ok() && line.pop() == Some('\n');
        if !is_whole || lines.send(line).is_err() {
            return;
        }
    }
}
