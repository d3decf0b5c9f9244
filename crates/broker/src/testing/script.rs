//! The script of a [`FaultyBroker`](super::FaultyBroker), and the inbound side that plays it.
//!
//! Both sides of the broker read and change the script under one lock, which is never held around a call to either.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tickcast_protocol::{Epoch, Position, Publication, Topic};

use super::{Delivery, UNTIL_CLEARED};
use crate::{Inbound, TopicState};

/// The inbound side: stands between the real broker and the real receiver.
#[derive(Debug)]
pub(super) struct FaultyInbound {
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) script: Arc<Mutex<Script>>,
}

/// What is to go wrong.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) link_down: bool,
    pub(super) reads_failing: usize,
    pub(super) subscribes_failing: usize,
    pub(super) publishes_failing: usize,
    pub(super) answers_lost: usize,
    pub(super) topics: HashMap<Topic, TopicScript>,
}

#[derive(Debug, Default)]
pub(super) struct TopicScript {
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) postponed: Vec<Arc<Publication>>,
    pub(super) history_forgotten: bool,
    /// Oldest first; the last one decides.
    pub(super) flips: Vec<Flip>,
}

/// A change of epoch: offset `at` of the real broker is shown as offset `start` of `epoch`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flip {
    pub(super) at: u64,
    pub(super) start: u64,
    pub(super) epoch: Epoch,
}

impl Inbound for FaultyInbound {
    fn deliver(&self, publication: Arc<Publication>) {
        let arriving = self.script.lock().arriving(publication);
        arriving.into_iter().for_each(|publication| self.inbound.deliver(publication));
    }

    fn compare(&self, topic: &Topic, position: Position) {
        self.inbound.compare(topic, position);
    }

    fn suspect(&self, topic: &Topic) {
        self.inbound.suspect(topic);
    }

    fn link_changed(&self, up: bool) {
        let cut = self.script.lock().link_down;
        if !cut {
            self.inbound.link_changed(up);
        }
    }
}

impl Script {
    pub(super) fn topic(&mut self, topic: &Topic) -> &mut TopicScript {
        self.topics.entry(topic.clone()).or_default()
    }

    pub(super) fn fails(&mut self, failures: impl FnOnce(&mut Self) -> &mut usize) -> bool {
        self.link_down || take_one(failures(self))
    }

    /// What arrives, in this order, now that `publication` has left the broker.
    fn arriving(&mut self, publication: Arc<Publication>) -> Vec<Arc<Publication>> {
        if self.link_down {
            return Vec::new();
        }
        let topic = self.topic(publication.topic());
        let Some(publication) = topic.show_publication(publication) else { return Vec::new() };
        match topic.deliveries.pop_front().unwrap_or(Delivery::Pass) {
            Delivery::Drop => return Vec::new(),
            Delivery::Postpone => {
                topic.postponed.push(publication);
                return Vec::new();
            }
            Delivery::Duplicate => vec![Arc::clone(&publication), publication],
            Delivery::Pass => vec![publication],
        }
        .into_iter()
        .chain(topic.postponed.drain(..))
        .collect()
    }
}

impl TopicScript {
    fn show_publication(&self, real: Arc<Publication>) -> Option<Arc<Publication>> {
        let Some(flip) = self.flips.last() else { return Some(real) };
        let position = flip.show(real.offset()).filter(|position| position.offset > 0)?;
        let topic = real.topic().clone();
        Some(Arc::new(Publication::new(topic, position, real.time_ms(), real.data())))
    }

    pub(super) fn show_state(&self, real: TopicState) -> TopicState {
        let history = if self.history_forgotten { Vec::new() } else { real.history };
        TopicState {
            position: self
                .flips
                .last()
                .and_then(|flip| flip.show(real.position.offset))
                .unwrap_or(real.position),
            value: real.value.and_then(|value| self.show_publication(value)),
            history: history.into_iter().filter_map(|old| self.show_publication(old)).collect(),
        }
    }

    /// The answer to a publish: a duplicate keeps the epoch of its time.
    pub(super) fn show_answer(&self, real: Position) -> Position {
        let flip = self.flips.iter().rev().find(|flip| real.offset > flip.at);
        flip.and_then(|flip| flip.show(real.offset)).unwrap_or(real)
    }
}

impl Flip {
    fn show(&self, real_offset: u64) -> Option<Position> {
        let offset = (real_offset + self.start).checked_sub(self.at)?;
        Some(Position { epoch: self.epoch, offset })
    }
}

/// Is there a failure left? Uses it up.
pub(super) fn take_one(failures: &mut usize) -> bool {
    let failing = *failures > 0;
    if failing && *failures != UNTIL_CLEARED {
        *failures -= 1;
    }
    failing
}
