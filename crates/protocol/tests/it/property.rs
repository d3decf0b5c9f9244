//! What holds for every input: generated publications, hostile commands, rates, close frames, names.

use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickcast_protocol::limits::{CONTROL_BYTES_MAX, ID_BYTES_MAX, RATE_HZ_MAX, TOPIC_BYTES_MAX};
use tickcast_protocol::{
    CloseCode, Command, CommandError, Epoch, Id, Opcode, Position, Publication, Rate, Rejection,
    Topic, close_frame,
};

use crate::client;

fn config() -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/it/property.seeds");
    ProptestConfig { cases: 512, failure_persistence: Some(Box::new(seeds)), ..Default::default() }
}

/// Names that keep every rule.
fn topic() -> impl Strategy<Value = Topic> {
    "[A-Za-z0-9_.:=@-]{1,60}(/[A-Za-z0-9_.:=@-]{1,60}){0,2}"
        .prop_filter_map("a segment of dots", |name| Topic::new(&name).ok())
}

/// Any JSON text, with numbers no machine holds and white space where it may be, but not around it.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        r#""(\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]|[a-z]){0,8}""#,
    ];
    let leaf = prop_oneof![
        r"null|true|false|\{\}|\[\]",
        r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,10})?([eE][+-]?[0-9]{1,3})?",
        string.clone(),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        let member =
            (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key} :{value}"));
        let list = |items: Vec<String>, gap: String| items.join(&format!("{gap},{gap}"));
        let array = (prop::collection::vec(inner, 0..5), "[ \t\r\n]{0,2}")
            .prop_map(move |(items, gap)| format!("[{gap}{}]", list(items, gap.clone())));
        let object = (prop::collection::vec(member, 0..5), "[ \t\r\n]{0,2}")
            .prop_map(move |(items, gap)| format!("{{{}{gap}}}", list(items, gap.clone())));
        prop_oneof![array, object]
    })
}

/// Payloads around the lengths at which the header changes: the rest of the text has 50 to 250 bytes.
fn payload() -> impl Strategy<Value = String> {
    let sevens = |sizes: Range<usize>| sizes.prop_map(|size| "7".repeat(size));
    prop_oneof![4 => json(), 1 => sevens(1..140), 1 => sevens(65_200..65_600)]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    topic: String,
    offset: u64,
    time: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The payload of an unmasked final text frame that has the shortest possible header.
fn payload_of(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0x81);
    let (length, start) = match frame[1] {
        length @ 0..=125 => (usize::from(length), 2),
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (usize::try_from(u64::from_be_bytes(frame[2..10].try_into().unwrap())).unwrap(), 10),
        _ => panic!("a server's frame is not masked"),
    };
    let shortest = if length < 126 {
        2
    } else if length < 65_536 {
        4
    } else {
        10
    };
    assert_eq!(start, shortest);
    assert_eq!(frame.len(), start + length);
    &frame[start..]
}

/// What the seven digits of an echoed rate may be off by.
const ROUNDING: f64 = 1.1e-6;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_publication_is_one_text_around_the_payload(
        topic in topic(), epoch: u64, offset: u64, time_ms: u64,
        data in (payload(), "[ \t\r\n]{0,2}").prop_map(|(json, space)| format!("{space}{json}{space}")),
    ) {
        let position = Position { epoch: Epoch::new(epoch), offset };
        let publication = Publication::new(topic.clone(), position, time_ms, data.as_bytes());
        let text = payload_of(publication.frame());
        prop_assert_eq!(text, publication.json());
        let read: Read<'_> = serde_json::from_slice(text).unwrap();
        prop_assert_eq!(read.data.get(), data.trim_matches([' ', '\t', '\r', '\n']));
        prop_assert_eq!(&*read.topic, topic.as_str());
        prop_assert_eq!((read.offset, read.time), (offset, time_ms));
        prop_assert_eq!(publication.data(), data.as_bytes());
        prop_assert_eq!((publication.position(), publication.time_ms()), (position, time_ms));
        prop_assert!(publication.cost() >= publication.frame().len());
    }
}

/// Ids that are none, in JSON.
const BAD_IDS: [&str; 7] = ["-1", "1.0", "1e3", "true", "[]", "{}", "18446744073709551616"];

/// Pieces of commands, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        " ",
        "\"",
        "\\",
        "null",
        "-",
        "1e400",
        "\u{0}",
        "\u{feff}",
        "\"type\"",
        "\"id\"",
        "\"topics\"",
        "\"topic\"",
        "\"data\"",
        "\"key\"",
        "\"mode\"",
        "\"max_rate\"",
        "\"since\"",
        "\"epoch\"",
        "\"offset\"",
        "\"subscribe\"",
        "\"publish\"",
        "\"ping\"",
        "\"stocks.AAPL\"",
        "\"k3f9\"",
        "[\"ping\",",
        "\"\\ud800\"",
    ];
    prop_oneof![
        8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => json(),
        1 => any::<String>(),
    ]
}

/// A text of the golden file with a piece of it replaced.
fn damaged() -> impl Strategy<Value = String> {
    let texts: Vec<String> = client::rows().into_iter().map(|row| row.text).collect();
    let place = any::<prop::sample::Index>;
    (prop::sample::select(texts), place(), place(), piece()).prop_map(|(text, from, to, piece)| {
        let at = |place: prop::sample::Index| text.floor_char_boundary(place.index(text.len() + 1));
        let (from, to) = (at(from), at(to));
        format!("{}{piece}{}", &text[..from.min(to)], &text[from.max(to)..])
    })
}

/// Everything that a client may read of an answer is bounded, whatever it wrote.
fn is_bounded(message: &str) -> bool {
    message.len() <= 3 * TOPIC_BYTES_MAX
}

fn check_rejection(rejection: &Rejection) -> Result<(), TestCaseError> {
    prop_assert!(rejection.topic.len() <= TOPIC_BYTES_MAX);
    prop_assert!(is_bounded(&rejection.message), "{}", rejection.message);
    Ok(())
}

/// What holds for any text at all.
fn check_command(text: &str) -> Result<(), TestCaseError> {
    // What a lenient reader finds as the id; doubled keys, which it does not mind, are refused.
    let value = serde_json::from_str::<serde_json::Value>(text).ok();
    let is_object = value.as_ref().is_none_or(serde_json::Value::is_object);
    let seen =
        value.and_then(|object| serde_json::from_value::<Id>(object.get("id")?.clone()).ok());
    let id = match Command::decode(text) {
        Ok((id, Command::Subscribe { items })) => {
            items.iter().filter_map(|item| item.as_ref().err()).try_for_each(check_rejection)?;
            id
        }
        Ok((id, Command::Unsubscribe { topics })) => {
            topics.iter().filter_map(|topic| topic.as_ref().err()).try_for_each(check_rejection)?;
            id
        }
        Ok((id, Command::Publish(publish))) => {
            let start = publish.data.as_ptr() as usize - text.as_ptr() as usize;
            prop_assert_eq!(&text.as_bytes()[start..start + publish.data.len()], publish.data);
            prop_assert!(serde_json::from_slice::<&RawValue>(publish.data).is_ok());
            id
        }
        Ok((id, Command::Auth(_) | Command::Ping)) => id,
        Err(CommandError { id, message, .. }) => {
            prop_assert!(is_bounded(&message), "{message}");
            id
        }
    };
    prop_assert!(is_object || Command::decode(text).is_err(), "{text}");
    prop_assert!(id.is_none() || seen.is_none() || id == seen, "{id:?} of {text}");
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_a_command_or_an_error(bytes: Vec<u8>) {
        check_command(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_pieces_are_a_command_or_an_error(pieces in prop::collection::vec(piece(), 0..24)) {
        check_command(&pieces.concat())?;
    }

    #[test]
    fn a_damaged_command_is_a_command_or_an_error(text in damaged()) {
        check_command(&text)?;
    }

    /// Long texts of a client are not sent back whole, wherever they are.
    #[test]
    fn nothing_long_is_echoed(text in damaged(), long in "[a-z\u{1}\u{e000}\"]{1000}") {
        let long = serde_json::to_string(&long).unwrap();
        for word in ["\"stocks.AAPL\"", "\"mode\"", "\"id\"", "\"k3f9\"", "\"subscribe\"", "4", "1"] {
            check_command(&text.replacen(word, &long, 1))?;
        }
    }

    /// The rest of the command may be anything that is JSON: its answer still finds its way.
    #[test]
    fn a_readable_id_is_always_echoed(
        id in prop_oneof![
            any::<u64>().prop_map(Id::Number),
            any::<String>().prop_map(|text| Id::Text(text.into())),
        ],
        kind in prop_oneof![
            prop::sample::select(vec!["subscribe", "unsubscribe", "publish", "auth", "ping"])
                .prop_map(|kind| format!("\"{kind}\"")),
            json(),
        ],
        members in prop::sample::subsequence(vec!["topics", "topic", "data", "key", "token"], 0..=5),
        values in prop::collection::vec(json(), 5),
        id_comes_last: bool,
    ) {
        let mut parts: Vec<String> =
            members.iter().zip(values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
        parts.push(format!("\"type\":{kind}"));
        let at = if id_comes_last { parts.len() } else { 0 };
        parts.insert(at, format!("\"id\":{}", serde_json::to_string(&id).unwrap()));
        let text = format!("{{{}}}", parts.join(","));
        let is_good = !matches!(&id, Id::Text(text) if text.len() > ID_BYTES_MAX);
        let echoed = Command::decode(&text).map_or_else(|error| error.id, |(id, _)| id);
        prop_assert_eq!(echoed, is_good.then_some(id), "{}", text);
    }

    #[test]
    fn a_bad_id_is_never_echoed(id in prop::sample::select(BAD_IDS.to_vec())) {
        let error = Command::decode(&format!(r#"{{"type":"ping","id":{id}}}"#)).unwrap_err();
        prop_assert_eq!(error.id, None);
    }

    /// A rate is never exceeded by more than the rounding of its echo, and is no whole millisecond slower than it must be.
    #[test]
    fn a_rate_is_the_fastest_that_is_not_exceeded(hz in prop_oneof![0.01f64..10.0, 1.0f64..2000.0]) {
        let rate = Rate::from_hz(hz).unwrap();
        let (interval, asked) = (f64::from(rate.interval_ms()), hz.min(RATE_HZ_MAX));
        prop_assert!((1.0..=100_000.0).contains(&interval));
        prop_assert!(1000.0 / interval <= asked * (1.0 + ROUNDING));
        prop_assert!(interval <= 1.0 || 1000.0 / (interval - 1.0) > asked * (1.0 - ROUNDING));
        prop_assert!((rate.hz() * interval / 1000.0 - 1.0).abs() <= ROUNDING);
        prop_assert_eq!(Rate::from_hz(rate.hz()), Ok(rate));
        prop_assert_eq!(Rate::from_interval_ms(rate.interval_ms()), Some(rate));
    }

    #[test]
    fn any_number_is_a_rate_or_refused(hz: f64) {
        prop_assert_eq!(Rate::from_hz(hz).is_ok(), hz >= 0.01, "{}", hz);
    }

    /// A reason of any length makes a whole control frame with the beginning of the reason.
    #[test]
    fn a_close_frame_is_a_control_frame(number: u16, reason in r"\PC{0,140}") {
        let frame = close_frame(CloseCode::new(number), &reason);
        prop_assert_eq!(frame[0], 0x80 | Opcode::Close as u8);
        prop_assert_eq!(usize::from(frame[1]), frame.len() - 2);
        prop_assert!(frame.len() - 2 <= CONTROL_BYTES_MAX);
        prop_assert_eq!(&frame[2..4], number.to_be_bytes());
        let kept = std::str::from_utf8(&frame[4..]).unwrap();
        prop_assert!(reason.starts_with(kept));
        // A character has at most four bytes, so no more than three are given away.
        prop_assert!(kept.len() == reason.len() || frame.len() > CONTROL_BYTES_MAX - 2);
    }

    /// Every name behind the check is safe in a JSON string and in a path as it is.
    #[test]
    fn a_topic_needs_no_escaping(name in prop_oneof![any::<String>(), "[a-z./*$ \"\\\\-]{0,12}", "[a-z/]{190,210}"]) {
        let is_good = (1..=TOPIC_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/=@".contains(&b))
            && !format!("/{name}/").contains("//")
            && !format!("/{name}/").contains("/./")
            && !format!("/{name}/").contains("/../");
        let topic = Topic::new(&name);
        prop_assert_eq!(topic.is_ok(), is_good);
        if let Ok(topic) = topic {
            prop_assert_eq!(serde_json::to_string(&topic).unwrap(), format!("\"{name}\""));
        }
    }
}
