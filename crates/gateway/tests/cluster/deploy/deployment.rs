//! The cluster of `scripts/cluster`, on free ports.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::exposition;
use crate::port::Port;
use crate::process::{PATIENCE, Process, until};

/// Time for one answer to a test.
const ANSWER: Duration = Duration::from_secs(10);

/// Backends of the load balancer.
const BACKENDS: [&str; 2] = ["publish", "subscribe"];

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Everything that the script starts.
pub(crate) struct Deployment {
    pub(crate) script: Process,
    pub(crate) folder: PathBuf,
    _parent: TempDir,
    balancer: [Port; 3],
    nodes: [Port; 6],
    _redis: Port,
    prometheus: Port,
}

fn list(ports: &[Port]) -> String {
    let numbers: Vec<_> = ports.iter().map(|port| port.address.port().to_string()).collect();
    numbers.join(" ")
}

/// The script with the program of this test, before it has chosen ports.
pub(crate) fn script(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new("bash");
    command.arg(root().join("scripts/cluster"));
    command.env("TICKCAST_BIN", env!("CARGO_BIN_EXE_tickcast"));
    command.envs(settings.iter().copied());
    command
}

impl Deployment {
    /// Starts it with variables of the script, or of all nodes, and waits until it says that it is there.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let (balancer, nodes) = ([(); 3].map(|()| Port::free()), [(); 6].map(|()| Port::free()));
        let (redis, prometheus) = (Port::free(), Port::free());
        let parent = TempDir::with_prefix("tickcast-cluster-").expect("a folder");
        let folder = parent.path().join("cluster");
        let mut command = script(settings);
        command
            .env("FOLDER", &folder)
            .env("BALANCER_PORTS", list(&balancer))
            .env("NODE_PORTS", list(&nodes))
            .env("REDIS_PORT", redis.address.port().to_string())
            .env("PROMETHEUS_PORT", prometheus.address.port().to_string());
        let script = Process::start("cluster", &mut command);
        script.wait_for("page", |line| line.contains("Ctrl-C ends").then_some(()));
        Self { script, folder, _parent: parent, balancer, nodes, _redis: redis, prometheus }
    }

    /// Where clients connect with http and ws.
    pub(crate) fn http(&self) -> SocketAddr {
        self.balancer[0].address
    }

    /// Where clients connect with https and wss.
    pub(crate) fn https(&self) -> SocketAddr {
        self.balancer[1].address
    }

    pub(crate) fn prometheus(&self) -> SocketAddr {
        self.prometheus.address
    }

    /// The public address of a node, counted from 1.
    pub(crate) fn node(&self, number: usize) -> SocketAddr {
        self.nodes[2 * number - 2].address
    }

    /// The admin address of a node, counted from 1.
    pub(crate) fn admin(&self, number: usize) -> SocketAddr {
        self.nodes[2 * number - 1].address
    }

    /// Has Prometheus send alerts there.
    pub(crate) fn send_alerts_to(&self, receiver: SocketAddr) {
        let targets = self.folder.join("prometheus/targets");
        let text = format!("- targets: ['{receiver}']\n");
        // In one step: somebody may read it now.
        std::fs::write(targets.join("new"), text).expect("room on the disk");
        let file = targets.join("alertmanager.yaml");
        std::fs::rename(targets.join("new"), file).expect("room on the disk");
    }

    /// A file that the script has made.
    pub(crate) fn read(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(file));
        text.unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// A key that may publish.
    pub(crate) fn key(&self) -> String {
        self.read("publisher.key").trim().to_owned()
    }

    /// The process with this name, as it is now: `redis`, `node-1`, `haproxy` and so on.
    pub(crate) fn id(&self, name: &str) -> Pid {
        let text = self.read(&format!("{name}.pid"));
        text.trim().parse().ok().and_then(Pid::from_raw).unwrap_or_else(|| panic!("{name}: {text}"))
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        kill_process(self.id(name), signal).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// One number that the load balancer exports.
    pub(crate) fn balancer(&self, series: &str) -> Option<f64> {
        exposition::value(&self.balancer_metrics().ok()?, series)
    }

    /// Everything that the load balancer exports.
    pub(crate) fn balancer_metrics(&self) -> io::Result<String> {
        fetch(self.balancer[2].address, "/metrics")
    }

    /// Whether a backend of the load balancer sends anything to a node.
    pub(crate) fn is_used(&self, backend: &str, node: &str) -> bool {
        let state = format!(r#"proxy="{backend}",server="{node}",state="UP""#);
        self.balancer(&format!("haproxy_server_status{{{state}}}")) == Some(1.0)
    }

    /// Waits until the load balancer sends nothing to a node any more.
    pub(crate) fn until_left_out(&self, node: &str) -> Duration {
        until("left out", PATIENCE, || BACKENDS.iter().all(|backend| !self.is_used(backend, node)))
    }

    /// Waits until the load balancer uses a node for everything.
    pub(crate) fn until_used(&self, node: &str) -> Duration {
        until("in use", PATIENCE, || BACKENDS.iter().all(|backend| self.is_used(backend, node)))
    }
}

impl Drop for Deployment {
    /// The script ends what it has started; killed, it could not.
    fn drop(&mut self) {
        let haproxy = std::fs::read_to_string(self.folder.join("haproxy.log")).unwrap_or_default();
        if self.script.ended().is_none() {
            self.script.signal(Signal::TERM);
            until("ended", PATIENCE, || self.script.ended().is_some());
        }
        if std::thread::panicking() {
            println!("{}", self.script.log());
            println!("{haproxy}");
        }
    }
}

/// Whether a process has ended.
pub(crate) fn has_ended(id: Pid) -> bool {
    test_kill_process(id).is_err()
}

/// The body of an answer of a server that may not know its length.
pub(crate) fn fetch(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.get(9..12) != Some("200") {
        return Err(io::Error::other(head.to_owned()));
    }
    Ok(body.to_owned())
}
