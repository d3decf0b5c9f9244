//! Starts and stops the servers under test: on their own core, on free ports, with their last words kept.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

use crate::error::LoadError;
use crate::proc::pin;

/// Longest wait for a server's first healthy answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions for its health.
const HEALTH_STEP: Duration = Duration::from_millis(20);
/// One question for its health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a server to end by itself after SIGTERM, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a server's output an error message shows, in bytes.
const LAST_WORDS: usize = 600;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Floor,
    Gateway,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Floor => "bare loop",
            Self::Gateway => "gateway",
        })
    }
}

/// Starts servers, one at a time.
#[derive(Debug)]
pub(super) struct Launcher {
    floor: PathBuf,
    gateway: PathBuf,
    server_core: usize,
    generator_core: usize,
    /// Configuration and output of the servers; removed at the end.
    folder: TempDir,
}

impl Launcher {
    pub(super) fn new(
        gateway: &Path,
        server_core: usize,
        generator_core: usize,
    ) -> Result<Self, LoadError> {
        if !gateway.is_file() {
            return Err(LoadError::Usage {
                flag: "--server",
                value: gateway.display().to_string(),
                problem: "is not a file",
                fix: "build the gateway in release mode and give its binary".to_owned(),
            });
        }
        let floor = std::env::current_exe()
            .map_err(LoadError::system("finding this program", "run it from a readable file"))?;
        let folder = tempfile::tempdir()
            .map_err(LoadError::system("making a temporary folder", "free some disk space"))?;
        Ok(Self { floor, gateway: gateway.to_owned(), server_core, generator_core, folder })
    }

    /// Starts a fresh server and waits until it is healthy.
    pub(super) fn start(&self, kind: Kind, config: &str) -> Result<Server, LoadError> {
        let log = self.folder.path().join("server.log");
        let prepare = || -> io::Result<(Command, SocketAddr)> {
            let [public, admin] = free_addresses()?;
            let mut command = match kind {
                Kind::Floor => {
                    let mut command = Command::new(&self.floor);
                    command.args(["floor", "--listen", &public.to_string()]);
                    command
                }
                Kind::Gateway => {
                    let file = self.folder.path().join("gateway.toml");
                    fs::write(&file, config)?;
                    let mut command = Command::new(&self.gateway);
                    command
                        .args(["serve", "--workers", "1"])
                        .args(["--listen", &public.to_string()])
                        .args(["--admin-listen", &admin.to_string()])
                        .arg("--config")
                        .arg(file);
                    command
                }
            };
            let output = File::create(&log)?;
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
            Ok((command, public))
        };
        let failed = |error| {
            LoadError::system(format!("starting the {kind}"), "check --server and its rights")(
                error,
            )
        };
        let (mut command, address) = prepare().map_err(failed)?;
        // A child inherits the core of the thread that starts it.
        pin(self.server_core)?;
        let child = command.spawn();
        pin(self.generator_core)?;
        let mut server = Server { kind, child: child.map_err(failed)?, address, log };
        server.wait_healthy()?;
        Ok(server)
    }
}

/// Two ports that were free a moment ago, chosen together so that they differ.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let (first, second) = (
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    );
    Ok([first.local_addr()?, second.local_addr()?])
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, politely first.
    pub(super) fn stop(mut self) -> Result<(), LoadError> {
        if let Some(status) = self.exited()? {
            return Err(self.died(&format!("ended during the run with {status}")));
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)
            .map_err(io::Error::from)
            .map_err(LoadError::system(format!("stopping the {}", self.kind), "stop it by hand"))?;
        self.wait_exit(STOP_TIMEOUT)
    }

    fn wait_healthy(&mut self) -> Result<(), LoadError> {
        let started = Instant::now();
        while !is_healthy(self.address) {
            if let Some(status) = self.exited()? {
                return Err(self.died(&format!("ended at once with {status}")));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(self.died("gave no healthy answer to GET /healthz within 10 s"));
            }
            self.wait_exit(HEALTH_STEP)?;
        }
        Ok(())
    }

    /// Waits until the process has ended, or for `limit`.
    fn wait_exit(&self, limit: Duration) -> Result<(), LoadError> {
        let wait = || -> io::Result<()> {
            let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
            let timeout = Timespec::try_from(limit).map_err(|_long| io::ErrorKind::InvalidInput)?;
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout))?;
            Ok(())
        };
        wait().map_err(LoadError::system(format!("waiting for the {}", self.kind), "run it again"))
    }

    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>, LoadError> {
        self.child
            .try_wait()
            .map_err(LoadError::system(format!("looking after the {}", self.kind), "run it again"))
    }

    fn died(&self, problem: &str) -> LoadError {
        let output = fs::read(&self.log).unwrap_or_default();
        let last = String::from_utf8_lossy(&output[output.len().saturating_sub(LAST_WORDS)..]);
        LoadError::Server {
            place: format!("the {} on {}", self.kind, self.address),
            problem: format!("{problem}; its last output: {:?}", last.trim()),
            fix: "start it by hand with the same flags",
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks `GET /healthz` on the public listener once.
fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_before_anything_runs() {
        let error =
            Launcher::new(Path::new("no/such/tickcast"), 0, 1).expect_err("refused").to_string();
        assert!(error.contains("--server = no/such/tickcast"), "{error}");
    }

    #[test]
    fn a_server_that_ends_at_once_is_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("gateway");
        fs::write(&script, "#!/bin/sh\necho no such flag >&2\nexit 3\n").expect("a script");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, executable).expect("executable");
        let launcher = Launcher::new(&script, 0, 0).expect("a launcher");
        let error = launcher.start(Kind::Gateway, "").expect_err("it died").to_string();
        assert!(error.contains("no such flag") && error.contains("exit status: 3"), "{error}");
    }
}
