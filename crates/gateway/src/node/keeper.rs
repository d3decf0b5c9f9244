//! Does the hub's jobs at the broker: opens topics, repairs holes, reads history, gives idle topics back.
//!
//! One task. Subscribing and unsubscribing happen in the order in which interest came and went. Reads of different topics
//! run side by side, so that a slow one keeps no other topic waiting; those of one topic run one after another, and none
//! outlives its topic, so that no answer reaches a later life of a topic than it was asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tickcast_broker::{Broker, HistoryRequest, ReadError, ReadRequest, TopicState, Unavailable};
use tickcast_hub::{Hub, Job, State};
use tickcast_protocol::Topic;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{BROKER_TIMEOUT, Node};
use crate::metrics::{BrokerCall, Metrics};

/// How long a topic stays subscribed after its last subscriber went. Clients that reload a page come back within it, and
/// so do those that were told `unavailable` while very many topics were being opened: what was begun for them is not lost.
const GRACE: Duration = Duration::from_secs(5);

/// Topics of one unsubscribe at the broker.
const BATCH: usize = 512;

/// Reads that run side by side: with a broker 10 ms away, 25,000 topics are opened in a second.
const READS_MAX: usize = 512;

/// First and longest pause between two attempts at a broker that does not answer.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What a read is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// Subscribe, then read.
    Open,
    Repair(u64),
    History,
    Position,
}

/// The reads of one topic: one under way, and those that follow. The hub asks for one of each kind at most.
#[derive(Debug)]
struct Reads {
    running: AbortHandle,
    next: VecDeque<Purpose>,
}

/// The task that does the hub's jobs.
#[derive(Debug)]
pub(crate) struct Keeper {
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
    /// Its waiters are told that the broker's link is up again.
    link_up: Arc<Notify>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<Topic>,
    reads: HashMap<Topic, Reads>,
    /// Idle topics and when their grace period ends, in that order. Bounded: a topic is in it once.
    idle: VecDeque<(Instant, Topic)>,
}

impl Keeper {
    /// `wake` is notified when the hub has jobs; the waiters of `link_up`, when the broker's link comes up.
    pub(crate) fn new(node: &Node, wake: Arc<Notify>, link_up: Arc<Notify>) -> Self {
        let (hub, broker) = (Arc::clone(&node.hub), Arc::clone(&node.broker));
        let metrics = Arc::clone(&node.metrics);
        let slots = Arc::new(Semaphore::new(READS_MAX));
        let (tasks, reads, idle) = (JoinSet::new(), HashMap::new(), VecDeque::new());
        Self { hub, broker, metrics, wake, link_up, slots, tasks, reads, idle }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let grace_ends = self.idle.front().map(|(at, _)| *at);
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(grace_ends.unwrap_or_else(Instant::now)), if grace_ends.is_some() => {}
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((id, topic)) => self.read_next(id, topic),
                    Err(error) => self.read_failed(&error),
                },
            }
            for job in self.hub.take_jobs() {
                match job {
                    Job::Open { topic } => self.read(topic, Purpose::Open),
                    Job::Repair { topic, after } => self.read(topic, Purpose::Repair(after)),
                    Job::History { topic } => self.read(topic, Purpose::History),
                    Job::Position { topic } => self.read(topic, Purpose::Position),
                    Job::Idle { topic } => self.idle.push_back((Instant::now() + GRACE, topic)),
                }
            }
            self.close_idle().await;
        }
    }

    async fn close_idle(&mut self) {
        let now = Instant::now();
        let mut closed = Vec::new();
        while let Some((_, topic)) = self.idle.pop_front_if(|(at, _)| *at <= now) {
            if self.hub.close_if_idle(&topic) {
                if let Some(reads) = self.reads.remove(&topic) {
                    reads.running.abort();
                }
                closed.push(topic);
            }
        }
        for batch in closed.chunks(BATCH) {
            // Publications of a topic that stays subscribed by mistake are ignored: the hub does not know it.
            if timeout(BROKER_TIMEOUT, self.broker.unsubscribe(batch.to_vec())).await.is_err() {
                tracing::warn!(
                    topics = batch.len(),
                    "the broker did not confirm an unsubscribe in time"
                );
            }
        }
    }

    /// Reads a topic, behind the reads of it that are asked for already.
    fn read(&mut self, topic: Topic, purpose: Purpose) {
        if let Some(reads) = self.reads.get_mut(&topic) {
            reads.next.push_back(purpose);
        } else {
            let running = self.spawn(topic.clone(), purpose);
            self.reads.insert(topic, Reads { running, next: VecDeque::new() });
        }
    }

    /// A read has ended: the next one of its topic begins.
    fn read_next(&mut self, ended: Id, topic: Topic) {
        let Some(mut reads) = self.reads.remove(&topic) else { return };
        if reads.running.id() == ended {
            let Some(purpose) = reads.next.pop_front() else { return };
            reads.running = self.spawn(topic.clone(), purpose);
        } // Otherwise it belongs to an earlier life of the topic.
        self.reads.insert(topic, reads);
    }

    /// A read was aborted, and has left the table already, or it panicked: then its topic must not wait for it.
    fn read_failed(&mut self, error: &JoinError) {
        if error.is_panic() {
            tracing::error!(%error, "a read of the broker panicked");
            self.reads.retain(|_, reads| reads.running.id() != error.id());
        }
    }

    fn spawn(&mut self, topic: Topic, purpose: Purpose) -> AbortHandle {
        let (hub, broker) = (Arc::clone(&self.hub), Arc::clone(&self.broker));
        let (slots, link_up) = (Arc::clone(&self.slots), Arc::clone(&self.link_up));
        let metrics = Arc::clone(&self.metrics);
        self.tasks.spawn(async move {
            let mut pause = RETRY_MIN;
            while hub.holds(&topic) {
                let slot = slots.acquire().await;
                let state = read(&*broker, &metrics, &topic, purpose).await;
                drop(slot);
                match state {
                    Ok(state) => {
                        bring_back(&hub, &topic, purpose, state);
                        return topic;
                    }
                    Err(error) => {
                        tracing::debug!(%topic, ?purpose, %error, "reading a topic failed; trying again");
                        back_off(&mut pause, &link_up).await;
                    }
                }
            }
            topic
        })
    }
}

async fn read(
    broker: &dyn Broker,
    metrics: &Metrics,
    topic: &Topic,
    purpose: Purpose,
) -> Result<TopicState, ReadError> {
    let failed = |call| metrics.count_broker_error(call);
    if let Purpose::Open = purpose {
        let subscribed = in_time(broker.subscribe(vec![topic.clone()])).await;
        subscribed.inspect_err(|_unavailable| failed(BrokerCall::Subscribe))?;
    }
    let history = match purpose {
        Purpose::Open | Purpose::Position => HistoryRequest::None,
        Purpose::Repair(after) => HistoryRequest::After(after),
        Purpose::History => HistoryRequest::After(0),
    };
    let state = in_time(broker.read(topic, ReadRequest { create: true, history })).await;
    let state = state.inspect_err(|error| {
        if let ReadError::Unavailable(_) = error {
            failed(BrokerCall::Read);
        }
    })?;
    // A read that may create the topic always finds it.
    state.ok_or(ReadError::Unavailable(Unavailable))
}

/// Gives a broker that does not answer up after a second: one call must not hold the others.
async fn in_time<T, E: From<Unavailable>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(BROKER_TIMEOUT, call).await.unwrap_or_else(|_elapsed| Err(Unavailable.into()))
}

fn bring_back(hub: &Hub, topic: &Topic, purpose: Purpose, state: TopicState) {
    let complete = matches!(purpose, Purpose::History);
    let TopicState { position, value, history } = state;
    let state = State { position, value, history, complete };
    match purpose {
        Purpose::Open => hub.opened(topic, state),
        Purpose::Repair(_) => hub.repaired(topic, state),
        Purpose::History => hub.history_loaded(topic, state),
        Purpose::Position => hub.position_read(topic, state.position),
    }
}

/// Sleeps with jitter, so that many nodes do not ask in step, and doubles the pause. A link that comes up ends it.
async fn back_off(pause: &mut Duration, link_up: &Notify) {
    let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
    *pause = (*pause * 2).min(RETRY_MAX);
    tokio::select! {
        () = sleep(jittered) => {}
        () = link_up.notified() => {}
    }
}
