//! What a read found, as the rest of the crate knows it.

use std::sync::Arc;

use tickcast_protocol::{Position, Topic};

use super::super::envelope::{Entry, Record};
use super::super::scripts::ReadTopic;
use crate::{HistoryRequest, TopicState};

/// Puts together what the read script found.
///
/// An entry counts as long as it is younger than its own greatest age and than that of the newest entry, by the clock of
/// Redis. The history is the run of such entries, without holes, that ends at the topic's last offset.
/// Anything else in the list is a remainder: of an age that was shortened, of a time when the topic kept none, of
/// another version of Tickcast. A value that cannot be read counts as none.
pub(super) fn topic_state(
    topic: &Topic,
    found: &ReadTopic<'_>,
    request: HistoryRequest,
) -> TopicState {
    let position = found.position;
    let publication = |record: Record<'_>, offset| {
        Arc::new(record.publication(topic, Position { offset, ..position }))
    };
    let value = match found.value {
        [] => None,
        bytes => Record::decode(bytes)
            .inspect_err(|error| tracing::debug!(%topic, %error, "a value cannot be read"))
            .ok()
            .map(|record| publication(record, position.offset)),
    };
    let first = match request {
        HistoryRequest::After(offset) => offset.saturating_add(1),
        HistoryRequest::None | HistoryRequest::Newest(_) => 0,
    };
    let mut history: Vec<_> = current(found)
        .take_while(|entry| entry.offset >= first)
        .map(|entry| publication(entry.record, entry.offset))
        .collect();
    history.reverse();
    TopicState { position, value, history }
}

/// The entries that count, newest first.
fn current<'a>(found: &ReadTopic<'a>) -> impl Iterator<Item = Entry<'a>> + use<'a> {
    let now = found.now;
    let mut expected = Some(found.position.offset);
    let mut age_max = None;
    found.entries().rev().map_while(move |bytes| {
        let entry = Entry::decode(bytes).ok()?;
        let age_max = *age_max.get_or_insert(entry.age_max);
        let is_young = now.saturating_sub(entry.at) < entry.age_max.min(age_max);
        let is_next = expected == Some(entry.offset);
        expected = entry.offset.checked_sub(1);
        (is_young && is_next).then_some(entry)
    })
}
