//! Real Redis servers and Sentinels on free ports, killed and stopped at will.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::port::Port;
use crate::process::{PATIENCE, Process, until};

/// What every server gets: nothing is saved unless a test does it, and a replica is in step soon.
const SETTINGS: [&str; 8] = [
    "bind 127.0.0.1",
    "protected-mode no",
    "save \"\"",
    "appendonly no",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "repl-ping-replica-period 1",
    "shutdown-timeout 0",
];

/// Time for one answer to a test. A server that is stopped gives none.
const ANSWER: Duration = Duration::from_secs(5);

/// The name under which Sentinels know their master.
pub(crate) const MASTER: &str = "tickcast";

/// What a server remembers when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Nothing.
    Lost,
    /// What was in its file at the last `SAVE`.
    Saved,
}

/// A server, or a Sentinel, which is a server of another kind.
#[derive(Debug)]
pub(crate) struct Redis {
    port: Port,
    folder: TempDir,
    arguments: &'static [&'static str],
    process: Process,
}

impl Redis {
    /// Starts a server with lines of its configuration, such as `maxclients 5`, and waits until it answers.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::with(Port::free(), &[], &[&SETTINGS[..], settings].concat())
    }

    /// A server that follows this one, and is in step.
    pub(crate) fn start_replica(&self, settings: &[&str]) -> Self {
        let before = self.replicas();
        let following = format!("replicaof 127.0.0.1 {}", self.address().port());
        let replica = Self::start(&[&[following.as_str()], settings].concat());
        until("in step", PATIENCE, || self.replicas() > before);
        replica
    }

    fn with(port: Port, arguments: &'static [&'static str], settings: &[&str]) -> Self {
        let folder = TempDir::with_prefix("tickcast-redis-").expect("a folder");
        let place = format!("port {}\ndir {}\n", port.address.port(), folder.path().display());
        let file = folder.path().join("redis.conf");
        std::fs::write(file, place + &settings.join("\n")).expect("room on the disk");
        let process = launch(&folder, arguments);
        let server = Self { port, folder, arguments, process };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        // A file that is loaded, or a script of before, may keep it busy for a moment.
        until("ready", PATIENCE, || self.try_ask::<String>(&["PING"]).is_ok());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Its URL, for `--redis`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    /// Sends one command over a connection of its own.
    pub(crate) fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        let (name, arguments) = command.split_first().expect("a command");
        redis::cmd(name).arg(arguments).query(&mut connection)
    }

    /// The answer to a command that must succeed.
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Sends a command whose answer does not matter; it must succeed.
    pub(crate) fn tell(&self, command: &[&str]) {
        self.ask::<redis::Value>(command);
    }

    /// A field of `INFO`.
    pub(crate) fn info(&self, section: &str, field: &str) -> String {
        let info: String = self.ask(&["INFO", section]);
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {info}")).to_owned()
    }

    /// How many replicas are in step.
    pub(crate) fn replicas(&self) -> usize {
        let info: String = self.ask(&["INFO", "replication"]);
        info.lines().filter(|line| line.contains("state=online")).count()
    }

    pub(crate) fn is_master(&self) -> bool {
        self.try_ask::<String>(&["INFO", "replication"])
            .is_ok_and(|info| info.contains("role:master"))
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port, after it was killed.
    pub(crate) fn start_again(&mut self, memory: Memory) {
        if memory == Memory::Lost {
            // There is none if it never saved.
            drop(std::fs::remove_file(self.saved()));
        }
        self.process = launch(&self.folder, self.arguments);
        self.wait_until_ready();
    }

    /// The file of `SAVE`.
    pub(crate) fn saved(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// Stops it in the middle of what it does. The kernel still accepts connections and bytes for it.
    pub(crate) fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub(crate) fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }
}

fn launch(folder: &TempDir, arguments: &[&str]) -> Process {
    let mut command = Command::new("redis-server");
    command.arg(folder.path().join("redis.conf")).args(arguments);
    Process::start("redis-server", &mut command)
}

/// Sentinels that watch one master.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<Redis>,
}

impl Sentinels {
    /// Starts them, and waits until they know each other and all replicas.
    pub(crate) fn start(count: usize, quorum: usize, down_after: Duration, master: &Redis) -> Self {
        let port = master.address().port();
        let settings = [
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            format!("sentinel monitor {MASTER} 127.0.0.1 {port} {quorum}"),
            format!("sentinel down-after-milliseconds {MASTER} {}", down_after.as_millis()),
            format!("sentinel failover-timeout {MASTER} 5000"),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let start = |_| Redis::with(Port::free(), &["--sentinel"], &settings);
        let sentinels = Self { servers: (0..count).map(start).collect() };
        let known = [("num-other-sentinels", count - 1), ("num-slaves", master.replicas())];
        for sentinel in &sentinels.servers {
            until("known to each other", PATIENCE, || {
                let facts: std::collections::HashMap<String, String> =
                    sentinel.ask(&["SENTINEL", "MASTER", MASTER]);
                known.iter().all(|(fact, count)| facts[*fact] == count.to_string())
            });
        }
        sentinels
    }

    /// Their URL, for `--redis`.
    pub(crate) fn url(&self) -> String {
        let addresses = self.servers.iter().map(|server| server.address().to_string());
        format!("redis+sentinel://{}/{MASTER}/0", addresses.collect::<Vec<_>>().join(","))
    }

    /// Lets a replica take over although the master is well.
    pub(crate) fn fail_over(&self) {
        self.servers[0].tell(&["SENTINEL", "FAILOVER", MASTER]);
    }

    /// Where the master is, in the opinion of most of them; none while they do not agree.
    pub(crate) fn master(&self) -> Option<SocketAddr> {
        let opinions: Vec<_> = self.servers.iter().filter_map(opinion).collect();
        let is_majority = |address: &&SocketAddr| {
            opinions.iter().filter(|other| other == address).count() * 2 > self.servers.len()
        };
        opinions.iter().find(is_majority).copied()
    }
}

fn opinion(sentinel: &Redis) -> Option<SocketAddr> {
    let (host, port): (String, String) =
        sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).ok()?;
    format!("{host}:{port}").parse().ok()
}
