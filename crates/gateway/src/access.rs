//! Who may do what: the one door for every API and every transport.
//!
//! A request or a connection presents a *bearer*, the text of a key. [`Policy::identify`] finds the key; the other
//! questions are asked with what it gave. End-user tokens would be another kind of identity behind the same door.
//! A reload replaces the policy as a whole, and [`Access::generation`] tells the workers to judge their connections anew.

mod bearer;
mod key;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use subtle::ConstantTimeEq as _;
use tickcast_protocol::{ErrorCode, Rejection, Topic};

pub(crate) use self::bearer::{of_handshake, of_request};
pub(crate) use self::key::{Key, RANDOM_BYTES, is_key, write_key};
use crate::config::{Config, KeyHash, Right, SubscribeRule};
use crate::metrics::{AuthFailure, Metrics};
use crate::server::Peer;

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
        found.map(|key| Some(Arc::clone(key))).ok_or(Denied::UnknownKey)
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

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// What was presented is not a key, or was one.
    UnknownKey,
    /// A key with this right is needed, and none was presented.
    MissingKey(Right),
    /// The key does not have this right, or not for this topic.
    NoRight(Right),
    /// The key has published as much as it may for now: after so many seconds it may go on.
    RateLimited(u32),
}

impl Denied {
    /// As the client is told.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::UnknownKey | Self::MissingKey(_) => ErrorCode::Unauthorized,
            Self::NoRight(_) => ErrorCode::Forbidden,
            Self::RateLimited(_) => ErrorCode::RateLimited,
        }
    }

    /// In words, for people. It says nothing about what was presented.
    pub(crate) fn message(self) -> Cow<'static, str> {
        let text = match self {
            Self::UnknownKey => "the key is not known here",
            Self::MissingKey(Right::Publish) => "publishing needs a key, and none was given",
            Self::MissingKey(Right::Subscribe) => {
                "the topic is closed: it needs a key, and none was given"
            }
            Self::MissingKey(Right::Admin) => {
                "this needs a key with the right `admin`, and none was given"
            }
            Self::NoRight(Right::Publish) => "the key has no right to publish to this topic",
            Self::NoRight(Right::Subscribe) => "the key has no right to subscribe to this topic",
            Self::NoRight(Right::Admin) => "the key does not have the right `admin`",
            Self::RateLimited(seconds) => {
                let text = format!("the key has used up its rate; try again in {seconds} s");
                return Cow::Owned(text);
            }
        };
        Cow::Borrowed(text)
    }

    /// As it stands in the `errors` of an acknowledgement.
    pub(crate) fn rejection(self, topic: &Topic) -> Rejection {
        let (code, message) = (self.code(), self.message().into_owned());
        Rejection { topic: topic.as_str().to_owned(), code, message }
    }

    /// Counts it, and tells the log who asked and whose key it was; never the key itself.
    pub(crate) fn noted(self, metrics: &Metrics, asker: Asker, who: Option<&Key>) -> Self {
        let reason = match self {
            Self::UnknownKey => AuthFailure::UnknownKey,
            Self::MissingKey(_) => AuthFailure::MissingKey,
            Self::NoRight(_) => AuthFailure::NoRight,
            Self::RateLimited(_) => AuthFailure::RateLimited,
        };
        metrics.count_auth_failure(reason);
        let key = who.map(Key::name);
        match asker {
            Asker::Client(client) => {
                tracing::debug!(%client, key, reason = %self.message(), "not allowed");
            }
            Asker::Session { worker, session } => {
                tracing::debug!(worker, session, key, reason = %self.message(), "not allowed");
            }
        }
        self
    }
}

/// Who asked for what is not allowed, as the log calls them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// The client that sent a request, as the trusted proxies name it.
    Client(Peer),
    /// A WebSocket. It does not hold its client's address: the log has that with the same two numbers from when the
    /// connection opened.
    Session { worker: usize, session: u32 },
}
