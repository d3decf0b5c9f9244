//! Cursors: what a client says where it left off, and how positions are written on the wire and in Redis.

use serde_json::Value;
use tickcast::fuzzing::is_held;
use tickcast_broker::redis::fuzzing::read_position;
use tickcast_protocol::{Command, Epoch, ErrorCode, Position, Since};

use super::json;

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    check_epoch(text);
    check_position(text);
    check_tag(text);
    if json::is_text(input) {
        check_since(text);
    }
}

fn check_epoch(text: &str) {
    let expected = epoch(text);
    assert_eq!(text.parse::<Epoch>().ok().map(Epoch::number), expected, "{text:?}");
    if let Some(number) = expected {
        assert_eq!(Epoch::new(number).to_string(), text);
    }
}

/// The number that a name stands for: base 36 in small letters, without a leading zero.
fn epoch(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || !text.starts_with('0');
    let is_name = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
    (is_name && is_canonical).then(|| u64::from_str_radix(text, 36).ok())?
}

fn check_position(text: &str) {
    let Some(Position { epoch, offset }) = read_position(text) else { return };
    let (name, digits) = text.split_once(' ').unwrap_or_default();
    assert_eq!(epoch.to_string(), name);
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(digits.parse(), Ok(offset));
    assert!(offset < 1 << 53);
    assert_eq!(read_position(&format!("{epoch} {offset}")), Some(Position { epoch, offset }));
}

/// A list of tags holds ours only if it is there as a whole.
fn check_tag(list: &str) {
    const TAG: &str = "\"k3f9:7\"";
    let held = is_held(&[list.as_bytes()], TAG);
    assert!(!held || list.contains(TAG) || list.contains('*'), "{list:?}");
    assert_eq!(is_held(&[b"\"x\"", list.as_bytes()], TAG), held);
    let is_value = list.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_value {
        assert!(is_held(&[format!("{list},W/{TAG}").as_bytes()], TAG), "{list:?}");
    }
}

/// Only the shape of a `since` is an error; what no node ever gave out names no epoch.
fn check_since(since: &str) {
    let text = format!(r#"{{"type":"subscribe","topics":[{{"topic":"t","since":{since}}}]}}"#);
    let Ok((None, Command::Subscribe { items })) = Command::decode(&text) else {
        panic!("not a subscribe command any more: {text}");
    };
    match &items[..] {
        [Ok(item)] => {
            // Without a model there are numbers too large for the parser; they are offsets that nobody gave out.
            let Ok(value) = serde_json::from_str::<Value>(since) else { return };
            assert_eq!(item.since, expected(&value), "{since}");
        }
        [Err(rejection)] => {
            assert_eq!(rejection.code, ErrorCode::BadOption);
            assert_eq!(rejection.topic, "t");
        }
        _ => panic!("one item became {}: {text}", items.len()),
    }
}

fn expected(value: &Value) -> Option<Since> {
    let fields = value.as_object()?;
    Some(match fields["offset"].as_u64() {
        Some(offset) => {
            Since { epoch: fields["epoch"].as_str().and_then(epoch).map(Epoch::new), offset }
        }
        None => Since { epoch: None, offset: 0 },
    })
}
