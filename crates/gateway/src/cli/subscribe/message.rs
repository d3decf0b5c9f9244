//! Messages of a gateway, read in two steps: the keys that exist, then what they mean together.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tickcast_protocol::{Epoch, Mode};

/// A message.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    Publication(Publication<'a>),
    Subscribed {
        topics: Vec<Acknowledged<'a>>,
        errors: Vec<Rejected<'a>>,
    },
    Gap {
        topic: &'a str,
        from: u64,
        to: u64,
        reason: &'a str,
    },
    Reset {
        topic: &'a str,
        epoch: Epoch,
        offset: u64,
        reason: &'a str,
    },
    Status {
        broker: &'a str,
    },
    Goaway {
        reconnect_in_ms: u64,
    },
    Error {
        code: &'a str,
        message: Cow<'a, str>,
    },
    /// A reply that needs no attention.
    Other,
}

/// A publication.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) topic: &'a str,
    pub(super) offset: u64,
    /// The publishing node's clock in ms since 1970.
    pub(super) time: Option<i64>,
    /// The payload's JSON text.
    pub(super) data: &'a str,
}

/// A topic that is subscribed.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Acknowledged<'a> {
    pub(super) topic: &'a str,
    #[serde(deserialize_with = "epoch")]
    pub(super) epoch: Epoch,
    pub(super) offset: u64,
    pub(super) mode: Mode,
}

/// A topic that is not subscribed.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Rejected<'a> {
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    pub(super) code: &'a str,
    #[serde(borrow, default)]
    pub(super) message: Cow<'a, str>,
}

/// Every key of every message.
#[derive(Deserialize)]
struct Keys<'a> {
    r#type: Option<&'a str>,
    topic: Option<&'a str>,
    offset: Option<u64>,
    time: Option<i64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    topics: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Vec<Rejected<'a>>,
    from: Option<u64>,
    to: Option<u64>,
    reason: Option<&'a str>,
    epoch: Option<&'a str>,
    broker: Option<&'a str>,
    reconnect_in_ms: Option<u64>,
    code: Option<&'a str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

impl<'a> Message<'a> {
    /// Reads a message; `None` if it is not one.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let keys: Keys<'a> = serde_json::from_slice(text).ok()?;
        Some(match keys.r#type {
            None => Self::Publication(Publication {
                topic: keys.topic?,
                offset: keys.offset?,
                time: keys.time,
                data: keys.data?.get(),
            }),
            Some("subscribed") => Self::Subscribed {
                topics: serde_json::from_str(keys.topics?.get()).ok()?,
                errors: keys.errors,
            },
            Some("gap") => Self::Gap {
                topic: keys.topic?,
                from: keys.from?,
                to: keys.to?,
                reason: keys.reason.unwrap_or_default(),
            },
            Some("reset") => Self::Reset {
                topic: keys.topic?,
                epoch: keys.epoch?.parse().ok()?,
                offset: keys.offset?,
                reason: keys.reason.unwrap_or_default(),
            },
            Some("status") => Self::Status { broker: keys.broker? },
            Some("goaway") => Self::Goaway { reconnect_in_ms: keys.reconnect_in_ms? },
            Some("error") => Self::Error { code: keys.code?, message: keys.message },
            Some(_) => Self::Other,
        })
    }
}

fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
    <&str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use tickcast_protocol::{AckPosition, ErrorCode, Rejection, ServerMessage, Subscribed, Topic};

    use super::*;

    fn check(message: &ServerMessage<'_>, expected: &Message<'_>) {
        let json = message.to_json();
        assert_eq!(
            Message::parse(&json).as_ref(),
            Some(expected),
            "{}",
            String::from_utf8_lossy(&json)
        );
    }

    #[test]
    fn what_a_node_writes_is_understood() {
        let topic = &Topic::new("stocks.AAPL").unwrap();
        let epoch = "k3f9".parse().unwrap();
        let subscribed = Subscribed {
            topic: topic.clone(),
            position: AckPosition { epoch, offset: 1042 },
            mode: Mode::Latest,
            max_rate: None,
        };
        let rejection = Rejection {
            topic: "a\"b".to_owned(),
            code: ErrorCode::BadTopic,
            message: "no \"quotes\"".to_owned(),
        };
        check(
            &ServerMessage::Subscribed { id: None, topics: &[subscribed], errors: &[rejection] },
            &Message::Subscribed {
                topics: vec![Acknowledged {
                    topic: "stocks.AAPL",
                    epoch,
                    offset: 1042,
                    mode: Mode::Latest,
                }],
                errors: vec![Rejected {
                    topic: "a\"b".into(),
                    code: "bad_topic",
                    message: "no \"quotes\"".into(),
                }],
            },
        );
        check(
            &ServerMessage::Gap {
                topic,
                from: 2,
                to: 5,
                reason: tickcast_protocol::GapReason::Lost,
            },
            &Message::Gap { topic: "stocks.AAPL", from: 2, to: 5, reason: "lost" },
        );
        let reason = tickcast_protocol::ResetReason::BrokerRestart;
        check(
            &ServerMessage::Reset { topic, epoch, offset: 3, reason },
            &Message::Reset { topic: "stocks.AAPL", epoch, offset: 3, reason: "broker_restart" },
        );
        check(&ServerMessage::Status { broker: "down" }, &Message::Status { broker: "down" });
        check(
            &ServerMessage::Goaway { reconnect_in_ms: 7 },
            &Message::Goaway { reconnect_in_ms: 7 },
        );
        check(
            &ServerMessage::Error { id: None, code: ErrorCode::BadJson, message: "m" },
            &Message::Error { code: "bad_json", message: "m".into() },
        );
        check(&ServerMessage::Pong { id: None }, &Message::Other);
    }

    #[test]
    fn payloads_are_kept_as_they_are() {
        let text = br#"{"topic":"t","offset":7,"time":1795525552123,"data":{"px": 1.10,"big":12345678901234567890}}"#;
        let data = r#"{"px": 1.10,"big":12345678901234567890}"#;
        let publication =
            Publication { topic: "t", offset: 7, time: Some(1_795_525_552_123), data };
        assert_eq!(Message::parse(text), Some(Message::Publication(publication)));
        for bad in ["", "[]", "{}", "{\"topic\":\"t\"}", "{\"type\":\"gap\"}", "x"] {
            assert_eq!(Message::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
