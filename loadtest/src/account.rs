//! The account of every expected delivery: received, missing, duplicate and out of order are separate numbers.
//!
//! One cursor per subscription follows the offsets, which rise by one. The common case, the next offset, is one
//! comparison and one addition. A jump opens a hole; a frame that comes later and falls into a hole is out of order, one
//! that falls into none is a duplicate. What is still open at the end is missing. Values, topics and time are not looked at.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

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
    /// The next frame may be the kept value at the acknowledged offset.
    snapshot_due: bool,
}

/// The account over all judged subscriptions, which are numbered from 0.
#[derive(Debug)]
pub struct Account {
    cursors: Vec<Cursor>,
    /// Offsets passed over, per subscription; empty for a server that does its work.
    holes: HashMap<usize, Vec<Range<u64>>>,
    totals: Totals,
}

impl Account {
    /// An account for that many subscriptions, none of which is acknowledged yet.
    #[must_use]
    pub fn new(subscriptions: usize) -> Self {
        Self {
            cursors: vec![Cursor::default(); subscriptions],
            holes: HashMap::new(),
            totals: Totals::default(),
        }
    }

    /// Notes the acknowledged offset: the frame at it is the snapshot, the ones after it are expected.
    /// Numbers beyond the account are ignored, here and below.
    pub fn acknowledge(&mut self, subscription: usize, offset: u64) {
        if let Some(cursor) = self.cursors.get_mut(subscription) {
            *cursor = Cursor { last: offset, snapshot_due: offset > 0 };
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
        account.acknowledge(0, 10);
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
        account.acknowledge(0, 0);
        assert_eq!(account.deliver(0, 1), Verdict::Received);
        assert_eq!(account.deliver(7, 1), Verdict::Duplicate);
        assert_eq!(account.outstanding(|_| 3), 2 + 3);
    }

    #[test]
    fn remembered_holes_are_bounded() {
        let mut account = Account::new(1);
        account.acknowledge(0, 0);
        let holes = u64::try_from(HOLES_PER_SUBSCRIPTION_MAX).expect("small") + 10;
        for hole in 1..=holes {
            account.deliver(0, hole * 2);
        }
        assert_eq!(account.holes[&0].len(), HOLES_PER_SUBSCRIPTION_MAX);
        let totals = account.close(|_| holes * 2);
        assert_eq!((totals.missing, totals.received), (holes, holes));
    }
}
