//! Clients that go on elsewhere: because their node has asked them to, or because their connection has ended.
//!
//! A client whose node says `goaway` makes a second connection at the time it was given, while the first still delivers,
//! and leaves the first when the second is acknowledged. A client that has lost its connection comes back after a random
//! time, from a bound that doubles with each failure. Both resume where they are, so the account goes on. Everything here
//! is bounded by the number of connections; second connections count as handshakes in flight.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use mio::{Interest, Token};
use tickcast_protocol::Position;

use super::judge::Reaction;
use super::{HANDSHAKE_TIMEOUT, Receivers};
use crate::connection::{Connection, ConnectionError};
use crate::error::LoadError;
use crate::units::{SECOND_NS, count, nanos};
use crate::wire::{command, farewell};

/// The first attempt to come back is made within this time after a connection has ended.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Where all slots for handshakes are taken, the next look is made after this time.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Close codes after which the same would happen again, as the protocol says; so do all from [`FINAL_CODE_MIN`] on.
const FINAL_CODES: [u16; 4] = [1000, 1002, 1007, 1009];
const FINAL_CODE_MIN: u16 = 4500;

/// Clients on their way.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// When each makes its next attempt.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    clients: HashMap<usize, Client>,
    /// Numbers drawn so far.
    drawn: u64,
}

/// A client that is to get another connection.
#[derive(Debug, Default)]
struct Client {
    /// When its connection ended; `None` while it still has one.
    lost_at: Option<u64>,
    /// When it makes its next attempt, or gives up the one it is at. What the queue says otherwise is out of date.
    due: u64,
    attempts: usize,
    connection: Option<Connection>,
    /// Where it goes on, once it has asked.
    asked: Option<Vec<Position>>,
}

impl Returns {
    /// A number from 0 to `bound`, the same in every run (`SplitMix64`).
    fn draw(&mut self, bound: u64) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.drawn;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % bound.saturating_add(1)
    }

    /// Lets a client be looked at when it is due.
    fn wait(&mut self, number: usize, due: u64) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.due = due;
            self.due.push(Reverse((due, number)));
        }
    }

    /// The pause before the next attempt after so many.
    fn pause(&mut self, attempts: usize) -> u64 {
        let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
        let bound = nanos(FIRST_PAUSE).saturating_mul(1 << doublings).min(nanos(PAUSE_MAX));
        self.draw(bound)
    }
}

impl Receivers {
    /// The reading of the clock at which a client is to connect; the end of time if none is.
    #[must_use]
    pub fn next_due(&self) -> u64 {
        self.returns.due.peek().map_or(u64::MAX, |Reverse((due, _))| *due)
    }

    /// Lets clients connect whose time has come, and gives up handshakes that take too long.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn come_back(&mut self) -> Result<(), LoadError> {
        let now = self.clock.now();
        while self.next_due() <= now {
            let Some(Reverse((due, number))) = self.returns.due.pop() else { break };
            let client = self.returns.clients.get(&number).filter(|client| client.due == due);
            let Some(client) = client else { continue };
            if client.connection.is_some() {
                // This was the end of its time for the handshake.
                self.attempt_failed(number, None);
            } else if self.pending.len() >= self.plan.in_flight.max(1) {
                self.returns.wait(number, now + nanos(FULL_PAUSE));
            } else {
                self.connect_again(number)?;
            }
        }
        Ok(())
    }

    /// The node of a client wants to be left in so many milliseconds.
    pub(super) fn leave(&mut self, number: usize, milliseconds: u64) {
        let is_new = !self.returns.clients.contains_key(&number);
        if is_new && self.judge.positions(number).is_some() {
            let due = self.clock.now().saturating_add(milliseconds.saturating_mul(1_000_000));
            self.returns.clients.insert(number, Client::default());
            self.returns.wait(number, due);
        }
    }

    /// The connection of a client has ended.
    pub(super) fn lost(&mut self, number: usize, close: Option<u16>) {
        let now = self.clock.now();
        if let Some(client) = self.returns.clients.get_mut(&number) {
            client.lost_at = Some(now);
            return;
        }
        let is_final = |code| FINAL_CODES.contains(&code) || code >= FINAL_CODE_MIN;
        if close.is_some_and(is_final) || self.judge.positions(number).is_none() {
            return;
        }
        let due = now + self.returns.pause(0);
        self.returns.clients.insert(number, Client { lost_at: Some(now), ..Client::default() });
        self.returns.wait(number, due);
    }

    fn connect_again(&mut self, number: usize) -> Result<(), LoadError> {
        let now = self.clock.now();
        let Some(client) = self.returns.clients.get_mut(&number) else { return Ok(()) };
        client.attempts += 1;
        let token = Token(self.plan.connections + number);
        let stream = self.plan.targets.at(number + client.attempts).connect(number, false)?;
        let connection = client.connection.insert(Connection::new(stream));
        self.registry
            .register(connection.stream_mut(), token, Interest::READABLE | Interest::WRITABLE)
            .map_err(LoadError::system(format!("watching client {number}"), "free some memory"))?;
        self.pending.insert(token.0, now);
        self.returns.wait(number, now + nanos(HANDSHAKE_TIMEOUT));
        Ok(())
    }

    /// The other connection of a client is ready: goes on with its handshake, asks, and takes over.
    pub(super) fn successor_ready(&mut self, number: usize, ended: bool) -> Result<(), LoadError> {
        let Some(client) = self.returns.clients.get_mut(&number) else { return Ok(()) };
        let Some(connection) = client.connection.as_mut() else { return Ok(()) };
        let target = self.plan.targets.at(number + client.attempts);
        let offsets = |asked: &Vec<Position>| asked.iter().map(|at| at.offset).collect();
        let since = client.asked.as_ref().map(offsets);
        let mut reaction = Reaction { since, ..Reaction::default() };
        let judge = &mut self.judge;
        let mut result = connection.upgrade(target, "/v1/ws", number).and_then(|()| {
            connection.read((number, ended), &mut self.scratch, self.clock, |frame, now| {
                if reaction.refused.is_none() {
                    judge.book(number, frame, now, &mut reaction);
                }
            })
        });
        if let Some(pong) = reaction.pong {
            connection.try_send(&pong);
        }
        if result.is_ok() && connection.is_open() && client.asked.is_none() {
            let positions = judge.positions(number).unwrap_or_default();
            let names = self.plan.topics.topics_of(count(number));
            let names = names.map(|topic| self.plan.topics.name(topic));
            let text = subscribe(names.zip(&positions), &self.plan);
            result = connection.send(&command(&text));
            client.asked = Some(positions);
        }
        match result {
            Ok(()) if reaction.acknowledged => self.take_over(number, reaction.leave_in_ms),
            Ok(()) if reaction.refused.is_none() => Ok(()),
            Ok(()) => {
                self.attempt_failed(number, None);
                Ok(())
            }
            Err(ConnectionError::Refused { retry_after, .. }) => {
                self.attempt_failed(number, retry_after);
                Ok(())
            }
            Err(_) => {
                self.attempt_failed(number, None);
                Ok(())
            }
        }
    }

    /// The other connection has everything: the first one, if there still is one, is left.
    fn take_over(&mut self, number: usize, leave_in_ms: Option<u64>) -> Result<(), LoadError> {
        self.pending.remove(&(self.plan.connections + number));
        let Some(client) = self.returns.clients.remove(&number) else { return Ok(()) };
        let Some(mut connection) = client.connection else { return Ok(()) };
        // Registering anew reports again what is there to be read.
        self.registry
            .reregister(
                connection.stream_mut(),
                Token(number),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(LoadError::system(format!("watching client {number}"), "free some memory"))?;
        let first = self.connections.get_mut(number).and_then(|slot| slot.replace(connection));
        match (first, client.lost_at) {
            (Some(mut first), _) => {
                first.try_send(&farewell());
                self.judge.notices.moved += 1;
            }
            (None, lost_at) => {
                self.judge.notices.returned += 1;
                let now = self.clock.now();
                self.away.record(now.saturating_sub(lost_at.unwrap_or(now)));
            }
        }
        if let Some(milliseconds) = leave_in_ms {
            self.leave(number, milliseconds);
        }
        Ok(())
    }

    /// An attempt to connect elsewhere has failed: the next one is made later, not before `retry_after` seconds.
    fn attempt_failed(&mut self, number: usize, retry_after: Option<u64>) {
        self.pending.remove(&(self.plan.connections + number));
        let Some(client) = self.returns.clients.get_mut(&number) else { return };
        (client.connection, client.asked) = (None, None);
        let stay_away = retry_after.unwrap_or(0).min(PAUSE_MAX.as_secs()) * SECOND_NS;
        let attempts = client.attempts;
        let due = self.clock.now() + stay_away + self.returns.pause(attempts);
        self.returns.wait(number, due);
    }
}

/// The command of a client that goes on.
fn subscribe<'a>(
    items: impl Iterator<Item = (String, &'a Position)>,
    plan: &super::ConnectionPlan,
) -> String {
    let mode = plan.mode.as_ref().map(|mode| format!(r#","mode":"{mode}""#)).unwrap_or_default();
    let rate = plan.max_rate.map(|rate| format!(r#","max_rate":{rate}"#)).unwrap_or_default();
    let items = items.map(|(topic, Position { epoch, offset })| {
        format!(
            r#"{{"topic":"{topic}"{mode}{rate},"since":{{"epoch":"{epoch}","offset":{offset}}}}}"#
        )
    });
    let items: Vec<String> = items.collect();
    format!(r#"{{"type":"subscribe","id":1,"topics":[{}]}}"#, items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_a_bound_that_doubles_to_the_cap() {
        let mut returns = Returns::default();
        for attempts in 0..40 {
            let bound = nanos(FIRST_PAUSE) << attempts.min(5);
            let longest = (0..100).map(|_| returns.pause(attempts)).max();
            let cap = bound.min(nanos(PAUSE_MAX));
            assert!(longest.is_some_and(|longest| longest <= cap && longest > cap / 2));
        }
    }
}
