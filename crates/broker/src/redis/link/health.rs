//! Whether the link carries: probes, their echoes, and the verdict.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Refusal;

/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// A link whose newest echo is this old carries nothing.
const ECHO_AGE_MAX: Duration = Duration::from_millis(2500);

/// A server that refuses probes is not silent: its connections stay. A refusal counts for this long.
const REFUSAL_COUNTS: Duration = Duration::from_millis(1500);

/// A link that is whole again within this time is not announced as down: what it missed has been repaired.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// Probes whose sending is remembered, for the round trip.
const PROBES_MAX: usize = 8;

/// What a failed probe means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    Moved,
}

/// The health of the link.
#[derive(Debug)]
pub struct Health {
    probe_at: Instant,
    next_probe: u64,
    /// Probes before this one belong to connections that are gone.
    first_probe: u64,
    sent: VecDeque<(u64, Instant)>,
    /// When the younger of the two connections was made.
    connected_at: Instant,
    /// When the newest probe that came back, and the newest that was answered, were sent on these connections. Not when
    /// that was seen: an echo that was held up on its way says nothing of now.
    echo: Option<Instant>,
    answer: Option<Instant>,
    /// The newest time at which both were there.
    alive_at: Option<Instant>,
    round_trip: Duration,
    refused: Option<(Instant, String)>,
    broken_since: Option<Instant>,
    is_up: bool,
    has_been_up: bool,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            probe_at: now,
            next_probe: 1,
            first_probe: 1,
            sent: VecDeque::new(),
            connected_at: now,
            echo: None,
            answer: None,
            alive_at: None,
            round_trip: Duration::ZERO,
            refused: None,
            broken_since: Some(now),
            is_up: false,
            has_been_up: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn has_been_up(&self) -> bool {
        self.has_been_up
    }

    /// When it was last seen that a publication is answered and arrives.
    pub fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    /// From sending a probe to its echo, for the newest echo.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Why the server refuses probes, if the newest was refused.
    pub fn refusal(&self) -> Option<&str> {
        self.refused.as_ref().map(|(_, why)| why.as_str())
    }

    /// A connection was made: only echoes of probes sent from now on count.
    pub(super) fn restart(&mut self, now: Instant) {
        self.first_probe = self.next_probe;
        (self.echo, self.answer) = (None, None);
        self.connected_at = now;
        self.probe_at = now;
    }

    /// Both connections were given up.
    pub(super) fn torn_down(&mut self) {
        (self.echo, self.answer) = (None, None);
        self.refused = None;
    }

    /// The number of the probe that is due.
    pub(super) fn probe(&mut self, now: Instant) -> Option<u64> {
        if now < self.probe_at {
            return None;
        }
        self.probe_at = now + PROBE_EVERY;
        let number = self.next_probe;
        self.next_probe += 1;
        self.sent.push_back((number, now));
        if self.sent.len() > PROBES_MAX {
            self.sent.pop_front();
        }
        Some(number)
    }

    pub(super) fn echo(&mut self, now: Instant, number: u64) {
        if number < self.first_probe {
            return;
        }
        if let Some(at) = self.sent_at(number) {
            self.echo = Some(at);
            self.round_trip = now - at;
            self.seen();
        }
    }

    pub(super) fn answered(&mut self, number: u64) {
        if number < self.first_probe {
            return;
        }
        if let Some(at) = self.sent_at(number) {
            self.answer = Some(at);
            self.refused = None;
            self.seen();
        }
    }

    /// When the probe was sent; none if that is too long ago to matter.
    fn sent_at(&self, number: u64) -> Option<Instant> {
        self.sent.iter().find(|(sent, _)| *sent == number).map(|(_, at)| *at)
    }

    /// The older of the two counts: either of the connections may be the one that carries nothing.
    fn seen(&mut self) {
        self.alive_at = self.proved().or(self.alive_at);
    }

    /// When the present connections last proved to carry both ways.
    fn proved(&self) -> Option<Instant> {
        self.echo.zip(self.answer).map(|(echo, answer)| echo.min(answer))
    }

    pub(super) fn probe_failed(&mut self, now: Instant, number: u64, refusal: &Refusal) -> Verdict {
        if number < self.first_probe {
            return Verdict::Wait;
        }
        match refusal {
            Refusal::Moved => return Verdict::Moved,
            Refusal::Refused(why) => self.refused = Some((now, why.clone())),
            Refusal::Lost => {}
        }
        Verdict::Wait
    }

    /// Whether both connections are there and say nothing.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let refuses = self.refused.as_ref().is_some_and(|(at, _)| now - *at < REFUSAL_COUNTS);
        now - self.proved().unwrap_or(self.connected_at) >= ECHO_AGE_MAX && !refuses
    }

    /// Judges anew; the verdict, if it has changed.
    pub(super) fn judge(&mut self, now: Instant, is_whole: bool) -> Option<bool> {
        let carries = is_whole && self.proved().is_some_and(|at| now - at < ECHO_AGE_MAX);
        if carries {
            self.broken_since = None;
        } else if self.broken_since.is_none() {
            self.broken_since = Some(now);
        }
        let is_down = self.broken_since.is_some_and(|since| now - since >= DOWN_AFTER);
        let is_stale = self.alive_at.is_none_or(|at| now - at >= ECHO_AGE_MAX);
        let up = carries || (self.is_up && !is_down && !is_stale);
        let changed = up != self.is_up;
        self.is_up = up;
        self.has_been_up |= up;
        changed.then_some(up)
    }
}
