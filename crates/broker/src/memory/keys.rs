//! Idempotency: what was published under a key is published once, and every retry gets the first answer.
//!
//! Called by the memory broker around a publication. Neither keys nor bodies are stored, only 128-bit fingerprints
//! of them, so a key costs the same at any length. A key's shard is locked until its publication is settled:
//! two requests with the same key at the same time are one publication. All keys live equally long, so each shard's
//! records expire in the order in which they came. Only accepted publications leave a record.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tickcast_protocol::{Position, Topic};

use super::{Gauge, SHARDS, is_sparse};
use crate::{PublishError, Published};

/// All keys that are remembered.
#[derive(Debug)]
pub(super) struct Keys {
    ttl: Duration,
    count: Gauge,
    secrets: [Secret; 2],
    shards: Box<[Mutex<Shard>]>,
}

/// A publication under a key, by its fingerprints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// Of the topic and the key.
    id: u128,
    /// Of the payload.
    body: u128,
}

/// Half of a fingerprint: `SipHash` under a key of this process.
#[derive(Debug)]
struct Secret {
    sip: RandomState,
    /// The standard library derives neighboring `RandomState`s from one key; the salt makes the two halves unrelated.
    salt: u64,
}

#[derive(Debug, Default)]
struct Shard {
    records: HashMap<u128, Record, ahash::RandomState>,
    /// Every id in `records` once, by the time it was recorded.
    order: VecDeque<(Instant, u128)>,
}

#[derive(Debug)]
struct Record {
    body: u128,
    position: Position,
}

impl Keys {
    pub(super) fn new(ttl: Duration, keys_max: usize) -> Self {
        let secret = || Secret { sip: RandomState::new(), salt: rand::random() };
        Self {
            ttl,
            count: Gauge::new(keys_max),
            secrets: [secret(), secret()],
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Keys in memory.
    pub(super) fn count(&self) -> usize {
        self.count.count()
    }

    /// Takes the fingerprints, outside any lock. The key is scoped to the topic.
    pub(super) fn request(&self, topic: &Topic, key: &str, data: &Bytes) -> Request {
        Request { id: self.fingerprint((topic, key)), body: self.fingerprint(data) }
    }

    /// Secret keys and 128 bits: nobody outside can find two inputs with one fingerprint, nor do they meet by chance.
    fn fingerprint(&self, value: impl Hash) -> u128 {
        self.secrets.iter().fold(0, |fingerprint, secret| {
            fingerprint << 64 | u128::from(secret.sip.hash_one((secret.salt, &value)))
        })
    }

    /// Runs `publish` unless the request was accepted before.
    ///
    /// # Errors
    /// `IdempotencyConflict` for a known key with another body, `Full` for a new key at the bound, or what `publish`
    /// answers; then the key is not recorded.
    pub(super) fn once(
        &self,
        request: Request,
        clock: impl Fn() -> Instant,
        publish: impl FnOnce() -> Result<Position, PublishError>,
    ) -> Result<Published, PublishError> {
        let mut shard = self.shards[request.id as usize % SHARDS].lock();
        // The clock is read under the lock, so times in `order` never go back.
        let now = clock();
        self.expire(&mut shard, now);
        if let Some(record) = shard.records.get(&request.id) {
            return if record.body == request.body {
                Ok(Published { position: record.position, duplicate: true })
            } else {
                Err(PublishError::IdempotencyConflict)
            };
        }
        if !self.count.try_acquire() {
            return Err(PublishError::Full("idempotency_keys_max"));
        }
        let position = publish().inspect_err(|_| self.count.release())?;
        shard.records.insert(request.id, Record { body: request.body, position });
        shard.order.push_back((now, request.id));
        Ok(Published { position, duplicate: false })
    }

    /// Frees what has expired in one shard.
    pub(super) fn sweep(&self, index: usize, clock: impl Fn() -> Instant) {
        if let Some(shard) = self.shards.get(index) {
            let mut shard = shard.lock();
            self.expire(&mut shard, clock());
            if is_sparse(shard.records.len(), shard.records.capacity()) {
                let enough = 2 * shard.records.len();
                shard.records.shrink_to(enough);
                shard.order.shrink_to(enough);
            }
        }
    }

    fn expire(&self, shard: &mut Shard, now: Instant) {
        while let Some(&(at, id)) = shard.order.front()
            && now.saturating_duration_since(at) >= self.ttl
        {
            shard.order.pop_front();
            shard.records.remove(&id);
            self.count.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tickcast_protocol::Epoch;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    #[test]
    fn only_the_first_of_equal_requests_is_published() {
        let keys = Keys::new(TTL, 10);
        let start = Instant::now();
        let published = Cell::new(0);
        let publish = |topic: &str, key: &str, body: &'static str, seconds: u64| {
            let topic = Topic::new(topic).unwrap();
            let request = keys.request(&topic, key, &Bytes::from_static(body.as_bytes()));
            keys.once(
                request,
                || start + Duration::from_secs(seconds),
                || {
                    published.set(published.get() + 1);
                    Ok(Position { epoch: Epoch::new(1), offset: published.get() })
                },
            )
            .map(|published| (published.position.offset, published.duplicate))
        };
        let conflict = Err(PublishError::IdempotencyConflict);
        assert_eq!(publish("t", "k", "1", 0), Ok((1, false)));
        assert_eq!(publish("t", "k", "1", 0), Ok((1, true)));
        assert_eq!(publish("t", "k", "2", 0), conflict);
        assert_eq!(publish("u", "k", "2", 0), Ok((2, false)), "another topic");
        assert_eq!(publish("t", "l", "1", 0), Ok((3, false)), "another key");
        assert_eq!(publish("tk", "", "1", 0), Ok((4, false)), "the same letters, split elsewhere");
        assert_eq!(publish("t", "k", "1", 299), Ok((1, true)), "just before it expires");
        assert_eq!(
            publish("t", "k", "2", 300),
            Ok((5, false)),
            "expired: a retry did not renew it"
        );
        assert_eq!(publish("t", "k", "1", 300), conflict);
    }

    #[test]
    fn at_the_bound_new_keys_are_refused_until_old_ones_expire() {
        let keys = Keys::new(TTL, 1);
        let start = Instant::now();
        let position = Position { epoch: Epoch::new(1), offset: 1 };
        let topic = Topic::new("t").unwrap();
        let once = |key: &str, now, outcome| {
            keys.once(keys.request(&topic, key, &Bytes::new()), || now, || outcome)
        };
        let full = Err(PublishError::Full("idempotency_keys_max"));

        let refused = Err(PublishError::Full("bytes_max"));
        assert_eq!(once("a", start, refused), Err(PublishError::Full("bytes_max")));
        assert_eq!(keys.count(), 0, "what was not accepted leaves no record");
        assert!(once("a", start, Ok(position)).is_ok());
        assert_eq!(once("b", start, Ok(position)), full);
        assert!(once("a", start, Ok(position)).is_ok_and(|published| published.duplicate));

        (0..SHARDS).for_each(|index| keys.sweep(index, || start + TTL));
        assert_eq!(keys.count(), 0);
        assert!(once("b", start + TTL, Ok(position)).is_ok());
    }
}
