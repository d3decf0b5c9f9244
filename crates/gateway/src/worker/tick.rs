//! What the seconds bring: pings, connections of age, sockets that are stuck, closed connections whose peer does not
//! hang up, and a configuration that was replaced.
//!
//! No connection has a timer. Once a second the worker looks at those that are in the middle of something, and at a
//! slice of all others.

use std::ops::RangeInclusive;

use tickcast_hub::ConnectionId;
use tickcast_protocol::{CloseCode, Opcode, close_frame};

use super::core::State;
#[cfg(feature = "testing")]
use super::faults::Place;
use super::session::{Phase, Session};
use super::{millis, socket};
use crate::metrics::CloseReason;

/// Looks at each connection per ping interval: a ping comes so much of the interval early at most.
const LOOKS_PER_PING: u32 = 5;

impl State {
    /// Once a second.
    pub(super) fn tick(&mut self, second: u32) {
        let ticks = self.second + 1..=second;
        self.second = second;
        self.node.pulse.beat(self.worker);
        while let Some((connection, serial, _)) =
            self.lingering.pop_front_if(|(_, _, until)| *until <= second)
        {
            if self.sessions.get(connection).is_some_and(|session| session.serial == serial) {
                self.remove(connection, CloseReason::Client);
            }
        }
        self.follow_config();
        self.close_stalled();
        self.look_at_floods();
        self.look_around(ticks);
    }

    fn close_stalled(&mut self) {
        self.counters.pending_bytes = 0;
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.retain(|(connection, serial)| {
            let is_stalled =
                self.shield(*connection, |state| state.is_stalled(*connection, *serial));
            is_stalled.unwrap_or(false)
        });
        // Connections that were blocked while this went on do not exist: the list is put back as it was.
        self.stalled = stalled;
        self.counters.stalled = self.stalled.len() as u64;
    }

    /// Whether a connection is still there and its socket full. One that was full for too long is closed.
    fn is_stalled(&mut self, connection: ConnectionId, serial: u32) -> bool {
        let config = self.node.config();
        let options = &config.websocket;
        let is_same = |session: &&mut Session| session.serial == serial;
        let Some(session) = self.sessions.get(connection).filter(is_same) else { return false };
        session.is_listed = session.is_blocked;
        if !session.is_blocked {
            socket::be_strict(session, options);
            return false;
        }
        self.counters.pending_bytes += session.pending_bytes() as u64;
        let since = u64::from(self.second.saturating_sub(session.stalled_since));
        let is_over = since >= options.stall_timeout.as_secs();
        if is_over {
            if session.phase == Phase::Open {
                let frame = close_frame(CloseCode::SLOW_CONSUMER, "slow consumer");
                socket::write_last(session, &frame);
            }
            self.remove(connection, CloseReason::SlowConsumer);
        }
        !is_over
    }

    /// Looks at a slice of the connections every second, at each of them several times per ping interval.
    fn look_around(&mut self, ticks: RangeInclusive<u32>) {
        let (interval, max_age) = {
            let config = self.node.config();
            (config.websocket.ping_interval, config.websocket.max_age)
        };
        let max_age_ms = millis(max_age);
        self.pace_the_old(ticks.clone().count());
        let interval = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX).max(1);
        let period = (interval / LOOKS_PER_PING).max(1);
        for tick in ticks.rev().take(period as usize) {
            for index in ((tick % period) as usize..self.sessions.span()).step_by(period as usize) {
                let connection = ConnectionId::at(index);
                self.shield(connection, |state| {
                    state.tell_if_old(connection, max_age_ms);
                    state.ping_if_idle(connection, interval, period);
                });
            }
        }
        self.queue_replies();
    }

    /// Pings a connection that will have been silent for the interval before the next look.
    fn ping_if_idle(&mut self, connection: ConnectionId, interval: u32, period: u32) {
        let Some(session) = self.sessions.get(connection) else { return };
        #[cfg(feature = "testing")]
        self.faults.strike(connection, Place::Tick);
        let silence = self.second.saturating_sub(session.last_traffic);
        // A full socket takes no ping either: it is judged by what it takes.
        if silence + period <= interval || session.phase != Phase::Open || session.is_blocked {
            return;
        }
        let awaits_pong = std::mem::replace(&mut session.awaits_pong, true);
        session.last_traffic = self.second;
        if awaits_pong {
            self.close(
                connection,
                CloseCode::PING_TIMEOUT,
                "ping timeout",
                CloseReason::PingTimeout,
            );
        } else {
            let payload = self.ping_payload();
            self.sessions.control(connection, Opcode::Ping, &payload);
            self.counters.pings += 1;
        }
    }
}
