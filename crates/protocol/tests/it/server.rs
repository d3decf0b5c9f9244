//! What a node says: `testdata/server.json`, one row per message and variant.

use serde::Serialize;
use tickcast_protocol::{
    Command, Epoch, ErrorCode, GapReason, Id, Mode, Position, Publication, Rate, Rejection,
    ResetReason, ServerMessage, Subscribed, Topic,
};

use crate::errors::ERRORS;
use crate::golden;

/// A text that a node writes.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    about: &'static str,
    pub(crate) text: String,
}

impl golden::Row for Row {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The kind of a message. A new one does not compile until it is here; then it needs rows.
const fn kind(message: &ServerMessage<'_>) -> &'static str {
    match message {
        ServerMessage::Subscribed { .. } => "subscribed",
        ServerMessage::Unsubscribed { .. } => "unsubscribed",
        ServerMessage::Published { .. } => "published",
        ServerMessage::Gap { .. } => "gap",
        ServerMessage::Reset { .. } => "reset",
        ServerMessage::Authenticated { .. } => "authenticated",
        ServerMessage::Status { .. } => "status",
        ServerMessage::Goaway { .. } => "goaway",
        ServerMessage::Error { .. } => "error",
        ServerMessage::Pong { .. } => "pong",
    }
}

fn row(variant: &str, about: &'static str, message: &ServerMessage<'_>) -> Row {
    let kind = kind(message);
    let text = String::from_utf8(message.to_json()).unwrap();
    assert!(text.starts_with(&format!("{{\"type\":\"{kind}\"")), "{text}");
    Row { name: format!("{kind}.{variant}"), about, text }
}

/// Every row, in the order of the file.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = subscribed_rows();
    rows.extend(rate_rows());
    rows.extend(refused_rows());
    rows.extend(unsubscribed_rows());
    rows.extend(published_rows());
    rows.extend(authenticated_rows());
    rows.extend(publication_rows());
    rows.extend(payload_rows());
    rows.extend(notice_rows());
    rows.extend(error_rows());
    rows
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) fn epoch(name: &str) -> Epoch {
    name.parse().unwrap()
}

fn subscribed(
    name: &str,
    (epoch_name, offset): (&str, u64),
    mode: Mode,
    hz: Option<f64>,
) -> Subscribed {
    let position = Position { epoch: epoch(epoch_name), offset };
    let max_rate = hz.map(|hz| Rate::from_hz(hz).unwrap());
    Subscribed { topic: topic(name), position: position.into(), mode, max_rate }
}

fn aapl() -> Subscribed {
    subscribed("stocks.AAPL", ("k3f9", 1042), Mode::All, None)
}

fn ack(
    variant: &str,
    about: &'static str,
    id: Option<&Id>,
    topics: &[Subscribed],
    errors: &[Rejection],
) -> Row {
    row(variant, about, &ServerMessage::Subscribed { id, topics, errors })
}

fn subscribed_rows() -> Vec<Row> {
    let lakers = subscribed("nba.LAL-BOS", ("p0aa", 87), Mode::Latest, Some(4.0));
    let fresh = subscribed("stocks.NEW", ("9x1c", 0), Mode::All, None);
    let (one, text) = (Id::Number(1), Id::Text("c0ffee-1".into()));
    let (one, text) = (Some(&one), Some(&text));
    vec![
        ack("one", "One topic.", one, &[aapl()], &[]),
        ack("two", "Two topics, one of them with a rate.", one, &[aapl(), lakers], &[]),
        ack("no_id", "For topics in the URL, or a command without `id`.", None, &[aapl()], &[]),
        ack("text_id", "An `id` may be text.", text, &[aapl()], &[]),
        ack("unpublished", "Offset 0: nothing was published yet.", one, &[fresh], &[]),
        ack("nothing", "The command named no topic.", one, &[], &[]),
    ]
}

fn rate_rows() -> Vec<Row> {
    let check = |variant: &str, about, hz| {
        let topics = [subscribed("nba.LAL-BOS", ("p0aa", 87), Mode::Latest, hz)];
        ack(variant, about, Some(&Id::Number(1)), &topics, &[])
    };
    vec![
        check("latest", "Mode `latest` without a rate: as fast as the socket takes it.", None),
        check("rate_half", "Asked for 0.5: one value in two seconds.", Some(0.5)),
        check("rate_three", "Asked for 3: intervals are whole milliseconds.", Some(3.0)),
        check("rate_fastest", "Asked for 5000: a worker counts in milliseconds.", Some(5000.0)),
        check("rate_slowest", "Asked for 0.01: one value in 100 seconds.", Some(0.01)),
    ]
}

/// How the decoder refuses the one topic of a subscribe command.
fn refused(item: &str) -> Rejection {
    let text = format!(r#"{{"type":"subscribe","topics":[{item}]}}"#);
    match Command::decode(&text).unwrap().1 {
        Command::Subscribe { mut items } => items.remove(0).unwrap_err(),
        other => panic!("{other:?}"),
    }
}

/// How the hub refuses a topic.
fn unsettled(name: &str, code: ErrorCode) -> Rejection {
    let described = ERRORS.iter().find(|described| described.code == code).unwrap();
    Rejection { topic: name.to_owned(), code, message: described.message.to_owned() }
}

fn refused_rows() -> Vec<Row> {
    let bad = [
        refused(r#""a b""#),
        refused(r#"{"topic":"nba.LAL-BOS","mode":"all","max_rate":4}"#),
        refused(r#"{"topic":"nfl.KC-BUF","rate":4}"#),
    ];
    let late = [
        unsettled("stocks.MSFT", ErrorCode::Unavailable),
        unsettled("stocks.TSLA", ErrorCode::TooManySubscriptions),
        unsettled("stocks.NVDA", ErrorCode::Unsubscribed),
    ];
    let two = Some(&Id::Number(2));
    vec![
        ack("bad_items", "Mistakes of the client. The rest goes on.", two, &[aapl()], &bad),
        ack("not_settled", "Nothing is wrong with the names.", two, &[], &late),
    ]
}

fn unsubscribed_rows() -> Vec<Row> {
    let two = Id::Number(2);
    let topics = [topic("stocks.AAPL"), topic("nba.LAL-BOS")];
    let bad = [refused(r#""a b""#)];
    let make = |variant: &str, about, id, topics: &[Topic], errors: &[Rejection]| {
        row(variant, about, &ServerMessage::Unsubscribed { id, topics, errors })
    };
    vec![
        make("one", "The same for a topic that was not held.", Some(&two), &topics[..1], &[]),
        make("no_id", "The command had no `id`.", None, &topics, &[]),
        make("bad_name", "`errors` is there only if it has any.", Some(&two), &topics[..1], &bad),
    ]
}

fn published_rows() -> Vec<Row> {
    let (topic, epoch) = (topic("chat.lobby"), epoch("k3f9"));
    let make = |variant: &str, about, id| {
        row(variant, about, &ServerMessage::Published { id, topic: &topic, epoch, offset: 7 })
    };
    let four = Id::Number(4);
    vec![
        make("id", "The same key again gets the same answer.", Some(&four)),
        make("no_id", "The command had no `id`.", None),
    ]
}

/// A publication of the epoch `k3f9`.
pub(crate) fn publication(name: &str, offset: u64, time_ms: u64, data: &str) -> Publication {
    let position = Position { epoch: epoch("k3f9"), offset };
    Publication::new(topic(name), position, time_ms, data.as_bytes())
}

fn published_row(
    variant: &str,
    about: &'static str,
    (name, offset, later_ms): (&str, u64, u64),
    data: &str,
) -> Row {
    let publication = publication(name, offset, 1_795_525_552_123 + later_ms, data);
    let text = String::from_utf8(publication.json().to_vec()).unwrap();
    Row { name: format!("publication.{variant}"), about, text }
}

fn authenticated_rows() -> Vec<Row> {
    let make = |variant, about, id| row(variant, about, &ServerMessage::Authenticated { id });
    vec![
        make("id", "The connection has the rights of the key.", Some(&Id::Number(3))),
        make("no_id", "The command had no `id`.", None),
    ]
}

fn publication_rows() -> Vec<Row> {
    let aapl = |variant, about, offset, later_ms, data| {
        published_row(variant, about, ("stocks.AAPL", offset, later_ms), data)
    };
    let score = r#"{"home":54,"away":51}"#;
    vec![
        aapl("snapshot", "At the acknowledged offset.", 1042, 0, r#"{"price":189.30}"#),
        aapl("next", "The one after it.", 1043, 178, r#"{"price":189.31}"#),
        aapl("after_gap", "What follows a gap.", 1051, 2_480, r#"{"price":188.97}"#),
        aapl("after_reset", "What follows a reset.", 3, 60_012, r#"{"price":190.02}"#),
        published_row("conflated", "Mode `latest` skips.", ("nba.LAL-BOS", 91, 250), score),
    ]
}

fn payload_rows() -> Vec<Row> {
    let make = |variant, about, data| published_row(variant, about, ("t", 1, 0), data);
    let unicode = "{\"text\":\"caf\u{e9} \u{1f3c0} \u{65e5}\u{672c}\",\"escaped\":\"\\u00e9 \\ud83c\\udfc0 \\/\"}";
    let numbers = "[12345678901234567890123456789.10,-0.0,1e400,1E+2,0.1000]";
    let spaces = "{ \"price\" : 189.30,\n\t\"price\" : 2 }";
    let largest = ("t", (1 << 53) - 1, 0);
    vec![
        make("object", "An object.", r#"{"a":{"b":[1,2]},"c":true}"#),
        make("empty_object", "An empty object.", "{}"),
        make("array", "An array.", "[1,[],{}]"),
        make("number", "A number.", "189.30"),
        make("string", "A text.", r#""LAL 54 : 51 BOS""#),
        make("boolean", "A truth value.", "false"),
        make("null", "Null is a value like any other.", "null"),
        make("unicode", "Characters and escapes are verbatim.", unicode),
        make("big_numbers", "Numbers are verbatim, whatever a machine can hold.", numbers),
        make("spaces", "White space and doubled keys are verbatim.", spaces),
        published_row("topic", "All a name may have.", ("Az/09_-.:=@", 1, 0), "1"),
        published_row("offset", "The largest that JavaScript takes exactly.", largest, "1"),
    ]
}

/// Every reason of a gap.
pub(crate) const GAPS: [GapReason; 3] =
    [GapReason::SlowConsumer, GapReason::Expired, GapReason::Lost];

/// A new reason does not compile until it is here, and in the list above.
pub(crate) const fn about_gap(reason: GapReason) -> (&'static str, &'static str) {
    match reason {
        GapReason::SlowConsumer => {
            ("slow_consumer", "You took less than was published. The current value follows.")
        }
        GapReason::Expired => {
            ("expired", "Your `since` is older than what is kept. The current value follows.")
        }
        GapReason::Lost => {
            ("lost", "The node missed them and could not get them back. What is left follows.")
        }
    }
}

/// Every reason of a reset.
pub(crate) const RESETS: [ResetReason; 3] =
    [ResetReason::BrokerRestart, ResetReason::UnknownEpoch, ResetReason::OffsetAhead];

/// A new reason does not compile until it is here, and in the list above.
pub(crate) const fn about_reset(reason: ResetReason) -> (&'static str, &'static str) {
    match reason {
        ResetReason::BrokerRestart => {
            ("broker_restart", "The broker lost its state while you were connected.")
        }
        ResetReason::UnknownEpoch => {
            ("unknown_epoch", "Your `since` names an epoch that is not the topic's.")
        }
        ResetReason::OffsetAhead => (
            "offset_ahead",
            "Your `since` lies beyond the topic's last offset. The node has asked the broker: that it has not heard of it yet itself is no reason.",
        ),
    }
}

fn notice_rows() -> Vec<Row> {
    let (aapl, one) = (&topic("stocks.AAPL"), Id::Number(1));
    let gap = |reason| {
        let (word, about) = about_gap(reason);
        row(word, about, &ServerMessage::Gap { topic: aapl, from: 1044, to: 1050, reason })
    };
    let reset = |reason| {
        let (word, about) = about_reset(reason);
        let epoch = epoch("m7q2");
        row(word, about, &ServerMessage::Reset { topic: aapl, epoch, offset: 3, reason })
    };
    let status = |broker, about| row(broker, about, &ServerMessage::Status { broker });
    let goaway = ServerMessage::Goaway { reconnect_in_ms: 1830 };
    let pong = |variant, about, id| row(variant, about, &ServerMessage::Pong { id });
    let mut rows = Vec::new();
    rows.extend(GAPS.map(gap));
    rows.extend(RESETS.map(reset));
    rows.extend([
        status("down", "The node has lost the broker: values may be old from here on."),
        status("up", "The broker is back."),
        row("drain", "The node stops, or the connection is old.", &goaway),
        pong("no_id", "The command had no `id`.", None),
        pong("id", "The `id` comes back.", Some(&one)),
    ]);
    rows
}

fn error_rows() -> Vec<Row> {
    let seven = Id::Number(7);
    let make = |&crate::errors::Described { code, about, message, .. }| {
        let id = (code != ErrorCode::BadJson).then_some(&seven);
        row(code.as_str(), about, &ServerMessage::Error { id, code, message })
    };
    ERRORS.iter().map(make).collect()
}

#[test]
fn everything_a_node_says() {
    golden::check("server.json", &rows());
}
