//! The command side of the link: publishes, reads, compares, probes.
//!
//! Used from any thread and runtime. The driver of the link installs connections and takes them away again; in between
//! everything is refused at once. Every call is answered before [`ANSWER_TIMEOUT`], whatever Redis does.

mod batch;
mod in_flight;
mod publish;
mod refusal;
mod renewals;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, ServerErrorKind, Value};
use tickcast_protocol::{Epoch, Topic};
use tokio::time::timeout;

use self::in_flight::InFlight;
use self::refusal::Complaints;
use self::renewals::Renewals;
use super::envelope::Record;
use super::link::Refusal;
use super::names::Names;
use super::scripts::{self, By, Fence, Line, RunItem, Ttls, Unexpected};
use crate::{HistoryRequest, ReadError, ReadRequest, Retention, TopicState, Unavailable};

/// Topics that one [`Commands::compare`] may name: Redis does nothing else meanwhile.
pub(crate) const COMPARE_TOPICS_MAX: usize = 512;

/// Bytes of publications that may be sent and not yet answered.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// Reads of history under way at once. Each may bring a MiB or more, and probes and publications wait behind it: so many
/// keep them for some 50 ms. Without a bound, clients that come back all at once would take the link down.
const HISTORIES_MAX: usize = 32;

/// A publication must be answered within a second, and there is work after the answer of Redis.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);
const _: () = assert!(ANSWER_TIMEOUT.as_millis() < 1000);

/// How long the hash lives to which a node's probes write.
const PROBE_TTL: Duration = Duration::from_secs(60);

/// A probe leaves nothing behind but its position.
const PROBE_RETENTION: Retention =
    Retention { value: false, history: 0, history_bytes: 0, history_age: Duration::ZERO };

/// The command side of the link. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Names,
    /// Times to live as they are set: longer than asked for by the interval in which they are renewed.
    ttls: Ttls,
    node_key: String,
    node_channel: String,
    link: Mutex<Option<Link>>,
    /// Connections so far.
    links: AtomicU64,
    in_flight: InFlight,
    /// Counts reads of history instead of bytes.
    histories: InFlight,
    renewals: Renewals,
    complaints: Complaints,
}

/// A connection and what is known about the Redis behind it.
#[derive(Debug, Clone)]
struct Link {
    connection: MultiplexedConnection,
    /// The `master_replid` of that Redis, as far as known.
    replication_id: Arc<str>,
    /// Tells connections apart.
    number: u64,
}

/// How long things live in Redis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimesToLive {
    /// A topic, after its last publication or comparison.
    pub(crate) topic: Duration,
    /// The same for a topic that was never published.
    pub(crate) unpublished: Duration,
    /// An idempotency key.
    pub(crate) idempotency: Duration,
}

impl Commands {
    /// Disconnected. `node` is the id of this process.
    pub(crate) fn new(names: Names, node: &str, ttls: TimesToLive) -> Self {
        let renewed = |ttl: Duration| ttl.saturating_add(renewals::INTERVAL);
        let ttls = Ttls {
            topic: renewed(ttls.topic),
            unpublished: renewed(ttls.unpublished),
            idempotency: ttls.idempotency,
        };
        let (node_key, node_channel) = (names.node_topic(node), names.node_channel(node));
        Self {
            shared: Arc::new(Shared {
                names,
                ttls,
                node_key,
                node_channel,
                link: Mutex::default(),
                links: AtomicU64::new(0),
                in_flight: InFlight::new(IN_FLIGHT_BYTES_MAX),
                histories: InFlight::new(HISTORIES_MAX),
                renewals: Renewals::new(),
                complaints: Complaints::default(),
            }),
        }
    }

    /// Makes the scripts known on a fresh connection, before it is given to [`Commands::connect`].
    pub(crate) async fn load_scripts(
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Refusal> {
        let scripts = [&scripts::PUBLISH, &scripts::READ, &scripts::COMPARE];
        let mut pipeline = redis::Pipeline::with_capacity(scripts.len());
        for script in scripts {
            pipeline.add_command(script.load());
        }
        let replies = connection.send_packed_commands(&pipeline, 0, scripts.len());
        let Ok(Ok(replies)) = timeout(ANSWER_TIMEOUT, replies).await else {
            return Err(Refusal::Lost);
        };
        replies.iter().try_for_each(|reply| match reply {
            Value::ServerError(error) => Err(Refusal::from(error)),
            _ => Ok(()),
        })
    }

    /// From now on commands go out on this connection. `replication_id` is the `master_replid` that Redis reported on it.
    pub(crate) fn connect(&self, connection: MultiplexedConnection, replication_id: String) {
        let number = self.shared.links.fetch_add(1, Ordering::Relaxed);
        let replication_id = replication_id.into();
        *self.shared.link.lock() = Some(Link { connection, replication_id, number });
        self.shared.renewals.forget();
        self.shared.forget_abandoned();
    }

    /// From now on everything is refused, until the next [`Commands::connect`].
    pub(crate) fn disconnect(&self) {
        *self.shared.link.lock() = None;
        self.shared.forget_abandoned();
    }

    /// As [`Broker::read`](crate::Broker::read).
    pub(crate) async fn read(
        &self,
        topic: &Topic,
        request: ReadRequest,
    ) -> Result<Option<TopicState>, ReadError> {
        let names = &self.shared.names;
        let keys = [names.topic(topic), names.history(topic)];
        let ttls = self.shared.ttls;
        let build = |by, fence: Fence<'_>| scripts::read(by, fence, ttls, &keys, request);
        let ticket = match request.history {
            HistoryRequest::None => None,
            HistoryRequest::After(_) | HistoryRequest::Newest(_) => {
                let admitted = timeout(ANSWER_TIMEOUT, self.shared.histories.admit(1)).await;
                Some(admitted.map_err(|_elapsed| Unavailable)?)
            }
        };
        let state = self.run(build).await;
        match ticket {
            // It may still be answered, and stays counted until something later is.
            Some(abandoned) if matches!(state, Err(Refusal::Lost)) => drop(abandoned),
            Some(ticket) => ticket.settle(true),
            None => {}
        }
        let state = state.and_then(|(link, reply)| {
            let reply = scripts::read_reply(&reply)?;
            self.correct(&link, reply.replication_id);
            Ok(reply.topic.map(|found| state::topic_state(topic, &found, request.history)))
        });
        state.map_err(|refusal| {
            if refusal != Refusal::Lost {
                self.shared.complaints.note("read", &refusal);
            }
            ReadError::Unavailable(Unavailable)
        })
    }

    /// Has the positions of at most [`COMPARE_TOPICS_MAX`] topics sent to this node's channel, as comparison `batch`.
    ///
    /// Topics that do not exist are created. A topic whose key holds something else is left out.
    pub(crate) async fn compare(&self, batch: u64, topics: &[Topic]) -> Result<(), Refusal> {
        debug_assert!(topics.len() <= COMPARE_TOPICS_MAX, "a comparison of {}", topics.len());
        let topics: Vec<_> =
            topics.iter().map(|topic| (self.shared.names.topic(topic), topic.as_str())).collect();
        let (ttls, to) = (self.shared.ttls, (self.shared.node_channel.as_str(), batch));
        let build = |by, fence: Fence<'_>| scripts::compare(by, fence, ttls, to, &topics);
        let (link, reply) = self.run(build).await?;
        self.correct(&link, scripts::text(&reply)?);
        Ok(())
    }

    /// Has `number` sent to this node's channel, by the same writes that a publication makes.
    pub(crate) async fn probe(&self, number: u64) -> Result<(), Refusal> {
        let payload = number.to_string();
        let ttls = Ttls { topic: PROBE_TTL, ..self.shared.ttls };
        let build = |by, fence: Fence<'_>| {
            let record = Record { time_ms: 0, data: payload.as_bytes() };
            let run = scripts::Run {
                topic_key: self.shared.node_key.clone(),
                channel: self.shared.node_channel.clone(),
                retention: PROBE_RETENTION,
                history: None,
                renew: true,
                keyed: false,
                items: vec![RunItem { record, answer_key: None }],
            };
            // Without an id the script looks the true one up, and thereby corrects this node's, if nothing else does.
            scripts::publish(by, Fence { replication_id: "", ..fence }, ttls, &[run])
        };
        let sent =
            [&self.shared.in_flight, &self.shared.histories].map(|bound| (bound, bound.mark()));
        let (link, reply) = self.run(build).await?;
        // Redis answers in order, so all that was sent before has been answered too.
        sent.into_iter().for_each(|(bound, mark)| bound.release_before(mark));
        let (replication_id, mut lines) = scripts::publish_reply(&reply)?;
        self.correct(&link, replication_id);
        match Line::parse(lines.next().unwrap_or_default())? {
            Line::Refused(text) | Line::Failed(text) => Err(Refusal::from_text(text)),
            Line::Published(_) | Line::Duplicate(_) | Line::Conflict => Ok(()),
        }
    }

    /// Bytes of publications that were sent and not yet answered.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.shared.in_flight.bytes()
    }

    fn link(&self) -> Option<Link> {
        self.shared.link.lock().clone()
    }

    /// Takes over the true replication id that a script has looked up, unless that was on an earlier connection.
    fn correct(&self, link: &Link, true_id: &str) {
        if !true_id.is_empty()
            && true_id != &*link.replication_id
            && let Some(current) = &mut *self.shared.link.lock()
            && current.number == link.number
        {
            current.replication_id = true_id.into();
        }
    }

    /// Runs one script and waits for its reply.
    async fn run(&self, build: impl Fn(By, Fence<'_>) -> Cmd) -> Result<(Link, Value), Refusal> {
        let link = self.link().ok_or(Refusal::Lost)?;
        let mut connection = link.connection.clone();
        let reply = call(&mut connection, |by| build(by, link.fence()));
        match timeout(ANSWER_TIMEOUT, reply).await {
            Ok(Ok(Value::ServerError(error))) => Err(Refusal::from(&error)),
            Ok(Ok(reply)) => Ok((link, reply)),
            Ok(Err(_)) | Err(_) => Err(Refusal::Lost),
        }
    }
}

impl Shared {
    /// A connection is closed, and with it all that was given up on it.
    fn forget_abandoned(&self) {
        self.in_flight.forget_abandoned();
        self.histories.forget_abandoned();
    }
}

impl Link {
    /// With a new candidate each time: a topic that is lost twice must not get the same epoch again.
    fn fence(&self) -> Fence<'_> {
        // 40 bits are 8 characters on the wire, and two epochs of one topic are alike once in 10^12.
        let candidate = Epoch::new(rand::random::<u64>() >> 24);
        Fence { replication_id: &self.replication_id, candidate }
    }
}

/// Calls a script by its hash and, if Redis does not know it, by its text. An unknown script was not run, so that this
/// does nothing twice.
async fn call(
    connection: &mut MultiplexedConnection,
    build: impl Fn(By) -> Cmd,
) -> RedisResult<Value> {
    let reply = connection.send_packed_command(&build(By::Hash)).await?;
    match &reply {
        Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
            connection.send_packed_command(&build(By::Text)).await
        }
        _ => Ok(reply),
    }
}

impl From<Unexpected> for Refusal {
    fn from(unexpected: Unexpected) -> Self {
        Self::Refused(unexpected.to_string())
    }
}
