//! The account of every expected delivery: received, missing, duplicate and out of order are separate numbers.
//!
//! One cursor per subscription follows the offsets, which rise by one. The common case, the next offset, is one
//! comparison and one addition. A jump opens a hole; a frame that comes later and falls into a hole is out of order, one
//! that falls into none is a duplicate. What is still open at the end is missing. Values, topics and time are not looked at.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;
use tickcast_protocol::{Epoch, Position};

/// Holes remembered per subscription. Beyond it, a frame that comes late counts as a duplicate while its place stays
/// missing: a server that reorders this much has failed already.
const HOLES_PER_SUBSCRIPTION_MAX: usize = 1024;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Expected, and not seen before.
    Received,
    /// The value kept from before the subscription, at the acknowledged offset.
    Snapshot,
    /// Expected, but after a later one.
    OutOfOrder,
    /// Seen before, or older than the subscription.
    Duplicate,
    /// Seen before on the connection that this one has taken over from, as it must be; not counted.
    Overlap,
}

/// The numbers of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Deliveries that were expected: received plus missing.
    pub expected: u64,
    /// Expected deliveries that came, in order or not.
    pub received: u64,
    /// Expected deliveries that never came.
    pub missing: u64,
    /// Frames that came again.
    pub duplicate: u64,
    /// Received deliveries that came after a later one of their topic.
    pub out_of_order: u64,
    /// Values kept from before the subscription; not part of `expected`.
    pub snapshots: u64,
}

/// The position of one subscription.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Highest offset seen, or acknowledged.
    last: u64,
    /// The number of the epoch, plus 1; 0 if there is none that could be resumed.
    epoch: u64,
    /// The next frame may be the kept value at the acknowledged offset.
    snapshot_due: bool,
}

/// The account over all judged subscriptions, which are numbered from 0.
#[derive(Debug)]
pub struct Account {
    cursors: Vec<Cursor>,
    /// Offsets passed over, per subscription; empty for a server that does its work.
    holes: HashMap<usize, Vec<Range<u64>>>,
    /// What the connections that have taken over have yet to repeat, per subscription; empty unless clients move.
    overlaps: HashMap<usize, Range<u64>>,
    totals: Totals,
}

impl Account {
    /// An account for that many subscriptions, none of which is acknowledged yet.
    #[must_use]
    pub fn new(subscriptions: usize) -> Self {
        Self {
            cursors: vec![Cursor::default(); subscriptions],
            holes: HashMap::new(),
            overlaps: HashMap::new(),
            totals: Totals::default(),
        }
    }

    /// Notes the acknowledged offset: the frame at it is the snapshot, the ones after it are expected.
    /// Numbers beyond the account are ignored, here and below.
    pub fn acknowledge(&mut self, subscription: usize, offset: u64, epoch: Option<Epoch>) {
        if let Some(cursor) = self.cursors.get_mut(subscription) {
            let epoch = epoch.map_or(0, |epoch| epoch.number().saturating_add(1));
            *cursor = Cursor { last: offset, epoch, snapshot_due: offset > 0 };
            self.overlaps.remove(&subscription);
        }
    }

    /// Where a subscription goes on; `None` if it was never acknowledged with an epoch.
    #[must_use]
    pub fn position(&self, subscription: usize) -> Option<Position> {
        let cursor = self.cursors.get(subscription)?;
        let epoch = Epoch::new(cursor.epoch.checked_sub(1)?);
        // The kept value was published before, so it is not waited for.
        Some(Position { epoch, offset: cursor.last })
    }

    /// Notes that another connection goes on with a subscription from `since`: what has come in the meantime comes again.
    pub fn take_over(&mut self, subscription: usize, since: u64) {
        let Some(cursor) = self.cursors.get_mut(subscription) else { return };
        cursor.snapshot_due = false;
        if cursor.last > since {
            self.overlaps.insert(subscription, since.saturating_add(1)..cursor.last + 1);
        }
    }

    /// Books one frame.
    #[inline]
    pub fn deliver(&mut self, subscription: usize, offset: u64) -> Verdict {
        let Some(cursor) = self.cursors.get_mut(subscription) else { return Verdict::Duplicate };
        let snapshot_due = std::mem::take(&mut cursor.snapshot_due);
        if offset.checked_sub(cursor.last) == Some(1) {
            cursor.last = offset;
            self.totals.received += 1;
            return Verdict::Received;
        }
        if offset > cursor.last {
            let hole = cursor.last.saturating_add(1)..offset;
            cursor.last = offset;
            self.totals.received += 1;
            self.totals.missing = self.totals.missing.saturating_add(hole.end - hole.start);
            let holes = self.holes.entry(subscription).or_default();
            if holes.len() < HOLES_PER_SUBSCRIPTION_MAX {
                holes.push(hole);
            }
            return Verdict::Received;
        }
        if snapshot_due && offset == cursor.last {
            self.totals.snapshots += 1;
            return Verdict::Snapshot;
        }
        self.deliver_late(subscription, offset)
    }

    /// Books a frame at or below the highest offset.
    fn deliver_late(&mut self, subscription: usize, offset: u64) -> Verdict {
        if let Some(overlap) = self.overlaps.get_mut(&subscription)
            && overlap.contains(&offset)
        {
            overlap.start = offset + 1;
            return Verdict::Overlap;
        }
        let holes = self.holes.get_mut(&subscription);
        let hole = holes.and_then(|holes| {
            holes.iter().position(|hole| hole.contains(&offset)).map(|place| (holes, place))
        });
        let Some((holes, place)) = hole else {
            self.totals.duplicate += 1;
            return Verdict::Duplicate;
        };
        let hole = holes.swap_remove(place);
        let parts = [hole.start..offset, offset + 1..hole.end];
        holes.extend(parts.into_iter().filter(|part| !part.is_empty()));
        self.totals.missing -= 1;
        self.totals.received += 1;
        self.totals.out_of_order += 1;
        Verdict::OutOfOrder
    }

    /// Deliveries booked as received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.totals.received
    }

    /// Offsets after the last one seen, up to `highest` of the subscription's topic: what has yet to come.
    pub fn outstanding(&self, highest: impl Fn(usize) -> u64) -> u64 {
        let behind = |(subscription, cursor): (usize, &Cursor)| {
            highest(subscription).saturating_sub(cursor.last)
        };
        self.cursors.iter().enumerate().map(behind).fold(0, u64::saturating_add)
    }

    /// The final numbers, when the last publication of each subscription's topic has the offset `highest`.
    #[must_use]
    pub fn close(&self, highest: impl Fn(usize) -> u64) -> Totals {
        let missing = self.totals.missing.saturating_add(self.outstanding(highest));
        let expected = self.totals.received.saturating_add(missing);
        Totals { missing, expected, ..self.totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Books `offsets` on one subscription acknowledged at 10, then closes at 15.
    fn account(offsets: &[u64]) -> Totals {
        let mut account = Account::new(1);
        account.acknowledge(0, 10, None);
        for offset in offsets {
            account.deliver(0, *offset);
        }
        account.close(|_| 15)
    }

    #[test]
    fn all_in_order_is_all_received() {
        let totals = account(&[11, 12, 13, 14, 15]);
        assert_eq!(totals, Totals { expected: 5, received: 5, ..Totals::default() });
    }

    #[test]
    fn a_snapshot_is_not_a_delivery_and_comes_once() {
        let totals = account(&[10, 10, 11, 12, 13, 14, 15]);
        let expected =
            Totals { expected: 5, received: 5, snapshots: 1, duplicate: 1, ..Totals::default() };
        assert_eq!(totals, expected);
    }

    #[test]
    fn holes_and_the_tail_are_missing() {
        let totals = account(&[11, 13]);
        assert_eq!(totals, Totals { expected: 5, received: 2, missing: 3, ..Totals::default() });
        assert_eq!(account(&[]).missing, 5);
    }

    #[test]
    fn a_late_frame_is_out_of_order_once_and_then_a_duplicate() {
        let totals = account(&[11, 15, 13, 13, 12, 14, 9]);
        let expected =
            Totals { expected: 5, received: 5, out_of_order: 3, duplicate: 2, ..Totals::default() };
        assert_eq!(totals, expected);
    }

    #[test]
    fn the_first_publication_of_a_fresh_topic_is_no_snapshot() {
        let mut account = Account::new(2);
        account.acknowledge(0, 0, None);
        assert_eq!(account.deliver(0, 1), Verdict::Received);
        assert_eq!(account.deliver(7, 1), Verdict::Duplicate);
        assert_eq!(account.outstanding(|_| 3), 2 + 3);
    }

    #[test]
    fn what_two_connections_bring_is_no_duplicate_once() {
        let mut account = Account::new(1);
        assert_eq!(account.position(0), None);
        account.acknowledge(0, 10, Some(Epoch::new(7)));
        assert_eq!(account.position(0), Some(Position { epoch: Epoch::new(7), offset: 10 }));
        for offset in 11..=13 {
            assert_eq!(account.deliver(0, offset), Verdict::Received);
        }
        account.take_over(0, 11);
        let verdicts = [12, 13, 13, 11, 14].map(|offset| account.deliver(0, offset));
        let again = [Verdict::Duplicate; 2];
        assert_eq!(verdicts[..2], [Verdict::Overlap; 2]);
        assert_eq!(verdicts[2..4], again);
        assert_eq!(verdicts[4], Verdict::Received);
        let totals = account.close(|_| 14);
        assert_eq!((totals.received, totals.missing, totals.duplicate), (4, 0, 2));
    }

    #[test]
    fn remembered_holes_are_bounded() {
        let mut account = Account::new(1);
        account.acknowledge(0, 0, None);
        let holes = u64::try_from(HOLES_PER_SUBSCRIPTION_MAX).expect("small") + 10;
        for hole in 1..=holes {
            account.deliver(0, hole * 2);
        }
        assert_eq!(account.holes[&0].len(), HOLES_PER_SUBSCRIPTION_MAX);
        let totals = account.close(|_| holes * 2);
        assert_eq!((totals.missing, totals.received), (holes, holes));
    }
}
