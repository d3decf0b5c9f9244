//! Who may do what: the one door for every API and every transport.
//!
//! A request or a connection presents a *bearer*, the text of a key. [`Policy::identify`] finds the key; the other
//! questions are asked with what it gave. End-user tokens would be another kind of identity behind the same door.
//! A reload replaces the policy as a whole, and [`Access::generation`] tells the workers to judge their connections anew.

mod bearer;
mod key;
mod refusal;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use subtle::ConstantTimeEq as _;
use tickcast_protocol::Topic;

pub(crate) use self::bearer::{of_handshake, of_request};
pub(crate) use self::key::{Key, RANDOM_BYTES, is_key, write_key};
pub(crate) use self::refusal::{Asker, Denied, Refusal};
use crate::config::{Config, KeyHash, Right, SubscribeRule};

/// The keys in force. Reading them takes no lock.
#[derive(Debug)]
pub(crate) struct Access {
    current: ArcSwap<Policy>,
    generation: AtomicU64,
}

impl Access {
    pub(crate) fn new(config: &Config) -> Self {
        let policy = Policy::new(config, &Policy::default());
        Self { current: ArcSwap::from_pointee(policy), generation: AtomicU64::new(0) }
    }

    /// Takes the keys of a new configuration, which must be in force already: workers read both. A key whose hash stays
    /// keeps what it has used of its rate.
    pub(crate) fn replace(&self, config: &Config) {
        let policy = Policy::new(config, &self.current());
        self.current.store(Arc::new(policy));
        // After the store: who sees the new number sees the new keys.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever the keys may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Who it was, by the keys as they are now: a body may take longer to come than its key lasts.
    pub(crate) fn renew(&self, who: Option<Arc<Key>>) -> Result<Option<Arc<Key>>, Denied> {
        let Some(key) = who else { return Ok(None) };
        self.current().renew(&key).map(Some).ok_or(Denied::UnknownKey)
    }

    /// The keys as they are now.
    pub(crate) fn current(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }
}

/// The keys of one configuration.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// With the first bytes of their hashes, by which they are sorted.
    keys: Vec<(u64, Arc<Key>)>,
    /// Some topic is closed.
    has_closed: bool,
}

impl Policy {
    fn new(config: &Config, previous: &Self) -> Self {
        let key = |settings| {
            let key = Key::new(settings, |hash| previous.find(hash));
            (beginning(key.hash()), Arc::new(key))
        };
        let mut keys: Vec<_> = config.access.keys.iter().map(key).collect();
        keys.sort_by_key(|(beginning, _)| *beginning);
        Self { keys, has_closed: config.topics.has_closed() }
    }

    /// Whether there are keys at all. Without any, publishing is open.
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether some topic is closed, so that subscriptions must be judged one by one.
    pub(crate) fn has_closed_topics(&self) -> bool {
        self.has_closed
    }

    /// Who presents this text; nobody without one. What is presented must be a key, also where none is needed.
    pub(crate) fn identify(&self, bearer: Option<&str>) -> Result<Option<Arc<Key>>, Denied> {
        let Some(bearer) = bearer else { return Ok(None) };
        // Only what has the form of a key is hashed: plain SHA-256 is enough for those alone.
        let found = is_key(bearer).then(|| self.find(&KeyHash::of(bearer))).flatten();
        let key = found.ok_or(Denied::UnknownKey)?;
        key.count_use();
        Ok(Some(Arc::clone(key)))
    }

    /// The keys, in no order that says anything.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|(_, key)| &**key)
    }

    /// The same key in this policy, with the rights that it has now; none if it is gone.
    pub(crate) fn renew(&self, key: &Key) -> Option<Arc<Key>> {
        self.find(key.hash()).cloned()
    }

    /// The place of a hash is found by its first bytes, and nothing but the whole tells whether it is the one: how long
    /// that takes does not depend on where two hashes differ.
    fn find(&self, hash: &KeyHash) -> Option<&Arc<Key>> {
        let wanted = beginning(hash);
        let first = self.keys.partition_point(|(beginning, _)| *beginning < wanted);
        let candidates =
            self.keys[first..].iter().take_while(|(beginning, _)| *beginning == wanted);
        let is_same = |key: &Key| bool::from(key.hash().bytes().ct_eq(hash.bytes()));
        candidates.map(|(_, key)| key).find(|key| is_same(key))
    }

    /// Whether this one may publish to the topic. How much is another question: [`Key::admit`].
    pub(crate) fn may_publish(&self, who: Option<&Key>, topic: &Topic) -> Result<(), Denied> {
        if self.has_keys() { judge(who, Right::Publish, Some(topic)) } else { Ok(()) }
    }

    /// Whether this one may subscribe to the topic, and read it.
    pub(crate) fn may_subscribe(
        &self,
        config: &Config,
        who: Option<&Key>,
        topic: &Topic,
    ) -> Result<(), Denied> {
        if !self.has_closed {
            return Ok(());
        }
        match config.for_topic(topic.as_str()).subscribe {
            SubscribeRule::Open => Ok(()),
            SubscribeRule::Closed => judge(who, Right::Subscribe, Some(topic)),
        }
    }

    /// Whether this one may act as operator. Who reaches a listener on a loopback address is on the machine already.
    #[expect(
        clippy::unused_self,
        reason = "a question to the policy, whatever it is answered from"
    )]
    pub(crate) fn may_administer(
        &self,
        who: Option<&Key>,
        listener_is_loopback: bool,
    ) -> Result<(), Denied> {
        if listener_is_loopback { Ok(()) } else { judge(who, Right::Admin, None) }
    }
}

fn beginning(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The answer where a key is needed.
fn judge(who: Option<&Key>, right: Right, topic: Option<&Topic>) -> Result<(), Denied> {
    match who {
        None => Err(Denied::MissingKey(right)),
        Some(key) if key.may(right, topic) => Ok(()),
        Some(_) => Err(Denied::NoRight(right)),
    }
}
