//! A worker's half: which connection is owed what, and the turn that finds out.
//!
//! All state of the worker's subscriptions sits in three tables (topics, subscriptions, connections) that refer to each
//! other by index. A publication walks the topic's subscriptions and marks them dirty; a connection with dirty
//! subscriptions waits in one queue to be flushed. A subscription takes 48 bytes, a connection 20, an entry in a topic 4.

mod commands;
mod counters;
mod flush;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;
use tickcast_protocol::{Mode, Publication, Rate, ServerMessage, Topic};

use crate::hub::Hub;
use crate::inbox::{Item, LocalTopic};
use crate::log::TopicLog;
use crate::wheel::Wheel;

use commands::{Ack, Start, numbers_of};
pub use counters::{Counters, Gaps};
pub use flush::{Committed, Plan};
use tables::{Connection, Flags, LocalState, NONE, Subscription, Timer, ready_at, to_u32};

/// A connection of this worker, as long as it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u32);

impl ConnectionId {
    /// The connection at an index that [`ConnectionId::index`] gave out.
    pub fn at(index: usize) -> Self {
        Self(to_u32(index))
    }

    /// The index behind it: small, and used again after the connection was detached.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where replies to commands go.
pub trait Replies {
    /// Queues a reply on the connection, ahead of all data that is not written yet.
    fn reply(&mut self, connection: ConnectionId, message: &ServerMessage<'_>);
}

/// Bounds of a worker's fan-out.
#[derive(Debug, Clone, Copy)]
pub struct FanoutLimits {
    /// Subscriptions of one connection; one more is the error `too_many_subscriptions`.
    pub subscriptions_per_connection: usize,
    /// How long a subscribe command may wait for its topics, in milliseconds; those that are not settled by then are
    /// reported as `unavailable`.
    pub settle_ms: u64,
}

/// Publications and bytes of a mirror, twice over, that may wait for the end of a turn whatever the bounds of the log.
const MIRROR_PUBLICATIONS: usize = 1000;
const MIRROR_BYTES: usize = 1 << 20;

/// The fan-out of one worker.
#[derive(Debug)]
pub struct Fanout {
    hub: Arc<Hub>,
    worker: usize,
    limits: FanoutLimits,
    /// Milliseconds since the worker started, at the beginning of the turn.
    now: u64,
    topics: Slab<LocalState>,
    names: HashMap<Topic, u32, ahash::RandomState>,
    subscriptions: Slab<Subscription>,
    connections: Slab<Connection>,
    queue: VecDeque<u32>,
    wheel: Wheel<Timer>,
    fired: Vec<Timer>,
    /// Ordered by connection, so that each finds its own.
    acks: BTreeMap<u64, Ack>,
    next_ack: u32,
    /// Where subscriptions begin that are not acknowledged yet.
    starting: HashMap<u32, Start, ahash::RandomState>,
    next_generation: u32,
    /// Topics whose mirror is to be cut to the hub's log when nobody waits to be flushed.
    long: Vec<LocalTopic>,
    /// Counts the changes of logs: what was gathered at one count is what is owed at the same count.
    stamp: u64,
    counters: Counters,
}

impl Fanout {
    /// The fan-out of the worker with this number, fed by `hub`.
    pub fn new(hub: Arc<Hub>, worker: usize, limits: FanoutLimits) -> Self {
        Self {
            hub,
            worker,
            limits,
            now: 0,
            topics: Slab::new(),
            names: HashMap::default(),
            subscriptions: Slab::new(),
            connections: Slab::new(),
            queue: VecDeque::new(),
            wheel: Wheel::new(),
            fired: Vec::new(),
            acks: BTreeMap::new(),
            next_ack: 0,
            starting: HashMap::default(),
            next_generation: 0,
            long: Vec::new(),
            stamp: 1,
            counters: Counters::default(),
        }
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Subscriptions held now.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Topics with at least one subscription now.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Subscribe commands that wait for their topics now.
    pub fn unanswered(&self) -> usize {
        self.acks.len()
    }

    /// Takes a new connection.
    pub fn attach(&mut self) -> ConnectionId {
        ConnectionId(to_u32(self.connections.insert(Connection {
            first: NONE,
            dirty_head: NONE,
            dirty_tail: NONE,
            subscriptions: 0,
            waiting: 0,
            is_queued: false,
            is_blocked: false,
        })))
    }

    /// Forgets a connection and everything it holds.
    pub fn detach(&mut self, connection: ConnectionId) {
        let Some(state) = self.connections.get_mut(connection.index()) else { return };
        // Nothing may be flushed while the subscriptions go one by one.
        state.is_blocked = true;
        (state.dirty_head, state.dirty_tail) = (NONE, NONE);
        let mut next = state.first;
        if state.waiting > 0 {
            let mine: Vec<u64> =
                self.acks.range(numbers_of(connection)).map(|(number, _)| *number).collect();
            for number in mine {
                self.acks.remove(&number);
            }
        }
        while next != NONE {
            let index = next;
            next = self.subscriptions[index as usize].next;
            self.drop_subscription(index);
        }
        self.connections.remove(connection.index());
    }

    /// The topics that the connection holds, or has asked for and not got yet.
    pub fn held(&self, connection: ConnectionId) -> impl Iterator<Item = &Topic> {
        let first = self.connections.get(connection.index()).map_or(NONE, |state| state.first);
        let subscription = |index: u32| self.subscriptions.get(index as usize);
        let held = std::iter::successors(subscription(first), move |held| subscription(held.next));
        held.filter_map(|held| Some(&self.topics.get(held.topic as usize)?.name))
    }

    /// Says whether the connection's socket takes no more. A blocked connection is not queued for flushing; once it is
    /// writable again everything it is owed is still in the logs.
    pub fn set_blocked(&mut self, connection: ConnectionId, is_blocked: bool) {
        if let Some(state) = self.connections.get_mut(connection.index()) {
            state.is_blocked = is_blocked;
            if !is_blocked && state.dirty_head != NONE {
                self.enqueue(connection);
            }
        }
    }

    /// Queues the connection for flushing, for example because a reply waits.
    pub fn enqueue(&mut self, connection: ConnectionId) {
        if let Some(state) = self.connections.get_mut(connection.index())
            && !state.is_queued
            && !state.is_blocked
        {
            state.is_queued = true;
            self.queue.push_back(connection.0);
        }
    }

    /// The next connection to flush.
    pub fn pop_dirty(&mut self) -> Option<ConnectionId> {
        while let Some(index) = self.queue.pop_front() {
            // An index may be left over from a connection that is gone.
            if let Some(state) = self.connections.get_mut(index as usize)
                && std::mem::take(&mut state.is_queued)
                && !state.is_blocked
            {
                return Some(ConnectionId(index));
            }
        }
        self.cut_mirrors();
        None
    }

    /// Connections that wait to be flushed.
    pub fn dirty_connections(&self) -> usize {
        self.queue.len()
    }

    /// Begins a turn at `now` milliseconds since the worker started and fires what is due.
    pub fn advance(&mut self, now: u64, replies: &mut impl Replies) {
        self.now = self.now.max(now);
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.now, &mut fired);
        for timer in fired.drain(..) {
            match timer {
                Timer::Rate(index) => self.rate_allows(index),
                Timer::Flush { topic, generation } => {
                    if let Some(state) = self.topics.get_mut(topic as usize)
                        && state.generation == generation
                    {
                        state.is_deferred = false;
                        self.mark_topic(topic);
                    }
                }
                Timer::Settle(ack) => self.settle_late(ack, replies),
            }
        }
        self.fired = fired;
        self.shed_timers();
    }

    /// When [`Fanout::advance`] is due next, in milliseconds since the worker started.
    pub fn next_due(&self) -> Option<u64> {
        self.wheel.next_due()
    }

    /// Applies what the hub says about a topic.
    pub fn apply(&mut self, item: Item, replies: &mut impl Replies) {
        self.stamp += 1;
        match item {
            Item::Publication { local, publication, floor } => {
                self.apply_publication(local, publication, floor);
            }
            Item::Log { local, log } => self.apply_log(local, *log, replies),
            Item::Trim { local, floor } => {
                if let Some(log) = self.local(local).and_then(|state| state.log.as_mut()) {
                    log.trim_to(floor);
                }
            }
            Item::Link { .. } => {} // For the owner: it knows all connections.
        }
    }

    /// Asks for the logs of topics whose items did not fit into the inbox.
    pub fn resync(&self, topics: &[Topic]) {
        self.hub.resync(self.worker, topics);
    }

    fn local(&mut self, local: LocalTopic) -> Option<&mut LocalState> {
        let state = self.topics.get_mut(local.index as usize)?;
        // A later use of the index belongs to another topic.
        (state.generation == local.generation).then_some(state)
    }

    fn apply_publication(&mut self, local: LocalTopic, publication: Arc<Publication>, floor: u64) {
        let now = self.now;
        let Some(state) = self.local(local) else { return };
        let Some(log) = &mut state.log else { return };
        log.append(publication, 0);
        state.floor = floor;
        // What came in this turn is not let go before it could be flushed: that would be a gap for the fastest client.
        let (publications, bytes) = (state.options.log.publications, state.options.log.bytes);
        if log.len() > 2 * publications.max(MIRROR_PUBLICATIONS)
            || log.bytes() > 2 * bytes.max(MIRROR_BYTES)
        {
            log.trim_to(floor);
        } else if !std::mem::replace(&mut state.is_long, true) {
            self.long.push(local);
        }
        let Some(state) = self.topics.get_mut(local.index as usize) else { return };
        let interval = u64::from(state.options.flush_interval_ms);
        if interval == 0 {
            self.mark_topic(local.index);
        } else if !state.is_deferred {
            state.is_deferred = true;
            // Due times lie on a grid, so that topics with the same interval are gathered into one write.
            let due = (now / interval + 1) * interval;
            self.wheel.add(due, Timer::Flush { topic: local.index, generation: local.generation });
        }
    }

    fn apply_log(&mut self, local: LocalTopic, log: TopicLog, replies: &mut impl Replies) {
        let Some(state) = self.local(local) else { return };
        let is_reset = state.log.as_ref().is_some_and(|old| old.epoch() != log.epoch());
        let start = log.floor();
        // A floor of the old log means nothing in the new one, least of all after a change of epoch.
        state.floor = start;
        state.log = Some(log);
        if is_reset {
            for index in &self.topics[local.index as usize].subscriptions {
                let subscription = &mut self.subscriptions[*index as usize];
                if !subscription.flags.has(Flags::PENDING) {
                    subscription.cursor = start;
                    subscription.flags.set(Flags::RESET_RESTART);
                }
            }
        }
        self.settle_topic(local.index, replies);
        self.mark_topic(local.index);
    }

    /// Everyone who can take anything has it: mirrors need not be longer than the hub's logs.
    fn cut_mirrors(&mut self) {
        let mut long = std::mem::take(&mut self.long);
        for local in long.drain(..) {
            let Some(state) = self.local(local) else { continue };
            state.is_long = false;
            let floor = state.floor;
            if let Some(log) = &mut state.log {
                log.trim_to(floor);
            }
            self.stamp += 1;
        }
        self.long = long;
    }

    fn mark_topic(&mut self, topic: u32) {
        let Some(state) = self.topics.get(topic as usize) else { return };
        let mut marker = Marker {
            now: self.now,
            subscriptions: &mut self.subscriptions,
            connections: &mut self.connections,
            queue: &mut self.queue,
            wheel: &mut self.wheel,
        };
        for index in &state.subscriptions {
            marker.mark(*index);
        }
    }

    fn mark(&mut self, index: u32) {
        Marker {
            now: self.now,
            subscriptions: &mut self.subscriptions,
            connections: &mut self.connections,
            queue: &mut self.queue,
            wheel: &mut self.wheel,
        }
        .mark(index);
    }

    fn rate_allows(&mut self, index: u32) {
        let now = self.now;
        // The timer may be left over from an earlier subscription with this index, or from an earlier rate.
        if let Some(subscription) = self.subscriptions.get_mut(index as usize)
            && subscription.flags.has(Flags::TIMED)
            && subscription.ready_at <= now
        {
            subscription.flags.clear(Flags::TIMED);
            self.mark(index);
        }
    }

    fn drop_subscription(&mut self, index: u32) {
        let subscription = self.subscriptions.remove(index as usize);
        self.starting.remove(&index);
        self.unlink(&subscription, index);
        let state = &mut self.topics[subscription.topic as usize];
        let slot = subscription.slot as usize;
        state.subscriptions.swap_remove(slot);
        if let Some(moved) = state.subscriptions.get(slot) {
            self.subscriptions[*moved as usize].slot = subscription.slot;
        }
        if state.subscriptions.is_empty() {
            let state = self.topics.remove(subscription.topic as usize);
            self.names.remove(&state.name);
            let local = LocalTopic { index: subscription.topic, generation: state.generation };
            self.hub.leave(&state.name, self.worker, local);
        }
    }

    /// Takes a subscription out of its connection's two lists. Walks them: a connection has few subscriptions.
    fn unlink(&mut self, subscription: &Subscription, index: u32) {
        let Some(connection) = self.connections.get_mut(subscription.connection as usize) else {
            return;
        };
        connection.subscriptions -= 1;
        if connection.first == index {
            connection.first = subscription.next;
        } else {
            let mut at = connection.first;
            while at != NONE {
                let other = &mut self.subscriptions[at as usize];
                if other.next == index {
                    other.next = subscription.next;
                    break;
                }
                at = other.next;
            }
        }
        if !subscription.flags.has(Flags::DIRTY) {
            return;
        }
        if connection.dirty_head == index {
            connection.dirty_head = subscription.next_dirty;
            if connection.dirty_head == NONE {
                connection.dirty_tail = NONE;
            }
            return;
        }
        let mut at = connection.dirty_head;
        while at != NONE {
            let other = &mut self.subscriptions[at as usize];
            if other.next_dirty == index {
                other.next_dirty = subscription.next_dirty;
                if connection.dirty_tail == index {
                    connection.dirty_tail = at;
                }
                return;
            }
            at = other.next_dirty;
        }
    }

    fn set_options(&mut self, index: u32, mode: Mode, rate: Option<Rate>) {
        let subscription = &mut self.subscriptions[index as usize];
        let interval_ms = rate.map_or(0, Rate::interval_ms);
        if subscription.ready_at > 0 {
            let sent_at = subscription.ready_at.saturating_sub(subscription.interval_ms.into());
            subscription.ready_at = ready_at(sent_at, interval_ms);
        }
        subscription.mode = mode;
        subscription.interval_ms = interval_ms;
        if !subscription.flags.has(Flags::PENDING) {
            // A timer of the old rate may lie far away; the new rate gets its own.
            subscription.flags.clear(Flags::TIMED);
            self.mark(index);
        }
    }

    /// Subscriptions and commands that are gone, and rates that have changed, leave timers behind. When most of the wheel is
    /// such waste, it is cleaned.
    fn shed_timers(&mut self) {
        let wanted = self.subscriptions.len() + self.topics.len() + self.acks.len();
        if self.wheel.len() <= 1024 + 2 * wanted {
            return;
        }
        self.wheel.retain(|timer| match timer {
            Timer::Rate(_) => false,
            Timer::Flush { topic, generation } => self
                .topics
                .get(*topic as usize)
                .is_some_and(|state| state.generation == *generation),
            Timer::Settle(number) => self.acks.contains_key(number),
        });
        for (index, subscription) in &self.subscriptions {
            if subscription.flags.has(Flags::TIMED) {
                self.wheel.add(subscription.ready_at, Timer::Rate(to_u32(index)));
            }
        }
    }
}

/// The parts of the fan-out that marking touches, borrowed apart from the topics whose lists are walked.
struct Marker<'a> {
    now: u64,
    subscriptions: &'a mut Slab<Subscription>,
    connections: &'a mut Slab<Connection>,
    queue: &'a mut VecDeque<u32>,
    wheel: &'a mut Wheel<Timer>,
}

impl Marker<'_> {
    /// Puts a subscription into its connection's list of dirty ones, or lets its timer do so when the rate allows.
    fn mark(&mut self, index: u32) {
        let subscription = &mut self.subscriptions[index as usize];
        if subscription.flags.has(Flags::PENDING | Flags::DIRTY) {
            return;
        }
        if subscription.interval_ms > 0 && self.now < subscription.ready_at {
            if !subscription.flags.has(Flags::TIMED) {
                subscription.flags.set(Flags::TIMED);
                self.wheel.add(subscription.ready_at, Timer::Rate(index));
            }
            return;
        }
        subscription.flags.set(Flags::DIRTY);
        subscription.next_dirty = NONE;
        let owner = subscription.connection;
        let connection = &mut self.connections[owner as usize];
        if connection.dirty_tail == NONE {
            connection.dirty_head = index;
        } else {
            self.subscriptions[connection.dirty_tail as usize].next_dirty = index;
        }
        connection.dirty_tail = index;
        if !connection.is_queued && !connection.is_blocked {
            connection.is_queued = true;
            self.queue.push_back(owner);
        }
    }
}
