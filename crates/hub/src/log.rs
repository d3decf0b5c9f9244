//! One topic's recent publications, in order: what every cursor reads.

use std::collections::VecDeque;
use std::sync::Arc;

use tickcast_protocol::{Epoch, Position, Publication};

use crate::options::LogBounds;

/// A bounded, ordered run of publications of one topic in one epoch.
///
/// Offsets rise, normally by one; a jump is a hole that the broker could not fill. The log may end before the topic's
/// last offset if the last publications were lost. The hub owns the original; each worker that has subscribers mirrors it.
#[derive(Debug, Clone)]
pub struct TopicLog {
    epoch: Epoch,
    last: u64,
    /// Everything after this offset is here, or lost: it is the last that was let go, or where the log began.
    floor: u64,
    keeps_value: bool,
    complete: bool,
    /// The furthest offset that a look at the broker has found: what lies between the last one and this is under way.
    known: u64,
    /// The number of that look.
    look: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Seconds on the hub's clock, for the age bound.
    second: u32,
    publication: Arc<Publication>,
}

/// What a cursor finds.
#[derive(Debug)]
pub enum Next<'a> {
    /// Nothing newer.
    UpToDate,
    /// The very next publication.
    Following(&'a Arc<Publication>),
    /// Publications are lost; the next that exists, if any, is this one.
    Hole(Option<&'a Arc<Publication>>),
    /// The log has moved on: the publications right after the cursor are not in it any more.
    Fallen,
}

impl TopicLog {
    /// An empty log of a topic that stands at `position`.
    pub fn new(position: Position, keeps_value: bool) -> Self {
        Self {
            epoch: position.epoch,
            last: position.offset,
            floor: position.offset,
            keeps_value,
            complete: position.offset == 0,
            known: position.offset,
            look: 0,
            entries: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The topic's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The topic's last offset, which may lie beyond the last publication that is kept.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Epoch and last offset.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// Whether the broker's history has been read: what lies before the log is gone for good.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Says that the broker retains nothing that lies before this log.
    pub fn set_complete(&mut self) {
        self.complete = true;
    }

    /// The furthest offset that is known to exist; it may lie beyond what has come so far.
    pub fn known(&self) -> u64 {
        self.known.max(self.last)
    }

    /// The number of the last look at the broker's position.
    pub fn look(&self) -> u64 {
        self.look
    }

    /// The look with this number has found that the topic stands at `offset`.
    pub fn looked(&mut self, look: u64, offset: u64) {
        (self.look, self.known) = (look, self.known.max(offset));
    }

    /// Bytes of the publications kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publications kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no publication is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The smallest cursor that can be served from the log.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The newest publication that is kept.
    pub fn newest(&self) -> Option<&Arc<Publication>> {
        self.entries.back().map(|entry| &entry.publication)
    }

    /// The topic's current value, if the topic keeps one.
    pub fn value(&self) -> Option<&Arc<Publication>> {
        self.newest().filter(|newest| self.keeps_value && newest.offset() == self.last)
    }

    /// Whether nothing was appended in the last `seconds` before `second`.
    pub fn is_quiet(&self, second: u32, seconds: u32) -> bool {
        self.entries.back().is_none_or(|newest| second.saturating_sub(newest.second) >= seconds)
    }

    /// What comes after `cursor`.
    pub fn next(&self, cursor: u64) -> Next<'_> {
        if cursor >= self.last {
            return Next::UpToDate;
        }
        if cursor < self.floor {
            return Next::Fallen;
        }
        // Without holes the place is a subtraction away; with holes it is a binary search.
        let guess = usize::try_from(cursor - self.floor).unwrap_or(usize::MAX);
        match self.entries.get(guess) {
            Some(entry) if entry.publication.offset() == cursor + 1 => {
                Next::Following(&entry.publication)
            }
            _ => {
                let at = self.entries.partition_point(|entry| entry.publication.offset() <= cursor);
                match self.entries.get(at) {
                    Some(entry) if entry.publication.offset() == cursor + 1 => {
                        Next::Following(&entry.publication)
                    }
                    other => Next::Hole(other.map(|entry| &entry.publication)),
                }
            }
        }
    }

    /// Appends a publication that lies beyond the last offset; others are ignored.
    pub fn append(&mut self, publication: Arc<Publication>, second: u32) {
        if publication.offset() <= self.last {
            return;
        }
        self.last = publication.offset();
        self.bytes += publication.cost();
        self.entries.push_back(Entry { second, publication });
    }

    /// Sets a last offset that is known without its publication.
    pub fn advance(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// Takes the publication at the last offset, if the log knows the offset without having it.
    pub fn adopt_value(&mut self, value: Arc<Publication>, second: u32) {
        let is_new =
            value.offset() == self.last && self.newest().is_none_or(|n| n.offset() < self.last);
        if is_new {
            self.floor = self.floor.min(value.offset() - 1);
            self.bytes += value.cost();
            self.entries.push_back(Entry { second, publication: value });
        }
    }

    /// Puts older publications of the same epoch, oldest first, before the log; those that it has are ignored.
    pub fn prepend(&mut self, older: Vec<Arc<Publication>>, second: u32) {
        if older.last().is_none_or(|newest| newest.offset() < self.floor) {
            return; // The log has moved on meanwhile; what lies in between would look lost.
        }
        for publication in older.into_iter().rev() {
            if self
                .entries
                .front()
                .is_none_or(|front| publication.offset() < front.publication.offset())
                && publication.offset() <= self.last
                && publication.epoch() == self.epoch
            {
                self.floor = self.floor.min(publication.offset() - 1);
                self.bytes += publication.cost();
                self.entries.push_front(Entry { second, publication });
            }
        }
    }

    /// Lets the oldest publications go until the bounds hold.
    pub fn trim(&mut self, bounds: &LogBounds, second: u32) {
        let age = u32::try_from(bounds.age.as_secs()).unwrap_or(u32::MAX).max(1);
        while let Some(front) = self.entries.front() {
            let is_last = self.entries.len() == 1;
            let is_old =
                second.saturating_sub(front.second) >= age && !(is_last && self.keeps_value);
            let is_over = self.entries.len() > bounds.publications || self.bytes > bounds.bytes;
            if is_old || (is_over && !is_last) {
                self.pop_front();
            } else {
                break;
            }
        }
    }

    /// Lets the oldest publications go until `bytes` are freed or only the newest is left.
    pub fn release(&mut self, bytes: usize) {
        let target = self.bytes.saturating_sub(bytes);
        while self.bytes > target && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    /// Lets everything at or before `floor` go: keeps a worker's mirror as short as the hub's log.
    pub fn trim_to(&mut self, floor: u64) {
        while self.entries.front().is_some_and(|front| front.publication.offset() <= floor) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.floor = entry.publication.offset();
            self.bytes -= entry.publication.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tickcast_protocol::Topic;

    use super::*;

    const EPOCH: Epoch = Epoch::new(7);
    const BOUNDS: LogBounds =
        LogBounds { publications: 3, bytes: 10_000, age: Duration::from_secs(60) };

    fn publication(offset: u64) -> Arc<Publication> {
        let position = Position { epoch: EPOCH, offset };
        Arc::new(Publication::new(Topic::new("t").unwrap(), position, 0, b"1"))
    }

    fn log(last: u64, offsets: &[u64]) -> TopicLog {
        let mut log = TopicLog::new(Position { epoch: EPOCH, offset: last }, true);
        for offset in offsets {
            log.append(publication(*offset), 0);
        }
        log
    }

    fn describe(next: &Next<'_>) -> String {
        match next {
            Next::UpToDate => "-".to_owned(),
            Next::Following(p) => p.offset().to_string(),
            Next::Hole(Some(p)) => format!("hole {}", p.offset()),
            Next::Hole(None) => "hole".to_owned(),
            Next::Fallen => "fallen".to_owned(),
        }
    }

    #[test]
    fn cursors() {
        let check = |log: &TopicLog, expected: &[&str]| {
            let found: Vec<String> =
                (0u64..).take(expected.len()).map(|c| describe(&log.next(c))).collect();
            assert_eq!(found, expected);
        };
        check(&log(0, &[]), &["-", "-"]);
        check(&log(0, &[1, 2]), &["1", "2", "-", "-"]);
        check(&log(2, &[]), &["fallen", "fallen", "-"]);
        check(&log(2, &[3, 5, 6]), &["fallen", "fallen", "3", "hole 5", "5", "6", "-"]);
        let mut tail = log(0, &[1]);
        tail.advance(3);
        check(&tail, &["1", "hole", "hole", "-"]);
        tail.adopt_value(publication(3), 0);
        check(&tail, &["1", "hole 3", "3", "-"]);
    }

    #[test]
    fn bounds() {
        let mut by_count = log(0, &[1, 2, 3, 4, 5]);
        by_count.trim(&BOUNDS, 0);
        assert_eq!((by_count.floor(), by_count.len()), (2, 3));
        let cost = publication(1).cost();
        let mut by_bytes = log(0, &[1, 2, 3]);
        by_bytes.trim(&LogBounds { bytes: cost, ..BOUNDS }, 0);
        assert_eq!((by_bytes.floor(), by_bytes.bytes()), (2, cost));
        by_bytes.trim(&LogBounds { bytes: 1, ..BOUNDS }, 0);
        assert_eq!(by_bytes.len(), 1, "the newest stays whatever its size");
        let mut by_age = log(0, &[1, 2]);
        by_age.trim(&BOUNDS, 59);
        assert_eq!(by_age.len(), 2);
        by_age.trim(&BOUNDS, 60);
        assert_eq!(
            (by_age.len(), by_age.value().map(|v| v.offset())),
            (1, Some(2)),
            "the value does not age"
        );
    }

    #[test]
    fn history_goes_before_the_log() {
        let mut log = log(5, &[6]);
        log.prepend((2..=6).map(publication).collect(), 0);
        assert_eq!((log.floor(), log.last(), log.len()), (1, 6, 5));
        assert_eq!(log.bytes(), 5 * publication(1).cost());
        log.trim_to(4);
        assert_eq!((log.floor(), log.len()), (4, 2));
        log.prepend((1..=3).map(publication).collect(), 0);
        assert_eq!((log.floor(), log.len()), (4, 2), "4 is not lost, but would seem so");
        let position = Position { epoch: Epoch::new(8), offset: 4 };
        let foreign = Publication::new(Topic::new("t").unwrap(), position, 0, b"1");
        log.prepend(vec![Arc::new(foreign)], 0);
        assert_eq!(
            (log.floor(), log.len()),
            (4, 2),
            "a failover may leave history of an old epoch"
        );
        log.release(1);
        assert_eq!(log.len(), 1);
    }
}
