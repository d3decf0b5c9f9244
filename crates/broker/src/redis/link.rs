//! What the link to Redis does next: a state machine without sockets, tasks or clocks of its own.
//!
//! It is told what happened and when, and answers with actions. So the same code runs on real connections in
//! [`driver`](super::driver) and, seeded and in virtual time, in a simulation.
//!
//! Two connections are kept, each with its own supervised reconnect. The link is *whole* while both are there, every
//! wanted topic is subscribed again and its position was compared since, and *up* while echoes of probes come back too.
//! A probe is a real publication on the node's own channel, so a fresh echo says that a publication made now arrives.

mod health;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tickcast_protocol::Topic;

use self::health::Health;
use self::topics::{Settled, Topics};

/// How often [`Link::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(50);

/// First and longest pause between two attempts to connect, before jitter.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A move of the master makes the pauses short again, at most once in this time.
const FORGIVEN_ONCE_IN: Duration = Duration::from_secs(2);

/// A connection that lasted this long was a good one: the next loss starts with short pauses again.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Topics of one SUBSCRIBE, and of one comparison.
const BATCH: usize = 512;

/// Batches being subscribed at once, and being compared, so that a long way to Redis does not add up.
const WINDOW: usize = 8;

/// A comparison that has not arrived after this long is asked for again.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);

/// A SUBSCRIBE that is not confirmed after this long never will be.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// All topics are compared once in this time while nothing seems wrong: it finds a last publication that was lost.
const AUDIT_ROUND: Duration = Duration::from_secs(20);

/// Topics that were denied are tried again after this long: somebody may have allowed them.
const DENIED_AGAIN: Duration = Duration::from_secs(5);

/// How often the server's view of the subscriber connection is looked at.
const INSPECT_EVERY: Duration = Duration::from_secs(5);

/// A view of the server says nothing about subscriptions that changed this short before.
const VIEW_SETTLES: Duration = Duration::from_secs(3);

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Publishes, reads, compares, probes.
    Commands,
    /// Subscribes; what it pushes is delivered.
    Subscriber,
}

/// Names a waiting call of [`Link::subscribe`].
pub type CallId = u64;

/// Names a batch of topics that is being subscribed or compared.
pub type BatchId = u64;

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No connection, or it ended, or no answer came in time.
    Lost,
    /// The server takes no writes because it is a replica now.
    Moved,
    /// An error reply, in one line.
    Refused(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The dial of this generation succeeded.
    Connected(Side, u64),
    /// The dial of this generation failed, or its connection ended.
    Lost(Side, u64),
    /// SUBSCRIBE of this batch was confirmed, or refused.
    Subscribed(BatchId, Result<(), Refusal>),
    /// The comparison arrived among the publications.
    Compared(BatchId),
    /// The comparison was not made.
    CompareFailed(BatchId, Refusal),
    /// A probe came back on the subscriber connection.
    Echo(u64),
    /// The publication of a probe was answered.
    Answered(u64),
    /// A probe was not published.
    ProbeFailed(u64, Refusal),
    /// How the server sees the subscriber connection of this generation; none if it does not know it.
    Inspected(u64, Option<ServerView>),
    /// Another server is the master now.
    MasterMoved,
}

/// What the server says about the subscriber connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerView {
    /// Channels it is subscribed to.
    pub channels: usize,
    /// Bytes that wait to be sent to it.
    pub output_buffer: usize,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wait, then connect; answer with [`Event::Connected`] or [`Event::Lost`] of this generation. The node's own channel
    /// is subscribed as part of it.
    Dial {
        /// Which connection.
        side: Side,
        /// Counts the connections of this side.
        generation: u64,
        /// The pause before.
        after: Duration,
    },
    /// Close the connection, and do not tell.
    Close(Side),
    /// Subscribe on the subscriber connection; answer with [`Event::Subscribed`]. Kept in order with `Unsubscribe`.
    Subscribe(BatchId, Arc<[Topic]>),
    /// Unsubscribe on the subscriber connection.
    Unsubscribe(Vec<Topic>),
    /// Ask for the positions; they arrive on the subscriber connection.
    Compare(BatchId, Arc<[Topic]>),
    /// Publish a probe.
    Probe(u64),
    /// Ask the server about the subscriber connection of this generation.
    Inspect(u64),
    /// Answer the call.
    Settle(CallId, bool),
    /// The link came up or went down.
    Announce(bool),
    /// Say in the log that the connections are torn down, and why.
    TornDown(&'static str),
    /// Say in the log that Redis refuses the subscription of a topic.
    Denied(Topic, String),
}

/// A connection and its reconnects.
#[derive(Debug)]
struct Connection {
    generation: u64,
    since: Option<Instant>,
    failures: u32,
}

/// Topics under way.
#[derive(Debug)]
struct Batch {
    topics: Arc<[Topic]>,
    step: Step,
    purpose: Purpose,
}

/// Why topics are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Somebody waits for them, and reads them once they are subscribed.
    Open,
    /// They are subscribed on a new connection: the link is not whole before they are compared.
    Resync,
    /// They were denied: compared once they are subscribed.
    Retry,
    /// The rolling comparison of everything.
    Audit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To be confirmed until then.
    Subscribing(Instant),
    /// Compared, and asked for again then.
    Comparing(Instant),
}

/// The state of both connections, of every wanted topic, and of the link's health.
#[derive(Debug)]
pub struct Link {
    rng: SmallRng,
    commands: Connection,
    subscriber: Connection,
    topics: Topics,
    batches: BTreeMap<BatchId, Batch>,
    next_batch: BatchId,
    health: Health,
    /// Topics of this round of the audit that are still to be compared.
    audit: Vec<Topic>,
    audit_share: usize,
    audit_ends: Instant,
    retry_at: Instant,
    moved_at: Instant,
    inspect_at: Instant,
    /// When a change of subscriptions was last asked for or confirmed: the server's view is only compared long after.
    changed_at: Instant,
    mismatches: u32,
    output_buffer: usize,
    reconnects: u64,
    actions: Vec<Action>,
}

impl Link {
    /// A link that begins to connect; take the [actions](Link::take_actions).
    pub fn new(now: Instant, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let connection = || Connection { generation: 0, since: None, failures: 0 };
        let mut link = Self {
            commands: connection(),
            subscriber: connection(),
            topics: Topics::new(&mut rng),
            rng,
            batches: BTreeMap::new(),
            next_batch: 0,
            health: Health::new(now),
            audit: Vec::new(),
            audit_share: 0,
            audit_ends: now,
            retry_at: now,
            moved_at: now,
            inspect_at: now + INSPECT_EVERY,
            changed_at: now,
            mismatches: 0,
            output_buffer: 0,
            reconnects: 0,
            actions: Vec::new(),
        };
        link.dial(Side::Commands, Duration::ZERO);
        link.dial(Side::Subscriber, Duration::ZERO);
        link
    }

    /// What is to be done, in this order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether a publication made now would arrive.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The health of the link, for the metrics.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Bytes that waited at the server for the subscriber connection when it was last looked at.
    pub fn output_buffer(&self) -> usize {
        self.output_buffer
    }

    /// Connections lost and made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Topics that are wanted, that wait for a confirmation, and that are denied.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.topics.counts()
    }

    /// Wants these topics until [`Link::unsubscribe`]; the call is settled once all of them are subscribed, or one is not.
    pub fn subscribe(&mut self, now: Instant, call: CallId, topics: &[Topic]) {
        let is_connected = self.subscriber.since.is_some();
        let settled = self.topics.want(call, topics, is_connected);
        self.settle(settled);
        if self.commands.since.is_none() {
            // Nothing can be read now; and what waits for comparisons may hold up what is to be subscribed.
            let settled = self.topics.give_up();
            self.settle(settled);
        }
        self.pump(now);
    }

    /// Nobody waits for this call any more.
    pub fn cancel(&mut self, call: CallId) {
        self.topics.cancel(call);
    }

    /// Gives topics back.
    pub fn unsubscribe(&mut self, now: Instant, topics: &[Topic]) {
        let (known, settled) = self.topics.give_back(topics);
        self.settle(settled);
        if self.subscriber.since.is_some() && !known.is_empty() {
            self.changed_at = now;
            self.actions.push(Action::Unsubscribe(known));
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected(side, generation) => self.connected(now, side, generation),
            Event::Lost(side, generation) => self.lost(now, side, generation),
            Event::Subscribed(batch, result) => self.subscribed(now, batch, result),
            Event::Compared(batch) => self.compared(batch),
            Event::CompareFailed(batch, refusal) => self.compare_failed(now, batch, &refusal),
            Event::Echo(number) => self.health.echo(now, number),
            Event::Answered(number) => self.health.answered(number),
            Event::ProbeFailed(number, refusal) => {
                if self.health.probe_failed(now, number, &refusal) == health::Verdict::Moved {
                    self.tear_down(now, "it takes no writes: another server is the master now");
                }
            }
            Event::Inspected(generation, view) => self.inspected(now, generation, view),
            Event::MasterMoved => {
                // What failed before was another server. Sentinels that quarrel must not make it forget the pauses.
                if now - self.moved_at >= FORGIVEN_ONCE_IN {
                    self.moved_at = now;
                    (self.commands.failures, self.subscriber.failures) = (0, 0);
                }
                self.tear_down(now, "another server is the master now");
            }
        }
        self.after(now);
    }

    /// Lets time pass. Called every [`TICK`].
    pub fn tick(&mut self, now: Instant) {
        let are_connected = self.commands.since.is_some() && self.subscriber.since.is_some();
        if are_connected {
            if let Some(number) = self.health.probe(now) {
                self.actions.push(Action::Probe(number));
            }
            if self.health.is_quiet(now) {
                self.tear_down(now, "it went quiet: no echo of a probe came back in time");
            }
        }
        if self.is_unconfirmed(now) {
            self.tear_down(now, "a subscription was not confirmed in time");
        }
        self.compare_due(now);
        if self.subscriber.since.is_some() && now >= self.retry_at {
            self.retry_at = now + DENIED_AGAIN;
            self.topics.retry_denied();
        }
        if self.is_whole() {
            self.audit(now);
            self.inspect(now);
        }
        self.after(now);
    }

    fn after(&mut self, now: Instant) {
        self.pump(now);
        let is_whole = self.is_whole();
        if let Some(up) = self.health.judge(now, is_whole) {
            self.actions.push(Action::Announce(up));
        }
    }

    fn is_whole(&self) -> bool {
        self.commands.since.is_some()
            && self.subscriber.since.is_some()
            && !self.topics.is_resyncing()
            && !self.batches.values().any(|batch| batch.purpose == Purpose::Resync)
    }

    fn connection(&mut self, side: Side) -> &mut Connection {
        match side {
            Side::Commands => &mut self.commands,
            Side::Subscriber => &mut self.subscriber,
        }
    }

    fn dial(&mut self, side: Side, after: Duration) {
        let connection = self.connection(side);
        connection.generation += 1;
        let generation = connection.generation;
        self.actions.push(Action::Dial { side, generation, after });
    }

    /// Dials after a pause that doubles with every failure and is jittered, so that many nodes do not come back in step.
    fn dial_again(&mut self, side: Side) {
        let failures = self.connection(side).failures;
        let longest = RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
        let after = longest.mul_f64(self.rng.random_range(0.5..1.0));
        let connection = self.connection(side);
        connection.failures = failures.saturating_add(1);
        self.dial(side, after);
    }

    fn connected(&mut self, now: Instant, side: Side, generation: u64) {
        let connection = self.connection(side);
        if connection.generation != generation {
            return;
        }
        connection.since = Some(now);
        self.reconnects += u64::from(self.health.has_been_up());
        self.health.restart(now);
        match side {
            Side::Subscriber => self.topics.resync(),
            Side::Commands => self.compare_all(now),
        }
    }

    fn lost(&mut self, now: Instant, side: Side, generation: u64) {
        if self.connection(side).generation == generation {
            self.drop_connection(now, side);
            self.dial_again(side);
        }
    }

    /// Forgets a connection and everything that was under way on it.
    fn drop_connection(&mut self, now: Instant, side: Side) {
        let connection = self.connection(side);
        if connection.since.take().is_some_and(|since| now - since >= STABLE_AFTER) {
            connection.failures = 0;
        }
        if side == Side::Subscriber {
            self.batches.clear();
            self.audit.clear();
            self.mismatches = 0;
        }
        let settled = match side {
            Side::Subscriber => self.topics.disconnected(),
            Side::Commands => self.topics.give_up(),
        };
        self.settle(settled);
    }

    /// Gives both connections up: what is wrong concerns the server behind both.
    fn tear_down(&mut self, now: Instant, why: &'static str) {
        self.actions.push(Action::TornDown(why));
        for side in [Side::Commands, Side::Subscriber] {
            self.actions.push(Action::Close(side));
            self.drop_connection(now, side);
            self.dial_again(side);
        }
        self.health.torn_down();
    }

    fn settle(&mut self, settled: Vec<Settled>) {
        self.actions.extend(settled.into_iter().map(|(call, ok)| Action::Settle(call, ok)));
    }

    /// Sends batches of topics that are to be subscribed, as far as the window allows.
    fn pump(&mut self, now: Instant) {
        while self.subscriber.since.is_some() && self.subscribing() < WINDOW {
            let batch = self.next_batch;
            let Some((topics, purpose)) = self.topics.next_batch(batch, BATCH) else { return };
            self.next_batch += 1;
            self.changed_at = now;
            self.actions.push(Action::Subscribe(batch, Arc::clone(&topics)));
            let step = Step::Subscribing(now + CONFIRMED_WITHIN);
            self.batches.insert(batch, Batch { topics, step, purpose });
        }
    }

    fn subscribing(&self) -> usize {
        let is_subscribing = |batch: &&Batch| matches!(batch.step, Step::Subscribing(_));
        self.batches.values().filter(is_subscribing).count()
    }

    fn subscribed(&mut self, now: Instant, id: BatchId, result: Result<(), Refusal>) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        self.changed_at = now;
        match result {
            Ok(()) => {
                let settled = self.topics.confirmed(id, &batch.topics);
                if batch.purpose == Purpose::Open {
                    self.batches.remove(&id);
                } else {
                    batch.step = Step::Comparing(now);
                }
                self.settle(settled);
                self.compare_due(now);
            }
            // The connection ends, and that is told by itself.
            Err(Refusal::Lost) => {}
            Err(Refusal::Moved) => self.tear_down(now, "another server is the master now"),
            Err(Refusal::Refused(why)) => self.refused(id, why),
        }
    }

    /// One topic that is not permitted has the whole batch refused: each of its topics goes on alone.
    fn refused(&mut self, id: BatchId, why: String) {
        let Some(batch) = self.batches.remove(&id) else { return };
        if let [topic] = &*batch.topics {
            let settled = self.topics.denied(id, topic);
            self.settle(settled);
            self.actions.push(Action::Denied(topic.clone(), why));
        } else {
            self.topics.split(id, &batch.topics, batch.purpose);
        }
    }

    fn compared(&mut self, id: BatchId) {
        if matches!(self.batches.get(&id), Some(Batch { step: Step::Comparing(_), .. })) {
            self.batches.remove(&id);
        }
    }

    /// A comparison of the audit waits for its next round; one that the link is not whole without is asked for again.
    fn compare_failed(&mut self, now: Instant, id: BatchId, refusal: &Refusal) {
        let Some(batch) = self.batches.get(&id) else { return };
        if *refusal == Refusal::Moved {
            self.tear_down(now, "it takes no writes: another server is the master now");
        } else if batch.purpose == Purpose::Audit {
            self.batches.remove(&id);
        }
    }

    fn compare_due(&mut self, now: Instant) {
        if self.commands.since.is_none() {
            return;
        }
        for (id, batch) in &mut self.batches {
            if matches!(batch.step, Step::Comparing(due) if due <= now) {
                batch.step = Step::Comparing(now + COMPARE_AGAIN);
                self.actions.push(Action::Compare(*id, Arc::clone(&batch.topics)));
            }
        }
    }

    /// What was asked for on the connection before is asked for again.
    fn compare_all(&mut self, now: Instant) {
        for batch in self.batches.values_mut() {
            if matches!(batch.step, Step::Comparing(_)) {
                batch.step = Step::Comparing(now);
            }
        }
        self.compare_due(now);
    }

    fn is_unconfirmed(&self, now: Instant) -> bool {
        let is_late =
            |batch: &Batch| matches!(batch.step, Step::Subscribing(until) if until <= now);
        self.batches.values().any(is_late)
    }

    /// Compares the share of all topics that is due, so that every topic has its turn once a round.
    fn audit(&mut self, now: Instant) {
        if self.audit.is_empty() && now >= self.audit_ends {
            self.audit_ends = now + AUDIT_ROUND;
            self.audit = self.topics.all();
            let ticks = usize::try_from(AUDIT_ROUND.as_millis() / TICK.as_millis()).unwrap_or(1);
            self.audit_share = self.audit.len().div_ceil(ticks / 2);
        }
        let left = self.audit.len().saturating_sub(self.audit_share);
        while self.batches.len() < WINDOW && self.audit.len() > left {
            let from = left.max(self.audit.len().saturating_sub(BATCH));
            let topics: Arc<[Topic]> = self.audit.drain(from..).collect();
            let batch = Batch { topics, step: Step::Comparing(now), purpose: Purpose::Audit };
            self.batches.insert(self.next_batch, batch);
            self.next_batch += 1;
        }
        self.compare_due(now);
    }

    fn inspect(&mut self, now: Instant) {
        if now >= self.inspect_at {
            self.inspect_at = now + INSPECT_EVERY;
            self.actions.push(Action::Inspect(self.subscriber.generation));
        }
    }

    /// A server that has lost the connection, or a part of its subscriptions, says so here and nowhere else.
    fn inspected(&mut self, now: Instant, generation: u64, view: Option<ServerView>) {
        if self.subscriber.since.is_none() || self.subscriber.generation != generation {
            return;
        }
        let Some(view) = view else {
            return self.tear_down(now, "the server does not know its subscriber connection");
        };
        self.output_buffer = view.output_buffer;
        // A change may have been on its way when the server looked. The node's own channel is one more.
        let is_settled = self.is_whole() && now - self.changed_at >= VIEW_SETTLES;
        let is_as_wanted = view.channels == self.topics.subscribed() + 1;
        self.mismatches = if is_settled && !is_as_wanted { self.mismatches + 1 } else { 0 };
        if self.mismatches >= 2 {
            self.mismatches = 0;
            self.tear_down(now, "the server has not the subscriptions that it confirmed");
        }
    }
}
