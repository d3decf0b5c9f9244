//! Connections that are told to go: those of a node that drains, and those that have come of age.
//!
//! A client that understands `goaway` waits for as long as it says, connects elsewhere, resumes, and only then closes
//! this connection. One that does not is closed a little later, so that both kinds come to the other nodes at the pace
//! that the node has chosen. Nothing here waits: a turn tells a few clients, closes those whose time has come, and what
//! is live goes on between.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::Relaxed;

use rand::seq::SliceRandom;
use tickcast_hub::{ConnectionId, Replies};
use tickcast_protocol::{CloseCode, ServerMessage, close_frame};

use super::core::{LINGER_SECONDS, State};
use super::session::{Phase, Session};
use super::{millis, socket};
use crate::metrics::{CloseReason, GoawayReason};
use crate::node::life::Stage;

/// How long a client may stay beyond its time before it is closed, in milliseconds: it connects elsewhere and resumes.
const FAREWELL_MS: u64 = 4000;

/// Connections told to go, or closed, in one turn. What is live must not wait for them.
const PER_TURN: usize = 256;

/// The delay of connections that have come of age is below this, in milliseconds: a look finds several at once.
const AGED_SPREAD_MS: u64 = 1000;

/// The delay of clients that are told to go and closed in one breath is below this, in milliseconds.
const HURRIED_SPREAD_MS: u64 = 2000;

/// The life of a connection is this many thousandths of the maximum age, and up to twice as many above 1000.
const LIFE_SHORTEST: u64 = 900;
const LIFE_RANGE: u64 = 201;

/// What a worker knows of those who are to go.
///
/// It holds an entry per connection that was told, until its time is up; nothing while nobody has to go.
#[derive(Debug)]
pub(super) struct Departures {
    /// How far the node is, as far as this worker has acted on it.
    stage: Stage,
    /// When the drain began, and over how much time the clients go, in milliseconds.
    begun_ms: u64,
    spread_ms: u64,
    /// Connections of the node that drains, in the order in which they go; told are those before `told`.
    order: Vec<(ConnectionId, u32)>,
    told: usize,
    /// When there is no more waiting: the index of the next connection to be closed.
    hurried: Option<usize>,
    /// Connections that were told, by the time at which they are closed.
    due: BinaryHeap<Reverse<Due>>,
    /// Connections that may be told in this second that they are old, a part of one included.
    room_for_old: f64,
}

/// A connection that must be gone at a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ms: u64,
    index: usize,
    serial: u32,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            stage: Stage::Serving,
            begun_ms: 0,
            spread_ms: 0,
            order: Vec::new(),
            told: 0,
            hurried: None,
            due: BinaryHeap::new(),
            room_for_old: 0.0,
        }
    }
}

impl Departures {
    /// When the next connection must be gone, in milliseconds since the worker started.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse(due)| due.at_ms)
    }

    /// When the connection of this place in the order is to go, in milliseconds since the worker started: evenly over
    /// the time, a little of it left to chance so that the workers do not all say the same.
    fn time_to_go(&self, place: usize) -> u64 {
        let slots = self.order.len().max(1) as f64;
        let share = (place as f64 + rand::random::<f64>()) / slots;
        let at = self.begun_ms as f64 + self.spread_ms as f64 * share;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most the time that a drain may take"
        )]
        let at = at as u64;
        at
    }

    fn must_be_gone(&mut self, connection: ConnectionId, serial: u32, at_ms: u64) {
        self.due.push(Reverse(Due { at_ms, index: connection.index(), serial }));
    }
}

/// How old a connection of this serial may get, in seconds. Neighbours get ages far apart, and all together cover the
/// range evenly.
pub(super) fn oldest_age(serial: u32, max_age_ms: u64) -> u32 {
    // Multiples of the golden ratio, modulo 1, are spread evenly however many there are.
    let share = (u64::from(serial.wrapping_mul(0x9E37_79B9)) * LIFE_RANGE) >> 32;
    let age = max_age_ms.saturating_mul(LIFE_SHORTEST + share) / 1_000_000;
    u32::try_from(age).unwrap_or(u32::MAX).max(1)
}

impl State {
    /// Once per turn: follows the node through its life, and sees off who is due; true if more are waiting.
    pub(super) fn depart(&mut self) -> bool {
        let stage = self.node.life.stage();
        if stage > self.departures.stage {
            self.departures.stage = stage;
            self.follow(stage);
        }
        let mut room = PER_TURN;
        while room > 0 && (self.hurry_one() || self.tell_one() || self.see_off_one()) {
            room -= 1;
        }
        if room < PER_TURN {
            self.queue_replies();
        }
        room == 0
    }

    fn follow(&mut self, stage: Stage) {
        match stage {
            Stage::Serving | Stage::Leaving => {}
            Stage::Draining => self.line_up(),
            Stage::Hurrying => {
                self.departures.order.clear();
                self.departures.hurried = Some(0);
            }
            Stage::Ending => {
                self.departures.hurried = None;
                for index in 0..self.sessions.span() {
                    let connection = ConnectionId::at(index);
                    self.shield(connection, |state| state.remove(connection, CloseReason::Drain));
                }
            }
        }
    }

    /// All connections, in a random order: whoever came early must not always go early.
    fn line_up(&mut self) {
        let departures = &mut self.departures;
        departures.begun_ms = millis(self.now);
        let spread = self.node.life.spread().as_millis();
        departures.spread_ms = u64::try_from(spread).unwrap_or(u64::MAX);
        for index in 0..self.sessions.span() {
            if let Some(session) = self.sessions.at(index) {
                departures.order.push((ConnectionId::at(index), session.serial));
            }
        }
        departures.order.shuffle(&mut rand::rng());
    }

    fn tell_one(&mut self) -> bool {
        let place = self.departures.told;
        let Some((connection, serial)) = self.departures.order.get(place).copied() else {
            if place > 0 {
                (self.departures.order, self.departures.told) = (Vec::new(), 0);
            }
            return false;
        };
        self.departures.told += 1;
        let delay = self.departures.time_to_go(place).saturating_sub(millis(self.now));
        if self.sessions.get(connection).is_some_and(|session| session.serial == serial) {
            self.shield(connection, |state| state.tell(connection, delay, GoawayReason::Drain));
        }
        true
    }

    /// Tells a client to go, and sees to it that it does.
    fn tell(&mut self, connection: ConnectionId, reconnect_in_ms: u64, reason: GoawayReason) {
        let Some(session) = self.sessions.get(connection) else { return };
        if session.is_told || session.phase != Phase::Open {
            return;
        }
        session.is_told = true;
        let serial = session.serial;
        self.sessions.reply(connection, &ServerMessage::Goaway { reconnect_in_ms });
        self.counters.goaways[reason as usize] += 1;
        let at_ms = millis(self.now) + reconnect_in_ms + FAREWELL_MS;
        self.departures.must_be_gone(connection, serial, at_ms);
    }

    fn hurry_one(&mut self) -> bool {
        let Some(index) = self.departures.hurried else { return false };
        if index >= self.sessions.span() {
            self.departures.hurried = None;
            return false;
        }
        self.departures.hurried = Some(index + 1);
        let connection = ConnectionId::at(index);
        self.shield(connection, |state| state.hurry_off(connection));
        true
    }

    /// Tells a client to go, if that was not done, and closes its connection in the same breath.
    fn hurry_off(&mut self, connection: ConnectionId) {
        let is_open = |session: &&mut Session| session.phase == Phase::Open;
        if self.sessions.get(connection).filter(is_open).is_some() {
            let delay = rand::random_range(0..HURRIED_SPREAD_MS);
            self.tell(connection, delay, GoawayReason::Drain);
            self.see_off(connection);
        }
    }

    fn see_off_one(&mut self) -> bool {
        let now = millis(self.now);
        let is_due = |due: &Reverse<Due>| due.0.at_ms <= now;
        if !self.departures.due.peek().is_some_and(is_due) {
            return false;
        }
        if let Some(Reverse(Due { index, serial, .. })) = self.departures.due.pop() {
            let connection = ConnectionId::at(index);
            if self.sessions.get(connection).is_some_and(|session| session.serial == serial) {
                self.shield(connection, |state| state.see_off(connection));
            }
        }
        true
    }

    /// Closes a connection whose time is up; one that was closed before and is still there is dropped.
    fn see_off(&mut self, connection: ConnectionId) {
        let (label, reason) = if self.is_draining() {
            (CloseReason::Drain, "the node is stopping")
        } else {
            (CloseReason::MaxAge, "the connection is old")
        };
        let Some(session) = self.sessions.get(connection) else { return };
        if session.phase != Phase::Open {
            return self.remove(connection, label);
        }
        if session.is_blocked {
            // It takes nothing: it must not keep the node from ending.
            socket::write_last(session, &close_frame(CloseCode::RESTART, reason));
            return self.remove(connection, label);
        }
        let serial = session.serial;
        self.close(connection, CloseCode::RESTART, reason, label);
        let at_ms = millis(self.now) + u64::from(LINGER_SECONDS) * 1000;
        self.departures.must_be_gone(connection, serial, at_ms);
    }

    /// A connection has come, perhaps too late: true if it was sent away at once.
    pub(super) fn greet_late(&mut self, connection: ConnectionId) -> bool {
        match self.departures.stage {
            Stage::Serving | Stage::Leaving => false,
            Stage::Draining => {
                self.tell(connection, 0, GoawayReason::Drain);
                false
            }
            Stage::Hurrying | Stage::Ending => {
                self.hurry_off(connection);
                self.queue_replies();
                true
            }
        }
    }

    /// So many seconds have begun: this worker may tell its share of `drain.rate` that they are old. What it did not need
    /// is not saved up, so that a maximum age that is set, or lowered, sends nobody's clients away all at once.
    pub(super) fn pace_the_old(&mut self, seconds: usize) {
        let share = self.node.config().drain.rate as f64 / self.node.pulse.workers().max(1) as f64;
        let room = &mut self.departures.room_for_old;
        // Less than one a second adds up to one.
        *room = share.mul_add(seconds as f64, *room).min(share.max(1.0));
    }

    /// Tells a connection to go if it is as old as it may get and there is room for it; 0 is no bound. Otherwise it is its
    /// turn at one of the next looks.
    pub(super) fn tell_if_old(&mut self, connection: ConnectionId, max_age_ms: u64) {
        let second = self.second;
        if max_age_ms == 0 || self.departures.room_for_old < 1.0 {
            return;
        }
        let Some(session) = self.sessions.get(connection) else { return };
        let age = second.saturating_sub(session.opened);
        if !session.is_told && age >= oldest_age(session.serial, max_age_ms) {
            let is_open = session.phase == Phase::Open;
            let delay = rand::random_range(0..AGED_SPREAD_MS);
            self.tell(connection, delay, GoawayReason::MaxAge);
            self.departures.room_for_old -= f64::from(u8::from(is_open));
        }
    }

    fn is_draining(&self) -> bool {
        self.departures.stage >= Stage::Draining
    }

    /// Counts the end of a connection that was open.
    pub(super) fn count_end(&mut self, label: CloseReason, is_told: bool) {
        self.counters.closed[label as usize] += 1;
        if !self.is_draining() {
            return;
        }
        let tally = self.node.life.tally();
        let count = match label {
            _ if self.departures.stage == Stage::Ending => &tally.cut,
            CloseReason::Drain | CloseReason::MaxAge => &tally.closed,
            // Some hang up without a word.
            CloseReason::Client | CloseReason::Lost if is_told => &tally.followed,
            _ => &tally.lost,
        };
        count.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_evenly_over_a_tenth_more_and_less() {
        let ages: Vec<u32> = (1..=2010).map(|serial| oldest_age(serial, 1_000_000)).collect();
        assert!(ages.iter().all(|age| (900..=1100).contains(age)), "{ages:?}");
        for bounds in [900..=920_u32, 990..=1010, 1080..=1100] {
            let count = ages.iter().filter(|&age| bounds.contains(age)).count();
            assert!((200..=220).contains(&count), "{count} of 2010 in {bounds:?}");
        }
        let alike = ages.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 20).count();
        assert_eq!(alike, 0, "those who came together go apart");
        assert_eq!(oldest_age(7, 1), 1, "the clock ticks in seconds");
        assert_eq!(oldest_age(7, u64::MAX), u32::MAX);
    }

    #[test]
    fn times_rise_evenly_over_the_spread() {
        let departures = Departures {
            begun_ms: 500,
            spread_ms: 10_000,
            order: vec![(ConnectionId::at(0), 0); 100],
            ..Departures::default()
        };
        for place in 0..100 {
            let slot = 500 + place as u64 * 100;
            let time = departures.time_to_go(place);
            assert!((slot..=slot + 100).contains(&time), "{place}: {time}");
        }
    }
}
