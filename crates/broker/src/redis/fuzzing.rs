//! Doors for fuzzing: the real readers of what comes from Redis, with plain values on both sides.
//!
//! Only in builds with the feature `testing`, and no part of the API: the checks in `fuzz/checks` come in here.

use std::sync::Arc;
use std::time::Duration;

use tickcast_protocol::{Position, Publication, Topic};

use super::envelope::{Comparison, Entry, Envelope, NodeMessage, Record, parse_position};
use super::names::Names;

/// What a topic's channel carried.
#[derive(Debug)]
pub struct Run {
    /// The publications before the first error.
    pub publications: Vec<Arc<Publication>>,
    /// Whether there was no error.
    pub is_whole: bool,
}

/// Reads an envelope; none if it has no header.
pub fn read_envelope(bytes: &[u8], topic: &Topic) -> Option<Run> {
    let envelope = Envelope::decode(bytes).ok()?;
    let mut run = Run { publications: Vec::new(), is_whole: true };
    for publication in envelope.publications(topic) {
        match publication {
            Ok(publication) => run.publications.push(publication),
            Err(_) => run.is_whole = false,
        }
    }
    Some(run)
}

/// Writes a record, as a node does.
///
/// # Errors
/// None: a vector takes everything.
pub fn write_record(time_ms: u64, data: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    Record { time_ms, data }.write_to(out)
}

/// Reads a record: its time and payload.
pub fn read_record(bytes: &[u8]) -> Option<(u64, &[u8])> {
    Record::decode(bytes).ok().map(|record| (record.time_ms, record.data))
}

/// An element of a history list.
#[derive(Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its offset.
    pub offset: u64,
    /// When it was published, since 1970.
    pub at: Duration,
    /// How long it may be kept.
    pub age_max: Duration,
    /// Its record, as by [`read_record`].
    pub record: (u64, &'a [u8]),
}

/// Reads an element of a history list.
pub fn read_element(bytes: &[u8]) -> Option<Element<'_>> {
    let Entry { offset, at, age_max, record } = Entry::decode(bytes).ok()?;
    Some(Element { offset, at, age_max, record: (record.time_ms, record.data) })
}

/// What a node's own channel carried.
#[derive(Debug, PartialEq, Eq)]
pub enum Own<'a> {
    /// The probe with this number.
    Probe(u64),
    /// A comparison: its number, and each topic with its position, or none for a line that cannot be read.
    Comparison(u64, Vec<Option<(&'a str, Position)>>),
}

/// Reads what a node's own channel carries.
pub fn read_own(bytes: &[u8]) -> Option<Own<'_>> {
    match NodeMessage::decode(bytes).ok()? {
        NodeMessage::Probe(number) => Some(Own::Probe(number)),
        NodeMessage::Comparison(comparison) => Some(read_comparison(&comparison)),
    }
}

fn read_comparison<'a>(comparison: &Comparison<'a>) -> Own<'a> {
    Own::Comparison(comparison.batch, comparison.positions().map(Result::ok).collect())
}

/// Reads a position as the scripts write it.
pub fn read_position(text: &str) -> Option<Position> {
    parse_position(text).ok()
}

/// The topic of a channel, with the usual prefix, and the channel that this topic has.
pub fn read_channel(channel: &[u8]) -> Option<(Topic, String)> {
    let names = Names::new("tickcast");
    let topic = Topic::new(names.topic_of(channel)?).ok()?;
    let name = names.channel(&topic);
    Some((topic, name))
}
