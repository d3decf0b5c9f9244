//! Child processes: whatever they are doing, they are killed when their handle is dropped.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a busy machine; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often something that has no event of its own is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until `holds`, and says how long that took.
pub(crate) fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "not {what} within {patience:?}");
        std::thread::park_timeout(GLANCE);
    }
    start.elapsed()
}

/// A child process and what it prints.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Process {
    /// Starts it; standard output and standard error become one log.
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut process = Self::adopt(name, child);
        let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
        process.log.follow(stdout.expect("piped"));
        process.log.follow(stderr.expect("piped"));
        process
    }

    /// Takes over a child whose output goes somewhere else.
    pub(crate) fn adopt(name: impl Into<String>, child: Child) -> Self {
        Self { name: name.into(), child, log: Arc::default() }
    }

    /// The first line of the log for which `find` has an answer. Waits for it.
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = lines[seen..].iter().find_map(|line| find(line)) {
                return found;
            }
            seen = lines.len();
            let is_late = self.log.grown.wait_until(&mut lines, deadline).timed_out();
            assert!(!is_late, "{}: no {what} in its log: {}", self.name, lines.join("\n"));
        }
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Kills it without a word, and waits for its end.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        // It may have ended by itself; what matters is that nothing is left.
        drop(self.child.kill());
        self.child.wait().expect("it is ours")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Log {
    /// Copies a stream to its end.
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lines.lock().push(line);
                log.grown.notify_all();
            }
        });
    }
}
