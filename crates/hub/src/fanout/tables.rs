//! The rows of a worker's three tables (topics, subscriptions, connections), which refer to each other by index.

use tickcast_protocol::{Mode, ResetReason, Topic};

use crate::log::TopicLog;
use crate::options::TopicOptions;

/// "No index" in the tables.
pub(super) const NONE: u32 = u32::MAX;

/// A topic with at least one subscription at this worker.
#[derive(Debug)]
pub(super) struct LocalState {
    pub(super) name: Topic,
    pub(super) generation: u32,
    pub(super) options: TopicOptions,
    pub(super) log: Option<TopicLog>,
    pub(super) subscriptions: Vec<u32>,
    /// Acknowledgements that wait for this topic.
    pub(super) acks: Vec<u64>,
    /// The marking of subscriptions waits for the end of the flush interval.
    pub(super) is_deferred: bool,
    /// The hub's log keeps nothing at or before this offset.
    pub(super) floor: u64,
    /// The mirror is longer than the hub's log until the next turn.
    pub(super) is_long: bool,
}

/// One topic that one connection holds.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Offset of the last publication handed to the socket.
    pub(super) cursor: u64,
    /// With a rate: no value before this millisecond. 0 before the first value.
    pub(super) ready_at: u64,
    pub(super) topic: u32,
    pub(super) connection: u32,
    /// Index in the topic's list, for removal in constant time.
    pub(super) slot: u32,
    /// The connection's next subscription.
    pub(super) next: u32,
    /// The connection's next dirty subscription.
    pub(super) next_dirty: u32,
    /// Milliseconds between two values; 0 for no rate.
    pub(super) interval_ms: u32,
    pub(super) mode: Mode,
    pub(super) flags: Flags,
}

/// What a subscription is in the middle of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    /// Not acknowledged yet: nothing may be sent.
    pub(super) const PENDING: u8 = 1;
    /// In its connection's list of dirty subscriptions.
    pub(super) const DIRTY: u8 = 1 << 1;
    /// A timer will mark it dirty when its rate allows.
    pub(super) const TIMED: u8 = 1 << 2;
    /// Its `since` was older than the log: a gap is no fault of its socket.
    pub(super) const EXPIRED: u8 = 1 << 3;
    /// Owes a `reset` before the next publication, because of a broker restart,
    pub(super) const RESET_RESTART: u8 = 1 << 4;
    /// or because of an epoch in `since` that is not the topic's,
    pub(super) const RESET_EPOCH: u8 = 1 << 5;
    /// or because of an offset in `since` that does not exist yet.
    pub(super) const RESET_AHEAD: u8 = 1 << 6;
    pub(super) const RESET: u8 = Self::RESET_RESTART | Self::RESET_EPOCH | Self::RESET_AHEAD;

    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    pub(super) fn clear(&mut self, flags: u8) {
        self.0 &= !flags;
    }

    pub(super) fn reset_reason(self) -> Option<ResetReason> {
        if self.has(Self::RESET_RESTART) {
            Some(ResetReason::BrokerRestart)
        } else if self.has(Self::RESET_EPOCH) {
            Some(ResetReason::UnknownEpoch)
        } else {
            self.has(Self::RESET_AHEAD).then_some(ResetReason::OffsetAhead)
        }
    }
}

/// A connection, with the heads of its two lists of subscriptions: all, and those that are owed something.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) first: u32,
    pub(super) dirty_head: u32,
    pub(super) dirty_tail: u32,
    pub(super) subscriptions: u32,
    /// Names in subscribe commands that wait for topics.
    pub(super) waiting: u32,
    pub(super) is_queued: bool,
    pub(super) is_blocked: bool,
}

/// What happens when its time has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    /// A subscription's rate allows the next value.
    Rate(u32),
    /// A topic's flush interval ends.
    Flush { topic: u32, generation: u32 },
    /// A subscribe command has waited long enough.
    Settle(u64),
}

/// When a subscription may have its next value. Never 0, which means that it had none.
pub(super) fn ready_at(sent_at: u64, interval_ms: u32) -> u64 {
    (sent_at + u64::from(interval_ms)).max(1)
}

/// Table indices: a worker has fewer than four billion of anything, because each costs more than a byte.
pub(super) fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}
