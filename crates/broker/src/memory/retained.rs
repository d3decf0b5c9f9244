//! What the memory broker keeps of one topic: its position, its last value, its recent history.
//!
//! Lives inside a shard, under that shard's lock. The invariant: value and history, where there are any, end at the
//! topic's position, and the history has no holes. So an offset is found by subtraction, and the last publication is
//! shared by both and paid for once. It knows neither the clock nor the broker's other topics: both come as arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tickcast_protocol::{Epoch, Position, Publication};

use super::MemoryLimits;
use crate::{HistoryRequest, Retention, TopicState};

/// One topic, 48 bytes as long as it keeps no history.
#[derive(Debug)]
pub(super) struct Retained {
    position: Position,
    /// The time to live counts from here.
    used_at: Instant,
    /// The publication at `position`, unless its retention keeps no value.
    value: Option<Arc<Publication>>,
    /// None instead of empty.
    history: Option<Box<History>>,
}

/// A run of publications without holes, oldest first.
#[derive(Debug, Default)]
struct History {
    run: VecDeque<Kept>,
    /// The sum of [`Publication::cost`] over the run.
    bytes: usize,
    /// The retention of the newest publication decides for all.
    age_max: Duration,
}

#[derive(Debug)]
struct Kept {
    publication: Arc<Publication>,
    at: Instant,
}

impl Retained {
    /// A topic at offset 0 of a new random epoch.
    pub(super) fn new(now: Instant) -> Self {
        // 40 bits are 8 characters on the wire, and two epochs of one topic are alike once in 10^12.
        let epoch = Epoch::new(rand::random::<u64>() >> 24);
        Self { position: Position { epoch, offset: 0 }, used_at: now, value: None, history: None }
    }

    /// Where the next publication belongs.
    pub(super) fn next_position(&self) -> Position {
        Position { offset: self.position.offset + 1, ..self.position }
    }

    /// Whether anything was ever published in this epoch.
    pub(super) const fn is_published(&self) -> bool {
        self.position.offset > 0
    }

    /// Has its time to live passed? The caller knows whether it is subscribed, in which case this does not matter.
    pub(super) fn is_expired(&self, limits: &MemoryLimits, now: Instant) -> bool {
        let ttl = if self.is_published() { limits.topic_ttl } else { limits.unpublished_ttl };
        now.saturating_duration_since(self.used_at) >= ttl
    }

    /// Starts the time to live anew.
    pub(super) fn renew(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// What is kept, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match (&self.history, &self.value) {
            (Some(history), _) => history.bytes,
            (None, Some(value)) => value.cost(),
            (None, None) => 0,
        }
    }

    /// Takes the publication at [`Retained::next_position`] and keeps of it what `retention` asks for, in at most
    /// `room` bytes for the whole topic. False, and nothing has changed, if it should be kept but has no room.
    pub(super) fn append(
        &mut self,
        publication: &Arc<Publication>,
        retention: Retention,
        room: usize,
        now: Instant,
    ) -> bool {
        let cost = publication.cost();
        let in_history = retention.history > 0
            && cost <= retention.history_bytes
            && !retention.history_age.is_zero();
        if (retention.value || in_history) && cost > room {
            return false;
        }
        self.position = publication.position();
        self.used_at = now;
        self.value = retention.value.then(|| Arc::clone(publication));
        if in_history {
            self.history.get_or_insert_default().append(publication, retention, room, now);
        } else {
            // What came before would end short of the position.
            self.history = None;
        }
        true
    }

    /// Lets go of history that has become too old.
    pub(super) fn trim(&mut self, now: Instant) {
        if let Some(history) = &mut self.history {
            history.trim(now);
            if history.run.is_empty() {
                self.history = None;
            }
        }
    }

    /// The answer to a read. Call [`Retained::trim`] first.
    pub(super) fn state(&self, request: HistoryRequest) -> TopicState {
        TopicState {
            position: self.position,
            value: self.value.clone(),
            history: self.history.as_ref().map_or_else(Vec::new, |history| history.select(request)),
        }
    }
}

impl History {
    fn append(
        &mut self,
        publication: &Arc<Publication>,
        retention: Retention,
        room: usize,
        now: Instant,
    ) {
        let cost = publication.cost();
        let bytes_max = retention.history_bytes.min(room);
        // By the old age first: what no reader sees any more must not come back under a longer one.
        self.trim(now);
        self.age_max = retention.history_age;
        while self.run.len() >= retention.history || self.bytes + cost > bytes_max {
            if !self.drop_oldest() {
                break;
            }
        }
        self.bytes += cost;
        self.run.push_back(Kept { publication: Arc::clone(publication), at: now });
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.run.front()
            && now.saturating_duration_since(oldest.at) >= self.age_max
        {
            self.drop_oldest();
        }
    }

    /// False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.run.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, |oldest| oldest.publication.cost());
        oldest.is_some()
    }

    fn select(&self, request: HistoryRequest) -> Vec<Arc<Publication>> {
        let length = self.run.len();
        let skipped = match request {
            HistoryRequest::None => length,
            HistoryRequest::Newest(count) => length.saturating_sub(count),
            HistoryRequest::After(offset) => {
                let first = self.run.front().map_or(0, |oldest| oldest.publication.offset());
                let known = offset.saturating_add(1).saturating_sub(first);
                usize::try_from(known).unwrap_or(length).min(length)
            }
        };
        self.run.range(skipped..).map(|kept| Arc::clone(&kept.publication)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tickcast_protocol::Topic;

    use super::*;

    const KEEP_ALL: Retention = Retention {
        value: true,
        history: 10,
        history_bytes: 1 << 20,
        history_age: Duration::from_secs(60),
    };

    /// Appends publications with these retentions, one second apart; the history's offsets as read just after the last.
    fn history_after(retentions: &[Retention], room: usize, request: HistoryRequest) -> Vec<u64> {
        let mut now = Instant::now();
        let mut retained = Retained::new(now);
        for &retention in retentions {
            now += Duration::from_secs(1);
            let topic = Topic::new("t").unwrap();
            let publication = Publication::new(topic, retained.next_position(), 1, b"1");
            assert!(retained.append(&Arc::new(publication), retention, room, now));
        }
        retained.trim(now);
        let history = retained.state(request).history;
        let value = retained.value.as_ref().map_or(0, |value| value.cost());
        let sum = history.iter().map(|publication| publication.cost()).sum::<usize>();
        if request == HistoryRequest::Newest(usize::MAX) {
            assert_eq!(retained.bytes(), if sum > 0 { sum } else { value });
        }
        history.iter().map(|publication| publication.offset()).collect()
    }

    fn cost() -> usize {
        let position = Position { epoch: Epoch::new(1), offset: 1 };
        Publication::new(Topic::new("t").unwrap(), position, 1, b"1").cost()
    }

    #[test]
    fn history_is_the_newest_run_within_all_bounds() {
        let check = |retentions: &[Retention], expected: &[u64]| {
            let all = HistoryRequest::Newest(usize::MAX);
            assert_eq!(history_after(retentions, usize::MAX, all), expected, "{retentions:?}");
        };
        let count = |history| Retention { history, ..KEEP_ALL };
        let bytes = |history_bytes| Retention { history_bytes, ..KEEP_ALL };
        let age = |seconds| Retention { history_age: Duration::from_secs(seconds), ..KEEP_ALL };

        check(&[], &[]);
        check(&[KEEP_ALL; 4], &[1, 2, 3, 4]);
        check(&[count(3); 4], &[2, 3, 4]);
        check(&[bytes(2 * cost()); 4], &[3, 4]);
        check(&[bytes(2 * cost() - 1); 4], &[4]);
        check(&[bytes(cost() - 1); 4], &[]);
        check(&[age(2); 4], &[3, 4]);
        check(&[age(0); 4], &[]);
        // A retention that changes holds for what is there already.
        check(&[KEEP_ALL, KEEP_ALL, KEEP_ALL, count(2)], &[3, 4]);
        check(&[KEEP_ALL, KEEP_ALL, count(0), KEEP_ALL], &[4]);
        check(&[KEEP_ALL, KEEP_ALL, KEEP_ALL, count(0)], &[]);
    }

    #[test]
    fn a_read_selects_from_the_history() {
        let check = |request, expected: &[u64]| {
            let history =
                history_after(&[Retention { history: 3, ..KEEP_ALL }; 5], 1 << 20, request);
            assert_eq!(history, expected, "{request:?}");
        };
        check(HistoryRequest::None, &[]);
        check(HistoryRequest::Newest(0), &[]);
        check(HistoryRequest::Newest(2), &[4, 5]);
        check(HistoryRequest::Newest(9), &[3, 4, 5]);
        check(HistoryRequest::After(0), &[3, 4, 5]);
        check(HistoryRequest::After(2), &[3, 4, 5]);
        check(HistoryRequest::After(4), &[5]);
        check(HistoryRequest::After(5), &[]);
        check(HistoryRequest::After(u64::MAX), &[]);
    }

    #[test]
    fn room_pushes_out_history_but_never_the_publication_itself() {
        let all = HistoryRequest::Newest(usize::MAX);
        assert_eq!(history_after(&[KEEP_ALL; 4], 2 * cost(), all), [3, 4]);
        assert_eq!(history_after(&[KEEP_ALL; 4], cost(), all), [4]);

        let check = |retention, accepted| {
            let now = Instant::now();
            let mut retained = Retained::new(now);
            let topic = Topic::new("t").unwrap();
            let publication = Publication::new(topic, retained.next_position(), 1, b"1");
            let outcome = retained.append(&Arc::new(publication), retention, cost() - 1, now);
            assert_eq!(outcome, accepted, "{retention:?}");
            assert_eq!(retained.position.offset, u64::from(accepted));
        };
        check(KEEP_ALL, false);
        check(Retention { value: false, ..KEEP_ALL }, false);
        check(Retention { history: 0, ..KEEP_ALL }, false);
        check(Retention { value: false, history: 0, ..KEEP_ALL }, true);
        check(Retention { value: false, history_age: Duration::ZERO, ..KEEP_ALL }, true);
    }

    #[test]
    fn a_topic_without_history_stays_small() {
        assert_eq!(size_of::<Retained>(), 48);
    }
}
