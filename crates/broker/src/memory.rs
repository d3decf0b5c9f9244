//! The embedded broker of a node that runs alone: everything in this process, nothing survives it.
//!
//! It keeps the shape of the distributed one: a publication is ordered, retained, then handed to [`Inbound`]. Topics and
//! idempotency keys live in separate shards, each behind its own lock. A publication is delivered while the lock of
//! its topic is held, so the order of deliveries per topic *is* the order of offsets; in return [`Inbound`] must neither
//! block nor call back into the broker, which would deadlock.
//! Locks are taken key shard first, then topic shard, and never two of a kind.
//! What has expired is gone at once for every reader, but its memory only when its topic is next published or
//! [`MemoryBroker::sweep`] comes by. There is no task and no timer in here: every future is ready when first polled.

mod keys;
mod retained;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tickcast_protocol::{Position, Publication, Topic};

use self::keys::Keys;
use self::retained::Retained;
use crate::{
    BoxFuture, Broker, BrokerStats, Inbound, PublishError, PublishItem, Published, ReadError,
    ReadRequest, TopicState, Unavailable, wall_clock_ms,
};

/// Shards of each kind. At the default bounds one holds about 1,000 topics or keys, so that whoever walks through it
/// keeps its lock for about 0.1 ms. Empty, all of them take 0.3 MiB. A power of two.
const SHARDS: usize = 1024;

/// Shards that one sweep visits: see [`MemoryBroker::sweep`].
const SHARDS_PER_SWEEP: usize = SHARDS / MemoryBroker::SWEEPS_PER_ROUND;

/// One in so many topics may be one that was only read.
const UNPUBLISHED_SHARE: usize = 2;

/// What a [`MemoryBroker`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Topics with an epoch, at about 170 bytes and the name each, beside `bytes_max`. Default 1,000,000.
    ///
    /// At the bound, known topics go on; publishing to another one, or creating it by a read, is answered `Full`.
    /// Half of them at most are topics that were only read and never published, so that subscribers alone cannot take
    /// the room of publishers; one more of those is answered `Full`.
    /// A publication that `bytes_max` refuses to a new topic still leaves the topic, unpublished.
    pub topics_max: usize,
    /// Bytes of retained publications, values and histories together. Default 1 GiB.
    ///
    /// At the bound, a publication pushes out its own topic's history, oldest first. If its topic's share has no room
    /// even for the publication alone, it is answered `Full`. Other topics never pay. Threads that publish at the same
    /// moment may pass the bound by one publication each.
    pub bytes_max: usize,
    /// How long an idempotency key is kept. Default 300 s; 0 keeps none.
    pub idempotency_ttl: Duration,
    /// Idempotency keys, of any length, at about 150 bytes each, beside `bytes_max`. Default 1,000,000.
    ///
    /// At the bound, a publication with a new key is answered `Full`: forgetting a key early would break the promise
    /// made for it. Publications without a key, and known keys, are unaffected.
    pub idempotency_keys_max: usize,
    /// How long a topic lives after its last publication, creating read or unsubscribe; then its epoch, value and
    /// history are gone and the next use starts a new epoch. Default 7 days. A subscribed topic never expires.
    pub topic_ttl: Duration,
    /// The same for a topic that was only read, never published. Default 10 minutes.
    pub unpublished_ttl: Duration,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            topics_max: 1_000_000,
            bytes_max: 1 << 30,
            idempotency_ttl: Duration::from_secs(300),
            idempotency_keys_max: 1_000_000,
            topic_ttl: Duration::from_hours(7 * 24),
            unpublished_ttl: Duration::from_mins(10),
        }
    }
}

/// The embedded broker. Its link is up from the start: the constructor says so through [`Inbound::link_changed`].
pub struct MemoryBroker {
    limits: MemoryLimits,
    inbound: Arc<dyn Inbound>,
    /// Monotonic; decides everything that ages. The wall clock only labels publications.
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Decides a topic's shard. Its seed is random, so nobody can aim at one shard.
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
    keys: Keys,
    topics: Gauge,
    /// Those of them that were never published.
    unpublished: Gauge,
    subscriptions: AtomicUsize,
    /// The sum of [`Retained::bytes`] over all shards; each shard adds its changes under its lock.
    bytes: AtomicUsize,
    /// The shard at which the next sweep begins, modulo [`SHARDS`].
    sweep_from: AtomicUsize,
}

/// The topics whose hash falls here.
#[derive(Debug, Default)]
struct Shard {
    topics: HashMap<Topic, Retained, ahash::RandomState>,
    /// Kept apart from `topics`: a subscription creates no epoch, and the end of an epoch ends no subscription.
    subscribed: HashSet<Topic, ahash::RandomState>,
}

impl MemoryBroker {
    /// Calls of [`MemoryBroker::sweep`] after which every topic and key was visited once.
    pub const SWEEPS_PER_ROUND: usize = 16;

    /// An empty broker that delivers to `inbound`.
    pub fn new(limits: MemoryLimits, inbound: Arc<dyn Inbound>) -> Self {
        Self::with_clock(limits, inbound, Instant::now)
    }

    /// As [`MemoryBroker::new`], with a clock of your own; it must never go back.
    pub fn with_clock(
        limits: MemoryLimits,
        inbound: Arc<dyn Inbound>,
        clock: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Self {
        inbound.link_changed(true);
        Self {
            limits,
            inbound,
            clock: Box::new(clock),
            hasher: ahash::RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys: Keys::new(limits.idempotency_ttl, limits.idempotency_keys_max),
            topics: Gauge::new(limits.topics_max),
            unpublished: Gauge::new((limits.topics_max / UNPUBLISHED_SHARE).max(1)),
            subscriptions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            sweep_from: AtomicUsize::new(0),
        }
    }

    /// Frees the memory of expired topics, histories and keys in the next sixteenth of the shards.
    ///
    /// Call it every two seconds or so, off the workers: with a million topics one call takes 1.5 ms, more if much has
    /// expired. It locks one shard at a time, so a publisher waits for the walk through about a thousand entries.
    pub fn sweep(&self) {
        let from = self.sweep_from.fetch_add(SHARDS_PER_SWEEP, Ordering::Relaxed);
        for step in 0..SHARDS_PER_SWEEP {
            let index = from.wrapping_add(step) % SHARDS;
            self.keys.sweep(index, &self.clock);
            if let Some(shard) = self.shards.get(index) {
                self.sweep_topics(&mut shard.lock());
            }
        }
    }

    fn sweep_topics(&self, shard: &mut Shard) {
        let now = (self.clock)();
        let Shard { topics, subscribed } = shard;
        topics.retain(|topic, retained| {
            let before = retained.bytes();
            if retained.is_expired(&self.limits, now) && !subscribed.contains(topic) {
                self.account(before, 0);
                self.release(retained);
                return false;
            }
            retained.trim(now);
            self.account(before, retained.bytes());
            true
        });
        if is_sparse(topics.len(), topics.capacity()) {
            topics.shrink_to(2 * topics.len());
        }
    }

    fn shard(&self, topic: &Topic) -> &Mutex<Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
        let hash = self.hasher.hash_one(topic) as usize;
        &self.shards[hash % SHARDS]
    }

    fn publish_item(&self, item: PublishItem) -> Result<Published, PublishError> {
        match item.key.as_deref() {
            None => self.append(item).map(|position| Published { position, duplicate: false }),
            Some(key) => {
                let request = self.keys.request(&item.topic, key, &item.data);
                self.keys.once(request, &self.clock, || self.append(item))
            }
        }
    }

    /// Gives the item its place, retains it and delivers it: all under the lock of its topic.
    fn append(&self, item: PublishItem) -> Result<Position, PublishError> {
        let PublishItem { topic, data, retention, .. } = item;
        let mut shard = self.shard(&topic).lock();
        let now = (self.clock)();
        let subscribed = shard.subscribed.contains(&topic);
        let retained = self
            .topic_or_new(&mut shard.topics, &topic, (subscribed, Purpose::Publish), now)
            .ok_or(PublishError::Full("topics_max"))?;

        let was_published = retained.is_published();
        let position = retained.next_position();
        let publication = Arc::new(Publication::new(topic, position, wall_clock_ms(), &data));
        let before = retained.bytes();
        let others = self.bytes.load(Ordering::Relaxed).saturating_sub(before);
        let room = self.limits.bytes_max.saturating_sub(others);
        if !retained.append(&publication, retention, room, now) {
            return Err(PublishError::Full("bytes_max"));
        }
        if !was_published {
            self.unpublished.release();
        }
        self.account(before, retained.bytes());
        if subscribed {
            self.inbound.deliver(publication);
        }
        Ok(position)
    }

    fn read_topic(
        &self,
        topic: &Topic,
        request: ReadRequest,
    ) -> Result<Option<TopicState>, ReadError> {
        let mut shard = self.shard(topic).lock();
        let now = (self.clock)();
        let subscribed = shard.subscribed.contains(topic);
        let retained = if request.create {
            let retained = self
                .topic_or_new(&mut shard.topics, topic, (subscribed, Purpose::Read), now)
                .ok_or(ReadError::Full("topics_max"))?;
            retained.renew(now);
            retained
        } else {
            match shard.topics.get_mut(topic) {
                Some(retained) if subscribed || !retained.is_expired(&self.limits, now) => retained,
                _ => return Ok(None),
            }
        };
        let before = retained.bytes();
        retained.trim(now);
        self.account(before, retained.bytes());
        Ok(Some(retained.state(request.history)))
    }

    /// The topic; a new epoch if there was none or it has expired. None at the bound for topics of this purpose.
    fn topic_or_new<'a>(
        &self,
        topics: &'a mut HashMap<Topic, Retained, ahash::RandomState>,
        topic: &Topic,
        (subscribed, purpose): (bool, Purpose),
        now: Instant,
    ) -> Option<&'a mut Retained> {
        match topics.entry(topic.clone()) {
            Entry::Occupied(mut entry) => {
                if subscribed || !entry.get().is_expired(&self.limits, now) {
                    return Some(entry.into_mut());
                }
                self.account(entry.get().bytes(), 0);
                self.release(entry.get());
                if !self.acquire(purpose) {
                    entry.remove();
                    return None;
                }
                entry.insert(Retained::new(now));
                Some(entry.into_mut())
            }
            Entry::Vacant(entry) => self.acquire(purpose).then(|| entry.insert(Retained::new(now))),
        }
    }

    /// Counts a new topic, which is unpublished until its first publication is in it; false at the bound.
    fn acquire(&self, purpose: Purpose) -> bool {
        if !self.topics.try_acquire() {
            return false;
        }
        let is_admitted = match purpose {
            Purpose::Read => self.unpublished.try_acquire(),
            Purpose::Publish => {
                self.unpublished.acquire();
                true
            }
        };
        if !is_admitted {
            self.topics.release();
        }
        is_admitted
    }

    /// A topic is no more.
    fn release(&self, retained: &Retained) {
        self.topics.release();
        if !retained.is_published() {
            self.unpublished.release();
        }
    }

    /// Replaces one topic's share of the bytes by another.
    fn account(&self, before: usize, after: usize) {
        // Adding a negative number wraps around to the right sum.
        self.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    fn subscribe_topic(&self, topic: Topic) {
        let mut shard = self.shard(&topic).lock();
        let now = (self.clock)();
        // From here on it cannot expire, so what has expired already must go first.
        if !shard.subscribed.contains(&topic)
            && let Entry::Occupied(entry) = shard.topics.entry(topic.clone())
            && entry.get().is_expired(&self.limits, now)
        {
            let retained = entry.remove();
            self.account(retained.bytes(), 0);
            self.release(&retained);
        }
        if shard.subscribed.insert(topic) {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unsubscribe_topic(&self, topic: &Topic) {
        let mut shard = self.shard(topic).lock();
        if shard.subscribed.remove(topic) {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
            // The time to live starts here: a client that comes back within it finds the epoch it left.
            if let Some(retained) = shard.topics.get_mut(topic) {
                retained.renew((self.clock)());
            }
        }
    }
}

impl Broker for MemoryBroker {
    fn publish(
        &self,
        items: Vec<PublishItem>,
    ) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(async move { items.into_iter().map(|item| self.publish_item(item)).collect() })
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        request: ReadRequest,
    ) -> BoxFuture<'a, Result<Option<TopicState>, ReadError>> {
        Box::pin(async move { self.read_topic(topic, request) })
    }

    fn subscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            topics.into_iter().for_each(|topic| self.subscribe_topic(topic));
            Ok(())
        })
    }

    fn unsubscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, ()> {
        Box::pin(async move { topics.iter().for_each(|topic| self.unsubscribe_topic(topic)) })
    }

    fn stats(&self) -> BrokerStats {
        BrokerStats {
            topics: self.topics.count(),
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            keys: self.keys.count(),
            link: None,
        }
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker")
            .field("limits", &self.limits)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a topic is made for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Publish,
    Read,
}

/// A count over all shards that never passes its bound.
#[derive(Debug)]
struct Gauge {
    count: AtomicUsize,
    max: usize,
}

impl Gauge {
    fn new(max: usize) -> Self {
        Self { count: AtomicUsize::new(0), max }
    }

    fn try_acquire(&self) -> bool {
        let more = |count| (count < self.max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One more, whatever the bound.
    fn acquire(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Is a table so empty after a burst that giving memory back is worth a rehash?
fn is_sparse(length: usize, capacity: usize) -> bool {
    capacity > 64 && length < capacity / 8
}
