//! The HTTP API of the public listener: one file per group of routes.
//!
//! The router calls in here with a request it has matched; handlers read it, ask the [`Node`](crate::node::Node) and
//! give an [`Answer`] or a [`Problem`]. Whatever enters is bounded and checked here, so behind this door every topic
//! is a `Topic` and every payload one JSON text. Nothing here builds a tree of a payload or re-writes its bytes:
//! answers are written by hand into one buffer, with the payload copied in as it came.

pub(crate) mod held;
pub(crate) mod host;
pub(crate) mod problem;
pub(crate) mod upload;

pub(crate) mod batch;
pub(crate) mod cors;
pub(crate) mod health;
pub(crate) mod publish;
pub(crate) mod topic;
pub(crate) mod websocket;

mod text;

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode, Uri};
use tickcast_protocol::{ErrorCode, Position, Topic};

use problem::Problem;

/// What a handler gives.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A body of one JSON text. It ends with a line break: what a terminal shows behind it begins on a line of its own.
pub(crate) fn json_body(mut text: Vec<u8>) -> Full<Bytes> {
    text.push(b'\n');
    Full::new(text.into())
}

/// An answer with a JSON body.
fn json(status: StatusCode, text: Vec<u8>) -> Answer {
    let mut answer = Response::new(json_body(text));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// Reads a topic as it stands in a path: percent-encoded.
pub(crate) fn read_topic(raw: &str) -> Result<Topic, Problem> {
    let name = text::percent_decode(raw)
        .map_err(|error| Problem::new(ErrorCode::BadTopic, error.to_string()))?;
    Topic::new(&name).map_err(|error| Problem::new(ErrorCode::BadTopic, error.to_string()))
}

/// Refuses any query: an option that would be ignored is a mistake that nobody notices.
fn expect_no_query(uri: &Uri) -> Result<(), Problem> {
    match text::pairs(uri.query()).next() {
        Some((key, _)) => Err(Problem::new(
            ErrorCode::BadOption,
            format!("this route has no query option `{key}`, nor any other"),
        )),
        None => Ok(()),
    }
}

/// Begins a JSON object with the place of a publication; the caller continues and closes it.
fn append_place(json: &mut Vec<u8>, topic: &Topic, position: Position) {
    // Neither topics nor epochs have a character that JSON escapes.
    let Position { epoch, offset } = position;
    append(json, format_args!(r#"{{"topic":"{topic}","epoch":"{epoch}","offset":{offset}"#));
}

fn append(text: &mut Vec<u8>, what: fmt::Arguments<'_>) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "writing into a vector cannot fail");
}
