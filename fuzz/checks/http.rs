//! HTTP bodies, paths, queries and headers: taken as they are, or refused with a problem document.

use bytes::Bytes;
use serde_json::Value;
use tickcast::fuzzing::{
    Item, Refusal, client_of, read_batch, read_history, read_key, read_payload, read_subscriptions,
    read_topic,
};
use tickcast_protocol::{Mode, Topic};

use super::json;

const ITEMS_MAX: usize = 8;
const PAYLOAD_BYTES_MAX: usize = 64;
const TOPICS_MAX: usize = 8;
const HISTORY_MAX: usize = 1000;

/// Longest problem document: a detail is at most 300 bytes, each of which may have to be escaped.
const PROBLEM_BYTES_MAX: usize = 6 * 300 + 1000;

/// The first byte says which part of a request the rest is.
pub(crate) fn check(input: &[u8]) {
    let Some((&part, rest)) = input.split_first() else { return };
    match (part % 8, std::str::from_utf8(rest)) {
        (0, _) => check_payload(rest),
        (1, _) => check_batch(rest, None),
        (2, _) => check_batch(rest, Some("k")),
        (3, Ok(text)) => check_topic(text),
        (4, Ok(text)) => check_subscriptions(text),
        (5, Ok(text)) => check_history(text),
        (6, _) => check_key(rest),
        (7, _) => check_forwarded(rest),
        _ => {}
    }
}

fn check_refusal(refusal: &Refusal) {
    assert!((400..500).contains(&refusal.status));
    assert!(refusal.body.len() <= PROBLEM_BYTES_MAX, "{} bytes", refusal.body.len());
    assert!(json::is_text(&refusal.body));
    let document: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
    assert_eq!(document["code"], refusal.code);
    assert_eq!(document["status"], refusal.status);
}

fn check_payload(body: &[u8]) {
    match read_payload(&Bytes::copy_from_slice(body)) {
        Ok(payload) => {
            assert!(json::is_text(body));
            assert_eq!(payload, trim(body), "the payload is not verbatim");
        }
        Err(refusal) => {
            assert!(!json::is_text(body), "JSON is refused");
            check_refusal(&refusal);
        }
    }
}

/// Without the white space of JSON, of which there is less than of ASCII.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = bytes.iter().take_while(|byte| is_space(byte)).count();
    let end = bytes.iter().rev().take_while(|byte| is_space(byte)).count();
    &bytes[start..bytes.len().saturating_sub(end).max(start)]
}

fn check_batch(body: &[u8], key: Option<&str>) {
    let body = Bytes::copy_from_slice(body);
    let is_array = trim(&body).first() == Some(&b'[');
    let lines = || body.split(|byte| *byte == b'\n').map(trim).filter(|line| !line.is_empty());
    let is_json = if is_array { json::is_text(&body) } else { lines().all(json::is_text) };
    match read_batch(&body, ITEMS_MAX, PAYLOAD_BYTES_MAX, key) {
        Ok(items) => {
            assert!(is_json, "not JSON, and taken");
            assert!(items.len() <= ITEMS_MAX);
            assert!(is_array || items.len() == lines().count());
            items.iter().for_each(|item| match item {
                Ok(item) => check_item(item, &body, key.is_some()),
                Err(refusal) => check_refusal(refusal),
            });
        }
        Err(refusal) => {
            assert!(!is_json || refusal.code == "batch_too_large", "JSON is refused");
            check_refusal(&refusal);
        }
    }
}

fn check_item(item: &Item, body: &Bytes, request_has_key: bool) {
    assert!(Topic::new(&item.topic).is_ok());
    assert!(json::is_text(&item.data));
    assert_eq!(item.data, trim(&item.data));
    assert!(item.data.len() <= PAYLOAD_BYTES_MAX);
    let start = (item.data.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    assert_eq!(body.get(start..start + item.data.len()), Some(&*item.data), "no slice of the body");
    // Its own key goes before the one that the request gives it.
    assert!(item.key.is_some() || !request_has_key);
    if let Some(key) = &item.key {
        assert!((1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// A name that is taken means the same when all of it is escaped.
fn check_topic(raw: &str) {
    match read_topic(raw) {
        Ok(name) => {
            assert!(Topic::new(&name).is_ok());
            let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            assert_eq!(read_topic(&escaped).ok().as_ref(), Some(&name));
            assert_eq!(read_topic(&name).ok(), Some(name));
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

/// What is taken can be written again and is then read as the same.
fn check_subscriptions(query: &str) {
    let items = match read_subscriptions(query, TOPICS_MAX) {
        Ok(items) => items,
        Err(refusal) => return check_refusal(&refusal),
    };
    assert!(items.len() <= TOPICS_MAX);
    let Some(first) = items.first() else { return };
    let topics: Vec<&str> = items.iter().map(|item| item.topic.as_str()).collect();
    let mode = first.mode.map(|mode| match mode {
        Mode::All => "&mode=all",
        Mode::Latest => "&mode=latest",
    });
    let rate = first.max_rate.map(|rate| format!("&max_rate={}", rate.hz()));
    let written = format!(
        "topics={}{}{}",
        topics.join("%2C"),
        mode.unwrap_or_default(),
        rate.unwrap_or_default()
    );
    assert_eq!(read_subscriptions(&written, TOPICS_MAX).ok(), Some(items), "{written}");
}

fn check_history(query: &str) {
    match read_history(query, HISTORY_MAX) {
        Ok(Some(count)) => {
            assert!(count <= HISTORY_MAX);
            assert_eq!(
                read_history(&format!("history={count}"), HISTORY_MAX).ok(),
                Some(Some(count))
            );
        }
        Ok(None) => {
            assert!(query.bytes().all(|byte| byte == b'&'), "an option is ignored: {query}");
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

/// Whether the HTTP reader lets it in as the value of a header.
fn is_header(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F))
}

fn check_key(value: &[u8]) {
    let is_key = (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    match read_key(&[value]) {
        Ok(key) => {
            assert_eq!(key.is_some(), is_header(value));
            assert!(key.is_none_or(|key| is_key && key.as_bytes() == value));
        }
        Err(refusal) => {
            assert!(!is_key);
            check_refusal(&refusal);
        }
    }
    assert!(read_key(&[b"a", b"b"]).is_err());
}

/// Whatever a client claims, the address that a trusted proxy has put behind it counts.
fn check_forwarded(claim: &[u8]) {
    let Some(client) = client_of(&[claim]).parse::<std::net::IpAddr>().ok() else {
        panic!("a client without an address: {claim:?}");
    };
    assert_eq!(client, client.to_canonical());
    assert_eq!(client_of(&[claim, b"192.0.2.7"]), "192.0.2.7");
    assert_eq!(client_of(&[claim, b"192.0.2.7, 10.1.2.3"]), "192.0.2.7");
    let behind = [claim, b", 192.0.2.7"].concat();
    if is_header(claim) {
        assert_eq!(client_of(&[&behind]), "192.0.2.7");
    }
}
