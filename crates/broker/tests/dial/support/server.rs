//! A real Redis on a free port, in a directory of its own, gone when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// A machine that runs many tests may take long to start a process.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Another process may take the port between the choice and the use.
const STARTS: usize = 5;

/// Of every server: nothing is written to disk but what a test asks for.
const BASICS: [&str; 6] = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];

/// A running `redis-server`.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// Holds the socket, the certificates and the configuration.
    directory: TempDir,
}

impl Server {
    /// Starts a server with these arguments; `{dir}` and `{port}` in them stand for its directory and port.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(
            directory,
            "Ready to accept connections",
            &[BASICS.as_slice(), arguments].concat(),
        )
    }

    /// Starts one in a directory that may hold a configuration file, and waits for a line of its log.
    pub(crate) fn start_in(directory: TempDir, ready: &'static str, arguments: &[&str]) -> Self {
        for _ in 0..STARTS {
            let port = free_port();
            let mut child = Command::new("redis-server")
                .args(arguments.iter().map(|argument| {
                    let directory = directory.path().to_str().unwrap();
                    argument.replace("{dir}", directory).replace("{port}", &port.to_string())
                }))
                .args(
                    (!arguments.contains(&"--port"))
                        .then(|| ["--port".to_owned(), port.to_string()])
                        .into_iter()
                        .flatten(),
                )
                .current_dir(directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server must be installed");
            if is_ready(&mut child, ready) {
                return Self { child, port, directory };
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("redis-server {arguments:?} does not start");
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends a command over a connection of its own, without credentials.
    pub(crate) fn command(&self, words: &[&str]) -> redis::Value {
        command(&self.url(), words)
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a command to a Redis.
pub(crate) fn command(url: &str, words: &[&str]) -> redis::Value {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query(&mut connection).unwrap()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Waits for a line of the log, or the end of the process. A thread goes on reading, or the pipe would fill up.
fn is_ready(child: &mut Child, ready: &'static str) -> bool {
    let log = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if line.contains(ready) {
                // Nobody waits any more for a line that comes again.
                sender.try_send(()).unwrap_or_default();
            }
        }
    });
    receiver.recv_timeout(START_TIMEOUT).is_ok()
}
