//! What to write to one connection: gathered from the logs at the cursors, committed by what the socket took.

use std::sync::Arc;

use tickcast_protocol::{GapReason, Mode, Publication, ServerMessage};

use super::{ConnectionId, Fanout, Flags, Gaps, LocalState, NONE, Subscription, Timer, ready_at};
use crate::log::{Next, TopicLog};

/// Bytes that one write may gather, before the last frame. More than a socket's send buffer takes is wasted copying.
const PLAN_BYTES: usize = 64 * 1024;

/// Frames of this size are written from where they are instead of being copied: from here on the copy costs as much as
/// a system call.
const SHARED_BYTES: usize = 8 * 1024;

/// Frames of one subscription in one write while others of the connection wait: no topic may keep the others out.
const FRAMES_PER_VISIT: usize = 128;

/// What one connection is to be sent in one write, and how that moves its cursors. Reused from connection to connection.
#[derive(Debug, Default)]
pub struct Plan {
    bytes: Vec<u8>,
    prefix: usize,
    /// A large frame, alone in its write.
    shared: Option<Arc<Publication>>,
    pieces: Vec<Piece>,
    is_full: bool,
    /// What the pieces were gathered for, in order, and when: the next connection may be owed the very same.
    visits: Vec<Visit>,
    stamp: u64,
}

/// All that the bytes of a subscription without a rate depend on, as long as no log changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    topic: u32,
    cursor: u64,
    mode: Mode,
    flags: Flags,
}

/// Bytes that are sent as a whole: a frame, perhaps behind the notice that explains it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    subscription: u32,
    /// Where the piece ends in the write.
    end: usize,
    cursor: u64,
    kind: Kind,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    /// A publication; in mode `latest` after some that are passed over.
    Publication {
        skipped: u64,
    },
    /// A notice that some are passed over, perhaps with the value behind it.
    Gap {
        reason: GapReason,
        skipped: u64,
        with_value: bool,
    },
    /// A notice that offsets start anew, and the value behind it.
    Reset,
}

impl Kind {
    /// The same notice, with the value behind it.
    fn with_value(self) -> Self {
        match self {
            Self::Gap { reason, skipped, .. } => Self::Gap { reason, skipped, with_value: true },
            other => other,
        }
    }

    /// Whether the piece carries a publication.
    fn has_value(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Gap { with_value, .. } => with_value,
            Self::Publication { .. } | Self::Reset => true,
        }
    }
}

/// What happens to the subscription after this piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Its next piece follows.
    Continue,
    /// It is up to date.
    Finish,
    /// It has more, after the others.
    Rotate,
    /// Its rate allows no value yet.
    Wait,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of the write, right after those that were written, that must follow before anything else.
    pub unfinished: usize,
    /// Whether the connection is owed more than was gathered.
    pub has_more: bool,
}

impl Subscription {
    fn visit(&self) -> Visit {
        Visit { topic: self.topic, cursor: self.cursor, mode: self.mode, flags: self.flags }
    }
}

impl Plan {
    /// Starts a plan for one connection with bytes that go first.
    pub fn start(&mut self, prefix: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(prefix);
        self.bytes.shrink_to(4 * PLAN_BYTES);
        self.prefix = prefix.len();
        self.pieces.clear();
        self.shared = None;
        self.is_full = false;
        self.visits.clear();
        self.stamp = 0;
    }

    /// Everything to write.
    pub fn bytes(&self) -> &[u8] {
        self.shared.as_ref().map_or(&self.bytes, |publication| publication.frame())
    }

    /// The one large frame that this plan consists of, if it does.
    pub fn shared(&self) -> Option<&Arc<Publication>> {
        self.shared.as_ref()
    }

    fn push(&mut self, subscription: u32, cursor: u64, kind: Kind, then: Then) {
        let end = self.bytes().len();
        self.pieces.push(Piece { subscription, end, cursor, kind, then });
        self.is_full |= end >= PLAN_BYTES;
    }

    fn notice(&mut self, message: &ServerMessage<'_>) {
        message.append_frame(&mut self.bytes);
    }

    /// Takes a frame; false if it must wait for a write of its own.
    fn frame(&mut self, publication: &Arc<Publication>, has_notice: bool) -> bool {
        let frame = publication.frame();
        if frame.len() < SHARED_BYTES || has_notice {
            self.bytes.extend_from_slice(frame);
            return true;
        }
        self.is_full = true;
        let is_alone = self.bytes.is_empty();
        if is_alone {
            self.shared = Some(Arc::clone(publication));
        }
        is_alone
    }
}

impl Fanout {
    /// Gathers into `plan` what the connection is owed, behind the bytes that go first.
    ///
    /// Nothing changes until [`Fanout::commit`]: what the socket does not take is simply gathered again.
    pub fn gather(&self, connection: ConnectionId, prefix: &[u8], plan: &mut Plan) {
        let head = self.connections.get(connection.index()).map_or(NONE, |state| state.dirty_head);
        if prefix.is_empty() && self.repeat(head, plan) {
            return;
        }
        plan.start(prefix);
        let mut index = head;
        let mut is_rated = false;
        while index != NONE && !plan.is_full {
            let subscription = &self.subscriptions[index as usize];
            let topic = &self.topics[subscription.topic as usize];
            plan.visits.push(subscription.visit());
            is_rated |= subscription.interval_ms > 0;
            match &topic.log {
                Some(log) => self.gather_subscription(index, subscription, (topic, log), plan),
                None => plan.push(index, subscription.cursor, Kind::Nothing, Then::Finish),
            }
            index = subscription.next_dirty;
        }
        if prefix.is_empty() && !plan.is_full && !is_rated {
            plan.stamp = self.stamp;
        }
    }

    /// Connections with equal subscriptions at equal cursors are owed equal bytes: takes over those of the connection
    /// before, if that is so. Everyone on the same page then costs one copy.
    fn repeat(&self, head: u32, plan: &mut Plan) -> bool {
        if plan.stamp != self.stamp {
            return false;
        }
        let mut index = head;
        let mut pieces = plan.pieces.iter_mut();
        for visit in &plan.visits {
            let Some(subscription) = self.subscriptions.get(index as usize) else { return false };
            if subscription.interval_ms > 0 || subscription.visit() != *visit {
                return false;
            }
            for piece in pieces.by_ref() {
                piece.subscription = index;
                if piece.then != Then::Continue {
                    break;
                }
            }
            index = subscription.next_dirty;
        }
        index == NONE
    }

    fn gather_subscription(
        &self,
        index: u32,
        subscription: &Subscription,
        (topic, log): (&LocalState, &TopicLog),
        plan: &mut Plan,
    ) {
        let cursor = subscription.cursor;
        if subscription.interval_ms > 0 && self.now < subscription.ready_at {
            plan.push(index, cursor, Kind::Nothing, Then::Wait);
        } else if let Some(reason) = subscription.flags.reset_reason() {
            let Some(publication) = first_after(log, cursor, subscription.mode) else {
                return plan.push(index, cursor, Kind::Nothing, Then::Finish);
            };
            let (epoch, offset) = (log.epoch(), publication.offset());
            plan.notice(&ServerMessage::Reset { topic: &topic.name, epoch, offset, reason });
            plan.frame(publication, true);
            let then = if offset < log.last() { Then::Rotate } else { Then::Finish };
            plan.push(index, offset, Kind::Reset, then);
        } else if subscription.mode == Mode::Latest {
            match log.newest().filter(|newest| newest.offset() > cursor) {
                Some(newest) if plan.frame(newest, false) => {
                    let skipped = newest.offset() - cursor - 1;
                    plan.push(index, newest.offset(), Kind::Publication { skipped }, Then::Finish);
                }
                Some(_) => {}
                None => plan.push(index, cursor, Kind::Nothing, Then::Finish),
            }
        } else {
            gather_all(index, subscription, (topic, log), plan);
        }
    }

    /// Moves the cursors by what the socket took: the first `written` bytes of the plan.
    ///
    /// A frame that was begun counts as taken, because its rest is kept by the caller and goes first next time. Between
    /// gathering and committing nothing else may happen to this fan-out, except for gathering for other connections.
    pub fn commit(&mut self, connection: ConnectionId, plan: &Plan, written: usize) -> Committed {
        let mut start = plan.prefix;
        for piece in &plan.pieces {
            if piece.end > start && written <= start {
                break;
            }
            start = piece.end;
            self.count(piece.kind);
            let subscription = &mut self.subscriptions[piece.subscription as usize];
            subscription.cursor = piece.cursor;
            if piece.kind != Kind::Nothing {
                // A subscription that owes a reset has only pieces that say so.
                subscription.flags.clear(Flags::RESET | Flags::EXPIRED);
            }
            if piece.kind.has_value() {
                subscription.ready_at = ready_at(self.now, subscription.interval_ms);
            }
            if piece.then != Then::Continue {
                self.pop_head(piece.subscription, piece.then);
            }
        }
        let has_more =
            self.connections.get(connection.index()).is_some_and(|state| state.dirty_head != NONE);
        Committed { unfinished: start.max(written) - written, has_more }
    }

    /// Takes the subscription that was served from the head of its connection's dirty list.
    fn pop_head(&mut self, index: u32, then: Then) {
        let subscription = &mut self.subscriptions[index as usize];
        let connection = &mut self.connections[subscription.connection as usize];
        connection.dirty_head = subscription.next_dirty;
        if connection.dirty_head == NONE {
            connection.dirty_tail = NONE;
        }
        subscription.flags.clear(Flags::DIRTY);
        match then {
            Then::Continue | Then::Finish => {}
            Then::Rotate => self.mark(index),
            Then::Wait => {
                if !subscription.flags.has(Flags::TIMED) {
                    subscription.flags.set(Flags::TIMED);
                    self.wheel.add(subscription.ready_at, Timer::Rate(index));
                }
            }
        }
    }

    fn count(&mut self, kind: Kind) {
        let counters = &mut self.counters;
        counters.deliveries += u64::from(kind.has_value());
        match kind {
            Kind::Nothing => {}
            Kind::Publication { skipped } => counters.conflated += skipped,
            Kind::Gap { reason, skipped, .. } => {
                let gaps: &mut Gaps = match reason {
                    GapReason::SlowConsumer => &mut counters.gaps_slow,
                    GapReason::Expired => &mut counters.gaps_expired,
                    GapReason::Lost => &mut counters.gaps_lost,
                };
                gaps.notices += 1;
                gaps.publications += skipped;
            }
            Kind::Reset => counters.resets += 1,
        }
    }
}

/// The publication that a subscription which owes a reset gets first.
fn first_after(log: &TopicLog, cursor: u64, mode: Mode) -> Option<&Arc<Publication>> {
    let newest = log.newest().filter(|newest| newest.offset() > cursor);
    match (mode, log.next(cursor)) {
        (Mode::All, Next::Following(publication) | Next::Hole(Some(publication))) => {
            Some(publication)
        }
        _ => newest,
    }
}

/// Says that everything after `cursor` up to `to` is passed over.
fn gap(reason: GapReason, (cursor, to): (u64, u64), topic: &LocalState, plan: &mut Plan) -> Kind {
    plan.notice(&ServerMessage::Gap { topic: &topic.name, from: cursor + 1, to, reason });
    Kind::Gap { reason, skipped: to - cursor, with_value: false }
}

/// Mode `all`: everything after the cursor, with what is missing named.
fn gather_all(
    index: u32,
    subscription: &Subscription,
    (topic, log): (&LocalState, &TopicLog),
    plan: &mut Plan,
) {
    let mut cursor = subscription.cursor;
    let mut frames = 0;
    loop {
        let then = if frames == FRAMES_PER_VISIT { Then::Rotate } else { Then::Continue };
        match log.next(cursor) {
            Next::UpToDate => break,
            Next::Following(publication) => {
                if !plan.frame(publication, false) {
                    return; // It goes alone in the next write; what was gathered so far stands.
                }
                cursor += 1;
                plan.push(index, cursor, Kind::Publication { skipped: 0 }, then);
            }
            Next::Hole(next) => {
                let to = next.map_or(log.last(), |publication| publication.offset() - 1);
                let kind = gap(GapReason::Lost, (cursor, to), topic, plan);
                cursor = to;
                plan.push(index, cursor, kind, then);
            }
            Next::Fallen => {
                let is_expired = subscription.flags.has(Flags::EXPIRED);
                let reason = if is_expired { GapReason::Expired } else { GapReason::SlowConsumer };
                let value = log.value();
                let to = value.map_or(log.last(), |value| value.offset() - 1);
                let mut kind = gap(reason, (cursor, to), topic, plan);
                cursor = log.last();
                if let Some(value) = value {
                    plan.frame(value, true);
                    kind = kind.with_value();
                }
                plan.push(index, cursor, kind, then);
            }
        }
        frames += 1;
        if then == Then::Rotate || plan.is_full {
            break;
        }
    }
    let is_done = cursor >= log.last();
    match plan.pieces.last_mut() {
        Some(piece) if piece.subscription == index => {
            piece.then = if is_done { Then::Finish } else { Then::Rotate };
        }
        _ => plan.push(index, cursor, Kind::Nothing, Then::Finish),
    }
}
