//! Doors for fuzzing: the real readers of what strangers send, with plain values on both sides.
//!
//! Only in builds with the feature `testing`, and no part of the API: the checks in `fuzz/checks` come in here.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::Body as _;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use tickcast_protocol::{CloseCode, SubscribeItem};
use tokio::io::AsyncRead;

use crate::api::batch::{Batch, Fate};
use crate::api::problem::Problem;
use crate::api::{publish, topic, websocket};
use crate::config::{Config, Limits, Network, Size};
use crate::server::{Peer, proxy_protocol};
use crate::transport::websocket::reader::{Bounds, Event, FRAGMENTS_MAX, Flow, Reader};

/// What a client sent, as the frame reader tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The closing handshake, with its code.
    Close(Option<u16>),
}

/// What became of a stream of frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The close code of the breach that ended it, if one did.
    pub breach: Option<u16>,
    /// Whether something incomplete is kept at the end.
    pub is_waiting: bool,
    /// Bytes of a frame that is not complete at the end.
    pub unread: usize,
    /// The most that was held between two reads, in bytes of memory.
    pub held_max: usize,
}

/// Reads a stream that comes in these parts.
///
/// With `pauses` the reader is told to pause after each message and is called again, as a worker does whose replies have
/// to go out first.
pub fn read_frames<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    message_max: usize,
    pauses: bool,
) -> Stream {
    let bounds = Bounds { message_max, fragments_max: FRAGMENTS_MAX, second: 0 };
    let mut slot = None;
    let mut stream = Stream::default();
    for part in parts {
        let mut part = part.to_vec();
        loop {
            let before = stream.messages.len();
            let read = Reader::read(&mut slot, &mut part, bounds, |event| {
                stream.messages.push(Message::from(event));
                if pauses { Flow::Pause } else { Flow::Continue }
            });
            if let Err(violation) = read {
                stream.breach = Some(violation.code.number());
                return stream;
            }
            let held = slot.as_deref().map_or(0, Reader::held_bytes);
            stream.held_max = stream.held_max.max(held);
            if matches!(stream.messages.last(), Some(Message::Close(_))) {
                return stream;
            }
            part.clear();
            if !pauses || stream.messages.len() == before {
                break;
            }
        }
    }
    stream.is_waiting = slot.is_some();
    stream.unread = slot.as_deref().map_or(0, Reader::unread_bytes);
    stream
}

impl From<Event<'_>> for Message {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(payload) => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code) => Self::Close(code.map(CloseCode::number)),
        }
    }
}

/// An answer that refuses.
#[derive(Debug)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The stable code.
    pub code: &'static str,
    /// The problem document.
    pub body: Bytes,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let code = problem.code().as_str();
        let (parts, mut body) = problem.into_response().into_parts();
        let mut context = Context::from_waker(Waker::noop());
        // A full body is always there, in one frame.
        let body = match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        Self { status: parts.status.as_u16(), code, body }
    }
}

/// An item of a batch that would be published.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub data: Bytes,
    /// The idempotency key.
    pub key: Option<String>,
}

/// Reads the body of a batch: each item in its order, or why it is refused.
///
/// # Errors
/// The refusal of the batch as a whole.
pub fn read_batch(
    body: &Bytes,
    items_max: usize,
    payload_max: usize,
    key: Option<&str>,
) -> Result<Vec<Result<Item, Refusal>>, Refusal> {
    let limits = Limits {
        batch_items: items_max,
        payload_bytes: Size::new(payload_max),
        ..Config::default().limits
    };
    let Batch { items, fates } = Batch::read(body, &limits, key, &|_topic| Ok(()))?;
    let mut items = items.into_iter().map(|item| Item {
        topic: item.topic.as_str().to_owned(),
        data: item.data,
        key: item.key,
    });
    let fates = fates.into_iter().filter_map(|fate| match fate {
        Fate::Sent(_) => items.next().map(Ok),
        Fate::Refused { why, .. } => Some(Err(why.into())),
    });
    Ok(fates.collect())
}

/// Reads the body of one publication.
///
/// # Errors
/// The refusal.
pub fn read_payload(body: &Bytes) -> Result<Bytes, Refusal> {
    Ok(publish::read_payload(body)?)
}

/// Reads a topic as it stands in a path.
///
/// # Errors
/// The refusal.
pub fn read_topic(raw: &str) -> Result<String, Refusal> {
    Ok(crate::api::read_topic(raw)?.as_str().to_owned())
}

/// Reads the subscriptions of a WebSocket's URL.
///
/// # Errors
/// The refusal.
pub fn read_subscriptions(query: &str, topics_max: usize) -> Result<Vec<SubscribeItem>, Refusal> {
    Ok(websocket::read_subscriptions(Some(query), topics_max)?)
}

/// Reads the query of a topic.
///
/// # Errors
/// The refusal.
pub fn read_history(query: &str, max: usize) -> Result<Option<usize>, Refusal> {
    Ok(topic::read_history_option(Some(query), max)?)
}

/// Reads the idempotency key among these header lines.
///
/// # Errors
/// The refusal.
pub fn read_key(lines: &[&[u8]]) -> Result<Option<String>, Refusal> {
    let headers = headers(&publish::IDEMPOTENCY_KEY, lines);
    Ok(publish::read_key(&headers)?.map(str::to_owned))
}

/// Whether these lines of `If-None-Match` hold the tag.
pub fn is_held(lines: &[&[u8]], tag: &str) -> bool {
    topic::is_held(&headers(&IF_NONE_MATCH, lines), tag)
}

/// Whose a request is that comes from the trusted proxy `10.0.0.1` with these lines of `X-Forwarded-For`.
pub fn client_of(lines: &[&[u8]]) -> String {
    let mut config = Config::default();
    config.server.trusted_proxies.extend("10.0.0.0/8".parse::<Network>());
    let headers = headers(&HeaderName::from_static("x-forwarded-for"), lines);
    Peer::from(IpAddr::from([10, 0, 0, 1])).of_request(&config, &headers).to_string()
}

/// The lines that can be header values at all; the HTTP reader lets no others in.
fn headers(name: &HeaderName, lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(name, value);
    }
    headers
}

/// Reads the header of the PROXY protocol: the client, or none if the proxy does not say.
///
/// # Errors
/// What is wrong with it.
pub async fn read_proxy_header(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<String>, impl fmt::Debug> {
    Ok::<_, proxy_protocol::ProxyHeaderError>(
        proxy_protocol::read(socket).await?.map(|peer| peer.to_string()),
    )
}
