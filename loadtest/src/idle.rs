//! The idle run: what a connection costs that is only there, in memory and in the making.
//!
//! Two plateaus of idle connections with one subscription each; the slope between them is the cost of one, without the
//! server's fixed part. Resident memory is read only once it has stopped moving.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::error::{LoadError, within};
use crate::plan::{RUN_SECONDS_MAX, TopicPlan, bounded_nanos};
use crate::proc::{Process, allow_open_files, pin};
use crate::progress::Progress;
use crate::reactor::Reactor;
use crate::receivers::{ConnectionPlan, Ramp, Receivers};
use crate::target::{Key, Targets};
use crate::units::{count, nanos, to_u64};

/// Between two readings of the server's memory.
const SETTLE_STEP: Duration = Duration::from_millis(100);
/// So many equal readings in a row are a plateau.
const SETTLE_READINGS: u32 = 10;
/// Readings this close are equal: one page of the allocator's own bookkeeping comes and goes.
const SETTLE_BYTES: u64 = 16 << 10;
/// Longest wait for a plateau.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors besides the clients'.
const SPARE_DESCRIPTORS: usize = 32;

/// What to run; the flags of `tickcast-load idle`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct IdleArgs {
    /// Public listener of the server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Key to present, if the server asks for one
    #[arg(long, env = "TICKCAST__CLIENT__KEY", hide_env_values = true)]
    #[serde(skip)]
    pub key: Option<Key>,
    /// Connections in the end
    #[arg(long, default_value_t = 18_000)]
    pub connections: usize,
    /// Connections at the first plateau
    #[arg(long, default_value_t = 2_000)]
    pub from: usize,
    /// Topics that the connections share, one each in turn; 0 gives every connection its own
    #[arg(long, default_value_t = 0)]
    pub topics: u32,
    /// Process id of the server on this machine
    #[arg(long)]
    pub server_pid: u32,
    /// Time to hold all connections after the second reading, in seconds
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// Handshakes in flight while connecting
    #[arg(long, default_value_t = 128)]
    pub in_flight: usize,
    /// Front of the topic names
    #[arg(long, default_value = "idle")]
    pub prefix: String,
    /// Run the generator on this core only
    #[arg(long)]
    pub pin: Option<usize>,
}

impl IdleArgs {
    fn check(&self) -> Result<(), LoadError> {
        within("--connections", self.connections, 2, 4_000_000)?;
        within("--from", self.from, 1, self.connections - 1)?;
        within("--hold", self.hold, 0.0, RUN_SECONDS_MAX)?;
        within("--in-flight", self.in_flight, 1, 4096)
    }

    fn plan(&self) -> Result<ConnectionPlan, LoadError> {
        let own = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let topics = if self.topics == 0 { own } else { self.topics };
        Ok(ConnectionPlan {
            targets: Targets::resolve(&self.url, self.key.as_ref())?,
            topics: TopicPlan::new(&self.prefix, topics, 1),
            mode: None,
            max_rate: None,
            connections: self.connections,
            in_flight: self.in_flight,
            slow_percent: 0,
        })
    }
}

/// Everything that a run found out.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// Connections at the first plateau.
    pub from: u64,
    /// Connections at the second plateau.
    pub connections: u64,
    /// The server's resident memory at the first plateau, in bytes.
    pub resident_bytes_from: u64,
    /// The same at the second plateau.
    pub resident_bytes: u64,
    /// Whether both plateaus were reached within 10 s each.
    pub settled: bool,
    /// Slope between the plateaus, in bytes of resident memory.
    pub bytes_per_connection: f64,
    /// How the connections between the plateaus came up.
    pub ramp: Ramp,
    /// The server's CPU time per connection between the plateaus, in nanoseconds.
    pub cpu_per_connection_ns: u64,
    /// How long all connections were held, in nanoseconds.
    pub held_ns: u64,
    /// The server's CPU time meanwhile, in nanoseconds.
    pub held_cpu_ns: u64,
    /// Connections that the server closed.
    pub lost: u64,
}

/// Runs it.
///
/// # Errors
/// If the arguments make no sense, the server cannot be reached or observed, or a handshake fails.
pub fn run(args: &IdleArgs, progress: &mut Progress) -> Result<IdleReport, LoadError> {
    args.check()?;
    allow_open_files(args.connections + SPARE_DESCRIPTORS)?;
    if let Some(core) = args.pin {
        pin(core)?;
    }
    let server = Process::new(args.server_pid);
    let mut reactor = Reactor::new()?;
    let mut receivers = Receivers::new(args.plan()?, &reactor)?;

    receivers.open(args.from, &mut reactor, progress)?;
    let first = settle(server, &mut receivers, &mut reactor, progress)?;
    let before = server.cpu()?;
    let ramp = receivers.open(args.connections, &mut reactor, progress)?;
    let ramp_cpu = server.cpu()?.since(before);
    let second = settle(server, &mut receivers, &mut reactor, progress)?;

    let (held_from, held_cpu) = (reactor.clock.now(), server.cpu()?);
    receivers.idle_until(held_from + bounded_nanos(args.hold), &mut reactor)?;
    progress.clear();
    let grown = second.bytes as f64 - first.bytes as f64;
    Ok(IdleReport {
        from: count(args.from),
        connections: count(args.connections),
        resident_bytes_from: first.bytes,
        resident_bytes: second.bytes,
        settled: first.stable && second.stable,
        bytes_per_connection: grown / ramp.opened as f64,
        cpu_per_connection_ns: to_u64(ramp_cpu.total_ns as f64 / ramp.opened as f64),
        ramp,
        held_ns: reactor.clock.now() - held_from,
        held_cpu_ns: server.cpu()?.since(held_cpu).total_ns,
        lost: receivers.judge.notices.closed,
    })
}

/// A reading of resident memory.
#[derive(Debug, Clone, Copy)]
struct Plateau {
    bytes: u64,
    stable: bool,
}

/// Waits until the server's resident memory has stopped moving, and reads it.
fn settle(
    server: Process,
    receivers: &mut Receivers,
    reactor: &mut Reactor,
    progress: &mut Progress,
) -> Result<Plateau, LoadError> {
    let end = reactor.clock.now() + nanos(SETTLE_TIMEOUT);
    let mut bytes = server.resident_bytes()?;
    let mut equal = 0;
    while equal < SETTLE_READINGS {
        let now = reactor.clock.now();
        if now >= end {
            return Ok(Plateau { bytes, stable: false });
        }
        receivers.idle_until(now + nanos(SETTLE_STEP), reactor)?;
        let reading = server.resident_bytes()?;
        equal = if reading.abs_diff(bytes) <= SETTLE_BYTES { equal + 1 } else { 0 };
        bytes = reading;
        progress.show(|| format!("settling    {:.2} MiB", bytes as f64 / 1_048_576.0));
    }
    Ok(Plateau { bytes, stable: true })
}
