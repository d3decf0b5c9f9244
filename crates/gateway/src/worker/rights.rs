//! What the connections of a worker may do, and who they are.
//!
//! A connection holds 4 bytes for its key; the keys themselves are in the worker's [`Keyring`]. After a reload the ring is
//! renewed at once, and then the connections are judged anew, some in each turn.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use tickcast_hub::{ConnectionId, Replies};
use tickcast_protocol::{
    CloseCode, ErrorCode, Id, Rejection, ServerMessage, SubscribeItem, Token, Topic,
};

use super::core::State;
use super::session::Phase;
use crate::access::{Asker, Denied, Key, Policy, Refusal};
use crate::config::{KeyHash, Right};
use crate::metrics::CloseReason;

/// Wrong keys that one connection may present.
const WRONG_KEYS_MAX: u8 = 5;

/// Connections and topics that are judged anew in one turn: less than a millisecond of work.
const JUDGED_PER_TURN: usize = 4096;

/// The key of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(NonZeroU32);

impl Who {
    fn at(slot: usize) -> Option<Self> {
        NonZeroU32::new(u32::try_from(slot + 1).ok()?).map(Self)
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The keys that connections of this worker have presented: as many as are configured at most, and during a reload those
/// of two configurations.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    /// None where a key is gone.
    keys: Vec<Option<Arc<Key>>>,
    slots: HashMap<KeyHash, usize>,
    /// Where no connection is left.
    free: Vec<usize>,
    /// [`Access::generation`](crate::access::Access::generation) of the keys.
    generation: u64,
    /// The first connection that was not judged since then.
    unjudged: Option<usize>,
}

impl Keyring {
    /// Takes a key that is in force.
    fn hold(&mut self, key: Arc<Key>) -> Option<Who> {
        let slot = match self.slots.get(key.hash()) {
            Some(slot) => *slot,
            None => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.keys.push(None);
                    self.keys.len() - 1
                });
                self.slots.insert(*key.hash(), slot);
                slot
            }
        };
        *self.keys.get_mut(slot)? = Some(key);
        Who::at(slot)
    }

    /// The key; none if it is gone.
    fn get(&self, who: Who) -> Option<&Arc<Key>> {
        self.keys.get(who.slot())?.as_ref()
    }

    /// Gives every key the rights that it has now. Connections are yet to be judged.
    fn renew(&mut self, generation: u64, policy: &Policy) {
        for key in self.keys.iter_mut().flatten() {
            if policy.renew(key).is_none() {
                self.slots.remove(key.hash());
            }
        }
        for slot in &mut self.keys {
            *slot = slot.take().and_then(|key| policy.renew(&key));
        }
        self.generation = generation;
        self.unjudged = Some(0);
    }

    /// Every connection is judged: those whose keys are gone are closed.
    fn settle(&mut self) {
        self.unjudged = None;
        let empty = self.keys.iter().enumerate().filter(|(_, key)| key.is_none());
        self.free = empty.map(|(slot, _)| slot).collect();
    }
}

impl State {
    /// Gives a new connection its key, which was found when its handshake began; false if it is not valid any more.
    pub(super) fn introduce(&mut self, connection: ConnectionId, key: Option<Arc<Key>>) -> bool {
        let Some(key) = key else { return true };
        let Some(key) = self.node.access.current().renew(&key) else {
            self.revoke(connection);
            return false;
        };
        let who = self.keyring.hold(key);
        if let Some(session) = self.sessions.get(connection) {
            session.who = who;
        }
        true
    }

    /// The key of a connection, if it has one that is valid.
    fn key_of(&mut self, connection: ConnectionId) -> Option<Arc<Key>> {
        self.sessions.get(connection)?.who.and_then(|who| self.keyring.get(who)).cloned()
    }

    /// How the log calls a connection that is denied something.
    fn asker(&mut self, connection: ConnectionId) -> Asker {
        let session = self.sessions.get(connection).map_or(0, |session| session.serial);
        Asker::Session { worker: self.worker, session }
    }

    /// Carries out an auth command.
    pub(super) fn authenticate(
        &mut self,
        connection: ConnectionId,
        id: Option<&Id>,
        token: &Token,
    ) {
        let node = Arc::clone(&self.node);
        let policy = node.access.current();
        if !policy.has_keys() {
            let message = "this node has no keys; go on without `auth`";
            return self.reply_error(connection, id, ErrorCode::NotConfigured, message);
        }
        let key = match policy.identify(Some(token.reveal())) {
            Ok(key) => key,
            Err(denied) => return self.refuse_key(connection, id, denied),
        };
        if let Some(topic) = self.refused_topic(connection, &policy, key.as_deref()) {
            let denied = Denied::NoRight(Right::Subscribe);
            let asker = self.asker(connection);
            let refusal = denied.noted(&node, asker, key.as_deref(), Some(&topic));
            let message = format!(
                "the key has no right to subscribe to `{topic}`, which this connection holds; unsubscribe it first"
            );
            return self.reply_error(connection, id, refusal.code(), &message);
        }
        let who = key.and_then(|key| self.keyring.hold(key));
        if let Some(session) = self.sessions.get(connection) {
            session.who = who;
        }
        self.sessions.reply(connection, &ServerMessage::Authenticated { id });
    }

    /// Answers a wrong key. Who goes on trying is closed.
    fn refuse_key(&mut self, connection: ConnectionId, id: Option<&Id>, denied: Denied) {
        let asker = self.asker(connection);
        let refusal = denied.noted(&self.node, asker, None, None);
        self.reply_error(connection, id, refusal.code(), refusal.message());
        if let Some(session) = self.sessions.get(connection) {
            session.wrong_keys += 1;
            if session.wrong_keys >= WRONG_KEYS_MAX {
                let reason = "too many wrong keys";
                self.close(connection, CloseCode::POLICY, reason, CloseReason::Unauthorized);
            }
        }
    }

    /// Refuses the topics of a subscribe command that the connection may not have.
    pub(super) fn judge_items(
        &mut self,
        connection: ConnectionId,
        items: Vec<Result<SubscribeItem, Rejection>>,
    ) -> Vec<Result<SubscribeItem, Rejection>> {
        let node = Arc::clone(&self.node);
        let policy = node.access.current();
        if !policy.has_closed_topics() {
            return items;
        }
        let (config, key) = (node.config(), self.key_of(connection));
        let asker = self.asker(connection);
        let judge = |item: Result<SubscribeItem, Rejection>| {
            let item = item?;
            match policy.may_subscribe(&config, key.as_deref(), &item.topic) {
                Ok(()) => Ok(item),
                Err(denied) => {
                    let who = key.as_deref();
                    let refusal = denied.noted(&node, asker, who, Some(&item.topic));
                    Err(refusal.rejection(&item.topic))
                }
            }
        };
        items.into_iter().map(judge).collect()
    }

    /// Whether the connection may publish a payload of this size to a topic now: its key lets it, or without keys the
    /// node. It is counted as published then.
    pub(super) fn admit_publish(
        &mut self,
        connection: ConnectionId,
        topic: &Topic,
        bytes: usize,
    ) -> Result<(), (ErrorCode, String)> {
        let node = Arc::clone(&self.node);
        let (config, policy) = (node.config(), node.access.current());
        let (key, asker) = (self.key_of(connection), self.asker(connection));
        let refuse = |denied: Denied| {
            let refusal = denied.noted(&node, asker, key.as_deref(), Some(topic));
            (refusal.code(), Refusal::into_message(refusal))
        };
        if !policy.has_keys() && !config.websocket.publish {
            let message =
                "publishing over WebSocket is not allowed here; use POST /v1/topics/{topic}";
            return Err((ErrorCode::Forbidden, message.to_owned()));
        }
        policy.may_publish(key.as_deref(), topic).map_err(refuse)?;
        let max = config.limits.payload_bytes.bytes();
        if bytes > max {
            let message = format!("the payload has {bytes} bytes; at most {max} are allowed");
            return Err((ErrorCode::PayloadTooLarge, message));
        }
        key.as_deref().map_or(Ok(()), |key| key.admit(1)).map_err(refuse)
    }

    /// Judges connections anew after a reload, some at a time; true if more wait.
    pub(super) fn judge_some(&mut self) -> bool {
        let generation = self.node.access.generation();
        if generation != self.keyring.generation {
            self.keyring.renew(generation, &self.node.access.current());
        }
        let Some(mut index) = self.keyring.unjudged else { return false };
        let mut judged = 0;
        while judged < JUDGED_PER_TURN && index < self.sessions.span() {
            let connection = ConnectionId::at(index);
            judged += 1 + self.shield(connection, |state| state.judge(connection)).unwrap_or(0);
            index += 1;
        }
        self.queue_replies();
        let is_done = index >= self.sessions.span();
        if is_done {
            self.keyring.settle();
        } else {
            self.keyring.unjudged = Some(index);
        }
        !is_done
    }

    /// Whether some connections are not judged yet.
    pub(super) fn is_judging(&self) -> bool {
        self.keyring.unjudged.is_some()
    }

    /// Closes a connection that is not allowed what it holds any more. Returns the number of topics it holds.
    pub(super) fn judge(&mut self, connection: ConnectionId) -> usize {
        let Some(session) = self.sessions.get(connection) else { return 0 };
        if session.phase != Phase::Open {
            return 0;
        }
        let key = session.who.map(|who| self.keyring.get(who).cloned());
        if let Some(None) = key {
            self.revoke(connection);
            return 0;
        }
        let node = Arc::clone(&self.node);
        let policy = node.access.current();
        if !policy.has_closed_topics() {
            return 0;
        }
        if self.refused_topic(connection, &policy, key.flatten().as_deref()).is_some() {
            self.close(
                connection,
                CloseCode::ACCESS_CHANGED,
                "access changed",
                CloseReason::AccessChanged,
            );
        }
        self.fanout.held(connection).count()
    }

    fn revoke(&mut self, connection: ConnectionId) {
        self.close(connection, CloseCode::KEY_REVOKED, "key revoked", CloseReason::KeyRevoked);
    }

    /// A topic that the connection holds and may not hold with this key.
    fn refused_topic(
        &self,
        connection: ConnectionId,
        policy: &Policy,
        key: Option<&Key>,
    ) -> Option<Topic> {
        if !policy.has_closed_topics() {
            return None;
        }
        let config = self.node.config();
        let is_refused = |topic: &&Topic| policy.may_subscribe(&config, key, topic).is_err();
        self.fanout.held(connection).find(is_refused).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::config::{AccessKey, Config, KeyName, Rights};

    /// A configuration with these keys, and their texts.
    fn config(names: &[&str]) -> Config {
        let mut config = Config::default();
        config.access.keys = names
            .iter()
            .map(|name| AccessKey {
                name: KeyName::new(name).unwrap(),
                hash: KeyHash::of(&text(name)),
                rights: Rights::from_iter([Right::Publish]),
                ..AccessKey::default()
            })
            .collect();
        config
    }

    fn text(name: &str) -> String {
        format!("tck_{name:0>43}")
    }

    fn key(access: &Access, name: &str) -> Arc<Key> {
        access.current().identify(Some(&text(name))).unwrap().unwrap()
    }

    #[test]
    fn a_ring_keeps_one_of_each_key_and_uses_places_again() {
        let access = Access::new(&config(&["a", "b", "c"]));
        let mut ring = Keyring::default();
        let [a, b] = ["a", "b"].map(|name| ring.hold(key(&access, name)).unwrap());
        assert_ne!(a, b);
        assert_eq!(ring.hold(key(&access, "a")), Some(a));
        assert_eq!(ring.get(b).unwrap().name(), "b");

        access.replace(&config(&["b", "c"]));
        ring.renew(access.generation(), &access.current());
        assert!(ring.get(a).is_none());
        assert_eq!(ring.get(b).unwrap().name(), "b");
        // Connections with the key that is gone are not closed yet, so its place is not free.
        let c = ring.hold(key(&access, "c")).unwrap();
        assert!(c != a && c != b);
        ring.settle();
        access.replace(&config(&["b", "c", "d"]));
        ring.renew(access.generation(), &access.current());
        assert_eq!(ring.hold(key(&access, "d")), Some(a));
        ring.settle();
        assert_eq!((ring.keys.len(), ring.slots.len(), ring.free.len()), (3, 3, 0));
    }
}
