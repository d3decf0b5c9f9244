//! A master, a replica and three Sentinels that know each other.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::server::{START_TIMEOUT, Server, command};

const POLL: Duration = Duration::from_millis(20);

/// What runs together.
pub(crate) struct Group {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    pub(crate) sentinels: Vec<Server>,
}

impl Group {
    /// Starts them and waits until every Sentinel has found the others and the replica.
    pub(crate) async fn start() -> Self {
        let master = Server::start(&[]);
        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
        for sentinel in &sentinels {
            wait_for(|| knows_all(sentinel)).await;
        }
        Self { master, replica, sentinels }
    }

    /// The URL of a node.
    pub(crate) fn url(&self) -> String {
        let mut url = "redis+sentinel://".to_owned();
        for (index, sentinel) in self.sentinels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(url, "{comma}127.0.0.1:{}", sentinel.port).unwrap();
        }
        url + "/main"
    }
}

fn sentinel(master: u16) -> Server {
    let directory = tempfile::tempdir().unwrap();
    // A Sentinel rewrites its configuration, so it needs a file.
    let text = format!(
        "bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
    );
    std::fs::write(directory.path().join("sentinel.conf"), text).unwrap();
    Server::start_in(directory, "+monitor", &["{dir}/sentinel.conf", "--sentinel"])
}

fn knows_all(sentinel: &Server) -> bool {
    let facts: std::collections::HashMap<String, String> =
        redis::from_redis_value(command(&sentinel.url(), &["SENTINEL", "MASTER", "main"])).unwrap();
    facts["num-other-sentinels"] == "2" && facts["num-slaves"] == "1"
}

/// Looks again and again, for as long as a failover may take on a slow machine.
pub(crate) async fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition does not come true");
        tokio::time::sleep(POLL).await;
    }
}
