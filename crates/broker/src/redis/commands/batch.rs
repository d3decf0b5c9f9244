//! The items of one request, laid out for the publish script and settled by its replies.
//!
//! Items are grouped by topic, because only within a topic does their order mean anything, and items of one topic that
//! come together cost Redis little more than one. Groups are cut into runs of items that are retained alike, and runs are
//! gathered into chunks: one call of the script each.

use std::ops::Range;

use tickcast_protocol::Position;

use super::renewals;
use crate::redis::envelope::Record;
use crate::redis::link::Refusal;
use crate::redis::names::Names;
use crate::redis::scripts::{self, Line, RUN_ITEMS_MAX, RunItem, Unexpected};
use crate::{PublishError, PublishItem, Published};

/// Items in one call of the script: Redis does nothing else meanwhile.
const CHUNK_ITEMS_MAX: usize = 64;

/// Bytes of payload in one call of the script; a single item may have more.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// What an item costs in flight beside its payload: about what its names and options take.
const ITEM_OVERHEAD_BYTES: usize = 256;

/// An answer to an item.
pub(super) type Answer = Result<Published, PublishError>;

/// The items of one request.
#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<PublishItem>,
    /// The indices of the items, those of one topic together and in their order.
    order: Vec<usize>,
    chunks: Vec<Chunk>,
    time_ms: u64,
}

/// One call of the script.
#[derive(Debug, Default)]
struct Chunk {
    runs: Vec<Span>,
    items: usize,
    bytes: usize,
}

/// The part of `order` that makes a run.
#[derive(Debug)]
struct Span {
    range: Range<usize>,
    renew: bool,
}

impl Batch {
    /// Lays the items out. `renew` decides for each run whether it renews times to live.
    pub(super) fn new(
        items: Vec<PublishItem>,
        time_ms: u64,
        renew: impl Fn(&PublishItem) -> bool,
    ) -> Self {
        let order = group(&items);
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut last: Option<&PublishItem> = None;
        for (place, &index) in order.iter().enumerate() {
            let item = &items[index];
            if chunks.last().is_none_or(|chunk| !chunk.has_room(item)) {
                chunks.push(Chunk::default());
                last = None;
            }
            let Some(chunk) = chunks.last_mut() else { break };
            match chunk.runs.last_mut() {
                Some(run) if last.is_some_and(|last| belong_together(last, item)) => {
                    run.range.end += 1;
                }
                _ => chunk.runs.push(Span { range: place..place + 1, renew: renew(item) }),
            }
            chunk.items += 1;
            chunk.bytes += item.data.len();
            last = Some(item);
        }
        Self { items, order, chunks, time_ms }
    }

    /// What the request takes in flight.
    pub(super) fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.data.len() + ITEM_OVERHEAD_BYTES).sum()
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The runs of a chunk, for the script.
    pub(super) fn runs(&self, chunk: usize, names: &Names) -> Vec<scripts::Run<'_>> {
        self.chunks[chunk].runs.iter().map(|span| self.run(span, names)).collect()
    }

    fn run(&self, span: &Span, names: &Names) -> scripts::Run<'_> {
        let first = &self.items[self.order[span.range.start]];
        let items = self.order[span.range.clone()].iter().map(|&index| {
            let PublishItem { topic, data, key, .. } = &self.items[index];
            let record = Record { time_ms: self.time_ms, data };
            RunItem { record, answer_key: key.as_ref().map(|key| names.answer(topic, key)) }
        });
        scripts::Run {
            topic_key: names.topic(&first.topic),
            channel: names.channel(&first.topic),
            retention: first.retention,
            history: keeps_history(first).then(|| {
                (
                    names.history(&first.topic),
                    first.retention.history_age.saturating_add(renewals::INTERVAL),
                )
            }),
            renew: span.renew,
            keyed: first.key.is_some(),
            items: items.collect(),
        }
    }

    /// Gives every item of a chunk the same answer.
    pub(super) fn settle_all(&self, chunk: usize, error: PublishError, answers: &mut [Answer]) {
        for span in &self.chunks[chunk].runs {
            for &index in &self.order[span.range.clone()] {
                answers[index] = Err(error);
            }
        }
    }

    /// Gives the items of a chunk their answers by the lines of the script's reply. Returns a refusal, if there was one.
    ///
    /// # Errors
    /// If the lines do not fit; what they do not answer for is left as it was.
    pub(super) fn settle<'a>(
        &self,
        chunk: usize,
        mut lines: impl Iterator<Item = &'a str>,
        answers: &mut [Answer],
    ) -> Result<Option<Refusal>, Unexpected> {
        let mut refusal = None;
        for span in &self.chunks[chunk].runs {
            let indices = &self.order[span.range.clone()];
            let keyed = self.items[indices[0]].key.is_some();
            let mut line = Line::parse(lines.next().ok_or(Unexpected)?)?;
            refusal = refusal_of(line).or(refusal);
            // Items with keys have a line each, unless the run failed; items without share one.
            let shared = !keyed || refusal_of(line).is_some();
            for (place, &index) in (0..).zip(indices) {
                if !shared && place > 0 {
                    line = Line::parse(lines.next().ok_or(Unexpected)?)?;
                }
                answers[index] = answer(line, if shared { place } else { 0 });
            }
        }
        Ok(refusal)
    }
}

fn refusal_of(line: Line<'_>) -> Option<Refusal> {
    match line {
        Line::Refused(text) | Line::Failed(text) => Some(Refusal::from_text(text)),
        Line::Published(_) | Line::Duplicate(_) | Line::Conflict => None,
    }
}

/// The answer to the item `ahead` of the first one that the line is for.
fn answer(line: Line<'_>, ahead: u64) -> Answer {
    match line {
        Line::Published(Position { epoch, offset }) => {
            let position = Position { epoch, offset: offset + ahead };
            Ok(Published { position, duplicate: false })
        }
        Line::Duplicate(position) => Ok(Published { position, duplicate: true }),
        Line::Conflict => Err(PublishError::IdempotencyConflict),
        Line::Refused(_) => Err(PublishError::Unavailable),
        Line::Failed(_) => Err(PublishError::OutcomeUnknown),
    }
}

impl Chunk {
    fn has_room(&self, item: &PublishItem) -> bool {
        self.items < CHUNK_ITEMS_MAX && self.bytes + item.data.len() <= CHUNK_BYTES_MAX
            || self.items == 0
    }
}

const _: () = assert!(CHUNK_ITEMS_MAX <= RUN_ITEMS_MAX, "a run lies within a chunk");

/// The indices of the items, those of one topic together and in their order.
fn group(items: &[PublishItem]) -> Vec<usize> {
    if let [] | [_] = items {
        return (0..items.len()).collect();
    }
    // Should two topics have the same hash, their items stay as they were, in more runs than necessary.
    let hasher = ahash::RandomState::new();
    let mut order: Vec<_> =
        items.iter().enumerate().map(|(at, item)| (hasher.hash_one(&item.topic), at)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

fn belong_together(a: &PublishItem, b: &PublishItem) -> bool {
    a.topic == b.topic && a.retention == b.retention && a.key.is_some() == b.key.is_some()
}

fn keeps_history(item: &PublishItem) -> bool {
    let retention = item.retention;
    retention.history > 0 && retention.history_bytes > 0 && !retention.history_age.is_zero()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tickcast_protocol::Topic;

    use super::*;
    use crate::Retention;

    fn item(topic: &str, key: Option<&str>) -> PublishItem {
        let retention = Retention {
            value: true,
            history: 0,
            history_bytes: 0,
            history_age: std::time::Duration::ZERO,
        };
        let (topic, data) = (Topic::new(topic).unwrap(), Bytes::from_static(b"1"));
        PublishItem { topic, data, key: key.map(str::to_owned), retention }
    }

    /// Answers as text: offsets, `=` before duplicates, else the error.
    fn settle(items: &[PublishItem], reply: &str) -> (Vec<String>, bool) {
        let batch = Batch::new(items.to_vec(), 1, |_| true);
        let mut answers = vec![Err(PublishError::Full("untouched")); items.len()];
        let outcome = batch.settle(0, reply.split('|'), &mut answers);
        let texts = answers.into_iter().map(|answer| match answer {
            Ok(Published { position, duplicate: false }) => position.offset.to_string(),
            Ok(Published { position, duplicate: true }) => format!("={}", position.offset),
            Err(PublishError::Full(text)) => text.to_owned(),
            Err(error) => format!("{error:?}"),
        });
        (texts.collect(), outcome.is_ok())
    }

    #[test]
    fn lines_find_their_items() {
        let plain = [item("a", None), item("a", None)];
        let keyed = [item("a", Some("k")), item("a", Some("l")), item("a", Some("m"))];
        let mixed = [item("a", None), item("a", Some("k")), item("a", None)];
        let unknown = "OutcomeUnknown";
        let table: [(&[PublishItem], &str, &[&str], bool); 11] = [
            (&plain, "k3f9 7", &["7", "8"], true),
            (&plain, "-OOM", &["Unavailable", "Unavailable"], true),
            (&plain, "?ERR", &[unknown, unknown], true),
            (&plain, "", &["untouched", "untouched"], false),
            (&plain, "k3f9 x", &["untouched", "untouched"], false),
            (&keyed, "k3f9 7|=k3f9 2|!", &["7", "=2", "IdempotencyConflict"], true),
            (&keyed, "k3f9 7|k3f9 8", &["7", "8", "untouched"], false),
            (&keyed, "?ERR", &[unknown, unknown, unknown], true),
            (&mixed, "k3f9 7|k3f9 8|k3f9 9", &["7", "8", "9"], true),
            (&mixed, "k3f9 7|-OOM|k3f9 8", &["7", "Unavailable", "8"], true),
            (&mixed, "k3f9 7|?ERR", &["7", unknown, "untouched"], false),
        ];
        for (items, reply, expected, fits) in table {
            let expected = expected.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(settle(items, reply), (expected, fits), "{reply}");
        }
    }

    #[test]
    fn items_of_a_topic_come_together_in_their_order() {
        let names = ["b", "a", "c", "a", "b", "a"];
        let items: Vec<_> = names.iter().map(|name| item(name, None)).collect();
        let order = group(&items);
        for name in ["a", "b", "c"] {
            let places: Vec<_> = (0..6).filter(|&at| names[order[at]] == name).collect();
            assert_eq!(places.last().unwrap() - places[0], places.len() - 1, "{order:?}");
            assert!(places.windows(2).all(|pair| order[pair[0]] < order[pair[1]]), "{order:?}");
        }
    }
}
