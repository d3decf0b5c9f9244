//! Carries publications between nodes and keeps what a topic retains.
//!
//! Retention (epoch, offset, last value, history, idempotency keys) belongs to the broker, and everything goes through
//! one asynchronous door, [`Broker`]: *publish, read, subscribe, unsubscribe*. What was published comes back, in order
//! per topic, through [`Inbound`], also to the node that published it: there is no local shortcut.
//! The crate knows no subscriber, no socket and no configuration file.

#![forbid(unsafe_code)]

mod memory;
pub mod redis;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tickcast_protocol::{Position, Publication, Topic};

pub use memory::{MemoryBroker, MemoryLimits};

/// A boxed future: the door is used through a trait object, off the per-delivery path.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The one door to whatever carries and retains publications.
pub trait Broker: Send + Sync + fmt::Debug {
    /// Orders, retains and hands out each item; answers in the order of the items. Items of one topic keep their order.
    fn publish(
        &self,
        items: Vec<PublishItem>,
    ) -> BoxFuture<'_, Vec<Result<Published, PublishError>>>;

    /// Reads what the topic holds now. A publication that was answered before this call is part of the answer.
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        request: ReadRequest,
    ) -> BoxFuture<'a, Result<Option<TopicState>, ReadError>>;

    /// Asks for the publications of these topics. Once it returns, each later publication comes through [`Inbound`].
    fn subscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// Gives the topics back. Publications under way may still come.
    fn unsubscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, ()>;

    /// What the broker holds, for the metrics.
    fn stats(&self) -> BrokerStats;
}

/// Where a broker hands publications in. Called from the broker's reader or from inside a publish, in order per topic.
///
/// It must neither block nor call back into the broker: a lock of the broker may be held around it.
pub trait Inbound: Send + Sync + fmt::Debug {
    /// A publication of a subscribed topic.
    fn deliver(&self, publication: Arc<Publication>);

    /// The broker stands at this position, and all of the topic up to it has been delivered, or is lost.
    fn compare(&self, topic: &Topic, position: Position);

    /// Something of the topic came that could not be read: its state must be read again.
    fn suspect(&self, topic: &Topic);

    /// The link came up or went down. It counts as down until the first call; a broker without a link calls it once.
    fn link_changed(&self, up: bool);
}

/// One item to publish.
#[derive(Debug, Clone)]
pub struct PublishItem {
    /// The topic.
    pub topic: Topic,
    /// One valid JSON text, carried verbatim.
    pub data: Bytes,
    /// Scoped to the topic; the same key again gives the same answer and no second publication.
    pub key: Option<String>,
    /// What the topic retains of it.
    pub retention: Retention,
}

/// What a topic retains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Keep the last value.
    pub value: bool,
    /// Keep at most this many recent publications; 0 for none.
    pub history: usize,
    /// Keep at most this many bytes of them.
    pub history_bytes: usize,
    /// Keep them at most this long.
    pub history_age: Duration,
}

/// The answer to an accepted publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its place in its topic.
    pub position: Position,
    /// The key was known: this is the answer to the first request with it.
    pub duplicate: bool,
}

/// Why an item was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It was never sent: safe to try again.
    #[error("the broker cannot be reached; nothing was published")]
    Unavailable,
    /// It may or may not be delivered: try again with the same key.
    #[error("the broker did not answer in time; the publication may still be delivered")]
    OutcomeUnknown,
    /// The key was used with another body.
    #[error("the idempotency key was used before with another body")]
    IdempotencyConflict,
    /// A bound of the broker is reached. The text names it.
    #[error("the broker is full: {0}")]
    Full(&'static str),
}

/// Why a topic could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The broker cannot be reached.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The topic does not exist, and a bound of the broker keeps it from being created. The text names it.
    #[error("the broker is full: {0}")]
    Full(&'static str),
}

/// The broker cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker cannot be reached")]
pub struct Unavailable;

/// What to read of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// Give a topic that does not exist yet an epoch (at offset 0) instead of answering "none".
    pub create: bool,
    /// How much history to include.
    pub history: HistoryRequest,
}

/// Which part of the history to read. Always in order and bounded by what the topic retains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRequest {
    /// None of it.
    None,
    /// Everything retained after this offset.
    After(u64),
    /// The newest this many.
    Newest(usize),
}

/// What a topic holds.
#[derive(Debug, Clone)]
pub struct TopicState {
    /// Its epoch and last offset; offset 0 if nothing was published in this epoch.
    pub position: Position,
    /// The last value, if the topic retains it.
    pub value: Option<Arc<Publication>>,
    /// The part of the history that was asked for, oldest first.
    pub history: Vec<Arc<Publication>>,
}

/// What a broker holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Topics with an epoch.
    pub topics: usize,
    /// Topics subscribed by this node.
    pub subscriptions: usize,
    /// Bytes of retained publications.
    pub bytes: usize,
    /// Idempotency keys kept.
    pub keys: usize,
    /// The link to the broker, where there is one.
    pub link: Option<LinkStats>,
}

/// What a link to a broker outside the node has done, and how it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Attempts to connect that succeeded.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connects_failed: u64,
    /// Connections made after the first two.
    pub reconnects: u64,
    /// Since the newest echo of a probe; none if there was none yet.
    pub echo_age: Option<Duration>,
    /// From sending the newest probe that came back to its echo.
    pub round_trip: Duration,
    /// Bytes of publications that were sent and not yet answered.
    pub in_flight_bytes: usize,
    /// Bound on `in_flight_bytes`. At it, a publication is refused before it is sent.
    pub in_flight_max_bytes: usize,
    /// Publications received.
    pub received: u64,
    /// Messages received that could not be read; the topic's state was read again.
    pub undecodable: u64,
    /// Positions of topics compared with the broker's.
    pub compared: u64,
    /// Topics whose subscription the broker refuses.
    pub denied: usize,
    /// Topics that this node wants.
    pub wanted: usize,
    /// Those of them that wait for their subscription to be confirmed.
    pub pending: usize,
    /// What Redis holds for this node and could not yet send, when last looked at.
    pub output_buffer_bytes: usize,
}

/// Milliseconds since 1970; 0 for a clock set before that.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
