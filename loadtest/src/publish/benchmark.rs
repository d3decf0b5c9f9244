//! The yardstick: `redis-benchmark` repeats the script call of a node, as fast as this Redis can.

use std::path::Path;
use std::time::Duration;

use super::call::Call;
use super::cluster::Cluster;
use super::meter::{Meter, Window};
use crate::child::{self, Child};
use crate::error::LoadError;
use crate::proc::Process;
use crate::reactor::Reactor;
use crate::units::{nanos, thousands};

/// Its keys are in another database than the nodes' own, whose epochs and offsets it would spoil. Its channels have
/// names that no subscriber has.
const DATABASE: &str = "1";
/// More requests than any run makes: it is ended when its window is over.
const REQUESTS: &str = "2000000000";
/// Between two looks at how far it is.
const STEP: Duration = Duration::from_millis(20);
/// Longest wait until its keys are as full as those of the nodes.
const WARMUP_MAX: Duration = Duration::from_secs(60);

/// How it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct BenchmarkPlan<'a> {
    pub(super) program: &'a Path,
    pub(super) connections: usize,
    /// Calls under way per connection.
    pub(super) pipeline: usize,
    pub(super) topics: u64,
    /// Before the window, in nanoseconds.
    pub(super) warmup_ns: u64,
    /// Publications before the window, at least.
    pub(super) warmup_publications: u64,
    pub(super) duration_ns: u64,
}

/// Runs it for one window.
pub(super) fn run(
    plan: BenchmarkPlan<'_>,
    (call, prefix): (&Call, &[u8]),
    cluster: &Cluster,
    meter: &mut Meter,
    reactor: &mut Reactor,
) -> Result<Window, LoadError> {
    let started = reactor.clock.now();
    let before = meter.calls()?;
    let mut child = start(plan, call, prefix, cluster)?;
    let done = |meter: &mut Meter| {
        meter.calls().map(|calls| calls.since(before).scripts * call.publications)
    };
    loop {
        let (publications, now) = (done(meter)?, reactor.clock.now());
        if publications >= plan.warmup_publications.max(1) && now >= started + plan.warmup_ns {
            break;
        }
        child.check()?;
        if now > started + nanos(WARMUP_MAX) {
            return Err(LoadError::Timeout {
                waited_for: format!(
                    "redis-benchmark making {} publications (it made {})",
                    thousands(plan.warmup_publications),
                    thousands(publications)
                ),
                limit: WARMUP_MAX,
                fix: "lower --topics or --history",
            });
        }
        reactor.idle(now + nanos(STEP))?;
    }
    let generator = Process::new(child.pid());
    let opening = meter.read(generator)?;
    reactor.idle(reactor.clock.now() + plan.duration_ns)?;
    let closing = meter.read(generator)?;
    child.check()?;
    drop(child);
    let window = Window::between(&opening, &closing, 0);
    Ok(Window { publications: window.script_calls * call.publications, ..window })
}

fn start(
    plan: BenchmarkPlan<'_>,
    call: &Call,
    prefix: &[u8],
    cluster: &Cluster,
) -> Result<Child, LoadError> {
    let address = cluster.redis_address();
    let mut command = child::command(plan.program);
    command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["--dbnum", DATABASE, "-q", "-n", REQUESTS])
        .args(["-c", &plan.connections.to_string(), "-P", &plan.pipeline.to_string()])
        .args(["-r", &plan.topics.to_string()])
        .args(call.words(prefix));
    let log = cluster.folder().join("benchmark.log");
    Child::spawn("redis-benchmark", &mut command, &log, &[cluster.cores.generator])
}
