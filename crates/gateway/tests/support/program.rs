//! The program as a child process. Whatever it is doing, it is killed when its handle is dropped.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program with these arguments, deaf to the environment of the test.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// `tickcast serve` on free ports.
pub(crate) struct Program {
    child: Child,
    /// Its log so far, for the message of a test that fails.
    log: Arc<Mutex<String>>,
    /// Disconnected when the program closes its log: when it ends.
    running: Receiver<()>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// Starts a node with settings such as `("topics.history", "50")`, and waits until it serves.
    pub(crate) fn serve(settings: &[(&str, &str)]) -> Self {
        Self::start(command(&Self::ARGUMENTS), settings)
    }

    /// What a command must say for [`Program::start`].
    pub(crate) const ARGUMENTS: [&str; 7] = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ];

    /// Runs a command that runs a node, with settings in its environment, and waits until the node serves.
    pub(crate) fn start(mut command: Command, settings: &[(&str, &str)]) -> Self {
        // There is no load balancer that must notice the end first.
        command.env("TICKCAST__DRAIN__DELAY", "0s");
        for (key, value) in settings {
            let name = format!("TICKCAST__{}", key.to_ascii_uppercase().replace('.', "__"));
            command.env(name, value);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let (started, addresses) = channel();
        let (ended, running) = channel();
        let log = Arc::<Mutex<String>>::default();
        let (stderr, copy) = (child.stderr.take().expect("piped"), Arc::clone(&log));
        std::thread::spawn(move || follow(stderr, &copy, &started, ended));
        let Ok((address, admin)) = addresses.recv_timeout(PATIENCE) else {
            panic!("the node did not start: {}", log.lock().expect("no panic"))
        };
        Self { child, log, running, address, admin }
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is running");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if self.running.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            panic!("the node does not end: {}", self.log());
        }
        self.child.wait().expect("it is ours")
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that nothing is left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Copies the log to its end, and tells the addresses when the node names them. Holds `_ended` as long as it is open.
fn follow(
    stderr: ChildStderr,
    log: &Mutex<String>,
    started: &Sender<(SocketAddr, SocketAddr)>,
    _ended: Sender<()>,
) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "serving" {
            let address = |key| event[key].as_str().and_then(|text| text.parse().ok());
            let addresses = address("listen").zip(address("admin")).expect("two addresses");
            if started.send(addresses).is_err() {
                return; // The start took too long.
            }
        }
        let mut log = log.lock().expect("no panic");
        log.push_str(&line);
        log.push('\n');
    }
}
