//! What a client reads from its socket: WebSocket frames, and the messages inside them.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use tickcast_protocol::Epoch;

/// A message of the node, as far as a client cares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    Subscribed { id: u64, topics: Vec<Acked>, errors: Vec<Refused> },
    Unsubscribed { id: u64, topics: Vec<String> },
    Publication { topic: String, offset: u64, data: String },
    Gap { topic: String, from: u64, to: u64, reason: String },
    Reset { topic: String, epoch: Epoch, offset: u64, reason: String },
    Error { id: u64, code: String },
}

/// One topic of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acked {
    pub(crate) topic: String,
    #[serde(deserialize_with = "epoch")]
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) mode: String,
    pub(crate) max_rate: Option<f64>,
}

/// One refused name of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    pub(crate) topic: String,
    pub(crate) code: String,
    #[serde(rename = "message")]
    _message: String,
}

/// Every key that the node writes; another one fails the test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    id: Option<u64>,
    topic: Option<String>,
    #[serde(borrow)]
    topics: Option<&'a RawValue>,
    errors: Option<Vec<Refused>>,
    epoch: Option<&'a str>,
    offset: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    #[serde(rename = "time")]
    _time: Option<u64>,
    reason: Option<String>,
    code: Option<String>,
    #[serde(rename = "message")]
    _message: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn epoch<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Frame {
    /// The first message in `bytes` and the bytes that it takes; none while it is incomplete.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (start, length) = match *bytes {
            [first, ..] if first != 0x81 => panic!("not a final text frame: {first:#x}"),
            [_, short @ 0..126, ..] => (2, usize::from(short)),
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (10, usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).unwrap())
            }
            [_, 128..=255, ..] => panic!("masked by a server"),
            _ => return None,
        };
        let text = std::str::from_utf8(bytes.get(start..start + length)?).unwrap();
        Some((Self::parse(text), start + length))
    }

    fn parse(text: &str) -> Self {
        let wire: Wire<'_> =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let topics = wire.topics.map_or("[]", RawValue::get);
        match wire.kind {
            None => Self::Publication {
                topic: wire.topic.unwrap(),
                offset: wire.offset.unwrap(),
                data: wire.data.unwrap().get().to_owned(),
            },
            Some("subscribed") => Self::Subscribed {
                id: wire.id.unwrap(),
                topics: serde_json::from_str(topics).unwrap(),
                errors: wire.errors.unwrap(),
            },
            Some("unsubscribed") => Self::Unsubscribed {
                id: wire.id.unwrap(),
                topics: serde_json::from_str(topics).unwrap(),
            },
            Some("gap") => Self::Gap {
                topic: wire.topic.unwrap(),
                from: wire.from.unwrap(),
                to: wire.to.unwrap(),
                reason: wire.reason.unwrap(),
            },
            Some("reset") => Self::Reset {
                topic: wire.topic.unwrap(),
                epoch: wire.epoch.unwrap().parse().unwrap(),
                offset: wire.offset.unwrap(),
                reason: wire.reason.unwrap(),
            },
            Some("error") => Self::Error { id: wire.id.unwrap(), code: wire.code.unwrap() },
            Some(other) => panic!("unexpected {other}: {text}"),
        }
    }
}

/// The short form that scenarios are written in: `ok 1: t@a/3 all`, `t 3`, `gap t 4-6 lost`, `reset t@b/1 broker_restart`.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribed { id, topics, errors } => {
                write!(f, "ok {id}:")?;
                for Acked { topic, epoch, offset, mode, max_rate } in topics {
                    write!(f, " {topic}@{epoch}/{offset} {mode}")?;
                    max_rate.map_or(Ok(()), |hz| write!(f, " {hz}"))?;
                }
                errors.iter().try_for_each(|error| write!(f, " !{} {}", error.topic, error.code))
            }
            Self::Unsubscribed { id, topics } => write!(f, "bye {id}: {}", topics.join(" ")),
            Self::Publication { topic, offset, .. } => write!(f, "{topic} {offset}"),
            Self::Gap { topic, from, to, reason } => write!(f, "gap {topic} {from}-{to} {reason}"),
            Self::Reset { topic, epoch, offset, reason } => {
                write!(f, "reset {topic}@{epoch}/{offset} {reason}")
            }
            Self::Error { id, code } => write!(f, "error {id} {code}"),
        }
    }
}
