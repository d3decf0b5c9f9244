//! Broker faults on command, and a clock moved by hand: for the tests of whoever uses a broker.
//!
//! [`FaultyBroker`] stands on both sides of a real broker, so that gap, repair and reset run for real in one process.
//! Everything is scripted by its methods, deterministic and free of sleeps. With no fault scripted it changes nothing.

mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tickcast_protocol::{Epoch, Position, Topic};
use tokio::sync::watch;

use self::script::{FaultyInbound, Flip, Script, TopicScript, take_one};
use crate::{
    BoxFuture, Broker, BrokerStats, HistoryRequest, Inbound, PublishError, PublishItem, Published,
    ReadError, ReadRequest, TopicState, Unavailable,
};

/// As a number of failures: fail until [`FaultyBroker::clear`].
pub const UNTIL_CLEARED: usize = usize::MAX;

/// What happens to one delivery of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It arrives.
    Pass,
    /// It vanishes.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives after the next one of its topic that arrives.
    Postpone,
}

/// Where a read is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// On its way to the broker: the answer will be fresh.
    Request,
    /// On its way back: the answer will be as old as the request.
    Answer,
}

/// A broker that fails on command.
#[derive(Debug)]
pub struct FaultyBroker {
    inner: Arc<dyn Broker>,
    inbound: Arc<dyn Inbound>,
    script: Arc<Mutex<Script>>,
    reads: watch::Sender<ReadGate>,
}

#[derive(Debug, Default)]
struct ReadGate {
    hold: Option<Hold>,
    /// Reads that were held up since the gate was closed.
    held: usize,
}

impl FaultyBroker {
    /// Wraps the broker that `make` builds around the inbound side it is given; what arrives goes to `inbound`.
    pub fn new(
        inbound: Arc<dyn Inbound>,
        make: impl FnOnce(Arc<dyn Inbound>) -> Arc<dyn Broker>,
    ) -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let faulty = FaultyInbound { inbound: Arc::clone(&inbound), script: Arc::clone(&script) };
        Self { inner: make(Arc::new(faulty)), inbound, script, reads: watch::Sender::default() }
    }

    /// The real broker: what another node, without faults of its own, publishes through.
    pub fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    /// The next `count` reads answer `Unavailable`.
    pub fn fail_reads(&self, count: usize) {
        self.script.lock().reads_failing = count;
    }

    /// The next `count` subscribes answer `Unavailable`.
    pub fn fail_subscribes(&self, count: usize) {
        self.script.lock().subscribes_failing = count;
    }

    /// The next `count` publishes answer `Unavailable` for every item; nothing is published.
    pub fn fail_publishes(&self, count: usize) {
        self.script.lock().publishes_failing = count;
    }

    /// The next `count` publishes answer `OutcomeUnknown` for every accepted item, after having published it.
    pub fn lose_answers(&self, count: usize) {
        self.script.lock().answers_lost = count;
    }

    /// Holds up every read from now on.
    pub fn hold_reads(&self, hold: Hold) {
        self.reads.send_replace(ReadGate { hold: Some(hold), held: 0 });
    }

    /// Waits until `count` reads were held up since [`FaultyBroker::hold_reads`].
    pub async fn until_reads_held(&self, count: usize) {
        // An error would mean that the sender is gone, and `self` owns it.
        drop(self.reads.subscribe().wait_for(|gate| gate.held >= count).await);
    }

    /// Lets all reads go on, held or new.
    pub fn release_reads(&self) {
        self.reads.send_modify(|gate| gate.hold = None);
    }

    /// The next deliveries of the topic go like this; those after them pass.
    pub fn script_deliveries(&self, topic: &Topic, deliveries: impl IntoIterator<Item = Delivery>) {
        self.script.lock().topic(topic).deliveries.extend(deliveries);
    }

    /// From now on, reads of the topic find no history.
    pub fn forget_history(&self, topic: &Topic) {
        self.script.lock().topic(topic).history_forgotten = true;
    }

    /// Restarts the topic in a new epoch, where what is now its last publication has `offset`: what a failover looks
    /// like. With a smaller offset than now, the oldest history is gone; with 0, the value too.
    ///
    /// Lasts beyond [`FaultyBroker::clear`]. None, and nothing happens, if the topic does not exist. Nothing may be
    /// publishing to the topic meanwhile.
    pub async fn flip_epoch(&self, topic: &Topic, offset: u64) -> Option<Position> {
        let request = ReadRequest { create: false, history: HistoryRequest::None };
        let real = self.inner.read(topic, request).await.ok()??.position;
        let mut script = self.script.lock();
        let flips = &mut script.topic(topic).flips;
        let latest = flips.last().map_or(real.epoch, |flip| flip.epoch);
        let epoch = Epoch::new(latest.number().wrapping_add(1));
        flips.push(Flip { at: real.offset, start: offset, epoch });
        Some(Position { epoch, offset })
    }

    /// Cuts the link: all calls answer `Unavailable`, what is published elsewhere is lost for this node.
    pub fn link_down(&self) {
        let mut script = self.script.lock();
        script.link_down = true;
        script.topics.values_mut().for_each(|topic| topic.postponed.clear());
        drop(script);
        self.inbound.link_changed(false);
    }

    /// Mends the link. Subscriptions have survived, as they do in a broker that subscribes again by itself.
    pub fn link_up(&self) {
        self.script.lock().link_down = false;
        self.inbound.link_changed(true);
    }

    /// Ends failures, holds, scripted deliveries and forgotten histories. Postponed publications are lost.
    pub fn clear(&self) {
        let mut script = self.script.lock();
        let Script { link_down, topics, .. } = std::mem::take(&mut *script);
        script.link_down = link_down;
        script.topics = topics
            .into_iter()
            .map(|(topic, old)| (topic, TopicScript { flips: old.flips, ..Default::default() }))
            .collect();
        drop(script);
        self.release_reads();
    }

    async fn pass_read_gate(&self, place: Hold) {
        let mut gate = self.reads.subscribe();
        let closed = self.reads.send_if_modified(|gate| {
            let closed = gate.hold == Some(place);
            gate.held += usize::from(closed);
            closed
        });
        if closed {
            drop(gate.wait_for(|gate| gate.hold.is_none()).await);
        }
    }
}

impl Broker for FaultyBroker {
    fn publish(
        &self,
        items: Vec<PublishItem>,
    ) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(async move {
            if self.script.lock().fails(|script| &mut script.publishes_failing) {
                return items.iter().map(|_| Err(PublishError::Unavailable)).collect();
            }
            let topics: Vec<_> = items.iter().map(|item| item.topic.clone()).collect();
            let answers = self.inner.publish(items).await;
            let mut script = self.script.lock();
            let lost = take_one(&mut script.answers_lost);
            let show = |(topic, answer): (_, Result<Published, _>)| match answer {
                Ok(_) if lost => Err(PublishError::OutcomeUnknown),
                Ok(published) => {
                    let position = script.topic(&topic).show_answer(published.position);
                    Ok(Published { position, ..published })
                }
                Err(error) => Err(error),
            };
            topics.into_iter().zip(answers).map(show).collect()
        })
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        mut request: ReadRequest,
    ) -> BoxFuture<'a, Result<Option<TopicState>, ReadError>> {
        Box::pin(async move {
            if self.script.lock().fails(|script| &mut script.reads_failing) {
                return Err(ReadError::Unavailable(Unavailable));
            }
            self.pass_read_gate(Hold::Request).await;
            if let (HistoryRequest::After(offset), Some(flip)) =
                (&mut request.history, self.script.lock().topic(topic).flips.last())
            {
                *offset = offset.saturating_add(flip.at).saturating_sub(flip.start);
            }
            let state = self.inner.read(topic, request).await?;
            let shown = state.map(|state| self.script.lock().topic(topic).show_state(state));
            self.pass_read_gate(Hold::Answer).await;
            Ok(shown)
        })
    }

    fn subscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            if self.script.lock().fails(|script| &mut script.subscribes_failing) {
                return Err(Unavailable);
            }
            self.inner.subscribe(topics).await
        })
    }

    fn unsubscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, ()> {
        self.inner.unsubscribe(topics)
    }

    fn stats(&self) -> BrokerStats {
        self.inner.stats()
    }
}

/// A clock that moves only when told to, for [`MemoryBroker::with_clock`](crate::MemoryBroker::with_clock).
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Instant>>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl ManualClock {
    /// The time it shows.
    pub fn now(&self) -> Instant {
        *self.0.lock()
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}
