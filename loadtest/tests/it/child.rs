//! The program as a child process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tickcast-load");

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program runs")
}

/// A floor on a free port; killed when dropped.
pub(crate) struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Floor {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["floor", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the floor starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        // The line is printed once the floor listens, so no other waiting is needed.
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address");
        Self { address: address.parse().expect("an address"), child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().expect("the floor was running");
        self.child.wait().expect("the floor ends");
    }
}
