//! Which topics are wanted, and how far each is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;
use tickcast_protocol::Topic;

use super::{BatchId, CallId, Purpose};

/// A call and whether all that it asked for is there.
pub(super) type Settled = (CallId, bool);

/// How far a topic is on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In one of the queues.
    Queued,
    /// In this batch.
    Asked(BatchId),
    Subscribed,
    /// Redis refuses it.
    Denied,
}

/// The wanted topics.
#[derive(Debug)]
pub(super) struct Topics {
    phases: HashMap<Topic, Phase, ahash::RandomState>,
    /// Somebody waits for these.
    fresh: VecDeque<Topic>,
    /// To be subscribed again on a new connection, and compared.
    resync: VecDeque<Topic>,
    /// Halves of batches that were refused, down to the topics that are.
    halves: VecDeque<(Vec<Topic>, Purpose)>,
    /// Those halves that are part of a resync.
    resync_halves: usize,
    /// Denied before, to be tried again.
    retry: VecDeque<Topic>,
    /// Calls that wait for a topic.
    waiting: HashMap<Topic, Vec<CallId>, ahash::RandomState>,
    /// Topics that a call still waits for.
    missing: HashMap<CallId, usize, ahash::RandomState>,
    subscribed: usize,
    denied: usize,
}

impl Topics {
    /// No topics. The order in which topics come out of the maps is decided by `rng`, so that a seed repeats exactly.
    pub(super) fn new(rng: &mut SmallRng) -> Self {
        let mut keys = || {
            ahash::RandomState::with_seeds(rng.random(), rng.random(), rng.random(), rng.random())
        };
        Self {
            phases: HashMap::with_hasher(keys()),
            fresh: VecDeque::new(),
            resync: VecDeque::new(),
            halves: VecDeque::new(),
            resync_halves: 0,
            retry: VecDeque::new(),
            waiting: HashMap::with_hasher(keys()),
            missing: HashMap::with_hasher(keys()),
            subscribed: 0,
            denied: 0,
        }
    }

    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let wanted = self.phases.len();
        (wanted, wanted - self.subscribed - self.denied, self.denied)
    }

    pub(super) fn subscribed(&self) -> usize {
        self.subscribed
    }

    /// All wanted topics, in no order.
    pub(super) fn all(&self) -> Vec<Topic> {
        self.phases.keys().cloned().collect()
    }

    pub(super) fn is_resyncing(&self) -> bool {
        !self.resync.is_empty() || self.resync_halves > 0
    }

    /// Wants topics. Without a connection the call fails at once, and the topics are subscribed with the next one.
    pub(super) fn want(
        &mut self,
        call: CallId,
        topics: &[Topic],
        is_connected: bool,
    ) -> Vec<Settled> {
        let (mut missing, mut is_denied) = (0, false);
        for topic in topics {
            match self.phases.entry(topic.clone()) {
                Entry::Occupied(entry) => match entry.get() {
                    Phase::Subscribed => continue,
                    // It is tried again now and then; whoever asks meanwhile is told at once.
                    Phase::Denied => {
                        is_denied = true;
                        continue;
                    }
                    Phase::Queued | Phase::Asked(_) => {}
                },
                Entry::Vacant(entry) => {
                    entry.insert(Phase::Queued);
                    if is_connected {
                        self.fresh.push_back(topic.clone());
                    }
                }
            }
            if is_connected {
                missing += 1;
                let calls = self.waiting.entry(topic.clone()).or_default();
                calls.retain(|call| self.missing.contains_key(call));
                calls.push(call);
            }
        }
        if !is_connected || is_denied || missing == 0 {
            return vec![(call, is_connected && !is_denied)];
        }
        self.missing.insert(call, missing);
        Vec::new()
    }

    /// Gives topics back; those that the connection may hold, and the calls that waited for them.
    pub(super) fn give_back(&mut self, topics: &[Topic]) -> (Vec<Topic>, Vec<Settled>) {
        let (mut held, mut settled) = (Vec::new(), Vec::new());
        for topic in topics {
            match self.phases.remove(topic) {
                Some(Phase::Subscribed) => {
                    self.subscribed -= 1;
                    held.push(topic.clone());
                }
                Some(Phase::Asked(_)) => held.push(topic.clone()),
                Some(Phase::Denied) => self.denied -= 1,
                Some(Phase::Queued) | None => {}
            }
            self.answer(topic, false, &mut settled);
        }
        (held, settled)
    }

    /// The next topics to subscribe, and why. Those that somebody waits for come first.
    pub(super) fn next_batch(
        &mut self,
        batch: BatchId,
        max: usize,
    ) -> Option<(Arc<[Topic]>, Purpose)> {
        let Self { phases, fresh, resync, halves, resync_halves, retry, .. } = self;
        // A topic may have been given back, or asked for, since it was queued.
        let mut take = |topic: Topic| match phases.get_mut(&topic) {
            Some(phase) if *phase == Phase::Queued => {
                *phase = Phase::Asked(batch);
                Some(topic)
            }
            _ => None,
        };
        while let Some((half, purpose)) = halves.pop_front() {
            *resync_halves -= usize::from(purpose == Purpose::Resync);
            let topics: Vec<Topic> = half.into_iter().filter_map(&mut take).collect();
            if !topics.is_empty() {
                return Some((topics.into(), purpose));
            }
        }
        let queues = [(fresh, Purpose::Open), (resync, Purpose::Resync), (retry, Purpose::Retry)];
        for (queue, purpose) in queues {
            let mut topics = Vec::new();
            while topics.len() < max
                && let Some(topic) = queue.pop_front()
            {
                topics.extend(take(topic));
            }
            if !topics.is_empty() {
                return Some((topics.into(), purpose));
            }
        }
        None
    }

    /// Redis has subscribed the batch.
    pub(super) fn confirmed(&mut self, batch: BatchId, topics: &[Topic]) -> Vec<Settled> {
        let mut settled = Vec::new();
        for topic in topics {
            if let Some(phase) = self.phases.get_mut(topic)
                && *phase == Phase::Asked(batch)
            {
                *phase = Phase::Subscribed;
                self.subscribed += 1;
                self.answer(topic, true, &mut settled);
            }
        }
        settled
    }

    /// Redis refuses the one topic of this batch.
    pub(super) fn denied(&mut self, batch: BatchId, topic: &Topic) -> Vec<Settled> {
        let mut settled = Vec::new();
        if let Some(phase) = self.phases.get_mut(topic)
            && *phase == Phase::Asked(batch)
        {
            *phase = Phase::Denied;
            self.denied += 1;
            self.answer(topic, false, &mut settled);
        }
        settled
    }

    /// Redis refuses something in this batch: its halves go on by themselves.
    pub(super) fn split(&mut self, batch: BatchId, topics: &[Topic], purpose: Purpose) {
        let mut first = Vec::with_capacity(topics.len());
        for topic in topics {
            if let Some(phase) = self.phases.get_mut(topic)
                && *phase == Phase::Asked(batch)
            {
                *phase = Phase::Queued;
                first.push(topic.clone());
            }
        }
        let second = first.split_off(first.len() / 2);
        self.resync_halves += if purpose == Purpose::Resync { 2 } else { 0 };
        self.halves.extend([(first, purpose), (second, purpose)]);
    }

    /// Asks again for what was denied: somebody may have allowed it meanwhile.
    pub(super) fn retry_denied(&mut self) {
        if self.denied > 0 {
            for (topic, phase) in &mut self.phases {
                if *phase == Phase::Denied {
                    *phase = Phase::Queued;
                    self.retry.push_back(topic.clone());
                }
            }
            self.denied = 0;
        }
    }

    /// The connection is gone, and with it every subscription. Who waits is told.
    pub(super) fn disconnected(&mut self) -> Vec<Settled> {
        for phase in self.phases.values_mut() {
            *phase = Phase::Queued;
        }
        (self.subscribed, self.denied) = (0, 0);
        self.fresh.clear();
        self.resync.clear();
        self.halves.clear();
        self.resync_halves = 0;
        self.retry.clear();
        self.give_up()
    }

    /// Who waits is told that it will not be.
    pub(super) fn give_up(&mut self) -> Vec<Settled> {
        self.waiting.clear();
        self.missing.drain().map(|(call, _)| (call, false)).collect()
    }

    /// Nobody waits for this call any more.
    pub(super) fn cancel(&mut self, call: CallId) {
        self.missing.remove(&call);
    }

    /// There is a new connection: everything that is wanted is to be subscribed on it.
    pub(super) fn resync(&mut self) {
        self.resync = self.phases.keys().cloned().collect();
    }

    fn answer(&mut self, topic: &Topic, ok: bool, settled: &mut Vec<Settled>) {
        for call in self.waiting.remove(topic).unwrap_or_default() {
            let Entry::Occupied(mut missing) = self.missing.entry(call) else { continue };
            *missing.get_mut() -= 1;
            if !ok || *missing.get() == 0 {
                missing.remove();
                settled.push((call, ok));
            }
        }
    }
}
