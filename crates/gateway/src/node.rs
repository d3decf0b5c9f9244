//! The one place that joins hub and broker.
//!
//! Publishing goes to the broker only; what comes back goes to the hub only. What the hub needs from the broker are
//! jobs, and the [`keeper`] does them.

pub(crate) mod keeper;
pub(crate) mod life;
pub(crate) mod pulse;
pub(crate) mod warnings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use bytes::Bytes;
use tickcast_broker::{
    Broker, HistoryRequest, Inbound, PublishError, PublishItem, Published, ReadError, ReadRequest,
    Retention, TopicState,
};
use tickcast_hub::{Hub, LogBounds, TopicOptions, TopicRules};
use tickcast_protocol::{ErrorCode, Position, Publication, Topic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::api::held::HttpMemory;
use crate::config::{Config, Live};
use crate::metrics::{BrokerCall, Metrics};
use crate::server::{Connections, Reloader};
use life::{Life, Stage};
use pulse::Pulse;
use warnings::Warnings;

/// Longest time a publisher or a reader waits for the broker.
pub(crate) const BROKER_TIMEOUT: Duration = Duration::from_secs(1);

/// One item of a publish request, checked.
#[derive(Debug)]
pub(crate) struct Item {
    /// The topic.
    pub(crate) topic: Topic,
    /// One valid JSON text, verbatim.
    pub(crate) data: Bytes,
    /// The idempotency key.
    pub(crate) key: Option<String>,
}

/// What every part of the node shares.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) live: Arc<Live>,
    pub(crate) reloader: Reloader,
    pub(crate) access: Access,
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Connections>,
    /// What slow clients hold over HTTP.
    pub(crate) http_memory: Arc<HttpMemory>,
    /// Cancelled when a part of the node has ended that must not: the node is good for nothing any more.
    pub(crate) failed: CancellationToken,
    pub(crate) life: Life,
    pub(crate) pulse: Pulse,
    pub(crate) warnings: Warnings,
}

impl Node {
    /// The configuration as it is now. What belongs together is read from one answer.
    pub(crate) fn config(&self) -> Guard<Arc<Config>> {
        self.live.load()
    }

    /// Publishes items in order and answers in the same order.
    ///
    /// An answer that does not come within a second is `OutcomeUnknown`: the publication may still be delivered.
    pub(crate) async fn publish(&self, items: Vec<Item>) -> Vec<Result<Published, PublishError>> {
        let count = items.len();
        let config = self.config();
        let items = items.into_iter().map(|item| {
            self.metrics.observe_payload(item.data.len());
            let options = config.for_topic(item.topic.as_str());
            let retention = Retention {
                value: options.retain_value,
                history: options.history,
                history_bytes: options.history_bytes.bytes(),
                history_age: options.history_age,
            };
            PublishItem { topic: item.topic, data: item.data, key: item.key, retention }
        });
        let asked = Instant::now();
        let results =
            tokio::time::timeout(BROKER_TIMEOUT, self.broker.publish(items.collect())).await;
        self.metrics.observe_broker_publish(asked.elapsed());
        let results =
            results.unwrap_or_else(|_elapsed| vec![Err(PublishError::OutcomeUnknown); count]);
        self.metrics.count_publishes(&results);
        if results.iter().any(is_broken) {
            self.metrics.count_broker_error(BrokerCall::Publish);
        }
        results
    }

    /// Reads what the broker holds of a topic; none if the topic does not exist.
    pub(crate) async fn read(
        &self,
        topic: &Topic,
        history: HistoryRequest,
    ) -> Result<Option<TopicState>, ReadError> {
        let request = ReadRequest { create: false, history };
        let state = tokio::time::timeout(BROKER_TIMEOUT, self.broker.read(topic, request)).await;
        let state = state.unwrap_or(Err(ReadError::Unavailable(tickcast_broker::Unavailable)));
        if let Err(ReadError::Unavailable(_)) = state {
            self.metrics.count_broker_error(BrokerCall::Read);
        }
        state
    }

    /// Whether a publication made now would arrive.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready_for_subscribe() && self.metrics.is_broker_up()
    }

    /// Whether new subscribers are welcome: they are while only the broker is down.
    pub(crate) fn is_ready_for_subscribe(&self) -> bool {
        // A worker that hangs has a share of all who come, and they would wait for ever.
        let can_serve = !self.connections.is_out_of_files() && !self.pulse.hangs();
        can_serve && !self.is_leaving() && !self.failed.is_cancelled()
    }

    /// Open connections of the public listener now, by what they carry: HTTP and WebSocket.
    pub(crate) fn open_connections(&self) -> (u64, u64) {
        let websocket = self.metrics.websocket_connections();
        (self.connections.http(websocket), websocket)
    }

    /// Whether the node has begun to go: it is not ready any more, and may serve still.
    pub(crate) fn is_leaving(&self) -> bool {
        self.life.stage() >= Stage::Leaving
    }
}

/// Whether the broker could not be asked, or did not answer.
fn is_broken(result: &Result<Published, PublishError>) -> bool {
    matches!(result, Err(PublishError::Unavailable | PublishError::OutcomeUnknown))
}

/// What a client is told when a publication was not accepted, over HTTP and WebSocket alike.
pub(crate) fn error_code(error: PublishError) -> ErrorCode {
    match error {
        PublishError::Unavailable => ErrorCode::BrokerUnavailable,
        PublishError::OutcomeUnknown => ErrorCode::OutcomeUnknown,
        PublishError::IdempotencyConflict => ErrorCode::IdempotencyConflict,
        PublishError::Full(_) => ErrorCode::BrokerFull,
    }
}

/// Where the broker hands publications in.
#[derive(Debug)]
pub(crate) struct Intake {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Its waiters are told when the link comes up.
    link_up: Arc<Notify>,
}

impl Intake {
    pub(crate) fn new(hub: Arc<Hub>, metrics: Arc<Metrics>, link_up: Arc<Notify>) -> Self {
        Self { hub, metrics, link_up }
    }
}

impl Inbound for Intake {
    fn deliver(&self, publication: Arc<Publication>) {
        self.hub.deliver(publication);
    }

    fn compare(&self, topic: &Topic, position: Position) {
        self.hub.compare(topic, position);
    }

    fn suspect(&self, topic: &Topic) {
        self.hub.suspect(topic);
    }

    fn link_changed(&self, up: bool) {
        self.metrics.set_broker_up(up);
        self.hub.link_changed(up);
        if up {
            self.link_up.notify_waiters();
        }
    }
}

/// The configuration, as the hub asks for it.
#[derive(Debug)]
pub(crate) struct Rules(pub(crate) Arc<Live>);

impl TopicRules for Rules {
    fn options(&self, topic: &str) -> TopicOptions {
        let options = self.0.load().for_topic(topic);
        let without_history = options.history == 0;
        TopicOptions {
            mode: options.mode,
            max_rate: None,
            flush_interval_ms: u32::try_from(options.flush_interval.as_millis())
                .unwrap_or(u32::MAX),
            keeps_value: options.retain_value,
            log: LogBounds {
                // The node's log also serves sockets that are full for a moment, so it is there without history too.
                publications: if without_history { LOG_PUBLICATIONS } else { options.history },
                bytes: if without_history { LOG_BYTES } else { options.history_bytes.bytes() },
                age: if without_history { LOG_AGE } else { options.history_age },
            },
        }
    }
}

/// Bounds of the log of a topic without history: what a socket may fall behind before it gets a `gap`.
const LOG_PUBLICATIONS: usize = 1000;
const LOG_BYTES: usize = 1 << 20;
const LOG_AGE: Duration = Duration::from_secs(300);
