//! What everybody in a test shares: the judge, and which nodes there are.

use std::collections::HashMap;
use std::net::SocketAddr;

use parking_lot::Mutex;

use super::ledger::{Ledger, Sent};
use crate::oracle::{Oracle, Place, Tally};

/// Shared by clients and publishers.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// The key that publishers have, if they need one.
    key: Option<String>,
    judge: Mutex<Judge>,
    /// The nodes that a load balancer would choose from.
    nodes: Mutex<Vec<SocketAddr>>,
    /// The ways that clients take to them; empty if they take none but the straight one.
    ways: Mutex<Vec<SocketAddr>>,
    /// Where each topic is, as far as publishers were told.
    ends: Mutex<HashMap<String, Place>>,
}

/// The oracle, which judges each epoch, and the ledger, which judges across epochs.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) oracle: Oracle,
    pub(crate) ledger: Ledger,
}

impl World {
    /// One whose publishers have a key.
    pub(crate) fn with_key(key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::default() }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Lets somebody tell the judge something.
    pub(crate) fn judge<T>(&self, tell: impl FnOnce(&mut Judge) -> T) -> T {
        tell(&mut self.judge.lock())
    }

    pub(crate) fn sends(&self, topic: &str, payload: &str, sent: Sent) {
        self.judge(|judge| judge.ledger.sends(topic, payload, sent));
    }

    pub(crate) fn sends_again(&self, topic: &str, payload: &str) {
        self.judge(|judge| judge.ledger.sends_again(topic, payload));
    }

    /// A publisher was answered with 200.
    pub(crate) fn published(&self, topic: &str, place: &Place, payload: &str) {
        self.judge(|judge| {
            judge.oracle.published(topic, place, payload);
            judge.ledger.sees(topic, place, payload);
        });
        let mut ends = self.ends.lock();
        let end = ends.entry(topic.to_owned()).or_insert_with(|| place.clone());
        // Answers of different publishers may come in another order than they were given.
        if end.epoch != place.epoch || end.offset < place.offset {
            *end = place.clone();
        }
    }

    /// Where each topic is, as far as publishers were told.
    pub(crate) fn ends(&self) -> HashMap<String, Place> {
        self.ends.lock().clone()
    }

    /// Nodes that clients and publishers may go to from now on.
    pub(crate) fn set_nodes(&self, nodes: Vec<SocketAddr>) {
        *self.nodes.lock() = nodes;
    }

    /// The node that a balancer with this number would choose.
    pub(crate) fn node(&self, choice: usize) -> SocketAddr {
        let nodes = self.nodes.lock();
        nodes[choice % nodes.len()]
    }

    /// Ways that clients take to the nodes from now on, instead of the straight one.
    pub(crate) fn set_ways(&self, ways: Vec<SocketAddr>) {
        *self.ways.lock() = ways;
    }

    /// The way that a client with this number would be given.
    pub(crate) fn way(&self, choice: usize) -> SocketAddr {
        let ways = self.ways.lock();
        if ways.is_empty() { self.node(choice) } else { ways[choice % ways.len()] }
    }

    /// The verdict at the end. Ends the test if anything is wrong.
    pub(crate) fn verdict(&self) -> Tally {
        let Judge { mut oracle, ledger } = std::mem::take(&mut *self.judge.lock());
        let findings = ledger.close(&mut oracle);
        match oracle.verdict() {
            Ok(tally) if findings.is_empty() => tally,
            Ok(tally) => panic!("{tally:?}: {findings:#?}"),
            Err(breaches) => panic!("{breaches:#?} {findings:#?}"),
        }
    }
}
