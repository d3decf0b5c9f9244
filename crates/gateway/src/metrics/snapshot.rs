//! The state of the node at one scrape.

use std::time::Duration;

use tickcast_broker::BrokerStats;
#[cfg(test)]
use tickcast_broker::LinkStats;
use tickcast_hub::HubStats;

use super::events::Events;
use super::threads::Times;
use super::{Metrics, WorkerCounters};
use crate::api::held::Held;
use crate::logging;
use crate::node::Node;
use crate::server::waiting_max;

/// Everything that the rows of the table read. A scrape takes it once, so that the metrics of one answer fit together.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) node: NodeState,
    pub(super) limits: Limits,
    pub(super) workers: Vec<WorkerCounters>,
    /// How busy the threads of the workers are, in the order of their numbers.
    pub(super) threads: Vec<Times>,
    /// Items that wait in the inboxes of all workers.
    pub(super) inbox_items: usize,
    /// How often an item did not fit.
    pub(super) inbox_overflows: u64,
    pub(super) hub: HubStats,
    pub(super) broker: BrokerStats,
    /// The names of the keys, and how often each was presented.
    pub(super) keys: Vec<(String, u64)>,
    pub(super) events: &'a Events,
    pub(super) log_lines_dropped: u64,
    /// Since the node started.
    pub(super) uptime: Duration,
}

/// Whether the node serves: 1 for yes, 0 for no.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NodeState {
    pub(super) ready: u64,
    pub(super) draining: u64,
    /// How late its end is, in seconds.
    pub(super) overdue: u64,
    pub(super) broker_up: u64,
    /// Open connections of the public listener that serve requests, or are in their handshake.
    pub(super) http: u64,
    /// Those that wait to be let in.
    pub(super) waiting: usize,
    /// Client addresses whose connections are counted.
    pub(super) addresses: usize,
    /// Bytes that slow clients hold over HTTP, and how often one was refused for it, by [`Held`].
    pub(super) http_memory: [(usize, u64); Held::COUNT],
    /// Connections that did not take their answer in time.
    pub(super) http_cut: u64,
    /// How long the worker has been silent that has been so for longest, in seconds.
    pub(super) worker_silence: u32,
}

/// Bounds, beside the numbers that they bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) waiting: usize,
    pub(super) log_bytes: usize,
    /// Of each kind.
    pub(super) http_bytes: usize,
    pub(super) broker_bytes: usize,
    /// Items in the inboxes of all workers together.
    pub(super) inbox_items: usize,
}

impl<'a> Snapshot<'a> {
    pub(super) fn take(metrics: &'a Metrics, node: &Node) -> Self {
        let config = node.config();
        let workers: Vec<_> = metrics.workers.iter().map(|cell| cell.get()).collect();
        let websocket = workers.iter().map(|worker| worker.connections).sum();
        Self {
            node: NodeState {
                ready: node.is_ready().into(),
                draining: node.is_leaving().into(),
                overdue: node.life.overdue(config.drain.timeout).as_secs(),
                broker_up: metrics.is_broker_up().into(),
                http: node.connections.http(websocket),
                waiting: node.connections.waiting(),
                addresses: node.connections.addresses(),
                http_memory: node.http_memory.numbers(),
                http_cut: node.http_memory.cut(),
                worker_silence: node.pulse.silence(),
            },
            limits: Limits {
                connections: node.connections.max(),
                waiting: waiting_max(&config, metrics.workers.len()),
                log_bytes: config.log_memory().bytes(),
                http_bytes: config.http_memory(),
                broker_bytes: config.broker_memory().bytes(),
                inbox_items: config.hub.inbox_items * metrics.inboxes.len(),
            },
            workers,
            threads: metrics.workers.iter().map(|cell| cell.times()).collect(),
            inbox_items: metrics.inboxes.iter().map(|inbox| inbox.len()).sum(),
            inbox_overflows: metrics.inboxes.iter().map(|inbox| inbox.overflows()).sum(),
            hub: node.hub.stats(),
            broker: node.broker.stats(),
            keys: keys(node),
            events: &metrics.events,
            log_lines_dropped: logging::lines_dropped(),
            uptime: metrics.started.elapsed(),
        }
    }

    /// The state of a node that has just started: nothing happened yet.
    #[cfg(test)]
    pub(super) fn empty(events: &'a Events) -> Self {
        Self {
            node: NodeState::default(),
            limits: Limits::default(),
            workers: Vec::new(),
            threads: vec![Times::default()],
            inbox_items: 0,
            inbox_overflows: 0,
            hub: HubStats::default(),
            broker: BrokerStats::default(),
            keys: vec![("feed".to_owned(), 0)],
            events,
            log_lines_dropped: 0,
            uptime: Duration::ZERO,
        }
    }

    /// The same with Redis as its broker.
    #[cfg(test)]
    pub(super) fn empty_with_redis(events: &'a Events) -> Self {
        let broker = BrokerStats { link: Some(LinkStats::default()), ..BrokerStats::default() };
        Self { broker, ..Self::empty(events) }
    }

    /// One number of all workers together.
    pub(super) fn sum(&self, number: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(number).sum()
    }
}

fn keys(node: &Node) -> Vec<(String, u64)> {
    let policy = node.access.current();
    let mut keys: Vec<_> = policy.keys().map(|key| (key.name().to_owned(), key.uses())).collect();
    keys.sort_unstable();
    keys
}
