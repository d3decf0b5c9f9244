//! `POST /v1/publish`: publish many payloads, to any topics, in one request.
//!
//! The body is a JSON array of items or NDJSON, one item per line. It is read in two steps: first as JSON, and if that
//! fails nothing is published; then each item for itself, and one that is refused does not keep the others back.
//! Payloads stay slices of the body. All good items go to the node in one call, in their order.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickcast_broker::{PublishError, Published};
use tickcast_protocol::limits::{self, KEY_BYTES_MAX, TOPIC_BYTES_MAX};
use tickcast_protocol::{ErrorCode, Topic};

use super::problem::Problem;
use super::publish::{admit, read_key, renew};
use super::text::near;
use super::upload::{Bound, Upload};
use super::{Answer, append, append_place, expect_no_query, json};
use crate::access::{self, Asker, Denied, Refusal};
use crate::config::{Limits, Right};
use crate::node::{Item, Node};
use crate::server::Peer;

mod elements;

/// Publishes the items of the body.
pub(crate) async fn publish<B>(
    node: &Node,
    client: Peer,
    parts: &Parts,
    upload: &mut Upload<B>,
) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let who = access::of_request(node, client, &parts.headers)?;
    let asker = Asker::of_request(client, &parts.headers);
    expect_no_query(&parts.uri)?;
    if who.is_none() && node.access.current().has_keys() {
        return Err(Denied::MissingKey(Right::Publish).noted(node, asker, None, None).into());
    }
    let key = read_key(&parts.headers)?;
    let config = node.config();
    let limits = &config.limits;
    let bound = Bound { bytes: limits.batch_bytes.bytes(), code: ErrorCode::BatchTooLarge };
    let body = upload.read(&parts.headers, bound, config.http.body_timeout).await?;

    let who = renew(node, asker, who)?;
    let Batch { items, fates } = {
        let policy = node.access.current();
        let judge = |topic: &Topic| {
            let allowed = policy.may_publish(who.as_deref(), topic);
            allowed.map_err(|denied| denied.noted(node, asker, who.as_deref(), Some(topic)))
        };
        Batch::read(&body, limits, key, &judge)?
    };
    admit(node, asker, who.as_deref(), items.len())?;
    let results = if items.is_empty() { Vec::new() } else { node.publish(items).await };
    Ok(report(&fates, results))
}

/// A batch, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The good items.
    pub(crate) items: Vec<Item>,
    /// What becomes of each item, the refused ones too, in the order of the body.
    pub(crate) fates: Vec<Fate>,
}

/// What becomes of an item.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is published; its result comes with the next one of the node.
    Sent(Topic),
    /// It is not.
    Refused {
        /// What the item called its topic, if it did.
        topic: Option<String>,
        why: Problem,
    },
}

/// An item, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemFields<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    // Required, and not an `Option`: `"data":null` publishes `null`.
    #[serde(borrow)]
    data: &'a RawValue,
    key: Option<String>,
}

/// The topic of an item that is otherwise not one.
#[derive(Deserialize)]
struct TopicField {
    topic: String,
}

impl Batch {
    /// Reads a whole body. `key` is the one of the request: the item at `n` then has `key/n`.
    /// An item whose topic `judge` refuses is refused.
    pub(crate) fn read(
        body: &Bytes,
        limits: &Limits,
        key: Option<&str>,
        judge: &dyn Fn(&Topic) -> Result<(), Refusal>,
    ) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            Problem::new(ErrorCode::BadJson, format!("the body is not UTF-8 from byte {at} on"))
        })?;
        let mut batch = Self::default();
        let mut add = |raw: &str| {
            if batch.fates.len() == limits.batch_items {
                return Err(too_many(limits.batch_items));
            }
            let item = read_item(raw, body, limits).and_then(|item| {
                judge(&item.topic)?;
                Ok(item)
            });
            batch.add(raw, item, key);
            Ok(())
        };
        if text.trim_start_matches(is_space).starts_with('[') {
            elements::for_each(text, &mut add)?;
        } else {
            for (number, line) in (1..).zip(text.split('\n')) {
                let line = line.trim_matches(is_space);
                if !line.is_empty() {
                    check_line(line, number)?;
                    add(line)?;
                }
            }
        }
        Ok(batch)
    }

    fn add(&mut self, raw: &str, item: Result<Item, Problem>, key: Option<&str>) {
        let fate = match item {
            Ok(mut item) => {
                item.key = item.key.or_else(|| Some(format!("{}/{}", key?, self.fates.len())));
                let fate = Fate::Sent(item.topic.clone());
                self.items.push(item);
                fate
            }
            Err(why) => Fate::Refused { topic: read_topic_field(raw), why },
        };
        self.fates.push(fate);
    }
}

/// Longest part of a parser's message that is passed on, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The white space of JSON.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn too_many(limit: usize) -> Problem {
    let detail = format!("the batch has more than {limit} items, the most this node takes");
    Problem::new(ErrorCode::BatchTooLarge, detail)
}

fn check_line(line: &str, number: usize) -> Result<(), Problem> {
    let json: Result<&RawValue, _> = serde_json::from_str(line);
    json.map(drop).map_err(|error| {
        let (reason, column) = (reason(&error), error.column());
        let near = near(line.as_bytes(), &error);
        let detail =
            format!("line {number} is not one JSON text: {reason} at column {column}{near}");
        Problem::new(ErrorCode::BadJson, detail)
    })
}

/// The error without its position, which counts from the begin of the item and not of the body.
fn reason(error: &serde_json::Error) -> String {
    let mut reason = error.to_string();
    reason.truncate(reason.rfind(" at line ").unwrap_or(reason.len()));
    // It quotes unknown keys, which may be as long as the body.
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

/// Reads one item, of which is known that it is JSON.
fn read_item(raw: &str, body: &Bytes, limits: &Limits) -> Result<Item, Problem> {
    if !raw.starts_with('{') {
        // An array would be taken for the fields in their order.
        return Err(Problem::new(
            ErrorCode::BadCommand,
            "an item is an object: {\"topic\",\"data\",\"key\"?}",
        ));
    }
    let fields: ItemFields<'_> = serde_json::from_str(raw)
        .map_err(|error| Problem::new(ErrorCode::BadCommand, reason(&error)))?;
    let topic = Topic::new(&fields.topic)
        .map_err(|error| Problem::new(ErrorCode::BadTopic, error.to_string()))?;
    let data = fields.data.get().as_bytes();
    let limit = limits.payload_bytes.bytes();
    if data.len() > limit {
        let seen = data.len();
        let detail = format!("`data` has {seen} bytes, and {limit} are the most this node takes");
        return Err(Problem::new(ErrorCode::PayloadTooLarge, detail));
    }
    if fields.key.as_deref().is_some_and(|key| !limits::is_key(key)) {
        let detail = format!("`key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(Problem::new(ErrorCode::BadKey, detail));
    }
    Ok(Item { topic, data: body.slice_ref(data), key: fields.key })
}

/// What a refused item calls its topic, cut to a length that is safe to echo.
fn read_topic_field(raw: &str) -> Option<String> {
    let TopicField { mut topic } =
        serde_json::from_str(raw).ok().filter(|_| raw.starts_with('{'))?;
    topic.truncate(topic.floor_char_boundary(TOPIC_BYTES_MAX));
    Some(topic)
}

/// Says what became of each item, in the order of the body.
fn report(fates: &[Fate], results: Vec<Result<Published, PublishError>>) -> Answer {
    let mut body = Vec::with_capacity(20 + 64 * fates.len());
    body.extend_from_slice(br#"{"results":["#);
    let mut all_accepted = true;
    let mut results = results.into_iter();
    for (index, fate) in fates.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let refusal = match fate {
            Fate::Sent(topic) => match results.next() {
                Some(Ok(published)) => {
                    append_place(&mut body, topic, published.position);
                    body.push(b'}');
                    continue;
                }
                Some(Err(error)) => (Some(topic.as_str()), &Problem::from(error)),
                // The node gives one result for each item; without it nobody could say what became of this one.
                None => (Some(topic.as_str()), &Problem::from(PublishError::OutcomeUnknown)),
            },
            Fate::Refused { topic, why } => (topic.as_deref(), why),
        };
        all_accepted = false;
        append_refusal(&mut body, refusal.0, refusal.1);
    }
    body.extend_from_slice(b"]}");
    json(if all_accepted { StatusCode::OK } else { StatusCode::MULTI_STATUS }, body)
}

fn append_refusal(body: &mut Vec<u8>, topic: Option<&str>, why: &Problem) {
    // Both may quote what the client sent, so they must be escaped. A text always serializes.
    let topic = serde_json::to_string(&topic).unwrap_or_default();
    let detail = serde_json::to_string(why.detail()).unwrap_or_default();
    let code = why.code().as_str();
    append(
        body,
        format_args!(r#"{{"topic":{topic},"error":{{"code":"{code}","detail":{detail}}}}}"#),
    );
}

#[cfg(test)]
mod tests;
