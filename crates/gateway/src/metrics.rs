//! What the node counts, and how it is shown to Prometheus.
//!
//! Workers count in plain numbers of their own and copy them to their cell once per turn; a scrape adds the cells up.
//! So nothing is shared, hashed or locked per delivery. Requests and publishes are counted where they happen, in
//! [`events`]. A scrape takes one [`snapshot`], and the [`table`] says how every metric is read from it: the exposition
//! and `docs/reference/metrics.md` both come from that table.
//!
//! No label ever holds a topic, an address or anything else that a client chose.

mod buckets;
mod events;
mod exposition;
mod process;
#[cfg(test)]
mod reference;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod threads;
#[cfg(test)]
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use tickcast_broker::{PublishError, Published};
use tickcast_hub::{Counters, Inbox};

pub(crate) use self::events::AuthFailure;
pub(crate) use self::events::BrokerCall;
use self::events::Events;
use self::snapshot::Snapshot;
use self::threads::Times;
use crate::node::Node;
use crate::router::Route;

/// Defines an enum whose variants are the values of a label, so that counters can be an array indexed by it.
macro_rules! label_values {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$variant_attribute:meta])* $variant:ident => $text:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant,)+
        }

        impl $name {
            /// The texts of all variants, in the order of their numbers.
            $visibility const TEXTS: &[&str] = &[$($text),+];
            $visibility const COUNT: usize = Self::TEXTS.len();
        }
    };
}
pub(crate) use label_values;

label_values! {
    /// Why a connection ended.
    pub(crate) enum CloseReason {
        /// The client closed it.
        Client => "client",
        /// The network did.
        Lost => "lost",
        /// A ping was not answered.
        PingTimeout => "ping_timeout",
        /// The socket took nothing for as long as the stall timeout.
        SlowConsumer => "slow_consumer",
        /// A frame broke the protocol.
        ProtocolError => "protocol_error",
        /// It sent more than a client needs to: fragments, pings, pongs, messages without an end.
        Flood => "flood",
        /// It presented too many wrong keys.
        Unauthorized => "unauthorized",
        /// It held a topic that it may not subscribe to any more.
        AccessChanged => "access_changed",
        /// Its key is not valid any more.
        KeyRevoked => "key_revoked",
        /// The node stopped.
        Drain => "drain",
        /// It was as old as a connection may get, and did not go by itself.
        MaxAge => "max_age",
        /// The node has a bug: serving it panicked.
        Internal => "internal",
    }
}

label_values! {
    /// Why a connection was turned away before it was served.
    pub(crate) enum RejectReason {
        /// As many are open as may be.
        Limit => "limit",
        /// As many wait as may.
        Queue => "queue",
        /// Its address has as many as one may have.
        Address => "address",
        /// It waited when the node began to drain.
        Draining => "draining",
        /// It did not come through a trusted proxy with a header of the PROXY protocol, which is required.
        Proxy => "proxy",
        /// A page of its origin may not connect.
        Origin => "origin",
        /// It presented a key that is not known.
        Auth => "auth",
        /// Its request for a WebSocket broke another rule.
        BadHandshake => "bad_handshake",
    }
}

label_values! {
    /// Why clients are told to go.
    pub(crate) enum GoawayReason {
        /// The node stops.
        Drain => "drain",
        /// The connection is as old as one may get.
        MaxAge => "max_age",
    }
}

/// Upper bounds of the latency buckets, in milliseconds. Publishing times come in whole milliseconds.
pub(crate) const LATENCY_BUCKETS_MS: [u64; 13] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Upper bounds of the buckets of a turn's duration, in microseconds.
pub(crate) const TURN_BUCKETS_US: [u64; 11] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 250_000, 1_000_000];

/// What one worker has done since it started, and what it holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerCounters {
    /// Connections held now.
    pub(crate) connections: u64,
    /// Subscriptions held now.
    pub(crate) subscriptions: u64,
    /// Connections whose socket is full now.
    pub(crate) stalled: u64,
    /// Connections taken.
    pub(crate) opened: u64,
    /// Connections ended, by [`CloseReason`].
    pub(crate) closed: [u64; CloseReason::COUNT],
    /// Clients told to go, by [`GoawayReason`].
    pub(crate) goaways: [u64; GoawayReason::COUNT],
    /// Bytes read from WebSocket connections.
    pub(crate) received_bytes: u64,
    /// Bytes written to WebSocket connections.
    pub(crate) sent_bytes: u64,
    /// Writes that took at least a byte.
    pub(crate) writes: u64,
    /// Times that a socket was found full.
    pub(crate) blocked: u64,
    /// Pings sent.
    pub(crate) pings: u64,
    /// Connections ended because serving them panicked.
    pub(crate) panics: u64,
    /// Frames that were no command.
    pub(crate) commands_bad: u64,
    /// Commands beyond the rate of their connection.
    pub(crate) commands_refused: u64,
    /// What the fan-out counted.
    pub(crate) fanout: Counters,
    /// Publications by the time from publishing to the end of the turn that wrote them, per bucket, the last for more.
    pub(crate) latency: [u64; LATENCY_BUCKETS_MS.len() + 1],
    /// The sum of those times, in milliseconds.
    pub(crate) latency_sum_ms: u64,
    /// Bytes of memory that hold unfinished messages of clients.
    pub(crate) unfinished_bytes: u64,
    /// Bytes that wait for full sockets, as of the last second.
    pub(crate) pending_bytes: u64,
    /// Turns by their duration, per bucket, the last for more.
    pub(crate) turns: [u64; TURN_BUCKETS_US.len() + 1],
    /// The sum of those durations, in microseconds.
    pub(crate) turns_sum_us: u64,
}

impl WorkerCounters {
    /// Counts a turn.
    pub(crate) fn observe_turn(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.turns[TURN_BUCKETS_US.partition_point(|bound| *bound < micros)] += 1;
        self.turns_sum_us = self.turns_sum_us.saturating_add(micros);
    }
}

/// Where a worker leaves its numbers for the next scrape.
#[derive(Debug, Default)]
pub(crate) struct WorkerCell {
    counters: Mutex<WorkerCounters>,
    /// The worker's thread; 0 until it runs.
    thread: AtomicI32,
}

impl WorkerCell {
    pub(crate) fn set(&self, counters: &WorkerCounters) {
        *self.counters.lock() = *counters;
    }

    /// The calling thread is the worker.
    pub(crate) fn set_thread(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
    }

    fn get(&self) -> WorkerCounters {
        *self.counters.lock()
    }

    fn times(&self) -> Times {
        Times::of(self.thread.load(Relaxed))
    }
}

/// All numbers of the node.
#[derive(Debug)]
pub(crate) struct Metrics {
    workers: Vec<Arc<WorkerCell>>,
    inboxes: Vec<Arc<Inbox>>,
    events: Events,
    is_broker_up: AtomicBool,
    started: Instant,
}

impl Metrics {
    /// The numbers of the workers behind these cells and inboxes.
    pub(crate) fn new(workers: Vec<Arc<WorkerCell>>, inboxes: Vec<Arc<Inbox>>) -> Self {
        let (events, is_broker_up) = (Events::default(), AtomicBool::new(false));
        Self { workers, inboxes, events, is_broker_up, started: Instant::now() }
    }

    /// WebSocket connections open now, as of each worker's last turn.
    pub(crate) fn websocket_connections(&self) -> u64 {
        self.workers.iter().map(|cell| cell.get().connections).sum()
    }

    pub(crate) fn is_broker_up(&self) -> bool {
        self.is_broker_up.load(Relaxed)
    }

    pub(crate) fn set_broker_up(&self, up: bool) {
        self.is_broker_up.store(up, Relaxed);
    }

    /// A connection was turned away.
    pub(crate) fn count_rejected(&self, reason: RejectReason) {
        self.events.count_rejected(reason);
    }

    /// The configuration was read again.
    pub(crate) fn count_reload(&self, is_taken: bool) {
        self.events.count_reload(is_taken);
    }

    /// Serving a connection panicked while it spoke HTTP.
    pub(crate) fn count_http_panic(&self) {
        self.events.count_http_panic();
    }

    /// Somebody was not allowed to do something.
    pub(crate) fn count_auth_failure(&self, reason: AuthFailure) {
        self.events.count_auth_failure(reason);
    }

    /// A connection was let in after it had waited for so long.
    pub(crate) fn observe_admission_wait(&self, elapsed: Duration) {
        self.events.observe_admission_wait(elapsed);
    }

    /// A client has hung up while it waited to be let in.
    pub(crate) fn count_admission_abandoned(&self) {
        self.events.count_admission_abandoned();
    }

    /// A WebSocket connection is open, so long after its request came.
    pub(crate) fn observe_handshake(&self, elapsed: Duration) {
        self.events.observe_handshake(elapsed);
    }

    /// A WebSocket connection has ended at this age, in seconds.
    pub(crate) fn observe_age(&self, seconds: u32) {
        self.events.observe_age(seconds);
    }

    /// A pong came back, so long after its ping.
    pub(crate) fn observe_round_trip(&self, elapsed: Duration) {
        self.events.observe_round_trip(elapsed);
    }

    /// The broker has answered a publish call, or had no time left to.
    pub(crate) fn observe_broker_publish(&self, elapsed: Duration) {
        self.events.observe_broker_publish(elapsed);
    }

    /// The broker did not do what it was called for: it could not be reached, or did not answer in time.
    pub(crate) fn count_broker_error(&self, call: BrokerCall) {
        self.events.count_broker_error(call);
    }

    /// An item was handed to the broker.
    pub(crate) fn observe_payload(&self, bytes: usize) {
        self.events.observe_payload(bytes);
    }

    /// A publish request was answered, with one result per item.
    pub(crate) fn count_publishes(&self, results: &[Result<Published, PublishError>]) {
        self.events.count_publishes(results);
    }

    /// A request was answered.
    pub(crate) fn observe_request(
        &self,
        route: Route,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) {
        self.events.observe_request(route, method, status, elapsed);
    }

    /// Everything as it is now, in the text format of Prometheus.
    ///
    /// # Errors
    /// When a family cannot be written. The table rules it out, and a test holds it to that.
    pub(crate) fn render(&self, node: &Node) -> Result<String, prometheus::Error> {
        exposition::text(&Snapshot::take(self, node))
    }
}
