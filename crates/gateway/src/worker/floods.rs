//! Bounds on how much a client sends: commands, pings and pongs, and messages that do not come to an end.
//!
//! An idle connection has nothing here. What is counted is counted for a second and forgotten with it; who is in the
//! middle of a message is looked at once a second. Beyond a bound the connection is closed with a code that says so.

use std::collections::{HashMap, HashSet};

use tickcast_hub::ConnectionId;
use tickcast_protocol::{CloseCode, ErrorCode, Id, Opcode, limits::COMMAND_OVERHEAD_BYTES_MAX};

use super::core::State;
use super::session::{Phase, Session};
use crate::metrics::CloseReason;
use crate::transport::websocket::reader::{Bounds, FRAGMENTS_MAX, Reader, Violation};

/// Pings and pongs that one connection may send in one second. Clients that measure their way to the node send a few.
const CONTROLS_PER_SECOND_MAX: u32 = 100;

/// Seconds whose share of `limits.commands_per_second` may come at once. As many may be refused in one second: who goes on
/// beyond that does not listen to the answers.
const COMMANDS_BURST_SECONDS: u32 = 4;

/// Pongs that may wait for a full socket. Who pings on and takes no answer wants something else than an answer.
const PONGS_WAITING_MAX: u8 = 16;

/// Memory that the unfinished input of all connections of a worker may hold together, in bytes; at least four messages.
const UNFINISHED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A connection that holds no more than this is not closed for what the others hold, in bytes: it may be in the middle of
/// a command.
const UNFINISHED_BYTES_SPARED: usize = 4 * 1024;

/// What the connections of a worker have begun, and how often they spoke without a command.
#[derive(Debug, Default)]
pub(super) struct Floods {
    /// Pings and pongs of this second.
    controls: HashMap<ConnectionId, u32>,
    /// Commands of those who had sent one lately.
    commands: HashMap<ConnectionId, Commands>,
    /// Who was in the middle of a frame or a message at its last read.
    unfinished: HashSet<ConnectionId>,
    /// Memory that is held for them.
    held_bytes: usize,
}

/// Commands of one connection.
#[derive(Debug, Clone, Copy, Default)]
struct Commands {
    /// Taken, less what the seconds since have given back.
    taken: u32,
    /// Refused in this second.
    refused: u32,
}

impl Floods {
    /// Takes a connection's reader out, with what it holds.
    pub(super) fn take(&mut self, session: &mut Session) -> Option<Box<Reader>> {
        let reader = session.reader.take();
        self.held_bytes -= reader.as_ref().map_or(0, |reader| reader.held_bytes());
        reader
    }

    /// The next connection with this number starts from nothing.
    pub(super) fn forget(&mut self, connection: ConnectionId, session: &mut Session) {
        drop(self.take(session));
        self.controls.remove(&connection);
        self.commands.remove(&connection);
    }

    /// A second is over.
    fn refill_commands(&mut self, rate: u32) {
        self.commands.retain(|_, commands| {
            commands.taken = commands.taken.saturating_sub(rate);
            commands.refused = 0;
            commands.taken > 0 && rate > 0
        });
        self.commands.shrink_to_fit();
    }

    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl State {
    /// What the next read of a connection may take.
    pub(super) fn bounds(&self, connection: ConnectionId) -> Bounds {
        let payload_max = self.node.config().limits.payload_bytes.bytes();
        Bounds {
            message_max: payload_max + COMMAND_OVERHEAD_BYTES_MAX,
            fragments_max: self.fragments_max(connection),
            second: self.second,
        }
    }

    #[cfg(not(feature = "testing"))]
    fn fragments_max(&self, _connection: ConnectionId) -> u32 {
        FRAGMENTS_MAX
    }

    #[cfg(feature = "testing")]
    fn fragments_max(&self, connection: ConnectionId) -> u32 {
        if self.faults.is_echo(connection) { u32::MAX } else { FRAGMENTS_MAX }
    }

    /// Keeps what a read has left: what is unfinished, and frames for the next turn. If there is room for it.
    pub(super) fn keep(
        &mut self,
        connection: ConnectionId,
        reader: Option<Box<Reader>>,
        message_max: usize,
        has_more: bool,
    ) {
        let Some(reader) = reader else { return };
        let Some(session) = self.sessions.get(connection) else { return };
        if session.phase != Phase::Open {
            return;
        }
        let held = reader.held_bytes();
        let most = UNFINISHED_BYTES_MAX.max(message_max.saturating_mul(4));
        if held > UNFINISHED_BYTES_SPARED && self.floods.held_bytes + held > most {
            let reason = "the node holds too much of unfinished messages";
            return self.close(connection, CloseCode::TRY_LATER, reason, CloseReason::Flood);
        }
        session.reader = Some(reader);
        if has_more && !session.is_paused {
            // It goes on in the next turn, behind those that have waited.
            session.is_paused = true;
            self.resumable.push(connection);
        }
        self.floods.held_bytes += held;
        self.floods.unfinished.insert(connection);
    }

    /// A frame or a message breaks a rule.
    pub(super) fn end_violation(&mut self, connection: ConnectionId, violation: Violation) {
        let Violation { code, reason } = violation;
        let is_flood = code == CloseCode::POLICY;
        let label = if is_flood { CloseReason::Flood } else { CloseReason::ProtocolError };
        self.close(connection, code, reason, label);
    }

    /// Answers a ping.
    pub(super) fn answer_ping(&mut self, connection: ConnectionId, payload: &[u8]) {
        if !self.admit_control(connection) {
            return;
        }
        let Some(session) = self.sessions.get(connection) else { return };
        let is_blocked = session.is_blocked;
        let output = session.output.get_or_insert_default();
        if is_blocked && output.pongs >= PONGS_WAITING_MAX {
            return self.end_flood(connection, "more than 16 pongs wait, and none is taken");
        }
        output.pongs = output.pongs.saturating_add(1);
        self.sessions.control(connection, Opcode::Pong, payload);
    }

    /// Counts a ping or a pong; false if it was one too many.
    pub(super) fn admit_control(&mut self, connection: ConnectionId) -> bool {
        let count = self.floods.controls.entry(connection).or_default();
        *count += 1;
        let is_admitted = *count <= CONTROLS_PER_SECOND_MAX;
        if !is_admitted {
            self.end_flood(connection, "more than 100 pings and pongs in a second");
        }
        is_admitted
    }

    /// Counts a command; false, and answered, if it was one too many.
    pub(super) fn admit_command(&mut self, connection: ConnectionId, id: Option<&Id>) -> bool {
        let rate = self.commands_per_second();
        if rate == 0 {
            return true;
        }
        let burst = rate.saturating_mul(COMMANDS_BURST_SECONDS);
        let commands = self.floods.commands.entry(connection).or_default();
        if commands.taken < burst {
            commands.taken += 1;
            return true;
        }
        commands.refused += 1;
        let is_deaf = commands.refused > burst;
        self.counters.commands_refused += 1;
        if is_deaf {
            self.end_flood(connection, "too many commands, and no heed of the answers");
        } else {
            let message =
                format!("this connection may send {rate} commands per second; try again in 1 s");
            self.reply_error(connection, id, ErrorCode::RateLimited, &message);
        }
        false
    }

    fn commands_per_second(&self) -> u32 {
        u32::try_from(self.node.config().limits.commands_per_second).unwrap_or(u32::MAX)
    }

    fn end_flood(&mut self, connection: ConnectionId, reason: &'static str) {
        self.end_violation(connection, Violation { code: CloseCode::POLICY, reason });
    }

    /// Once a second: begins to count anew, and closes who has been in the middle of a message for too long.
    pub(super) fn look_at_floods(&mut self) {
        // Made anew, so that one second's crowd does not hold memory for ever.
        self.floods.controls = HashMap::new();
        let rate = self.commands_per_second();
        self.floods.refill_commands(rate);
        let timeout = self.node.config().websocket.message_timeout.as_secs();
        let mut unfinished = std::mem::take(&mut self.floods.unfinished);
        unfinished.retain(|connection| {
            let is_unfinished =
                self.shield(*connection, |state| state.is_unfinished(*connection, timeout));
            is_unfinished.unwrap_or(false)
        });
        unfinished.shrink_to_fit();
        // Nothing is read while this goes on, so nobody has joined them.
        self.floods.unfinished = unfinished;
    }

    /// Whether a connection is still in the middle of something. One that was for too long is closed.
    fn is_unfinished(&mut self, connection: ConnectionId, timeout: u64) -> bool {
        let second = self.second;
        let Some(session) = self.sessions.get(connection) else { return false };
        let Some(reader) = &session.reader else { return false };
        // Where it is this side that does not read, the client may have sent the rest long ago.
        let is_over =
            !session.is_paused && u64::from(second.saturating_sub(reader.begun())) > timeout;
        if is_over {
            self.end_flood(connection, "a message did not come to its end in time");
        }
        !is_over
    }
}
