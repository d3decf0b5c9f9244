//! The fan-out run: many subscribers, an open publishing schedule, every expected delivery accounted for.
//!
//! The order of things: check the arguments, bring up the subscribers, connect the publisher, warm up, measure one window,
//! then wait (bounded) for what is still under way. Subscribers and publisher share one thread and one clock.

use std::ops::Range;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::account::Totals;
use crate::error::{LoadError, within};
use crate::latency::LatencySummary;
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Payload};
use crate::plan::{RUN_SECONDS_MAX, Schedule, TopicPlan, bounded_nanos};
use crate::proc::{CpuTime, Process, allow_open_files, pin};
use crate::progress::Progress;
use crate::publisher::{PublishPlan, Published, Publisher};
use crate::reactor::Reactor;
use crate::receivers::{ConnectionPlan, Notices, Ramp, Receivers};
use crate::target::{Key, Targets};
use crate::units::{count, figure, ms, nanos, ratio, seconds, thousands, to_u64};

/// Frames timed per run when `--sample 0` leaves the choice to us: enough for a p99.9, cheap enough not to matter.
const SAMPLES_WISHED: u64 = 200_000;
/// From the last acknowledgement to the first request, so that the ramp's last work is over.
const LEAD_IN: Duration = Duration::from_millis(100);
/// Between two looks at whether all is delivered, at the end.
const DRAIN_STEP: Duration = Duration::from_millis(5);
/// Descriptors besides the clients': event loop, timer, publisher, standard streams, `/proc`.
const SPARE_DESCRIPTORS: usize = 32;
/// Bounds that keep a typing error from filling the memory.
const CONNECTIONS_MAX: usize = 4_000_000;
const SUBSCRIPTIONS_MAX: usize = 50_000_000;
/// The gateway's default limit on the items of a batch.
const BURST_MAX: u32 = 1000;
/// Lateness of the generator's sends, at p99, beyond which latencies say more about it than about the server.
const LAG_P99_NS_MAX: u64 = 5_000_000;
/// Share of a core beyond which the generator may be the bottleneck.
const GENERATOR_CPU_MAX: f64 = 0.90;

/// What to run; the flags of `tickcast-load fanout`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct FanoutArgs {
    /// Public listener of the server; of several, separated by commas, whoever loses one goes on with the next
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Public listener that the subscribers connect to, if it is another node, or several [default: --url]
    #[arg(long)]
    pub subscribe_url: Option<String>,
    /// Key to present, if the server asks for one; as a flag it is seen by every user of this machine
    #[arg(long, env = "TICKCAST__CLIENT__KEY", hide_env_values = true)]
    #[serde(skip)]
    pub key: Option<Key>,
    /// WebSocket connections to open
    #[arg(long, default_value_t = 1000)]
    pub connections: usize,
    /// Topics to publish to, in turn
    #[arg(long, default_value_t = 1)]
    pub topics: u32,
    /// Topics that each connection subscribes to
    #[arg(long, default_value_t = 1)]
    pub topics_per_connection: u32,
    /// Mode of the subscriptions, `all` or `latest`; what `latest` skips counts as missing [default: the server's]
    #[arg(long)]
    pub mode: Option<String>,
    /// Updates per second and subscription, at most; what is skipped counts as missing
    #[arg(long)]
    pub max_rate: Option<f64>,
    /// Publications per second, over all topics
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Publications per request: 1 is single requests, more is batches
    #[arg(long, default_value_t = 1)]
    pub burst: u32,
    /// Send the publications of a burst one by one, spread evenly over its period
    #[arg(long)]
    pub spread: bool,
    /// Payload of each publication, in bytes
    #[arg(long, default_value_t = 128)]
    pub size: usize,
    /// Measured window, in seconds, rounded up to whole publish periods
    #[arg(long, default_value_t = 8.0)]
    pub duration: f64,
    /// Publishing before the window, in seconds
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Longest wait for outstanding deliveries after the window, in seconds
    #[arg(long, default_value_t = 5.0)]
    pub drain: f64,
    /// Percent of the connections that never read; only the others are judged
    #[arg(long, default_value_t = 0)]
    pub slow: usize,
    /// Time one frame in this many; 0 chooses so that about 200,000 are timed
    #[arg(long, default_value_t = 0)]
    pub sample: u64,
    /// Handshakes in flight while connecting
    #[arg(long, default_value_t = 128)]
    pub in_flight: usize,
    /// Publishing connections
    #[arg(long, default_value_t = 1)]
    pub publishers: usize,
    /// Publish requests without an answer, beyond which sends are held back
    #[arg(long, default_value_t = 1024)]
    pub publish_in_flight: usize,
    /// Front of the topic names
    #[arg(long, default_value = "load")]
    pub prefix: String,
    /// Process id of the server on this machine, of the subscribers' one if there are two, for its CPU time and memory
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Run the generator on this core only
    #[arg(long)]
    pub pin: Option<usize>,
}

impl Default for FanoutArgs {
    /// The same as with no flags on the command line.
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8080".to_owned(),
            subscribe_url: None,
            key: None,
            connections: 1000,
            topics: 1,
            topics_per_connection: 1,
            mode: None,
            max_rate: None,
            rate: 50.0,
            burst: 1,
            spread: false,
            size: 128,
            duration: 8.0,
            warmup: 2.0,
            drain: 5.0,
            slow: 0,
            sample: 0,
            in_flight: 128,
            publishers: 1,
            publish_in_flight: 1024,
            prefix: "load".to_owned(),
            server_pid: None,
            pin: None,
        }
    }
}

impl FanoutArgs {
    /// Refuses what makes no sense, before anything is opened.
    fn check(&self) -> Result<(), LoadError> {
        within("--connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("--topics-per-connection", self.topics_per_connection, 1, self.topics.min(1000))?;
        let subscriptions = self.connections.saturating_mul(self.topics_per_connection as usize);
        within("--connections times --topics-per-connection", subscriptions, 1, SUBSCRIPTIONS_MAX)?;
        within("--rate", self.rate, 0.01, 1e6)?;
        within("--burst", self.burst, 1, BURST_MAX)?;
        within("--size", self.size, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX)?;
        within("--duration", self.duration, 0.1, RUN_SECONDS_MAX)?;
        within("--warmup", self.warmup, 0.0, RUN_SECONDS_MAX)?;
        within("--drain", self.drain, 0.0, 600.0)?;
        within("--slow", self.slow, 0, 99)?;
        within("--in-flight", self.in_flight, 1, 4096)?;
        within("--publishers", self.publishers, 1, 1024)?;
        within("--publish-in-flight", self.publish_in_flight, 1, 100_000)
    }

    fn schedule(&self) -> Schedule {
        let per_request = if self.spread { 1 } else { self.burst };
        Schedule::new(self.rate, per_request, self.warmup, self.duration)
    }

    fn connection_plan(&self) -> Result<ConnectionPlan, LoadError> {
        Ok(ConnectionPlan {
            targets: Targets::resolve(
                self.subscribe_url.as_ref().unwrap_or(&self.url),
                self.key.as_ref(),
            )?,
            topics: TopicPlan::new(&self.prefix, self.topics, self.topics_per_connection),
            mode: self.mode.clone(),
            max_rate: self.max_rate,
            connections: self.connections,
            in_flight: self.in_flight,
            slow_percent: self.slow,
        })
    }

    fn publish_plan(&self, topics: TopicPlan) -> PublishPlan {
        PublishPlan {
            schedule: self.schedule(),
            topics,
            payload: Payload::new(self.size),
            connections: self.publishers,
            in_flight: self.publish_in_flight,
        }
    }

    /// How many frames there are for each one that is timed.
    fn sample_every(&self, judged: usize) -> u64 {
        if self.sample > 0 {
            return self.sample;
        }
        let publications = (self.rate * self.duration).max(1.0);
        let subscribers =
            judged as f64 * f64::from(self.topics_per_connection) / f64::from(self.topics);
        to_u64(publications * subscribers / SAMPLES_WISHED as f64).max(1)
    }
}

/// The server's use of the machine over the measured window.
#[derive(Debug, Clone, Serialize)]
pub struct ServerUse {
    /// CPU time over the window.
    pub cpu: CpuTime,
    /// The same per delivery that arrived in the window, in nanoseconds.
    pub cpu_per_delivery_ns: f64,
    /// Share of one core, 1 is all of it.
    pub cpu_share: f64,
    /// Resident memory at the end of the window, in bytes.
    pub resident_bytes: u64,
}

/// Whether the generator kept up, and so whether the latencies mean anything.
#[derive(Debug, Clone, Serialize)]
pub struct GeneratorUse {
    /// Share of one core over the window, 1 is all of it.
    pub cpu_share: f64,
    /// Why the latencies are not trustworthy; empty if they are.
    pub doubts: Vec<String>,
}

/// Everything that a run found out.
#[derive(Debug, Clone, Serialize)]
pub struct FanoutReport {
    /// What was run.
    pub args: FanoutArgs,
    /// How the connections came up.
    pub ramp: Ramp,
    /// Connections that never read.
    pub slow: usize,
    /// The publishing side.
    pub published: Published,
    /// The account of all deliveries, warm-up included.
    pub deliveries: Totals,
    /// What else the server said.
    pub notices: Notices,
    /// From the end of a connection to the acknowledgement of the one that has resumed, of the clients that came back.
    pub away: LatencySummary,
    /// Length of the measured window, in nanoseconds.
    pub window_ns: u64,
    /// Deliveries that arrived in the window.
    pub received_in_window: u64,
    /// Planned send to reception, of the sampled deliveries planned inside the window.
    pub latency: LatencySummary,
    /// The server's use of the machine; absent without `--server-pid`.
    pub server: Option<ServerUse>,
    /// The generator's.
    pub generator: GeneratorUse,
}

impl FanoutReport {
    /// Deliveries per second that arrived in the window.
    #[must_use]
    pub fn delivery_rate(&self) -> f64 {
        ratio(self.received_in_window as f64, seconds(self.window_ns))
    }

    /// Connections whose deliveries are judged.
    #[must_use]
    pub fn judged(&self) -> u64 {
        count(self.args.connections.saturating_sub(self.slow))
    }
}

/// Runs it.
///
/// # Errors
/// If the arguments make no sense, the server cannot be reached, or a handshake fails.
pub fn run(args: &FanoutArgs, progress: &mut Progress) -> Result<FanoutReport, LoadError> {
    run_observed(args, &mut || Ok(()), progress)
}

/// Runs it and calls `observe` at both edges of the measured window, for what else is to be read there.
///
/// # Errors
/// As [`run`], and those of `observe`.
pub fn run_observed(
    args: &FanoutArgs,
    observe: &mut dyn FnMut() -> Result<(), LoadError>,
    progress: &mut Progress,
) -> Result<FanoutReport, LoadError> {
    args.check()?;
    let plan = args.connection_plan()?;
    allow_open_files(args.connections + args.publishers + SPARE_DESCRIPTORS)?;
    if let Some(core) = args.pin {
        pin(core)?;
    }
    let mut reactor = Reactor::new()?;
    let (topics, slow) = (plan.topics.clone(), plan.slow());
    let targets = Targets::resolve(&args.url, args.key.as_ref())?;
    let mut receivers = Receivers::new(plan, &reactor)?;
    let ramp = receivers.open(args.connections, &mut reactor, progress)?;
    let publisher =
        Publisher::connect(args.publish_plan(topics), targets, reactor.registry(), reactor.clock)?;
    let mut run = Run { args, reactor, receivers, publisher };
    let window = run.begin(args.sample_every(args.connections - slow));
    let usage = run.measure(&window, observe, progress)?;
    run.drain(progress)?;
    progress.clear();
    Ok(run.report(ramp, slow, &window, usage))
}

/// Processor time at one edge of the window.
#[derive(Debug, Clone, Copy)]
struct Usage {
    server: Option<CpuTime>,
    generator: CpuTime,
}

/// What both edges of the window found.
#[derive(Debug, Clone, Copy)]
struct WindowUsage {
    server: Option<CpuTime>,
    generator: CpuTime,
    resident_bytes: Option<u64>,
}

/// A run whose subscribers are up.
struct Run<'a> {
    args: &'a FanoutArgs,
    reactor: Reactor,
    receivers: Receivers,
    publisher: Publisher,
}

impl Run<'_> {
    /// Fixes the schedule to the clock and returns the measured window.
    fn begin(&mut self, sample_every: u64) -> Range<u64> {
        let window = self.publisher.start_at(self.reactor.clock.now() + nanos(LEAD_IN));
        self.receivers.judge.measure(window.clone(), sample_every);
        window
    }

    /// Publishes and receives until the window closes.
    fn measure(
        &mut self,
        window: &Range<u64>,
        observe: &mut dyn FnMut() -> Result<(), LoadError>,
        progress: &mut Progress,
    ) -> Result<WindowUsage, LoadError> {
        let mut opening = None;
        loop {
            let now = self.reactor.clock.now();
            // Each edge is read before the request that is due at it goes out.
            if opening.is_none() && now >= window.start {
                observe()?;
                opening = Some(self.usage()?);
            }
            if let Some(opening) = opening
                && now >= window.end
            {
                let usage = self.window_usage(opening)?;
                observe()?;
                // What was due in the last moment of the window, if it is not much.
                self.publisher.publish_due()?;
                return Ok(usage);
            }
            self.publisher.publish_due()?;
            let edge = if opening.is_none() { window.start } else { window.end };
            let due = self.publisher.next_due().unwrap_or(u64::MAX);
            self.turn(due.min(edge).min(now + progress.interval_ns()))?;
            progress.show(|| self.line(window));
        }
    }

    /// Goes on receiving until nothing is outstanding, for a bounded time.
    fn drain(&mut self, progress: &mut Progress) -> Result<(), LoadError> {
        let end = self.reactor.clock.now() + bounded_nanos(self.args.drain);
        loop {
            let outstanding = self.receivers.judge.outstanding(self.publisher.highest());
            let now = self.reactor.clock.now();
            if (outstanding == 0 && !self.publisher.is_waiting()) || now >= end {
                return Ok(());
            }
            progress.show(|| format!("draining    {} outstanding", thousands(outstanding)));
            let step = end.min(now + nanos(DRAIN_STEP));
            while self.reactor.clock.now() < step {
                self.turn(step)?;
            }
        }
    }

    fn turn(&mut self, deadline: u64) -> Result<(), LoadError> {
        for ready in self.reactor.wait(deadline.min(self.receivers.next_due()))? {
            if self.publisher.owns(ready.token) {
                self.publisher.ready(ready.token, ready.writable)?;
            } else {
                self.receivers.ready(ready)?;
            }
        }
        self.receivers.come_back()
    }

    fn usage(&self) -> Result<Usage, LoadError> {
        let server = self.args.server_pid.map(|pid| Process::new(pid).cpu()).transpose()?;
        Ok(Usage { server, generator: Process::this().cpu()? })
    }

    fn window_usage(&self, opening: Usage) -> Result<WindowUsage, LoadError> {
        let closing = self.usage()?;
        let server = self.args.server_pid.map(Process::new);
        Ok(WindowUsage {
            server: closing.server.zip(opening.server).map(|(end, begin)| end.since(begin)),
            generator: closing.generator.since(opening.generator),
            resident_bytes: server.map(Process::resident_bytes).transpose()?,
        })
    }

    fn line(&self, window: &Range<u64>) -> String {
        let now = self.reactor.clock.now();
        let phase = if now < window.start { "warming up" } else { "measuring " };
        let left = window.end.saturating_sub(now);
        format!(
            "{phase}  {:.0} s left   published {}   received {}",
            seconds(left),
            thousands(self.publisher.sent()),
            thousands(self.receivers.judge.received()),
        )
    }

    fn report(
        self,
        ramp: Ramp,
        slow: usize,
        window: &Range<u64>,
        usage: WindowUsage,
    ) -> FanoutReport {
        let judge = &self.receivers.judge;
        let window_ns = window.end - window.start;
        let share = |cpu: CpuTime| ratio(cpu.total_ns as f64, window_ns as f64);
        let published = self.publisher.published();
        let server =
            usage.server.zip(usage.resident_bytes).map(|(cpu, resident_bytes)| ServerUse {
                cpu,
                cpu_per_delivery_ns: ratio(cpu.total_ns as f64, judge.received_in_window as f64),
                cpu_share: share(cpu),
                resident_bytes,
            });
        let generator_share = share(usage.generator);
        FanoutReport {
            args: self.args.clone(),
            ramp,
            slow,
            deliveries: judge.close(self.publisher.highest()),
            notices: judge.notices.clone(),
            away: self.receivers.away.summary(),
            window_ns,
            received_in_window: judge.received_in_window,
            latency: judge.latencies.summary(),
            server,
            generator: GeneratorUse {
                cpu_share: generator_share,
                doubts: doubts(&published, generator_share),
            },
            published,
        }
    }
}

/// Reasons not to trust the latencies.
fn doubts(published: &Published, generator_share: f64) -> Vec<String> {
    let mut doubts = Vec::new();
    if published.lag.p99_ns > LAG_P99_NS_MAX {
        let lag = figure(ms(published.lag.p99_ns));
        let cause = if published.held_back > 0 {
            "the server answered too slowly, see --publish-in-flight"
        } else {
            "the generator was too slow"
        };
        doubts.push(format!("sends were {lag} ms late at p99: {cause}"));
    }
    let unsent = published.planned.saturating_sub(published.sent);
    if unsent > 0 {
        doubts.push(format!("{} planned publications were never sent", thousands(unsent)));
    }
    if generator_share > GENERATOR_CPU_MAX {
        doubts.push(format!("the generator used {:.0} % of its core", generator_share * 100.0));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: FanoutArgs,
    }

    fn args(flags: &[&str]) -> FanoutArgs {
        Cli::try_parse_from(["fanout"].iter().chain(flags)).expect("flags").args
    }

    #[test]
    fn defaults_are_the_same_with_and_without_a_command_line() {
        assert_eq!(format!("{:?}", args(&[])), format!("{:?}", FanoutArgs::default()));
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_bounds() {
        for (flags, named) in [
            (&["--connections", "0"][..], "--connections = 0"),
            (&["--topics-per-connection", "2"], "from 1 to 1"),
            (&["--rate", "0"], "--rate = 0"),
            (&["--rate", "NaN"], "--rate = NaN"),
            (&["--size", "10"], "--size = 10"),
            (&["--slow", "100"], "from 0 to 99"),
        ] {
            let error = args(flags).check().expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(args(&[]).check().is_ok());
    }

    #[test]
    fn spreading_sends_the_same_publications_one_by_one() {
        let burst = args(&["--rate", "100", "--burst", "20", "--topics", "20"]);
        let spread = args(&["--rate", "100", "--burst", "20", "--topics", "20", "--spread"]);
        assert_eq!(burst.schedule().publications(), spread.schedule().publications());
        assert_eq!((burst.schedule().requests(), spread.schedule().requests()), (50, 1000));
    }

    #[test]
    fn the_sample_shrinks_with_the_run() {
        assert_eq!(args(&[]).sample_every(1000), 2);
        assert_eq!(args(&["--connections", "10"]).sample_every(10), 1);
        assert_eq!(args(&["--sample", "7"]).sample_every(1000), 7);
    }

    #[test]
    fn a_late_or_busy_generator_is_not_trusted() {
        let mut published = Published::default();
        assert!(doubts(&published, 0.5).is_empty());
        published.lag.p99_ns = 6_000_000;
        assert!(doubts(&published, 0.5)[0].contains("the generator was too slow"));
        published.held_back = 1;
        assert!(doubts(&published, 0.5)[0].contains("--publish-in-flight"));
        published.planned = 1;
        assert_eq!(doubts(&published, 0.95).len(), 3);
    }
}
