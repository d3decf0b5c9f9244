//! A worker's turn: take in what the hub and the sockets bring, then flush what is owed.
//!
//! Everything here is synchronous and owned by one thread. The dispatcher in [`super`] borrows the state, lets it do one
//! step, and gives the runtime its turn between steps.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tickcast_broker::{PublishError, Published};
use tickcast_hub::{ConnectionId, Fanout, FanoutLimits, Inbox, Item, Plan, Replies};
use tickcast_protocol::{
    CloseCode, Command, ErrorCode, Id, PublishCommand, ServerMessage, SubscribeItem, Topic,
    close_frame,
};

use super::departures::Departures;
#[cfg(feature = "testing")]
use super::faults::Faults;
use super::floods::Floods;
use super::millis;
use super::rights::Keyring;
use super::session::{Phase, Sessions};
use crate::access::Key;
use crate::config::Config;
use crate::metrics::{CloseReason, WorkerCounters};
use crate::node::{Node, error_code};
use crate::server::{Peer, Place, Places};
use crate::transport::websocket::reader::{Event as Input, Flow, Reader};

/// The worker's read buffer. No connection has one of its own.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Reads of one socket in one turn, if none of them fills the buffer: a peer that sends without pause must not keep the
/// others waiting. A read that fills it is the last.
const READS_PER_TURN: usize = 4;

/// How long a closed connection's peer may take to hang up, in seconds.
pub(super) const LINGER_SECONDS: u32 = 2;

/// How long a topic may take to be settled before a subscribe command is answered without it, in milliseconds.
const SETTLE_MS: u64 = 1000;

/// Ping intervals within which a pong is a measurement.
const PONG_INTERVALS_MAX: u32 = 2;

/// A publish command on its way to the broker.
#[derive(Debug)]
pub(crate) struct PublishRequest {
    pub(crate) connection: ConnectionId,
    pub(crate) serial: u32,
    pub(crate) id: Option<Id>,
    pub(crate) topic: Topic,
    pub(crate) data: Bytes,
    pub(crate) key: Option<String>,
}

/// What a WebSocket connection begins with.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The topics of its URL.
    pub(crate) topics: Vec<SubscribeItem>,
    /// Whose key its handshake presented.
    pub(crate) who: Option<Arc<Key>>,
    /// Who is at its other end.
    pub(crate) client: Peer,
    /// Each message is answered with itself.
    #[cfg(feature = "testing")]
    pub(crate) is_echo: bool,
}

impl Opening {
    pub(crate) const fn new(
        topics: Vec<SubscribeItem>,
        who: Option<Arc<Key>>,
        client: Peer,
    ) -> Self {
        Self {
            topics,
            who,
            client,
            #[cfg(feature = "testing")]
            is_echo: false,
        }
    }
}

/// Everything that one worker owns.
#[derive(Debug)]
pub(crate) struct State {
    /// The worker's number, for the log: with the serial of a session it names a connection.
    pub(super) worker: usize,
    pub(super) node: Arc<Node>,
    inbox: Arc<Inbox>,
    registry: Registry,
    pub(super) fanout: Fanout,
    pub(super) sessions: Sessions,
    /// Of the sessions.
    places: Places,
    pub(super) keyring: Keyring,
    pub(super) plan: Plan,
    pub(super) counters: WorkerCounters,
    /// Time since the worker started, as of the beginning of the turn.
    pub(super) now: Duration,
    /// The whole seconds of it.
    pub(super) second: u32,
    /// Connections whose socket is full, with their serials.
    pub(super) stalled: Vec<(ConnectionId, u32)>,
    /// Paused connections whose output has gone out.
    pub(super) resumable: Vec<ConnectionId>,
    /// Closed connections, with their serials and the second at which they are dropped.
    pub(super) lingering: VecDeque<(ConnectionId, u32, u32)>,
    /// Publish commands to be taken to the broker by the dispatcher.
    pub(super) publishes: Vec<PublishRequest>,
    items: VecDeque<Item>,
    scratch: Box<[u8]>,
    /// The connection whose ping the bytes that are read now may answer.
    pinged: Option<ConnectionId>,
    /// What clients send beside commands.
    pub(super) floods: Floods,
    /// Publishing times of the publications taken in this turn, in milliseconds since 1970.
    pub(super) taken: Vec<u64>,
    /// Who is to go, and when.
    pub(super) departures: Departures,
    /// Set when the node stops and the last HTTP request has its answer: no connection can come any more.
    pub(super) is_drained: bool,
    #[cfg(feature = "testing")]
    pub(super) faults: Faults,
}

/// The bounds of the fan-out, as they are configured.
fn limits(config: &Config) -> FanoutLimits {
    FanoutLimits {
        subscriptions_per_connection: config.limits.subscriptions_per_connection,
        settle_ms: SETTLE_MS,
    }
}

impl State {
    pub(super) fn new(
        node: Arc<Node>,
        worker: usize,
        inbox: Arc<Inbox>,
        registry: Registry,
    ) -> Self {
        let mut state = Self {
            worker,
            fanout: Fanout::new(Arc::clone(&node.hub), worker, limits(&node.config())),
            places: Places::new(Arc::clone(&node.connections)),
            node,
            inbox,
            registry,
            sessions: Sessions::default(),
            keyring: Keyring::default(),
            plan: Plan::default(),
            counters: WorkerCounters::default(),
            now: Duration::ZERO,
            second: 0,
            stalled: Vec::new(),
            resumable: Vec::new(),
            lingering: VecDeque::new(),
            publishes: Vec::new(),
            items: VecDeque::new(),
            scratch: Box::default(),
            pinged: None,
            floods: Floods::default(),
            taken: Vec::new(),
            departures: Departures::default(),
            is_drained: false,
            #[cfg(feature = "testing")]
            faults: Faults::default(),
        };
        state.restore_scratch();
        state
    }

    /// Takes over what the fan-out has copied from a configuration that may have been replaced.
    pub(super) fn follow_config(&mut self) {
        let limits = limits(&self.node.config());
        self.fanout.set_limits(limits);
    }

    /// Makes the read buffer anew after it was lost to a panic.
    pub(super) fn restore_scratch(&mut self) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH_BYTES].into_boxed_slice();
        }
    }

    /// Takes a connection whose handshake is done, with bytes that came behind it.
    pub(super) fn attach(
        &mut self,
        mut socket: TcpStream,
        early: Vec<u8>,
        opening: Opening,
        place: Place,
    ) -> io::Result<()> {
        let connection = self.fanout.attach();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut socket, Token(connection.index()), interest)
        {
            self.fanout.detach(connection);
            return Err(error);
        }
        let serial = self.sessions.insert(connection, socket, self.second);
        self.places.keep(connection.index(), place);
        tracing::debug!(worker = self.worker, session = serial, client = %opening.client, "a WebSocket connection is open");
        self.counters.opened += 1;
        self.shield(connection, |state| state.welcome(connection, early, opening));
        Ok(())
    }

    /// The first words on a connection, from both sides.
    fn welcome(&mut self, connection: ConnectionId, mut early: Vec<u8>, opening: Opening) {
        #[cfg(feature = "testing")]
        if opening.is_echo {
            self.faults.set_echo(connection);
        }
        if self.greet_late(connection) {
            return;
        }
        if !self.introduce(connection, opening.who) {
            return self.queue_replies();
        }
        if !self.node.metrics.is_broker_up() {
            self.sessions.reply(connection, &ServerMessage::Status { broker: "down" });
        }
        if !opening.topics.is_empty() {
            let items = opening.topics.into_iter().map(Ok).collect();
            let items = self.judge_items(connection, items);
            self.fanout.subscribe(connection, None, items, &mut self.sessions);
        }
        self.decode(connection, &mut early);
        self.queue_replies();
    }

    /// Begins a turn, so long after the worker started: the hub's items, and what is due now.
    pub(super) fn begin(&mut self, now: Duration) {
        self.now = now;
        self.fanout.advance(millis(now), &mut self.sessions);
        let mut items = std::mem::take(&mut self.items);
        let stale = self.inbox.take(&mut items);
        for item in items.drain(..) {
            match item {
                Item::Link { up } => self.tell_status(up),
                item => {
                    if let Item::Publication { publication, .. } = &item {
                        self.taken.push(publication.time_ms());
                    }
                    self.fanout.apply(item, &mut self.sessions);
                }
            }
        }
        self.items = items;
        if !stale.is_empty() {
            self.fanout.resync(&stale);
        }
        self.queue_replies();
    }

    /// Queues the connections that got a reply for flushing.
    pub(super) fn queue_replies(&mut self) {
        while let Some(connection) = self.sessions.pop_replied() {
            self.fanout.enqueue(connection);
        }
    }

    fn tell_status(&mut self, up: bool) {
        let message = ServerMessage::Status { broker: if up { "up" } else { "down" } };
        let mut frame = Vec::new();
        message.append_frame(&mut frame);
        for index in 0..self.sessions.span() {
            if let Some(session) = self.sessions.at(index)
                && session.phase == Phase::Open
            {
                session.output().extend_from_slice(&frame);
                self.fanout.enqueue(ConnectionId::at(index));
            }
        }
    }

    /// A socket of the worker's set is ready.
    pub(super) fn on_event(&mut self, event: &Event) {
        let connection = ConnectionId::at(event.token().0);
        self.shield(connection, |state| state.serve(connection, event));
    }

    fn serve(&mut self, connection: ConnectionId, event: &Event) {
        if event.is_writable()
            && let Some(session) = self.sessions.get(connection)
            && std::mem::take(&mut session.is_blocked)
        {
            self.fanout.set_blocked(connection, false);
            self.fanout.enqueue(connection);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // At the end of the stream a short read does not mean that nothing follows: the end itself does.
            self.read(connection, event.is_read_closed() || event.is_error());
        }
    }

    /// Goes on with connections that were paused until their replies had gone out.
    pub(super) fn resume(&mut self) {
        for connection in std::mem::take(&mut self.resumable) {
            self.shield(connection, |state| state.go_on(connection));
        }
        self.queue_replies();
    }

    fn go_on(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get(connection) else { return };
        if session.is_paused && !session.is_saturated() {
            session.is_paused = false;
            if let Some(reader) = &mut session.reader {
                reader.restart(self.second);
            }
            self.decode(connection, &mut []);
            self.read(connection, true);
        }
    }

    fn read(&mut self, connection: ConnectionId, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut is_full = false;
        for round in 0.. {
            let Some(session) = self.sessions.get(connection) else { break };
            if session.is_paused {
                break;
            }
            if is_full || round == READS_PER_TURN {
                // Its edge is spent, so it must be read again without one.
                session.is_paused = true;
                self.resumable.push(connection);
                break;
            }
            match session.socket.read(&mut scratch) {
                Ok(0) => {
                    self.remove(connection, CloseReason::Client);
                    break;
                }
                Ok(length) => {
                    session.last_traffic = self.second;
                    let was_pinged = std::mem::take(&mut session.awaits_pong);
                    self.pinged = was_pinged.then_some(connection);
                    self.counters.received_bytes += length as u64;
                    is_full = length == scratch.len();
                    if session.phase == Phase::Open {
                        self.decode(connection, &mut scratch[..length]);
                    }
                    if !is_full && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "a connection was lost while reading");
                    self.remove(connection, CloseReason::Lost);
                    break;
                }
            }
        }
        self.scratch = scratch;
        self.queue_replies();
    }

    /// Decodes what was read, together with what earlier reads left.
    fn decode(&mut self, connection: ConnectionId, input: &mut [u8]) {
        let bounds = self.bounds(connection);
        let Some(session) = self.sessions.get(connection) else { return };
        let mut reader = self.floods.take(session);
        if session.phase != Phase::Open {
            return; // What was not read before the end is not obeyed after it.
        }
        let result =
            Reader::read(&mut reader, input, bounds, |event| self.handle(connection, &event));
        match result {
            Ok(has_more) => self.keep(connection, reader, bounds.message_max, has_more),
            Err(violation) => self.end_violation(connection, violation),
        }
    }

    fn handle(&mut self, connection: ConnectionId, input: &Input<'_>) -> Flow {
        match input {
            #[cfg(feature = "testing")]
            Input::Text(_) | Input::Binary(_) if self.echo(connection, input) => {}
            Input::Text(text) => self.command(connection, text),
            Input::Binary(_) if !self.admit_command(connection, None) => {}
            Input::Binary(_) => {
                self.counters.commands_bad += 1;
                let message = "commands are JSON in text frames; this frame is binary";
                self.reply_error(connection, None, ErrorCode::BadCommand, message);
            }
            Input::Ping(payload) => self.answer_ping(connection, payload),
            Input::Pong(payload) if self.admit_control(connection) => {
                self.pong(connection, payload);
            }
            Input::Pong(_) => {}
            Input::Close(code) => {
                self.close(connection, code.unwrap_or(CloseCode::NORMAL), "", CloseReason::Client);
            }
        }
        match self.sessions.get(connection) {
            Some(session) if session.phase == Phase::Open => {
                session.is_paused = session.is_saturated();
                if session.is_paused { Flow::Pause } else { Flow::Continue }
            }
            _ => Flow::Stop,
        }
    }

    /// Measures the way of a ping and its pong. Each ping counts once: clients may send pongs as they like.
    ///
    /// They may also put in what they like. A connection whose pong takes longer than two intervals is closed before it
    /// comes, so a payload that says so is none of ours.
    fn pong(&mut self, connection: ConnectionId, payload: &[u8]) {
        let longest = self.node.config().websocket.ping_interval * PONG_INTERVALS_MAX;
        let sent = payload.try_into().map(u64::from_be_bytes).map(Duration::from_micros);
        if self.pinged.take() == Some(connection)
            && let Ok(sent) = sent
            && let Some(elapsed) = self.now.checked_sub(sent)
            && elapsed <= longest
        {
            self.node.metrics.observe_round_trip(elapsed);
        }
    }

    /// The payload of a ping that is sent in this turn: when that is, so that nothing is kept until its pong comes.
    pub(super) fn ping_payload(&self) -> [u8; 8] {
        u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX).to_be_bytes()
    }

    fn command(&mut self, connection: ConnectionId, text: &str) {
        #[cfg(feature = "testing")]
        if self.faults.order(connection, text) {
            return;
        }
        if self.is_judging() {
            self.judge(connection);
            if !self.sessions.is_open(connection) {
                return; // It may not have any more what it would ask for.
            }
        }
        let decoded = Command::decode(text);
        let id = match &decoded {
            Ok((id, _)) => id.as_ref(),
            Err(error) => error.id.as_ref(),
        };
        // What may be published has a rate of its own, that of the key.
        let is_publish = matches!(&decoded, Ok((_, Command::Publish(_))));
        if !is_publish && !self.admit_command(connection, id) {
            return;
        }
        match decoded {
            Ok((id, Command::Subscribe { items })) => {
                let items = self.judge_items(connection, items);
                self.fanout.subscribe(connection, id, items, &mut self.sessions);
            }
            Ok((id, Command::Unsubscribe { topics })) => {
                self.fanout.unsubscribe(connection, id.as_ref(), topics, &mut self.sessions);
            }
            Ok((id, Command::Publish(command))) => self.publish(connection, id, command),
            Ok((id, Command::Auth(token))) => self.authenticate(connection, id.as_ref(), &token),
            Ok((id, Command::Ping)) => {
                self.sessions.reply(connection, &ServerMessage::Pong { id: id.as_ref() });
            }
            Err(error) => {
                self.counters.commands_bad += 1;
                self.reply_error(connection, error.id.as_ref(), error.code, &error.message);
            }
        }
    }

    pub(super) fn reply_error(
        &mut self,
        connection: ConnectionId,
        id: Option<&Id>,
        code: ErrorCode,
        message: &str,
    ) {
        let message = ServerMessage::Error { id, code, message };
        self.sessions.reply(connection, &message);
    }

    fn publish(&mut self, connection: ConnectionId, id: Option<Id>, command: PublishCommand<'_>) {
        let admitted = self.admit_publish(connection, &command.topic, command.data.len());
        if let Err((code, message)) = admitted {
            let is_counted = code != ErrorCode::RateLimited;
            if is_counted && !self.admit_command(connection, id.as_ref()) {
                return;
            }
            return self.reply_error(connection, id.as_ref(), code, &message);
        }
        let Some(session) = self.sessions.get(connection) else { return };
        session.publishing += 1;
        self.publishes.push(PublishRequest {
            connection,
            serial: session.serial,
            id,
            topic: command.topic,
            data: Bytes::copy_from_slice(command.data),
            key: command.key,
        });
    }

    /// The broker has answered a publish command, or asking it panicked.
    pub(super) fn published(
        &mut self,
        request: &PublishRequest,
        result: Result<Option<Result<Published, PublishError>>, String>,
    ) {
        let connection = request.connection;
        match self.sessions.get(connection) {
            Some(session) if session.serial == request.serial => session.publishing -= 1,
            _ => return, // The connection has gone; another one may have its index now.
        }
        match result {
            Ok(Some(result)) => {
                self.shield(connection, |state| state.answer_publish(request, result));
            }
            Ok(None) => {}
            Err(panic) => self.give_up(connection, &panic),
        }
    }

    fn answer_publish(
        &mut self,
        request: &PublishRequest,
        result: Result<Published, PublishError>,
    ) {
        let Some(session) = self.sessions.get(request.connection) else { return };
        if session.is_paused {
            self.resumable.push(request.connection);
        }
        let id = request.id.as_ref();
        match result {
            Ok(published) => {
                let (epoch, offset) = (published.position.epoch, published.position.offset);
                let message = ServerMessage::Published { id, topic: &request.topic, epoch, offset };
                self.sessions.reply(request.connection, &message);
            }
            Err(error) => {
                let code = error_code(error);
                self.reply_error(request.connection, id, code, &error.to_string());
            }
        }
        self.queue_replies();
    }

    /// Closes a connection from this side: what was begun and the replies go out, then the close frame.
    pub(super) fn close(
        &mut self,
        connection: ConnectionId,
        code: CloseCode,
        reason: &str,
        label: CloseReason,
    ) {
        let Some(session) = self.sessions.get(connection) else { return };
        if session.phase != Phase::Open {
            return;
        }
        session.output().extend_from_slice(&close_frame(code, reason));
        session.phase = Phase::Closing;
        drop(self.floods.take(session)); // What it has begun to say is not obeyed any more.
        let is_told = session.is_told;
        self.count_end(label, is_told);
        self.fanout.enqueue(connection);
    }

    /// The close frame is written: half-close, and wait for the peer to hang up, so that it can read what is under way.
    pub(super) fn linger(&mut self, connection: ConnectionId) {
        let until = self.second + LINGER_SECONDS;
        if let Some(session) = self.sessions.get(connection) {
            session.phase = Phase::Lingering;
            if session.socket.shutdown(std::net::Shutdown::Write).is_ok() {
                self.lingering.push_back((connection, session.serial, until));
                return;
            }
        }
        self.remove(connection, CloseReason::Lost);
    }

    /// Forgets a connection and closes its socket.
    pub(super) fn remove(&mut self, connection: ConnectionId, label: CloseReason) {
        let Some(mut session) = self.sessions.remove(connection) else { return };
        self.floods.forget(connection, &mut session);
        #[cfg(feature = "testing")]
        self.faults.forget(connection);
        if session.phase == Phase::Open {
            self.count_end(label, session.is_told);
        }
        self.node.metrics.observe_age(self.second.saturating_sub(session.opened));
        let reason = CloseReason::TEXTS[label as usize];
        tracing::debug!(
            worker = self.worker,
            session = session.serial,
            reason,
            "a WebSocket connection has ended"
        );
        self.places.give_back(connection.index());
        // Last: whatever happens in it, the numbers are right.
        self.fanout.detach(connection);
    }

    /// Whether the worker has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.is_drained && self.sessions.len() == 0
    }

    /// Copies the numbers of this turn to where the metrics read them.
    pub(super) fn publish_counters(&mut self) {
        self.counters.connections = self.sessions.len() as u64;
        self.counters.subscriptions = self.fanout.subscriptions() as u64;
        self.counters.unfinished_bytes = self.floods.held_bytes() as u64;
        self.counters.fanout = self.fanout.counters();
    }
}
