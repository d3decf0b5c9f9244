//! Publications per second through a real Redis, beside `redis-benchmark` making the same script calls of it.
//!
//! Everything that is measured is started here, on cores of its own, and ended with the run. Two questions are asked:
//! how much of what a Redis can do reaches the nodes' clients ([`Comparison`]), and what a publication costs the node
//! that receives it, with its latency from node to node ([`Receiving`]).

mod benchmark;
mod call;
mod cluster;
mod comparison;
mod flood;
mod meter;
mod receiving;
mod redis;
mod report;
mod requests;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::error::{LoadError, within};
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::plan::{RUN_SECONDS_MAX, bounded_nanos};
use crate::proc::{Process, allow_open_files, cores, pin};
use crate::progress::Progress;
use crate::reactor::Reactor;
use crate::receivers::Receivers;
use cluster::{Cluster, ClusterPlan};
use flood::{Answered, Flood};
use meter::Meter;
use requests::{Requests, Shape};

pub use cluster::Cores;
pub use comparison::{Comparison, GATE, Pair};
pub use meter::Window;
pub use receiving::{Receiving, Reception};
pub use report::text;
pub(crate) use report::{broker, percent, shown_ratio};

/// What the names of all topics begin with; a dot and a number follow.
const PREFIX: &str = "publish-load";
/// A node makes one script call of so many publications, and `redis-benchmark` repeats one call.
const BATCH_MAX: u32 = 64;
/// Descriptors besides the clients'.
const SPARE_DESCRIPTORS: usize = 64;

/// What to run; the flags of `tickcast-load publish`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct PublishArgs {
    /// The gateway's binary
    #[arg(long)]
    pub server: PathBuf,
    /// The Redis to start
    #[arg(long, default_value = "redis-server")]
    pub redis_server: PathBuf,
    /// The yardstick, of the package redis-tools
    #[arg(long, default_value = "redis-benchmark")]
    pub redis_benchmark: PathBuf,
    /// Gateway nodes that share the Redis
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// Topics to publish to, in turn
    #[arg(long, default_value_t = 1000)]
    pub topics: u32,
    /// Payload of each publication, in bytes
    #[arg(long, default_value_t = 128)]
    pub size: usize,
    /// Publications per request: 1 is single requests, more is batches
    #[arg(long, default_value_t = 1)]
    pub batch: u32,
    /// Publish everything to one topic
    #[arg(long)]
    pub hot: bool,
    /// Publications of history that each topic keeps; they are filled before anything is measured
    #[arg(long, default_value_t = 0)]
    pub history: u32,
    /// Publishing connections, over all nodes
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests under way on each of them
    #[arg(long, default_value_t = 4)]
    pub pipeline: usize,
    /// Connections of redis-benchmark
    #[arg(long, default_value_t = 4)]
    pub benchmark_connections: usize,
    /// Script calls under way on each of them
    #[arg(long, default_value_t = 64)]
    pub benchmark_pipeline: usize,
    /// Measured window, in seconds
    #[arg(long, default_value_t = 3.0)]
    pub duration: f64,
    /// Publishing before each window, in seconds
    #[arg(long, default_value_t = 0.5)]
    pub warmup: f64,
    /// Repetitions
    #[arg(long, default_value_t = 5)]
    pub reps: usize,
    /// WebSocket subscribers, a topic each in turn; with them the cost of receiving is measured instead of the comparison
    #[arg(long, default_value_t = 0)]
    pub subscribers: usize,
    /// Node of the subscribers, counted from 1; publications then go to node 1 [default: the last]
    #[arg(long)]
    pub subscribe_at: Option<usize>,
    /// Mode of the subscriptions, `all` or `latest` [default: the server's]
    #[arg(long)]
    pub mode: Option<String>,
    /// Updates per second and subscription, at most: leaves little of the cost of sending in the cost of receiving
    #[arg(long)]
    pub max_rate: Option<f64>,
    /// Publications per second for the cost of receiving [default: half of the most there is]
    #[arg(long)]
    pub rate: Option<f64>,
}

impl PublishArgs {
    /// The defaults of the command line, for a gateway.
    #[must_use]
    pub fn new(server: PathBuf) -> Self {
        Self {
            server,
            redis_server: "redis-server".into(),
            redis_benchmark: "redis-benchmark".into(),
            nodes: 1,
            topics: 1000,
            size: 128,
            batch: 1,
            hot: false,
            history: 0,
            connections: 64,
            pipeline: 4,
            benchmark_connections: 4,
            benchmark_pipeline: 64,
            duration: 3.0,
            warmup: 0.5,
            reps: 5,
            subscribers: 0,
            subscribe_at: None,
            mode: None,
            max_rate: None,
            rate: None,
        }
    }

    /// Refuses what makes no sense, before anything is started.
    fn check(&self) -> Result<(), LoadError> {
        if !self.server.is_file() {
            return Err(LoadError::Usage {
                flag: "--server",
                value: self.server.display().to_string(),
                problem: "is not a file",
                fix: "build the gateway in release mode and give its binary".to_owned(),
            });
        }
        within("--nodes", self.nodes, 1, 64)?;
        within("--topics", self.topics, 1, 1_000_000)?;
        within("--size", self.size, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX)?;
        within("--batch", self.batch, 1, BATCH_MAX)?;
        within("--history", self.history, 0, 1_000_000)?;
        within("--connections", self.connections, self.nodes, 10_000)?;
        within("--pipeline", self.pipeline, 1, 1000)?;
        within("--benchmark-connections", self.benchmark_connections, 1, 1000)?;
        within("--benchmark-pipeline", self.benchmark_pipeline, 1, 10_000)?;
        within("--duration", self.duration, 0.1, RUN_SECONDS_MAX)?;
        within("--warmup", self.warmup, 0.0, RUN_SECONDS_MAX)?;
        within("--reps", self.reps, 1, 100)?;
        within("--subscribers", self.subscribers, 0, 1_000_000)?;
        within("--subscribe-at", self.subscribe_at.unwrap_or(1), 1, self.nodes)?;
        within("--rate", self.rate.unwrap_or(1.0), 1.0, 1e6)
    }

    fn shape(&self) -> Shape {
        Shape { topics: self.topics, batch: self.batch, hot: self.hot, size: self.size }
    }

    /// Topics that are published to.
    fn topics_used(&self) -> u32 {
        if self.hot { 1 } else { self.topics }
    }

    /// Place of the subscribers' node, counted from 0.
    fn subscribers_node(&self) -> usize {
        self.subscribe_at.unwrap_or(self.nodes) - 1
    }

    /// Publications after which every history is full: a third more than fits, since they are spread by chance where
    /// `redis-benchmark` draws the topics.
    fn fill(&self) -> u64 {
        u64::from(self.topics_used()) * u64::from(self.history) * 4 / 3
    }
}

/// Everything that a run found out.
#[derive(Debug, Clone, Serialize)]
pub struct PublishReport {
    /// What was run.
    pub args: PublishArgs,
    /// Who ran where.
    pub cores: Cores,
    /// Beside `redis-benchmark`; absent with subscribers.
    pub comparison: Option<Comparison>,
    /// What receiving costs; absent without subscribers.
    pub receiving: Option<Receiving>,
}

/// Runs it.
///
/// # Errors
/// If the arguments make no sense, a server does not start or ends, or nothing is accepted.
pub fn run(args: &PublishArgs, progress: &mut Progress) -> Result<PublishReport, LoadError> {
    // Read before pinning, which leaves this process one core.
    measure(args, Cores::deal(&cores()?)?, progress)
}

/// Runs it on these cores.
///
/// # Errors
/// As [`run`].
pub fn measure(
    args: &PublishArgs,
    cores: Cores,
    progress: &mut Progress,
) -> Result<PublishReport, LoadError> {
    args.check()?;
    allow_open_files(args.connections + args.subscribers + SPARE_DESCRIPTORS)?;
    pin(cores.generator)?;
    let cluster = Cluster::start(ClusterPlan {
        server: args.server.clone(),
        redis_server: args.redis_server.clone(),
        nodes: args.nodes,
        history: args.history,
        cores: cores.clone(),
    })?;
    let mut stage = Stage {
        meter: Meter::new(&cluster)?,
        reactor: Reactor::new()?,
        requests: Requests::new(PREFIX, args.shape()),
        args,
        cluster,
        progress,
    };
    let (mut comparison, mut receiving) = (None, None);
    if args.subscribers == 0 {
        comparison = Some(Comparison::measure(&mut stage)?);
    } else {
        receiving = Some(Receiving::measure(&mut stage)?);
    }
    stage.progress.clear();
    stage.cluster.stop()?;
    Ok(PublishReport { args: args.clone(), cores, comparison, receiving })
}

/// A run whose servers are up.
#[derive(Debug)]
struct Stage<'a> {
    args: &'a PublishArgs,
    // Dropped before the reactor and the progress, so that the servers end first.
    cluster: Cluster,
    meter: Meter,
    requests: Requests,
    reactor: Reactor,
    progress: &'a mut Progress,
}

impl Stage<'_> {
    /// Publishes at these nodes as fast as they take it, for one window, after at least `fill` publications.
    fn flood(
        &mut self,
        urls: &[String],
        mut receivers: Option<&mut Receivers>,
        fill: u64,
    ) -> Result<(Window, Answered), LoadError> {
        let (args, reactor) = (self.args, &mut self.reactor);
        let lanes = (args.connections, args.pipeline);
        let mut flood = Flood::connect(&self.requests, urls, lanes, reactor)?;
        let begin = reactor.clock.now() + bounded_nanos(args.warmup);
        flood.run(reactor, receivers.as_deref_mut(), |answered, now| {
            answered.accepted >= fill && now >= begin
        })?;
        let (opening, before) = (self.meter.read(Process::this())?, flood.answered().accepted);
        let end = reactor.clock.now() + bounded_nanos(args.duration);
        flood.run(reactor, receivers.as_deref_mut(), |_, now| now >= end)?;
        let (closing, after) = (self.meter.read(Process::this())?, flood.answered().accepted);
        flood.settle(reactor, receivers)?;
        self.cluster.check()?;
        Ok((Window::between(&opening, &closing, after - before), flood.answered().clone()))
    }

    /// Tells a person what is being done.
    fn announce(&mut self, what: &str) {
        let pids = self.cluster.describe();
        self.progress.show(|| format!("{what}   ({pids})"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn args(flags: &[&str]) -> PublishArgs {
        // Any file passes for a binary as long as nothing is started.
        let fixed = ["publish", "--server", "Cargo.toml"];
        Cli::try_parse_from(fixed.iter().chain(flags)).expect("flags").args
    }

    pub(crate) use super::report::tests::{compared_report, receiving_report};

    #[test]
    fn defaults_are_the_same_with_and_without_a_command_line() {
        let defaults = PublishArgs::new("Cargo.toml".into());
        assert_eq!(format!("{:?}", args(&[])), format!("{defaults:?}"));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        assert!(args(&[]).check().is_ok());
        for (flags, named) in [
            (&["--batch", "65"][..], "--batch = 65"),
            (&["--nodes", "0"], "--nodes = 0"),
            (&["--nodes", "3", "--connections", "2"], "from 3 to"),
            (&["--nodes", "2", "--subscribe-at", "3"], "from 1 to 2"),
            (&["--rate", "0"], "--rate = 0"),
        ] {
            let error = args(flags).check().expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = PublishArgs::new("no/such/tickcast".into()).check().expect_err("refused");
        assert!(error.to_string().contains("--server = no/such/tickcast"), "{error}");
    }

    #[test]
    fn histories_are_filled_and_a_hot_topic_is_one() {
        assert_eq!(args(&[]).fill(), 0);
        assert_eq!(args(&["--history", "30"]).fill(), 40_000);
        assert_eq!(args(&["--history", "30", "--hot"]).fill(), 40);
        assert_eq!(args(&["--nodes", "3"]).subscribers_node(), 2);
        assert_eq!(args(&["--nodes", "3", "--subscribe-at", "1"]).subscribers_node(), 0);
    }
}
