//! What is measured: a Redis with nothing in it, and the nodes that share it, on cores of their own.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use super::redis::Redis;
use crate::child::{self, Child, free_addresses};
use crate::error::LoadError;
use crate::http::{Message, excerpt};
use crate::proc::Process;

/// Longest wait for one answer to a question beside the load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer to such a question, in bytes: the metrics have about 30 KB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The node's thread that talks to Redis.
const BROKER_THREAD: &str = "broker";
/// Counts the publications that a node received from Redis.
const RECEIVED: &str = "tickcast_broker_publications_received_total";

/// Who runs where. Redis has a core of its own; on two cores the nodes share the other one with the generator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// The core of Redis.
    pub redis: usize,
    /// The cores of the nodes.
    pub nodes: Vec<usize>,
    /// The core of this program and of `redis-benchmark`.
    pub generator: usize,
}

impl Cores {
    /// Deals out the cores that there are.
    pub(crate) fn deal(available: &[usize]) -> Result<Self, LoadError> {
        let deal = |redis: &usize, nodes: &[usize], generator: &usize| Self {
            redis: *redis,
            nodes: nodes.to_vec(),
            generator: *generator,
        };
        match available {
            [redis, shared] => Ok(deal(redis, &[*shared], shared)),
            [redis, nodes @ .., generator] => Ok(deal(redis, nodes, generator)),
            _ => Err(LoadError::Usage {
                flag: "publish",
                value: format!("{} core", available.len()),
                problem: "Redis would share it with its clients, and nothing could be measured",
                fix: "run on at least two cores".to_owned(),
            }),
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub(super) struct ClusterPlan {
    /// The gateway's binary.
    pub(super) server: PathBuf,
    pub(super) redis_server: PathBuf,
    pub(super) nodes: usize,
    /// Publications of history per topic.
    pub(super) history: u32,
    pub(super) cores: Cores,
}

/// The servers; all are killed when this is dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    // Nodes go before their Redis, and all before the folder.
    nodes: Vec<Node>,
    redis: Child,
    redis_address: SocketAddr,
    pub(super) cores: Cores,
    folder: TempDir,
}

/// One node.
#[derive(Debug)]
struct Node {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Cluster {
    /// Starts everything and waits until every node is ready for publications.
    pub(super) fn start(plan: ClusterPlan) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir()
            .map_err(LoadError::system("making a temporary folder", "free some disk space"))?;
        let [address] = free_addresses()?;
        let redis = start_redis(&plan, address, folder.path())?;
        let mut nodes = Vec::new();
        for number in 1..=plan.nodes {
            nodes.push(start_node(&plan, number, address, folder.path())?);
        }
        Ok(Self { nodes, redis, redis_address: address, cores: plan.cores, folder })
    }

    /// A new connection to Redis.
    pub(super) fn redis(&self) -> Result<Redis, LoadError> {
        Redis::connect(self.redis_address)
    }

    pub(super) fn redis_address(&self) -> SocketAddr {
        self.redis_address
    }

    /// For files of the run.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn redis_process(&self) -> Process {
        Process::new(self.redis.pid())
    }

    /// The processes of the nodes.
    pub(super) fn node_processes(&self) -> Vec<Process> {
        self.nodes.iter().map(|node| Process::new(node.child.pid())).collect()
    }

    /// CPU time of a node's thread that talks to Redis, in nanoseconds; `None` if there is no such thread.
    pub(super) fn broker_cpu_ns(&self, node: usize) -> Option<u64> {
        Process::new(self.nodes.get(node)?.child.pid()).thread_cpu_ns(BROKER_THREAD)
    }

    /// The public listeners of the nodes.
    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}", node.public)).collect()
    }

    /// `node 1 has the pid 4711, …`, for those who want to look closer.
    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().zip(1..);
        let nodes = nodes.map(|(node, number)| format!(", node {number} pid {}", node.child.pid()));
        format!("redis pid {}{}", self.redis.pid(), nodes.collect::<String>())
    }

    /// Sends one publish request to the first node and waits for its answer.
    pub(super) fn publish(&self, request: &[u8]) -> Result<(), LoadError> {
        let Some(node) = self.nodes.first() else { return Ok(()) };
        let answer = exchange(node.public, request)
            .map_err(LoadError::system("publishing one request", "look at the node's log"))?;
        if answer.status == 200 {
            return Ok(());
        }
        Err(LoadError::Server {
            place: format!("a publish request to {}", node.public),
            problem: format!("the status {}: {}", answer.status, excerpt(&answer.body)),
            fix: "start a Redis and the gateway with --redis by hand and publish with curl",
        })
    }

    /// Publications that a node has received from Redis; `None` if it does not tell.
    pub(super) fn received(&self, node: usize) -> Result<Option<u64>, LoadError> {
        let Some(node) = self.nodes.get(node) else { return Ok(None) };
        let answer = get(node.admin, "/metrics")
            .map_err(LoadError::system("reading a node's metrics", "look at the node's log"))?;
        Ok(metric(&String::from_utf8_lossy(&answer.body), RECEIVED))
    }

    /// Makes sure that all servers still run.
    pub(super) fn check(&mut self) -> Result<(), LoadError> {
        self.redis.check()?;
        self.nodes.iter_mut().try_for_each(|node| node.child.check())
    }

    /// Ends everything, politely first.
    pub(super) fn stop(self) -> Result<(), LoadError> {
        let Self { nodes, redis, .. } = self;
        for node in nodes {
            node.child.stop()?;
        }
        redis.stop()
    }
}

fn start_redis(plan: &ClusterPlan, address: SocketAddr, folder: &Path) -> Result<Child, LoadError> {
    let mut command = child::command(&plan.redis_server);
    command
        .args(["--port", &address.port().to_string(), "--bind", &address.ip().to_string()])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder);
    let log = folder.join("redis.log");
    let name = format!("Redis on {address}");
    let mut child = Child::spawn(name, &mut command, &log, &[plan.cores.redis])?;
    child.wait_ready("an answer to PING", || {
        Redis::connect(address).and_then(|mut redis| redis.ask(&["PING"])).is_ok()
    })?;
    Ok(child)
}

fn start_node(
    plan: &ClusterPlan,
    number: usize,
    redis: SocketAddr,
    folder: &Path,
) -> Result<Node, LoadError> {
    let [public, admin] = free_addresses()?;
    let file = folder.join(format!("node-{number}.toml"));
    fs::write(&file, format!("[topics]\nhistory = {}\n", plan.history)).map_err(
        LoadError::system(format!("writing {}", file.display()), "free some disk space"),
    )?;
    let workers = (plan.cores.nodes.len() / plan.nodes.max(1)).max(1);
    let mut command = child::command(&plan.server);
    command
        .args(["serve", "--workers", &workers.to_string()])
        .args(["--listen", &public.to_string()])
        .args(["--admin-listen", &admin.to_string()])
        .args(["--redis", &format!("redis://{redis}/0")])
        .arg("--config")
        .arg(file);
    let log = folder.join(format!("node-{number}.log"));
    let name = format!("node {number} on {public}");
    let mut child = Child::spawn(name, &mut command, &log, &plan.cores.nodes)?;
    child.wait_ready("a good answer to GET /readyz on the admin listener", || {
        get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    })?;
    Ok(Node { child, public, admin })
}

/// An HTTP answer.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// Sends one request on a connection of its own and waits for the answer.
fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request)?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..length]);
        let message = Message::read(&bytes).map_err(io::Error::other)?;
        if let Some((message, status)) =
            message.and_then(|message| Some((message, message.status()?)))
        {
            return Ok(Answer { status, body: message.body.to_vec() });
        }
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other(format!(
                "an answer of more than {ANSWER_BYTES_MAX} bytes"
            )));
        }
    }
}

/// The value of a metric without labels.
fn metric(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(crate::units::to_u64(value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_gets_a_core_of_its_own() {
        let deal = |cores: &[usize]| {
            let cores = Cores::deal(cores).expect("enough");
            (cores.redis, cores.nodes, cores.generator)
        };
        assert_eq!(deal(&[0, 1]), (0, vec![1], 1));
        assert_eq!(deal(&[2, 3, 5]), (2, vec![3], 5));
        assert_eq!(deal(&[0, 1, 2, 3]), (0, vec![1, 2], 3));
        for few in [&[][..], &[0]] {
            let error = Cores::deal(few).expect_err("too few").to_string();
            assert!(error.contains("at least two cores"), "{error}");
        }
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total_more 1\na_total{b=\"c\"} 2\na_total 37\n";
        assert_eq!(metric(text, "a_total"), Some(37));
        assert_eq!(metric(text, "b_total"), None);
    }
}
