//! Looks at where the broker stands, for clients that have seen more than this node.
//!
//! Nodes hear of a publication at slightly different times. A client that changes nodes within a moment may know an
//! offset that its new node has not heard of yet; only the broker can say whether it exists. A look decides for those
//! who asked before it began, and for nobody else.

use std::sync::Arc;

use tickcast_protocol::{Position, Topic};

use super::{Entry, Hub, Live};
use crate::job::Job;

/// The looks of one topic.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The number of the last one that was asked for; from 1.
    number: u64,
    is_open: bool,
    /// Somebody asked since that one may have been made: another is to follow.
    is_outdated: bool,
}

impl Hub {
    /// A client of a worker has seen more than the log. The worker gets the log again once the broker's position has been
    /// read; returns the number of that look, which begins after this call. `None` if the topic is not here any more.
    pub fn want_position(&self, topic: &Topic) -> Option<u64> {
        let entry = self.topics.get(topic).map(|entry| Arc::clone(entry.value()))?;
        let mut live = entry.live.lock();
        if live.look.is_open {
            live.look.is_outdated = true;
            return Some(live.look.number + 1);
        }
        Some(self.begin_look(&entry, &mut live))
    }

    fn begin_look(&self, entry: &Entry, live: &mut Live) -> u64 {
        live.look = Look { number: live.look.number + 1, is_open: true, is_outdated: false };
        self.queue_job(Job::Position { topic: entry.topic.clone() });
        live.look.number
    }

    /// The broker's position was read.
    pub fn position_read(&self, topic: &Topic, position: Position) {
        self.with_entry(topic, |entry, live| {
            live.look.is_open = false;
            let number = live.look.number;
            let Some(log) = &mut live.log else { return };
            if log.epoch() == position.epoch {
                log.looked(number, position.offset);
                self.tell_log(entry, live);
            } else {
                // The repair that this leads to ends the waiting: whoever resumes is then in a foreign epoch.
                self.ask_repair(entry, live);
            }
            if live.look.is_outdated {
                self.begin_look(entry, live);
            }
        });
    }
}
