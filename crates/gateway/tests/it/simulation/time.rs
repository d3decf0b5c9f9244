//! Virtual time: what is to happen, in order, and the one source of chance.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tickcast_broker::redis::link::Side;

use super::chaos::{Fault, Switch};
use super::network::{Way, WireId};
use super::redis::Name;

/// Virtual microseconds since the start.
pub(super) type Moment = u64;

pub(super) const MILLISECOND: Moment = 1_000;
pub(super) const SECOND: Moment = 1_000 * MILLISECOND;

/// What happens at some moment.
#[derive(Debug)]
pub(super) enum Event {
    /// The link's clock ticks.
    Tick,
    /// Something may have arrived at the end of a wire.
    Arrive(WireId, Way),
    /// The pause before a dial is over.
    Dial(Side, u64),
    /// A dial ends.
    Dialed(Side, u64),
    /// An event waits for the link.
    Input,
    /// A request to the server has no answer for too long.
    Deadline(u64),
    /// The worker looks into its inbox.
    Drain(usize),
    /// A grace period ends.
    GraceEnds,
    /// A read has waited long enough: for its call, or for its next attempt.
    Read(Name, u64),
    /// Somebody publishes.
    Publish,
    /// A worker's subscribers come or go.
    Churn,
    /// Subscribers come back to a worker at about the time when the topic is given up.
    Rejoin(usize, Name),
    /// Something breaks.
    Break,
    /// Something is whole again.
    Heal(Fault),
    /// Another server takes over.
    Switch(Box<Switch>),
    /// A server that nobody is led to any more ends.
    Bury(usize),
    /// The node hears that the master has moved.
    MasterMoved,
    /// Nothing breaks from now on.
    Calm,
    /// Nobody publishes, comes or goes from now on.
    Silence,
}

#[derive(Debug)]
struct Due {
    at: Moment,
    /// What is due at the same moment happens in the order in which it was asked for.
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The greatest is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The clock, the agenda, chance, and the record of what happened.
#[derive(Debug)]
pub(super) struct Time {
    pub(super) now: Moment,
    pub(super) rng: SmallRng,
    /// What happened, if somebody wants to read it.
    pub(super) trace: Option<Vec<String>>,
    /// The first thing that must not happen.
    pub(super) violation: Option<String>,
    origin: Instant,
    agenda: BinaryHeap<Due>,
    numbers: u64,
}

impl Time {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        Self {
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            trace: is_traced.then(Vec::new),
            violation: None,
            // The link only looks at differences.
            origin: Instant::now(),
            agenda: BinaryHeap::new(),
            numbers: 0,
        }
    }

    /// Now, as the link sees it.
    pub(super) fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    pub(super) fn at(&mut self, at: Moment, event: Event) {
        self.numbers += 1;
        self.agenda.push(Due { at: at.max(self.now), number: self.numbers, event });
    }

    pub(super) fn after(&mut self, pause: Moment, event: Event) {
        self.at(self.now + pause, event);
    }

    /// Moves on to what is due next, unless that lies beyond `end`.
    pub(super) fn next(&mut self, end: Moment) -> Option<Event> {
        if self.agenda.peek()?.at > end {
            return None;
        }
        let due = self.agenda.pop()?;
        self.now = due.at;
        Some(due.event)
    }

    /// A number that nobody else has.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.rng.random_range(range)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>11.6} {}", seconds(self.now), text()));
        }
    }

    /// Notes something that must not happen.
    pub(super) fn violate(&mut self, text: &str) {
        self.say(|| format!("VIOLATION {text}"));
        let at = seconds(self.now);
        self.violation.get_or_insert_with(|| format!("at {at:.6} s: {text}"));
    }
}

fn seconds(moment: Moment) -> f64 {
    Duration::from_micros(moment).as_secs_f64()
}
