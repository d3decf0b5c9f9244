//! What a publication costs the node that receives it, and how long it takes from node to node.
//!
//! Publications go to the first node; subscribers, a topic each, are at another one. Three measurements: without
//! subscribers, where nothing should arrive at that node; the most there is with them; and, at half of that on an open
//! schedule, CPU time per publication received and latency. Of the CPU time, that of the thread which talks to Redis is
//! the receiving proper; the rest is fan-out and sending.

use std::time::Duration;

use serde::Serialize;

use super::meter::Window;
use super::{PREFIX, Stage};
use crate::error::LoadError;
use crate::fanout::{self, FanoutArgs, FanoutReport};
use crate::latency::LatencySummary;
use crate::plan::TopicPlan;
use crate::proc::Process;
use crate::receivers::{ConnectionPlan, Receivers};
use crate::spread::Spread;
use crate::target::Targets;
use crate::units::{ratio, seconds, thousands};

/// Handshakes in flight while connecting.
const HANDSHAKES: usize = 128;
/// Share of the most there is at which latency and cost are measured.
const LOAD: f64 = 0.5;
/// Requests without an answer at most.
const IN_FLIGHT_MAX: usize = 100_000;
/// Longest wait for outstanding deliveries after a window, in seconds.
const DRAIN: f64 = 5.0;

/// One repetition at the lower rate.
#[derive(Debug, Clone, Serialize)]
pub struct Reception {
    /// Publications that the receiving node got from Redis in the window.
    pub received: f64,
    /// Length, in nanoseconds.
    pub length_ns: u64,
    /// CPU time of the receiving node, in nanoseconds.
    pub node_ns: u64,
    /// Of that, its thread that talks to Redis; absent if there is no such thread.
    pub broker_ns: Option<u64>,
    /// CPU time of Redis, in nanoseconds.
    pub redis_ns: u64,
    /// Planned send to reception by the subscriber.
    pub latency: LatencySummary,
    /// Broken promises.
    pub faults: Vec<String>,
    /// Why the latencies may not mean much.
    pub doubts: Vec<String>,
}

impl Reception {
    /// CPU time of the receiving node per publication received, in microseconds.
    #[must_use]
    pub fn node_us(&self) -> f64 {
        ratio(self.node_ns as f64 / 1e3, self.received)
    }

    /// The same of its thread that talks to Redis.
    #[must_use]
    pub fn broker_us(&self) -> f64 {
        ratio(self.broker_ns.unwrap_or(0) as f64 / 1e3, self.received)
    }

    /// Publications received per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        ratio(self.received, seconds(self.length_ns))
    }
}

/// What was found about receiving.
#[derive(Debug, Clone, Serialize)]
pub struct Receiving {
    /// The receiving node, counted from 0.
    pub node: usize,
    /// As fast as possible, with no subscriber anywhere.
    pub without: Window,
    /// As fast as possible, with the subscribers.
    pub most: Window,
    /// Publications per second of the repetitions.
    pub rate: f64,
    /// The repetitions, of which there is at least one.
    pub receptions: Vec<Reception>,
}

impl Receiving {
    pub(super) fn measure(stage: &mut Stage<'_>) -> Result<Self, LoadError> {
        let args = stage.args;
        let node = args.subscribers_node();
        let first: Vec<String> = stage.cluster.urls().into_iter().take(1).collect();
        stage.announce("publishing without subscribers");
        let (without, _) = stage.flood(&first, None, args.fill())?;
        stage.announce("publishing with subscribers");
        let mut receivers = Receivers::new(connection_plan(stage, node)?, &stage.reactor)?;
        receivers.open(args.subscribers, &mut stage.reactor, stage.progress)?;
        let (most, _) = stage.flood(&first, Some(&mut receivers), 0)?;
        drop(receivers);

        let rate = args.rate.unwrap_or_else(|| (most.rate() * LOAD).max(1.0));
        let mut receptions = Vec::new();
        for number in 1..=args.reps {
            stage.announce(&format!("{number}/{}, {rate:.0} publications per second", args.reps));
            receptions.push(reception(stage, node, rate)?);
            stage.cluster.check()?;
        }
        Ok(Self { node, without, most, rate, receptions })
    }

    /// The spread of a value over the repetitions.
    pub fn spread(&self, value: impl Fn(&Reception) -> f64) -> Spread {
        Spread::of(self.receptions.iter().map(value).collect())
    }

    /// Broken promises, by repetition.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failed = self.receptions.iter().zip(1..).filter(|(one, _)| !one.faults.is_empty());
        failed
            .map(|(one, number)| format!("repetition {number}: {}", one.faults.join(", ")))
            .collect()
    }
}

fn connection_plan(stage: &Stage<'_>, node: usize) -> Result<ConnectionPlan, LoadError> {
    let args = stage.args;
    let urls = stage.cluster.urls();
    Ok(ConnectionPlan {
        targets: Targets::resolve(urls.get(node).map_or("", String::as_str), None)?,
        topics: TopicPlan::new(PREFIX, args.topics_used(), 1),
        mode: args.mode.clone(),
        max_rate: args.max_rate,
        connections: args.subscribers,
        in_flight: HANDSHAKES,
        slow_percent: 0,
    })
}

/// One repetition on the open schedule.
fn reception(stage: &mut Stage<'_>, node: usize, rate: f64) -> Result<Reception, LoadError> {
    let Stage { cluster, meter, args, progress, .. } = stage;
    let urls = cluster.urls();
    let load = FanoutArgs {
        url: urls.first().cloned().unwrap_or_default(),
        subscribe_url: urls.get(node).cloned(),
        connections: args.subscribers,
        topics: args.topics_used(),
        mode: args.mode.clone(),
        max_rate: args.max_rate,
        rate,
        burst: args.batch,
        size: args.size,
        duration: args.duration,
        warmup: args.warmup,
        drain: DRAIN,
        publishers: args.connections,
        publish_in_flight: (4 * args.connections * args.pipeline).min(IN_FLIGHT_MAX),
        prefix: PREFIX.to_owned(),
        ..FanoutArgs::default()
    };
    let before = cluster.received(node)?;
    let mut edges = Vec::new();
    let mut observe = || {
        edges.push((meter.read_cpu(Process::this())?, cluster.broker_cpu_ns(node)));
        Ok(())
    };
    let report = fanout::run_observed(&load, &mut observe, progress)?;
    let received = cluster.received(node)?.zip(before).map(|(after, before)| after - before);
    let [(opening, broker_from), (closing, broker_to)] = &edges[..] else {
        return Err(LoadError::Timeout {
            waited_for: "both edges of the window".to_owned(),
            limit: Duration::from_secs_f64(args.duration),
            fix: "report this as a bug",
        });
    };
    let window = Window::between(opening, closing, 0);
    let broker_ns = broker_to.zip(*broker_from).map(|(to, from)| to.saturating_sub(from));
    let doubts = report.generator.doubts.iter().cloned().chain(window.doubt()).collect();
    Ok(Reception {
        received: in_window(&report, received),
        length_ns: report.window_ns,
        node_ns: window.nodes_ns.get(node).copied().unwrap_or(0),
        broker_ns,
        redis_ns: window.redis_ns,
        latency: report.latency.clone(),
        faults: faults(&report, args.mode.as_deref() == Some("latest") || args.max_rate.is_some()),
        doubts,
    })
}

/// Publications that the node received in the window. All of the run should have reached it, so its counter before and
/// after tells which part did, and the schedule how many there were in the window. What was still under way from before
/// the run does not count.
fn in_window(report: &FanoutReport, received: Option<u64>) -> f64 {
    let planned = report.args.rate * seconds(report.window_ns);
    let accepted = report.published.accepted as f64;
    planned * received.map_or(1.0, |received| ratio(received as f64, accepted).min(1.0))
}

fn faults(report: &FanoutReport, may_skip: bool) -> Vec<String> {
    let totals = &report.deliveries;
    let counted = [
        ("missing", if may_skip { 0 } else { totals.missing }),
        ("duplicate", totals.duplicate),
        ("out of order", totals.out_of_order),
        ("refused", report.published.refused),
        ("unanswered", report.published.unanswered),
        ("connections lost", report.notices.closed),
    ];
    let broken = counted.iter().filter(|(_, number)| *number > 0);
    broken.map(|(name, number)| format!("{name} {}", thousands(*number))).collect()
}
