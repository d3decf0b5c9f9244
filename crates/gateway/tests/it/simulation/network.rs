//! The servers and the ways to them: ordered, delayed, and broken at will.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tickcast_broker::redis::link::Side;

use super::redis::{Data, Name, Reply, Request, Server, Settings, Truth};
use super::time::{Event, MILLISECOND, Moment, SECOND, Time};

/// A connection's number.
pub(super) type WireId = u64;

/// A dial that takes longer is given up.
const DIAL_MAX: Moment = 2 * SECOND;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToServer,
    ToNode,
}

/// One direction of a connection: what was sent first arrives first.
#[derive(Debug)]
struct Pipe<T> {
    queue: VecDeque<(Moment, T)>,
    last: Moment,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), last: 0 }
    }
}

impl<T> Pipe<T> {
    fn push(&mut self, at: Moment, item: T) -> Moment {
        self.last = self.last.max(at);
        self.queue.push_back((self.last, item));
        self.last
    }
}

/// A connection. It lives until both ends know that it is over.
#[derive(Debug)]
struct Wire {
    side: Side,
    server: usize,
    latency: Moment,
    to_server: Pipe<Request>,
    to_node: Pipe<Reply>,
}

/// A server and what is wrong with it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) server: Server,
    pub(super) is_alive: bool,
    /// It does nothing until then.
    hangs_until: Moment,
}

/// What a dial came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dialed {
    Connected {
        wire: WireId,
        replid: u64,
    },
    Refused,
    /// It goes on until then.
    Pending(Moment),
}

/// All servers that there ever were, and the connections to them.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) hosts: Vec<Host>,
    /// Where a dial leads.
    pub(super) current: usize,
    /// Where it may lead as well, for now.
    pub(super) other: Option<usize>,
    pub(super) truth: Truth,
    pub(super) settings: Settings,
    pub(super) latency_max: Moment,
    /// Nobody answers a dial before this moment.
    pub(super) refuses_until: Moment,
    /// Of this many in a hundred, a message of pub/sub vanishes.
    pub(super) loss_percent: u32,
    /// Of this many in a hundred, a publication cannot be read when it arrives.
    pub(super) garbled_percent: u32,
    /// Connections that have lost a subscription.
    pub(super) tampered: BTreeSet<WireId>,
    /// Nothing passes until then, by side and way.
    stalled_until: [[Moment; 2]; 2],
    wires: BTreeMap<WireId, Wire>,
}

impl Network {
    pub(super) fn new(settings: Settings, latency_max: Moment) -> Self {
        let mut network = Self {
            hosts: Vec::new(),
            current: 0,
            other: None,
            truth: Truth::default(),
            settings,
            latency_max,
            refuses_until: 0,
            loss_percent: 0,
            garbled_percent: 0,
            tampered: BTreeSet::new(),
            stalled_until: [[0; 2]; 2],
            wires: BTreeMap::new(),
        };
        network.start(Data::new(), 1);
        network
    }

    /// Starts a server; dials lead to it.
    pub(super) fn start(&mut self, data: Data, replid: u64) {
        let server = Server::new(data, replid, self.settings);
        self.hosts.push(Host { server, is_alive: true, hangs_until: 0 });
        self.current = self.hosts.len() - 1;
    }

    pub(super) fn host(&mut self) -> &mut Host {
        &mut self.hosts[self.current]
    }

    /// Whether nothing passes on this way of this connection.
    pub(super) fn is_stalled(&self, now: Moment, wire: WireId, way: Way) -> bool {
        self.wires.get(&wire).is_some_and(|wire| {
            let hangs = way == Way::ToServer && self.hosts[wire.server].hangs_until > now;
            hangs || self.stalled_until[wire.side as usize][way as usize] > now
        })
    }

    /// Dials; `since` is when it was begun.
    pub(super) fn dial(&mut self, time: &mut Time, side: Side, since: Moment) -> Dialed {
        let now = time.now;
        let index = match self.other {
            Some(other) if time.chance(50) => other,
            _ => self.current,
        };
        let host = &self.hosts[index];
        let until =
            self.stalled_until[side as usize].into_iter().fold(host.hangs_until, Moment::max);
        if until > now && now < since + DIAL_MAX {
            return Dialed::Pending(until.min(since + DIAL_MAX));
        }
        let is_deaf = until > now || now < self.refuses_until;
        // Commands go to a master only.
        let is_wrong = side == Side::Commands && host.server.is_replica;
        if is_deaf || !host.is_alive || is_wrong {
            return Dialed::Refused;
        }
        let (wire, latency) = (time.number(), time.between(0..=self.latency_max));
        let (to_server, to_node) = (Pipe::default(), Pipe::default());
        self.wires.insert(wire, Wire { side, server: index, latency, to_server, to_node });
        let server = &mut self.hosts[index].server;
        server.connect(wire, side);
        Dialed::Connected { wire, replid: server.replid }
    }

    /// The node sends.
    pub(super) fn send(&mut self, time: &mut Time, wire: WireId, request: Request) {
        let Some(state) = self.wires.get_mut(&wire) else { return };
        let jitter = time.between(0..=state.latency / 2 + MILLISECOND / 10);
        let at = state.to_server.push(time.now + state.latency + jitter, request);
        time.at(at, Event::Arrive(wire, Way::ToServer));
    }

    /// What has arrived at the node.
    pub(super) fn receive(&mut self, time: &mut Time, wire: WireId) -> Option<Reply> {
        if self.is_stalled(time.now, wire, Way::ToNode) {
            return None; // Told again when it is over.
        }
        let state = self.wires.get_mut(&wire)?;
        let (_, reply) = state.to_node.queue.pop_front_if(|(at, _)| *at <= time.now)?;
        if matches!(reply, Reply::End) {
            self.wires.remove(&wire);
        }
        Some(reply)
    }

    /// Lets the server do what has arrived.
    pub(super) fn serve(&mut self, time: &mut Time, wire: WireId) {
        while !self.is_stalled(time.now, wire, Way::ToServer)
            && let Some(state) = self.wires.get_mut(&wire)
            && let Some((_, request)) =
                state.to_server.queue.pop_front_if(|(at, _)| *at <= time.now)
        {
            let index = state.server;
            if matches!(request, Request::Close) {
                self.wires.remove(&wire);
            }
            self.hosts[index].server.execute(wire, request, &mut self.truth);
            self.flush(time, index);
        }
    }

    /// Puts what the server sends on its ways.
    fn flush(&mut self, time: &mut Time, index: usize) {
        for (wire, reply) in self.hosts[index].server.take_outbox() {
            let is_lost =
                reply.is_push() && self.loss_percent > 0 && time.chance(self.loss_percent);
            let Some(state) = self.wires.get_mut(&wire).filter(|_| !is_lost) else {
                time.say(|| format!("lost on the way: {reply:?}"));
                continue;
            };
            let reply = match reply {
                Reply::Message(name, ..) if time.chance(self.garbled_percent) => {
                    Reply::Garbled(name)
                }
                other => other,
            };
            let jitter = time.between(0..=state.latency / 2 + MILLISECOND / 10);
            let at = state.to_node.push(time.now + state.latency + jitter, reply);
            time.at(at, Event::Arrive(wire, Way::ToNode));
        }
    }

    /// Somebody else publishes, at a server that dials may lead to.
    pub(super) fn publish(&mut self, time: &mut Time, name: Name, seen: &mut BTreeMap<usize, u64>) {
        let index = self.other.filter(|_| time.chance(30)).unwrap_or(self.current);
        let (host, payload) = (&mut self.hosts[index], time.number());
        if host.is_alive && host.hangs_until <= time.now {
            // What it knows of the server may be old, but never older than its connection.
            let replid = seen.entry(index).or_insert(host.server.replid);
            let published = host.server.publish(name, payload, *replid, &mut self.truth);
            *replid = host.server.replid;
            time.say(|| format!("elsewhere: {name} {payload} at server {index}: {published:?}"));
            self.flush(time, index);
        }
    }

    /// The node has closed the connection; the server hears of it later.
    pub(super) fn close(&mut self, time: &mut Time, wire: WireId) {
        self.send(time, wire, Request::Close);
    }

    /// The connections that the servers know, with their side and server.
    pub(super) fn connections(&self) -> Vec<(WireId, Side, usize)> {
        self.wires.iter().map(|(id, wire)| (*id, wire.side, wire.server)).collect()
    }

    /// Ends a connection: the server forgets it at once, what is on its way is lost, the node hears of the end.
    pub(super) fn cut(&mut self, time: &mut Time, wire: WireId) {
        let Some(state) = self.wires.get_mut(&wire) else { return };
        state.to_server.queue.clear();
        state.to_node.queue.clear();
        self.hosts[state.server].server.disconnect(wire);
        let at = state.to_node.push(time.now + state.latency, Reply::End);
        time.at(at, Event::Arrive(wire, Way::ToNode));
    }

    /// Ends a server and its connections.
    pub(super) fn kill(&mut self, time: &mut Time, index: usize) {
        self.hosts[index].is_alive = false;
        self.hosts[index].server.data.clear();
        for wire in self.hosts[index].server.wires() {
            self.cut(time, wire);
        }
        self.other = self.other.filter(|other| *other != index);
    }

    /// Nothing passes on this way of connections of this side for a while.
    pub(super) fn blackhole(&mut self, side: Side, way: Way, until: Moment) {
        let stalled = &mut self.stalled_until[side as usize][way as usize];
        *stalled = until.max(*stalled);
    }

    /// The server does nothing for a while.
    pub(super) fn hang(&mut self, until: Moment) {
        let host = self.host();
        host.hangs_until = until.max(host.hangs_until);
    }

    /// Every connection looks again for what waits in it; with `all`, every obstacle is taken away first.
    pub(super) fn resume(&mut self, time: &mut Time, all: bool) {
        if all {
            self.hosts.iter_mut().for_each(|host| host.hangs_until = 0);
            self.stalled_until = [[0; 2]; 2];
        }
        for wire in self.wires.keys() {
            time.after(0, Event::Arrive(*wire, Way::ToServer));
            time.after(0, Event::Arrive(*wire, Way::ToNode));
        }
    }

    /// What keeps a publication on the first connection from being answered there and from arriving on the second.
    pub(super) fn obstacles(&self, now: Moment, commands: WireId, subscriber: WireId) -> [bool; 6] {
        let server = |wire| self.wires.get(&wire).map(|wire| wire.server);
        let takes_writes =
            server(commands).is_some_and(|index| self.hosts[index].server.takes_writes());
        [
            self.is_stalled(now, commands, Way::ToServer),
            self.is_stalled(now, commands, Way::ToNode),
            self.is_stalled(now, subscriber, Way::ToNode),
            server(commands) != server(subscriber),
            !takes_writes,
            self.loss_percent >= 100,
        ]
    }

    /// The server that this connection leads to, if it still does.
    pub(super) fn server_of(&self, wire: WireId) -> Option<&Host> {
        self.wires.get(&wire).map(|wire| &self.hosts[wire.server])
    }

    /// The present server refuses the topic's channel, or not; those that have it are cut off if `cuts`.
    pub(super) fn deny(&mut self, time: &mut Time, name: Name, cuts: bool) {
        let server = &mut self.host().server;
        server.denied.insert(name);
        if cuts {
            for wire in server.subscribers(name) {
                self.cut(time, wire);
            }
        }
    }
}
