//! Starts and stops the servers under test: on their own core, on free ports, with their last words kept.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{self, Child, free_addresses};
use crate::error::LoadError;

/// One question for a server's health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Configuration and output of the servers; removed at the end.
    folder: TempDir,
}

impl Launcher {
    pub(super) fn new(gateway: &Path, server_core: usize) -> Result<Self, LoadError> {
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
        Ok(Self { floor, gateway: gateway.to_owned(), server_core, folder })
    }

    /// Starts a fresh server and waits until it is healthy.
    pub(super) fn start(&self, kind: Kind, config: &str) -> Result<Server, LoadError> {
        let [address, admin] = free_addresses()?;
        let mut command = match kind {
            Kind::Floor => {
                let mut command = child::command(&self.floor);
                command.args(["floor", "--listen", &address.to_string()]);
                command
            }
            Kind::Gateway => {
                let file = self.folder.path().join("gateway.toml");
                fs::write(&file, config).map_err(LoadError::system(
                    format!("writing {}", file.display()),
                    "free some disk space",
                ))?;
                let mut command = child::command(&self.gateway);
                command
                    .args(["serve", "--workers", "1"])
                    .args(["--listen", &address.to_string()])
                    .args(["--admin-listen", &admin.to_string()])
                    .arg("--config")
                    .arg(file);
                command
            }
        };
        let log = self.folder.path().join("server.log");
        let name = format!("the {kind} on {address}");
        let mut child = Child::spawn(name, &mut command, &log, &[self.server_core])?;
        child.wait_ready("a healthy answer to GET /healthz", || is_healthy(address))?;
        Ok(Server { child, address })
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Ends it, politely first.
    pub(super) fn stop(self) -> Result<(), LoadError> {
        self.child.stop()
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
            Launcher::new(Path::new("no/such/tickcast"), 0).expect_err("refused").to_string();
        assert!(error.contains("--server = no/such/tickcast"), "{error}");
    }

    #[test]
    fn a_server_that_ends_at_once_is_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("gateway");
        fs::write(&script, "#!/bin/sh\necho no such flag >&2\nexit 3\n").expect("a script");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, executable).expect("executable");
        let launcher = Launcher::new(&script, 0).expect("a launcher");
        let error = launcher.start(Kind::Gateway, "").expect_err("it died").to_string();
        assert!(error.contains("no such flag") && error.contains("exit status: 3"), "{error}");
    }
}
