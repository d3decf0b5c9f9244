//! Performs what the [`Link`] decides: dials, sends, closes, and tells it what came of it.
//!
//! One task on the broker's own thread. Nothing here waits: whatever takes time is a task of its own that reports back,
//! so a Redis that hangs holds up neither requests nor the clock that finds it out.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tickcast_protocol::Topic;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::commands::Commands;
use super::dial::{Dialed, Dialer};
use super::link::{Action, BatchId, CallId, Event, Link, Refusal, ServerView, Side, TICK};
use super::names::Names;
use super::receiver::Receiver;
use super::sentinel;
use crate::{Inbound, LinkStats};

/// What other parts of the node ask of the link.
#[derive(Debug)]
pub(super) enum Request {
    Subscribe { topics: Vec<Topic>, done: oneshot::Sender<bool> },
    Unsubscribe { topics: Vec<Topic> },
}

/// What tasks report back.
#[derive(Debug)]
pub(super) enum Input {
    Event(Event),
    Dialed(Side, u64, Result<Dialed, String>),
}

/// Requests and reports that may wait for the link.
pub(super) const QUEUE: usize = 1024;

/// Longest time for a connection to be made and prepared.
const DIAL_MAX: Duration = Duration::from_secs(3);

/// A dial that fails for the same reason is logged again after this long, and so are denied subscriptions.
const LOG_AGAIN: Duration = Duration::from_secs(30);

/// Output waiting at the server for this node is worth a warning from here on: 8 MiB for a minute, or 32 MiB at once,
/// and a Redis with default settings closes the connection.
const OUTPUT_BUFFER_WARNING: usize = 4 << 20;

/// The parts that tasks share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) names: Names,
    pub(super) commands: Commands,
    pub(super) dialer: Arc<Dialer>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) node_channel: String,
    /// For the metrics.
    pub(super) stats: Mutex<LinkStats>,
    /// The server that the commands go to now.
    pub(super) master: Mutex<Option<String>>,
    pub(super) inputs: mpsc::Sender<Input>,
}

/// A connection in use. Its tasks end with it.
#[derive(Debug)]
struct Open {
    generation: u64,
    connection: MultiplexedConnection,
    client_id: Option<u64>,
    tasks: JoinSet<()>,
}

/// The link's task.
#[derive(Debug)]
pub(super) struct Driver {
    parts: Arc<Parts>,
    link: Link,
    requests: mpsc::Receiver<Request>,
    inputs: mpsc::Receiver<Input>,
    commands: Option<Open>,
    subscriber: Option<Open>,
    /// The dial of each side that is under way.
    dials: HashMap<Side, (u64, JoinSet<()>)>,
    calls: HashMap<CallId, oneshot::Sender<bool>>,
    next_call: CallId,
    /// The newest reason why a dial failed, and when it was logged.
    failure: Option<(String, Instant)>,
    down_since: Option<Instant>,
    denial_logged: Option<Instant>,
    warned_of_buffer: bool,
}

impl Driver {
    pub(super) fn new(
        parts: Arc<Parts>,
        requests: mpsc::Receiver<Request>,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        let now = Instant::now();
        Self {
            parts,
            link: Link::new(now, rand::random()),
            requests,
            inputs,
            commands: None,
            subscriber: None,
            dials: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            failure: None,
            down_since: Some(now),
            denial_logged: None,
            warned_of_buffer: false,
        }
    }

    /// Works until nobody can ask for anything any more.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.perform().await;
            self.reap();
            self.publish_stats();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                Some(input) = self.inputs.recv() => self.input(input),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    fn tick(&mut self) {
        let given_up = self.calls.extract_if(|_, done| done.is_closed());
        given_up.for_each(|(call, _)| self.link.cancel(call));
        self.link.tick(Instant::now());
    }

    fn request(&mut self, request: Request) {
        let now = Instant::now();
        match request {
            Request::Subscribe { topics, done } => {
                self.parts.receiver.want(&topics);
                self.next_call += 1;
                self.calls.insert(self.next_call, done);
                self.link.subscribe(now, self.next_call, &topics);
            }
            Request::Unsubscribe { topics } => {
                self.parts.receiver.forget(&topics);
                self.link.unsubscribe(now, &topics);
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Event(event) => {
                if let Event::Lost(side, generation) = event
                    && self.opened(side).is_some_and(|open| open.generation == generation)
                {
                    self.close(side);
                }
                self.link.handle(now, event);
            }
            Input::Dialed(side, generation, result) => self.dialed(now, side, generation, result),
        }
    }

    fn dialed(
        &mut self,
        now: Instant,
        side: Side,
        generation: u64,
        result: Result<Dialed, String>,
    ) {
        if self.dials.get(&side).is_none_or(|(current, _)| *current != generation) {
            return; // It was given up meanwhile.
        }
        self.dials.remove(&side);
        match result {
            Ok(dialed) => {
                self.parts.stats.lock().connects += 1;
                self.failure = None;
                self.open(side, generation, dialed);
                self.link.handle(now, Event::Connected(side, generation));
            }
            Err(why) => {
                self.parts.stats.lock().connects_failed += 1;
                self.log_failure(now, why);
                self.link.handle(now, Event::Lost(side, generation));
            }
        }
    }

    fn open(&mut self, side: Side, generation: u64, dialed: Dialed) {
        let Dialed { connection, task, server, client_id } = dialed;
        tracing::debug!(?side, address = %server.address, version = %server.version, "connected");
        let inputs = self.parts.inputs.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            task.await;
            report(&inputs, Event::Lost(side, generation)).await;
        });
        let open = Open { generation, connection: connection.clone(), client_id, tasks };
        match side {
            Side::Commands => {
                *self.parts.master.lock() = Some(server.address);
                self.parts.commands.connect(connection, server.replid);
                self.commands = Some(open);
            }
            Side::Subscriber => self.subscriber = Some(open),
        }
    }

    fn opened(&self, side: Side) -> Option<&Open> {
        match side {
            Side::Commands => self.commands.as_ref(),
            Side::Subscriber => self.subscriber.as_ref(),
        }
    }

    fn close(&mut self, side: Side) {
        match side {
            Side::Commands => {
                self.parts.commands.disconnect();
                *self.parts.master.lock() = None;
                self.commands = None;
            }
            Side::Subscriber => self.subscriber = None,
        }
    }

    fn log_failure(&mut self, now: Instant, text: String) {
        let is_known = self.failure.as_ref().is_some_and(|(known, at)| {
            *known == text && now.saturating_duration_since(*at) < LOG_AGAIN
        });
        if !is_known {
            tracing::warn!("cannot connect to Redis: {text}; trying again");
            self.failure = Some((text, now));
        }
    }

    /// One line for all denials of some time: there may be many, and each is tried again and again.
    fn log_denial(&mut self, topic: &Topic, why: &str) {
        let now = Instant::now();
        if self.denial_logged.is_none_or(|at| now - at >= LOG_AGAIN) {
            self.denial_logged = Some(now);
            let (_, _, denied) = self.link.counts();
            tracing::warn!(
                %topic, denied, "Redis refuses a subscription: {why}; allow the user the channels of \
                 `broker.redis.prefix` (ACL SETUSER … &<prefix>:*)"
            );
        }
    }

    async fn perform(&mut self) {
        for action in self.link.take_actions() {
            match action {
                Action::Dial { side, generation, after } => self.dial(side, generation, after),
                Action::Close(side) => self.close(side),
                Action::Subscribe(batch, topics) => self.subscribe(batch, &topics).await,
                Action::Unsubscribe(topics) => self.unsubscribe(&topics).await,
                Action::Compare(batch, topics) => self.compare(batch, topics),
                Action::Probe(number) => self.probe(number),
                Action::Inspect(generation) => self.inspect(generation),
                Action::Settle(call, ok) => {
                    // Who has stopped waiting needs no answer.
                    let _gone = self.calls.remove(&call).map(|done| done.send(ok));
                }
                Action::Announce(up) => self.announce(up),
                Action::TornDown(why) => {
                    tracing::warn!("the connections to Redis are given up: {why}");
                }
                Action::Denied(topic, why) => self.log_denial(&topic, &why),
            }
        }
    }

    fn announce(&mut self, up: bool) {
        let now = Instant::now();
        if up {
            let down = self.down_since.take().map(|since| now - since).unwrap_or_default();
            let (topics, _, denied) = self.link.counts();
            let redis = self.parts.master.lock().clone().unwrap_or_default();
            tracing::info!(%redis, topics, denied, after = ?down, "the link to Redis is up");
        } else {
            self.down_since = Some(now);
            let why =
                self.link.health().refusal().or(self.failure.as_ref().map(|(text, _)| &**text));
            tracing::warn!(
                reason = why.unwrap_or("no echo of a probe came back"),
                "the link to Redis is down: publications fail or come late, clients stay connected and are told"
            );
        }
        self.parts.inbound.link_changed(up);
    }

    fn dial(&mut self, side: Side, generation: u64, after: Duration) {
        let parts = Arc::clone(&self.parts);
        let mut task = JoinSet::new();
        task.spawn(async move {
            tokio::time::sleep(after).await;
            let dial = async {
                match side {
                    Side::Commands => parts.dial_commands().await,
                    Side::Subscriber => parts.dial_subscriber().await,
                }
            };
            let result = timeout(DIAL_MAX, dial).await.unwrap_or_else(|_elapsed| {
                Err("it took the connection and then did not answer".to_owned())
            });
            // The receiver is gone only when the link is.
            drop(parts.inputs.send(Input::Dialed(side, generation, result)).await);
        });
        self.dials.insert(side, (generation, task));
    }

    /// Begins to subscribe. The command is on its way when this returns, so that the order of commands is kept.
    async fn subscribe(&mut self, batch: BatchId, topics: &[Topic]) {
        let Some(open) = &mut self.subscriber else { return };
        let channels = self.parts.channels(topics);
        let (mut connection, inputs) = (open.connection.clone(), self.parts.inputs.clone());
        let call = async move {
            let result = connection.subscribe(channels).await;
            report(&inputs, Event::Subscribed(batch, result.map_err(|error| refusal(&error))))
                .await;
        };
        begin(&mut open.tasks, call).await;
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) {
        let Some(open) = &mut self.subscriber else { return };
        let channels = self.parts.channels(topics);
        let mut connection = open.connection.clone();
        let call = async move {
            if let Err(error) = connection.unsubscribe(channels).await {
                tracing::debug!(%error, "an unsubscribe was not confirmed");
            }
        };
        begin(&mut open.tasks, call).await;
    }

    fn compare(&mut self, batch: BatchId, topics: Arc<[Topic]>) {
        let Some(open) = &mut self.commands else { return };
        let parts = Arc::clone(&self.parts);
        open.tasks.spawn(async move {
            if let Err(refusal) = parts.commands.compare(batch, &topics).await {
                tracing::debug!(?refusal, "positions could not be compared");
                report(&parts.inputs, Event::CompareFailed(batch, refusal)).await;
            }
        });
    }

    fn probe(&mut self, number: u64) {
        let Some(open) = &mut self.commands else { return };
        let parts = Arc::clone(&self.parts);
        open.tasks.spawn(async move {
            let event = match parts.commands.probe(number).await {
                Ok(()) => Event::Answered(number),
                Err(refusal) => Event::ProbeFailed(number, refusal),
            };
            report(&parts.inputs, event).await;
        });
    }

    /// Asks the server how it sees the subscriber connection; without the permission for that, nothing is asked.
    fn inspect(&mut self, generation: u64) {
        let (Some(open), Some(subscriber)) = (&mut self.commands, &self.subscriber) else { return };
        let Some(id) = subscriber.client_id else { return };
        let (mut connection, inputs) = (open.connection.clone(), self.parts.inputs.clone());
        open.tasks.spawn(async move {
            let mut command = redis::cmd("CLIENT");
            command.arg("LIST").arg("ID").arg(id);
            match command.query_async::<String>(&mut connection).await {
                Ok(list) => report(&inputs, Event::Inspected(generation, server_view(&list))).await,
                Err(error) => tracing::debug!(%error, "CLIENT LIST was refused"),
            }
        });
    }

    /// Lets go of tasks that have ended. A dial that ended without a report has panicked, and is made again.
    fn reap(&mut self) {
        for (side, (generation, dial)) in &mut self.dials {
            if let Some(Err(error)) = dial.try_join_next() {
                tracing::error!(%error, "a dial of Redis panicked");
                self.link.handle(Instant::now(), Event::Lost(*side, *generation));
            }
        }
        for open in [&mut self.commands, &mut self.subscriber].into_iter().flatten() {
            while open.tasks.try_join_next().is_some() {}
        }
    }

    fn publish_stats(&mut self) {
        let (wanted, pending, denied) = self.link.counts();
        let (received, compared, undecodable) = self.parts.receiver.counts();
        let health = self.link.health();
        let mut stats = self.parts.stats.lock();
        *stats = LinkStats {
            reconnects: self.link.reconnects(),
            echo_age: health.alive_at().map(|at| at.elapsed()),
            round_trip: health.round_trip(),
            received,
            undecodable,
            compared,
            denied,
            wanted,
            pending,
            output_buffer_bytes: self.link.output_buffer(),
            ..*stats
        };
        let is_high = stats.output_buffer_bytes >= OUTPUT_BUFFER_WARNING;
        if is_high && !self.warned_of_buffer {
            tracing::warn!(
                bytes = stats.output_buffer_bytes,
                "Redis cannot send to this node as fast as is published: it will close the connection at its \
                 client-output-buffer-limit for pubsub; the node is too slow, or its link too narrow"
            );
        }
        self.warned_of_buffer = is_high;
    }
}

impl Parts {
    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        topics.iter().map(|topic| self.names.channel(topic)).collect()
    }

    async fn dial_commands(&self) -> Result<Dialed, String> {
        let mut dialed = self.dialer.commands().await.map_err(|error| error.to_string())?;
        let loaded = Commands::load_scripts(&mut dialed.connection).await;
        loaded.map_err(|refusal| match refusal {
            Refusal::Refused(why) => format!(
                "it refuses the scripts: {why}; the user needs SCRIPT LOAD, EVALSHA and what they call"
            ),
            Refusal::Lost | Refusal::Moved => "the connection ended at once".to_owned(),
        })?;
        Ok(dialed)
    }

    async fn dial_subscriber(&self) -> Result<Dialed, String> {
        let receiver = Arc::clone(&self.receiver);
        let push = move |push| receiver.push(&push);
        let mut dialed = self.dialer.subscriber(push).await.map_err(|error| error.to_string())?;
        let subscribed = dialed.connection.subscribe(&self.node_channel).await;
        subscribed.map_err(|error| {
            format!("it refuses the node's own channel {}: {error}", self.node_channel)
        })?;
        Ok(dialed)
    }
}

/// Watches the Sentinels, where there are any, and never returns.
pub(super) async fn watch_sentinels(parts: Arc<Parts>) {
    let (known, inputs) = (Arc::clone(&parts), parts.inputs.clone());
    let session = move || known.master.lock().clone();
    // If the link is too busy to take it, it comes again.
    let moved = move |_master: &str| drop(inputs.try_send(Input::Event(Event::MasterMoved)));
    sentinel::watch(Arc::clone(&parts.dialer), session, moved).await;
    std::future::pending::<()>().await;
}

/// Takes the first step of a call, in which its command is queued for sending, before anything else is begun.
async fn begin(tasks: &mut JoinSet<()>, call: impl Future<Output = ()> + Send + 'static) {
    let mut call = Box::pin(call);
    if poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await.is_pending() {
        tasks.spawn(call);
    }
}

async fn report(inputs: &mpsc::Sender<Input>, event: Event) {
    // The receiver is gone only when the link is.
    drop(inputs.send(Input::Event(event)).await);
}

/// Why a subscription was not made. The error reply concerns the whole command, so nothing of it was done.
fn refusal(error: &redis::RedisError) -> Refusal {
    match error.code() {
        Some(code) => Refusal::from_text(&format!("{code} {}", error.detail().unwrap_or_default())),
        None => Refusal::Lost,
    }
}

/// Reads `sub=` and `omem=` from the one line of CLIENT LIST; none without a line.
fn server_view(list: &str) -> Option<ServerView> {
    let line = list.lines().find(|line| !line.is_empty())?;
    let number = |key: &str| {
        let field = line.split(' ').find_map(|field| field.strip_prefix(key));
        field.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    Some(ServerView { channels: number("sub="), output_buffer: number("omem=") })
}
