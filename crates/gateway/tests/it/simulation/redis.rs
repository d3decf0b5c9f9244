//! A small model of Redis: what the scripts of the broker keep and answer, and who is subscribed to what.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tickcast_broker::redis::link::{BatchId, Refusal, ServerView, Side};
use tickcast_protocol::{Epoch, Position};

use super::network::WireId;

/// A topic's number.
pub(super) type Name = usize;

/// What was published: a number that nobody else published.
pub(super) type Payload = u64;

/// What a topic keeps.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    epoch: Epoch,
    offset: u64,
    replid: u64,
    value: Option<(u64, Payload)>,
    history: VecDeque<(u64, Payload)>,
}

/// All topics of a server.
pub(super) type Data = BTreeMap<Name, Kept>;

/// What is read of a topic.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) position: Position,
    pub(super) value: Option<(u64, Payload)>,
    pub(super) history: Vec<(u64, Payload)>,
}

/// What a node asks. `number` comes back with the answer.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Publish {
        number: u64,
        name: Name,
        payload: Payload,
        replid: u64,
    },
    Read {
        number: u64,
        name: Name,
        after: Option<u64>,
        replid: u64,
    },
    Compare {
        number: u64,
        batch: BatchId,
        names: Arc<[Name]>,
        replid: u64,
    },
    Probe {
        number: u64,
        probe: u64,
    },
    Inspect {
        number: u64,
        wire: WireId,
    },
    Subscribe(BatchId, Arc<[Name]>),
    Unsubscribe(Vec<Name>),
    /// The node has closed the connection.
    Close,
}

/// What a server sends.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Published(u64, Result<Position, Refusal>, u64),
    Read(u64, Result<Read, Refusal>, u64),
    /// Of a comparison and a probe.
    Done(u64, Result<(), Refusal>, u64),
    Inspected(u64, Option<ServerView>),
    Subscribed(BatchId, Result<(), Refusal>),
    Message(Name, Position, Payload),
    /// A message of a topic that cannot be read.
    Garbled(Name),
    Echo(u64),
    Comparison(BatchId, Vec<(Name, Position)>),
    /// The server has closed the connection.
    End,
}

impl Reply {
    /// Whether it is a message of pub/sub, for which nobody waits by name.
    pub(super) fn is_push(&self) -> bool {
        matches!(self, Self::Message(..) | Self::Garbled(_) | Self::Echo(_) | Self::Comparison(..))
    }
}

/// What was ever accepted, whatever became of the server that accepted it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    payloads: HashMap<(Name, u64, u64), Payload>,
    /// What a node asked for when it was retained no longer.
    lost: HashSet<(Name, u64, u64)>,
    /// A place in a topic that has two payloads: the fence has failed.
    pub(super) conflict: Option<String>,
    epochs: u64,
}

impl Truth {
    pub(super) fn get(&self, name: Name, position: Position) -> Option<Payload> {
        self.payloads.get(&(name, position.epoch.number(), position.offset)).copied()
    }

    fn note(&mut self, name: Name, position: Position, payload: Payload) {
        let place = (name, position.epoch.number(), position.offset);
        let known = *self.payloads.entry(place).or_insert(payload);
        if known != payload {
            self.conflict =
                Some(format!("the topic {name} has {known} and {payload} at {position:?}"));
        }
    }

    /// Whether a node has asked for it in vain.
    pub(super) fn is_lost(&self, name: Name, position: Position) -> bool {
        self.lost.contains(&(name, position.epoch.number(), position.offset))
    }

    /// Notes what an answer lacks of what was asked for: everything after `after`.
    fn note_lost(&mut self, name: Name, after: u64, read: &Read) {
        let Position { epoch, offset: last } = read.position;
        let retained: BTreeSet<u64> = read.history.iter().map(|(offset, _)| *offset).collect();
        let missing = (after + 1..=last).filter(|offset| !retained.contains(offset));
        self.lost.extend(missing.map(|offset| (name, epoch.number(), offset)));
    }

    fn epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch::new(self.epochs)
    }
}

/// A connection as its server sees it.
#[derive(Debug)]
struct Client {
    side: Side,
    channels: BTreeSet<Name>,
}

/// What is the same for all servers of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Publications that a topic retains.
    pub(super) history: usize,
    /// Without it, offsets are rewound under an unchanged epoch.
    pub(super) has_fence: bool,
}

/// One server process.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) data: Data,
    pub(super) replid: u64,
    pub(super) is_replica: bool,
    pub(super) is_full: bool,
    pub(super) denied: BTreeSet<Name>,
    settings: Settings,
    clients: BTreeMap<WireId, Client>,
    outbox: Vec<(WireId, Reply)>,
}

impl Server {
    pub(super) fn new(data: Data, replid: u64, settings: Settings) -> Self {
        Self {
            data,
            replid,
            is_replica: false,
            is_full: false,
            denied: BTreeSet::new(),
            settings,
            clients: BTreeMap::new(),
            outbox: Vec::new(),
        }
    }

    /// A connection was made; that of the subscriber has the node's own channel.
    pub(super) fn connect(&mut self, wire: WireId, side: Side) {
        self.clients.insert(wire, Client { side, channels: BTreeSet::new() });
    }

    pub(super) fn disconnect(&mut self, wire: WireId) {
        self.clients.remove(&wire);
    }

    pub(super) fn wires(&self) -> Vec<WireId> {
        self.clients.keys().copied().collect()
    }

    /// The topics that a connection is subscribed to.
    pub(super) fn channels(&self, wire: WireId) -> Option<&BTreeSet<Name>> {
        self.clients.get(&wire).map(|client| &client.channels)
    }

    /// Connections that are subscribed to the topic.
    pub(super) fn subscribers(&self, name: Name) -> Vec<WireId> {
        let has = self.clients.iter().filter(|(_, client)| client.channels.contains(&name));
        has.map(|(wire, _)| *wire).collect()
    }

    /// Forgets a subscription and tells nobody.
    pub(super) fn drop_subscription(&mut self, wire: WireId, nth: usize) -> Option<Name> {
        let channels = &mut self.clients.get_mut(&wire)?.channels;
        let name = *channels.iter().nth(nth % channels.len().max(1))?;
        channels.remove(&name);
        Some(name)
    }

    /// What is to be sent, in this order.
    pub(super) fn take_outbox(&mut self) -> Vec<(WireId, Reply)> {
        std::mem::take(&mut self.outbox)
    }

    /// Does what a connection asks.
    pub(super) fn execute(&mut self, wire: WireId, request: Request, truth: &mut Truth) {
        let replid = self.replid;
        let reply = match request {
            Request::Publish { number, name, payload, replid: seen } => {
                Reply::Published(number, self.publish(name, payload, seen, truth), replid)
            }
            Request::Read { number, name, after, replid: seen } => {
                Reply::Read(number, self.read(name, after, seen, truth), replid)
            }
            Request::Compare { number, batch, names, replid: seen } => {
                Reply::Done(number, self.compare(batch, &names, seen, truth), replid)
            }
            Request::Probe { number, probe } => Reply::Done(number, self.probe(probe), replid),
            Request::Inspect { number, wire } => {
                let view = self.clients.get(&wire).map(|client| ServerView {
                    channels: client.channels.len() + 1,
                    output_buffer: 0,
                });
                Reply::Inspected(number, view)
            }
            Request::Subscribe(batch, names) => {
                Reply::Subscribed(batch, self.subscribe(wire, &names))
            }
            Request::Unsubscribe(names) => {
                if let Some(client) = self.clients.get_mut(&wire) {
                    client.channels.retain(|name| !names.contains(name));
                }
                return;
            }
            Request::Close => return self.disconnect(wire),
        };
        self.outbox.push((wire, reply));
    }

    /// Whether a publication made now would be accepted.
    pub(super) fn takes_writes(&self) -> bool {
        self.check_write().is_ok()
    }

    /// Whether a script may write.
    fn check_write(&self) -> Result<(), Refusal> {
        if self.is_replica {
            Err(Refusal::Moved)
        } else if self.is_full {
            Err(Refusal::Refused("OOM command not allowed".to_owned()))
        } else {
            Ok(())
        }
    }

    /// The topic, with an epoch that belongs to this server's past.
    fn fence(&mut self, name: Name, seen: u64, truth: &mut Truth) -> Result<&mut Kept, Refusal> {
        let is_current = self.data.get(&name).is_some_and(|kept| {
            kept.replid == seen || kept.replid == self.replid || !self.settings.has_fence
        });
        if !is_current {
            self.check_write()?;
            let (epoch, replid) = (truth.epoch(), self.replid);
            let kept = self.data.entry(name).or_insert_with(|| Kept {
                epoch,
                offset: 0,
                replid,
                value: None,
                history: VecDeque::new(),
            });
            (kept.epoch, kept.replid) = (epoch, replid);
            // What is retained is now part of the new epoch.
            for (offset, payload) in kept.history.iter().chain(&kept.value) {
                truth.note(name, Position { epoch, offset: *offset }, *payload);
            }
        }
        // The entry was there, or has just been made.
        self.data.get_mut(&name).ok_or(Refusal::Lost)
    }

    /// Orders, keeps and hands out one publication, for a caller that knows this replication id.
    pub(super) fn publish(
        &mut self,
        name: Name,
        payload: Payload,
        seen: u64,
        truth: &mut Truth,
    ) -> Result<Position, Refusal> {
        self.check_write()?;
        let bound = self.settings.history;
        let kept = self.fence(name, seen, truth)?;
        kept.offset += 1;
        kept.value = Some((kept.offset, payload));
        kept.history.push_back((kept.offset, payload));
        if kept.history.len() > bound {
            kept.history.pop_front();
        }
        let position = Position { epoch: kept.epoch, offset: kept.offset };
        truth.note(name, position, payload);
        for wire in self.subscribers(name) {
            self.outbox.push((wire, Reply::Message(name, position, payload)));
        }
        Ok(position)
    }

    fn read(
        &mut self,
        name: Name,
        after: Option<u64>,
        seen: u64,
        truth: &mut Truth,
    ) -> Result<Read, Refusal> {
        let kept = self.fence(name, seen, truth)?;
        let history = after.map_or_else(Vec::new, |after| {
            kept.history.iter().filter(|(offset, _)| *offset > after).copied().collect()
        });
        let position = Position { epoch: kept.epoch, offset: kept.offset };
        let read = Read { position, value: kept.value, history };
        if let Some(after) = after {
            truth.note_lost(name, after, &read);
        }
        Ok(read)
    }

    /// Tells the node's own channel where the topics stand.
    fn compare(
        &mut self,
        batch: BatchId,
        names: &[Name],
        seen: u64,
        truth: &mut Truth,
    ) -> Result<(), Refusal> {
        self.check_write()?;
        let mut positions = Vec::with_capacity(names.len());
        for name in names {
            let kept = self.fence(*name, seen, truth)?;
            positions.push((*name, Position { epoch: kept.epoch, offset: kept.offset }));
        }
        self.push_to_node(&Reply::Comparison(batch, positions));
        Ok(())
    }

    fn probe(&mut self, probe: u64) -> Result<(), Refusal> {
        self.check_write()?;
        self.push_to_node(&Reply::Echo(probe));
        Ok(())
    }

    fn push_to_node(&mut self, reply: &Reply) {
        let subscribers = self.clients.iter().filter(|(_, client)| client.side == Side::Subscriber);
        self.outbox.extend(subscribers.map(|(wire, _)| (*wire, reply.clone())));
    }

    /// All of the topics or none.
    fn subscribe(&mut self, wire: WireId, names: &[Name]) -> Result<(), Refusal> {
        if names.iter().any(|name| self.denied.contains(name)) {
            return Err(Refusal::Refused("NOPERM no access to the channel".to_owned()));
        }
        if let Some(client) = self.clients.get_mut(&wire) {
            client.channels.extend(names);
        }
        Ok(())
    }

    /// Where the topic stands, if it exists.
    pub(super) fn position(&self, name: Name) -> Option<Position> {
        let kept = self.data.get(&name)?;
        Some(Position { epoch: kept.epoch, offset: kept.offset })
    }
}
