//! What the subscriber connection pushes: publications to the hub, echoes and comparisons to the link.
//!
//! It runs inside the connection's own task, message by message in the order of the server, with no queue in between.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tickcast_protocol::Topic;
use tokio::sync::mpsc;

use super::driver::Input;
use super::envelope::{Comparison, Envelope, EnvelopeError, NodeMessage};
use super::link::Event;
use super::names::Names;
use crate::Inbound;

/// Takes every push of the subscriber connection.
pub(super) struct Receiver {
    names: Names,
    node_channel: String,
    inbound: Arc<dyn Inbound>,
    inputs: mpsc::Sender<Input>,
    /// The topics that this node wants: what comes for others is late. Publications share the names kept here.
    wanted: Mutex<HashSet<Topic, ahash::RandomState>>,
    received: AtomicU64,
    compared: AtomicU64,
    undecodable: AtomicU64,
}

impl Receiver {
    pub(super) fn new(
        names: Names,
        node_channel: String,
        inbound: Arc<dyn Inbound>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Self {
            names,
            node_channel,
            inbound,
            inputs,
            wanted: Mutex::default(),
            received: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
        }
    }

    pub(super) fn want(&self, topics: &[Topic]) {
        self.wanted.lock().extend(topics.iter().cloned());
    }

    pub(super) fn forget(&self, topics: &[Topic]) {
        let mut wanted = self.wanted.lock();
        for topic in topics {
            wanted.remove(topic);
        }
    }

    /// Publications received, positions compared, messages that could not be read.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let [received, compared, undecodable] =
            [&self.received, &self.compared, &self.undecodable].map(|count| count.load(Relaxed));
        (received, compared, undecodable)
    }

    /// Takes one push. What is no message, such as the confirmation of a subscription, is the connection's own affair.
    pub(super) fn push(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let [Value::BulkString(channel), Value::BulkString(payload)] = &push.data[..] else {
            return;
        };
        if channel == self.node_channel.as_bytes() {
            self.take_own(payload);
        } else if let Some(topic) = self.topic_of(channel) {
            self.take_publications(&topic, payload);
        }
    }

    fn topic_of(&self, channel: &[u8]) -> Option<Topic> {
        self.wanted.lock().get(self.names.topic_of(channel)?).cloned()
    }

    fn take_publications(&self, topic: &Topic, payload: &[u8]) {
        if let Err(error) = self.deliver(topic, payload) {
            self.undecodable.fetch_add(1, Relaxed);
            tracing::debug!(%topic, %error, "a message could not be read; the topic is read anew");
            self.inbound.suspect(topic);
        }
    }

    fn deliver(&self, topic: &Topic, payload: &[u8]) -> Result<(), EnvelopeError> {
        for publication in Envelope::decode(payload)?.publications(topic) {
            self.received.fetch_add(1, Relaxed);
            self.inbound.deliver(publication?);
        }
        Ok(())
    }

    /// A message on the node's own channel.
    fn take_own(&self, payload: &[u8]) {
        let event = NodeMessage::decode(payload).and_then(|message| match message {
            NodeMessage::Probe(number) => Ok(Event::Echo(number)),
            NodeMessage::Comparison(comparison) => self.compare(&comparison),
        });
        match event {
            // The link asks again for what it misses.
            Ok(event) => drop(self.inputs.try_send(Input::Event(event))),
            Err(error) => {
                self.undecodable.fetch_add(1, Relaxed);
                tracing::debug!(%error, "a message on the node's own channel could not be read");
            }
        }
    }

    fn compare(&self, comparison: &Comparison<'_>) -> Result<Event, EnvelopeError> {
        for compared in comparison.positions() {
            let (name, position) = compared?;
            let topic = self.wanted.lock().get(name).cloned();
            if let Some(topic) = topic {
                self.compared.fetch_add(1, Relaxed);
                self.inbound.compare(&topic, position);
            }
        }
        Ok(Event::Compared(comparison.batch))
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
