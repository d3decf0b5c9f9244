//! How publications travel and how they are kept: a short text header before each payload.
//!
//! ```text
//! record        = "1" time-ms " " payload-bytes "\n" payload
//! envelope      = "1" epoch " " first-offset "\n" record…          what a topic's channel carries
//! history entry = offset " " seconds " " microseconds " " age-ms "\n" record
//!                                                                  what a history list holds
//! comparison    = "C" batch ("\n" topic " " epoch " " offset)…     what a node's channel carries, beside probes
//! ```
//!
//! The records of an envelope have consecutive offsets. The leading `1` is the version. Records are made by nodes;
//! everything else is put around them by the scripts. A probe is an envelope with one record whose payload is a number.
//! Nothing read here is trusted: it comes from a Redis that others may write to.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tickcast_protocol::{Epoch, Position, Publication, Topic};

/// First byte of records and envelopes.
const VERSION: u8 = b'1';

/// First byte of a comparison.
const COMPARISON: u8 = b'C';

/// Longest header. The longest one that is written has 62 bytes.
const HEADER_BYTES_MAX: usize = 80;

/// Offsets stay below this: the scripts count in double precision.
const OFFSET_MAX: u64 = 1 << 53;

/// Why bytes from Redis are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It was written by another version of Tickcast, or by something else.
    #[error("its version byte is {0:#04x}")]
    Version(u8),
    /// A header does not end, lacks a part, or a part is not what belongs there.
    #[error("its {0} cannot be read")]
    Header(&'static str),
    /// A payload is shorter than its header says.
    #[error("its payload is cut short")]
    Short,
    /// Something comes after the end.
    #[error("it has {0} bytes too many")]
    Long(usize),
}

/// A publication without its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) time_ms: u64,
    pub(crate) data: &'a [u8],
}

impl<'a> Record<'a> {
    /// Writes the record to `out`.
    pub(crate) fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "1{} {}", self.time_ms, self.data.len())?;
        out.write_all(self.data)
    }

    /// Reads `bytes` that hold one record and nothing else.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (record, rest) = Self::split(bytes)?;
        if rest.is_empty() { Ok(record) } else { Err(EnvelopeError::Long(rest.len())) }
    }

    /// Reads the record at the beginning of `bytes`; also what follows it.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), EnvelopeError> {
        let (header, rest) = header(versioned(bytes)?, "record header")?;
        let (time, length) =
            header.split_once(' ').ok_or(EnvelopeError::Header("record header"))?;
        let time_ms = number(time, "time")?;
        let length = number(length, "payload length")?;
        let (data, rest) = rest.split_at_checked(length).ok_or(EnvelopeError::Short)?;
        Ok((Self { time_ms, data }, rest))
    }

    /// The publication at its place.
    pub(crate) fn publication(&self, topic: &Topic, position: Position) -> Publication {
        Publication::new(topic.clone(), position, self.time_ms, self.data)
    }
}

/// A run of publications of one topic, as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    /// Of the first record.
    position: Position,
    records: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the header. There is at least one record.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (header, records) = header(versioned(bytes)?, "envelope header")?;
        let position = parse_position(header)?;
        if records.is_empty() {
            return Err(EnvelopeError::Short);
        }
        Ok(Self { position, records })
    }

    /// The publications in order. After an error there is nothing more; what came before it is sound.
    pub(crate) fn publications(
        &self,
        topic: &'a Topic,
    ) -> impl Iterator<Item = Result<Arc<Publication>, EnvelopeError>> + use<'a> {
        let Self { mut position, mut records } = *self;
        std::iter::from_fn(move || {
            if records.is_empty() {
                return None;
            }
            match Record::split(records) {
                Ok((record, rest)) => {
                    records = rest;
                    let publication = record.publication(topic, position);
                    position.offset += 1;
                    Some(Ok(Arc::new(publication)))
                }
                Err(error) => {
                    records = &[];
                    Some(Err(error))
                }
            }
        })
    }
}

/// One element of a history list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) offset: u64,
    /// When it was published, by the clock of Redis, since 1970.
    pub(crate) at: Duration,
    /// How long it may be kept.
    pub(crate) age_max: Duration,
    pub(crate) record: Record<'a>,
}

impl<'a> Entry<'a> {
    /// Reads `bytes` that hold one entry and nothing else.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (header, record) = header(bytes, "entry header")?;
        let mut parts = header.split(' ');
        let mut part = |name| number(parts.next().unwrap_or_default(), name);
        let offset = part("offset")?;
        let at = clock(part("seconds")?, part("microseconds")?)
            .ok_or(EnvelopeError::Header("entry time"))?;
        let age_max = Duration::from_millis(part("age")?);
        if parts.next().is_some() {
            return Err(EnvelopeError::Header("entry header"));
        }
        Ok(Self { offset, at, age_max, record: Record::decode(record)? })
    }
}

/// What a node's own channel carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NodeMessage<'a> {
    /// The probe with this number.
    Probe(u64),
    /// Positions to compare.
    Comparison(Comparison<'a>),
}

impl<'a> NodeMessage<'a> {
    /// Tells the two apart by the first byte and reads the message.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.first() == Some(&COMPARISON) {
            return Ok(Self::Comparison(Comparison::decode(bytes)?));
        }
        let record = Record::decode(Envelope::decode(bytes)?.records)?;
        let text = std::str::from_utf8(record.data).unwrap_or_default();
        Ok(Self::Probe(number(text, "probe number")?))
    }
}

/// Positions at which Redis stood when it answered a comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison<'a> {
    /// As the asking node numbered it.
    pub(crate) batch: u64,
    lines: &'a str,
}

impl<'a> Comparison<'a> {
    /// Reads the header.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        match bytes {
            [] => Err(EnvelopeError::Empty),
            [COMPARISON, text @ ..] => {
                let text =
                    std::str::from_utf8(text).ok().ok_or(EnvelopeError::Header("comparison"))?;
                let (batch, lines) = text.split_once('\n').unwrap_or((text, ""));
                Ok(Self { batch: number(batch, "batch number")?, lines })
            }
            [version, ..] => Err(EnvelopeError::Version(*version)),
        }
    }

    /// The topics and their positions.
    pub(crate) fn positions(
        &self,
    ) -> impl Iterator<Item = Result<(&'a str, Position), EnvelopeError>> + use<'a> {
        // An empty text has one line by `split`, and none by this.
        let lines = (!self.lines.is_empty()).then(|| self.lines.split('\n'));
        lines.into_iter().flatten().map(|line| {
            let (topic, rest) = line.split_once(' ').ok_or(EnvelopeError::Header("topic"))?;
            Ok((topic, parse_position(rest)?))
        })
    }
}

/// What follows the version byte.
fn versioned(bytes: &[u8]) -> Result<&[u8], EnvelopeError> {
    match bytes {
        [] => Err(EnvelopeError::Empty),
        [VERSION, rest @ ..] => Ok(rest),
        [version, ..] => Err(EnvelopeError::Version(*version)),
    }
}

/// The text up to the first line feed, and what follows that.
fn header<'a>(bytes: &'a [u8], name: &'static str) -> Result<(&'a str, &'a [u8]), EnvelopeError> {
    let error = EnvelopeError::Header(name);
    let searched = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let end = searched.iter().position(|byte| *byte == b'\n').ok_or(error)?;
    let text = std::str::from_utf8(&bytes[..end]).ok().ok_or(error)?;
    Ok((text, &bytes[end + 1..]))
}

/// Reads an epoch and an offset.
pub(super) fn parse_position(text: &str) -> Result<Position, EnvelopeError> {
    let (epoch, offset) = text.split_once(' ').ok_or(EnvelopeError::Header("position"))?;
    let epoch = epoch.parse::<Epoch>().ok().ok_or(EnvelopeError::Header("epoch"))?;
    let offset = number(offset, "offset")?;
    if offset < OFFSET_MAX {
        Ok(Position { epoch, offset })
    } else {
        Err(EnvelopeError::Header("offset"))
    }
}

/// What `TIME` of Redis tells, since 1970.
pub(super) fn clock(seconds: u64, micros: u64) -> Option<Duration> {
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}

/// A number in plain decimal digits; the standard library would also take a sign.
fn number<T: FromStr>(text: &str, name: &'static str) -> Result<T, EnvelopeError> {
    let error = EnvelopeError::Header(name);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error);
    }
    text.parse().ok().ok_or(error)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes(record: Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.write_to(&mut bytes).unwrap();
        bytes
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    /// As the script puts it together.
    fn envelope(position: Position, records: &[Record<'_>]) -> Vec<u8> {
        let mut envelope = format!("1{} {}\n", position.epoch, position.offset).into_bytes();
        records.iter().for_each(|record| envelope.extend(bytes(*record)));
        envelope
    }

    fn position() -> impl Strategy<Value = Position> {
        (any::<u64>(), 0..OFFSET_MAX)
            .prop_map(|(epoch, offset)| Position { epoch: Epoch::new(epoch), offset })
    }

    proptest! {
        #[test]
        fn envelopes_round_trip(
            position in position(),
            payloads in vec((any::<u64>(), vec(any::<u8>(), 0..200)), 1..20),
        ) {
            let records: Vec<_> =
                payloads.iter().map(|(time_ms, data)| Record { time_ms: *time_ms, data }).collect();
            let bytes = envelope(position, &records);
            let decoded = Envelope::decode(&bytes).unwrap();
            prop_assert_eq!(decoded.position, position);
            let topic = topic();
            let publications: Vec<_> = decoded.publications(&topic).map(Result::unwrap).collect();
            prop_assert_eq!(publications.len(), records.len());
            for ((publication, record), place) in publications.iter().zip(&records).zip(0..) {
                prop_assert_eq!(publication.position().epoch, position.epoch);
                prop_assert_eq!(publication.offset(), position.offset + place);
                prop_assert_eq!(publication.time_ms(), record.time_ms);
                prop_assert_eq!(publication.data(), record.data);
            }
        }

        #[test]
        fn entries_round_trip(
            offset in 0..OFFSET_MAX, at_us in 0..u64::MAX >> 8, age_ms in 0..u64::MAX >> 1,
            time_ms: u64, data in vec(any::<u8>(), 0..200),
        ) {
            let record = Record { time_ms, data: &data };
            let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
            let mut entry = format!("{offset} {seconds} {micros} {age_ms}\n").into_bytes();
            entry.extend(bytes(record));
            let at = Duration::from_micros(at_us);
            let age_max = Duration::from_millis(age_ms);
            prop_assert_eq!(Entry::decode(&entry), Ok(Entry { offset, at, age_max, record }));
        }

        #[test]
        fn comparisons_round_trip(
            batch: u64,
            positions in vec(("[a-z.:/=@-]{1,20}", position()), 0..20),
        ) {
            let lines = positions
                .iter()
                .map(|(topic, position)| format!("\n{topic} {} {}", position.epoch, position.offset));
            let text = format!("C{batch}{}", lines.collect::<String>());
            let decoded = Comparison::decode(text.as_bytes()).unwrap();
            prop_assert_eq!(decoded.batch, batch);
            let found: Vec<_> = decoded.positions().map(Result::unwrap).collect();
            let expected: Vec<_> =
                positions.iter().map(|(topic, position)| (topic.as_str(), *position)).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..200), text: String) {
            decode_all(&bytes);
            decode_all(text.as_bytes());
            for first in *b"1C" {
                bytes.insert(0, first);
                decode_all(&bytes);
            }
        }

        #[test]
        fn no_damage_makes_it_panic(
            data in vec(any::<u8>(), 0..50), at: prop::sample::Index, byte: u8, end: prop::sample::Index,
        ) {
            let record = Record { time_ms: 1_795_525_552_123, data: &data };
            let position = Position { epoch: Epoch::new(937_557), offset: 41 };
            let entry = [b"41 1795525552 123456 300000\n".to_vec(), bytes(record)].concat();
            let comparison = b"C7\nstocks.AAPL k3f9 41\nnba k3f9 0".to_vec();
            for mut bytes in [envelope(position, &[record, record]), entry, comparison] {
                let place = at.index(bytes.len());
                bytes[place] = byte;
                decode_all(&bytes);
                bytes.truncate(end.index(bytes.len() + 1));
                decode_all(&bytes);
            }
        }
    }

    fn decode_all(bytes: &[u8]) {
        let topic = topic();
        if let Ok(envelope) = Envelope::decode(bytes) {
            assert!(envelope.publications(&topic).count() > 0);
        }
        if let Ok(comparison) = Comparison::decode(bytes) {
            black_box(comparison.positions().count());
        }
        black_box((
            NodeMessage::decode(bytes).is_ok(),
            Entry::decode(bytes).is_ok(),
            Record::decode(bytes).is_ok(),
        ));
    }

    #[test]
    fn the_bytes_never_change() {
        let record = Record { time_ms: 1_795_525_552_123, data: b"{\"price\":1}" };
        assert_eq!(bytes(record), b"11795525552123 11\n{\"price\":1}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let envelope = |bytes: &str| {
            let topic = topic();
            let envelope = Envelope::decode(bytes.as_bytes())?;
            envelope
                .publications(&topic)
                .map(|one| one.map(|one| one.offset()))
                .collect::<Result<Vec<_>, _>>()
        };
        let table: [(&str, Result<Vec<u64>, EnvelopeError>); 14] = [
            ("1k3f9 7\n15 2\nok", Ok(vec![7])),
            ("1k3f9 7\n15 1\na16 0\n17 1\nb", Ok(vec![7, 8, 9])),
            ("", Err(EnvelopeError::Empty)),
            ("2k3f9 7\n15 2\nok", Err(EnvelopeError::Version(b'2'))),
            ("C7", Err(EnvelopeError::Version(b'C'))),
            ("1k3f9 7", Err(EnvelopeError::Header("envelope header"))),
            ("1k3f9\n15 2\nok", Err(EnvelopeError::Header("position"))),
            ("1K3F9 7\n15 2\nok", Err(EnvelopeError::Header("epoch"))),
            ("1k3f9 +7\n15 2\nok", Err(EnvelopeError::Header("offset"))),
            ("1k3f9 9007199254740992\n15 2\nok", Err(EnvelopeError::Header("offset"))),
            ("1k3f9 7\n", Err(EnvelopeError::Short)),
            ("1k3f9 7\n15 3\nok", Err(EnvelopeError::Short)),
            ("1k3f9 7\n15 1\nok", Err(EnvelopeError::Version(b'k'))),
            ("1k3f9 7\n15 99999999999999999999\nok", Err(EnvelopeError::Header("payload length"))),
        ];
        for (bytes, expected) in table {
            assert_eq!(envelope(bytes), expected, "{bytes}");
        }
        assert_eq!(Record::decode(b"15 1\nok"), Err(EnvelopeError::Long(1)));

        let entry = |bytes: &str| Entry::decode(bytes.as_bytes()).map(|entry| entry.offset);
        assert_eq!(entry("7 1 2 3\n15 2\nok"), Ok(7));
        assert_eq!(entry("7 1 2\n15 2\nok"), Err(EnvelopeError::Header("age")));
        assert_eq!(entry("7 1 2 3 4\n15 2\nok"), Err(EnvelopeError::Header("entry header")));
        let late = format!("7 {0} {0} 3\n15 2\nok", u64::MAX);
        assert_eq!(entry(&late), Err(EnvelopeError::Header("entry time")));
    }

    #[test]
    fn a_probe_is_one_record_with_a_number() {
        let probe = |bytes: &str| match NodeMessage::decode(bytes.as_bytes()) {
            Ok(NodeMessage::Probe(number)) => Ok(number),
            Ok(NodeMessage::Comparison(_)) => panic!("{bytes}"),
            Err(error) => Err(error),
        };
        assert_eq!(probe("1k3f9 7\n10 2\n42"), Ok(42));
        assert_eq!(probe("1k3f9 7\n10 2\n4x"), Err(EnvelopeError::Header("probe number")));
        assert_eq!(probe("1k3f9 7\n10 0\n"), Err(EnvelopeError::Header("probe number")));
        assert_eq!(probe("1k3f9 7\n10 1\n410 1\n2"), Err(EnvelopeError::Long(6)));
    }
}
