//! The node: the real link and the real hub, and what the driver, the receiver and the commands do between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tickcast_broker::redis::link::{
    Action, BatchId, CallId, Event as LinkEvent, Link, Refusal, Side, TICK,
};
use tickcast_hub::{Hub, HubLimits, Inbox, LogBounds, TopicOptions, TopicRules};
use tickcast_protocol::{Mode, Position, Publication, Topic};

use super::keeper::Keeper;
use super::network::{Dialed, Network, Way, WireId};
use super::redis::{Name, Reply, Request};
use super::time::{Event, MILLISECOND, Moment, SECOND, Time};
use super::workers::Worker;

/// A request without an answer for so long has none.
const ANSWER_MAX: Moment = 900 * MILLISECOND;

/// Longest way of a report through the driver's queue.
const REPORT_MAX: Moment = 2 * MILLISECOND;

/// Dials of one side in one second: after pauses of at least 25, 50, 100, 200 and 400 ms, and one that was due before. A
/// master that has moved may begin the pauses anew once.
const DIALS_MAX: usize = 11;

/// A part of the node that is broken on purpose, to show that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// Positions are never handed to the hub.
    ComparisonsUnheard,
    /// Workers never ask for the logs whose items did not fit.
    StaleForgotten,
    /// Every probe seems to come back.
    EchoesInvented,
    /// The scripts never look at the replication id.
    FenceOpen,
}

/// What a request was for.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Publish,
    /// The topic, and which of its waits this is.
    Read(Name, u64),
    Compare(BatchId),
    Probe(u64),
    Inspect(u64),
}

/// How often things happened, for the bounds on them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    dials: [VecDeque<Moment>; 2],
    probes: VecDeque<Moment>,
    compares: VecDeque<Moment>,
}

/// A node without sockets and threads.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) link: Link,
    pub(super) hub: Arc<Hub>,
    pub(super) topics: Vec<Topic>,
    pub(super) keeper: Keeper,
    pub(super) workers: Vec<Worker>,
    pub(super) wires: [Option<WireId>; 2],
    pub(super) sabotage: Option<Sabotage>,
    full_percent: u32,
    pub(super) tally: Tally,
    /// Calls of `Link::subscribe` that were not settled yet, and when they were made.
    pub(super) calls: BTreeMap<CallId, Moment>,
    /// Topics that the link has been asked for.
    wanted: BTreeSet<Name>,
    /// Those of them that were not compared on the present subscriber connection, though they were wanted before it.
    pub(super) uncompared: BTreeSet<Name>,
    generations: [(u64, Moment); 2],
    jobs: Arc<AtomicBool>,
    replid: u64,
    requests: BTreeMap<u64, Pending>,
    /// Reports that wait for the link.
    inputs: VecDeque<(Moment, LinkEvent)>,
    is_announced: bool,
    /// Whether the link believes that it has the connection.
    is_told: [bool; 2],
}

#[derive(Debug)]
struct Rules(usize);

impl TopicRules for Rules {
    fn options(&self, _topic: &str) -> TopicOptions {
        let age = std::time::Duration::from_secs(86_400);
        TopicOptions {
            mode: Mode::All,
            max_rate: None,
            flush_interval_ms: 0,
            keeps_value: true,
            log: LogBounds { publications: self.0, bytes: usize::MAX, age },
        }
    }
}

/// What may differ from node to node.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeSettings {
    pub(super) topics: usize,
    pub(super) workers: usize,
    /// Items that fit into a worker's inbox.
    pub(super) inbox: usize,
    /// Publications that a topic's log keeps.
    pub(super) log: usize,
    /// Longest time before a worker looks into its inbox.
    pub(super) drain_max: Moment,
    /// Of this many reports in a hundred, the driver has no room.
    pub(super) full_percent: u32,
    pub(super) sabotage: Option<Sabotage>,
}

impl Node {
    pub(super) fn new(settings: NodeSettings, time: &mut Time) -> Self {
        let names = (0..settings.topics).map(|name| Topic::new(&format!("t{name}")).unwrap());
        let workers: Vec<_> = (0..settings.workers).map(|_| Worker::new(&settings)).collect();
        let inboxes: Vec<Arc<Inbox>> = workers.iter().map(Worker::inbox).collect();
        let jobs = Arc::new(AtomicBool::new(false));
        let wake = Arc::clone(&jobs);
        let hub = Hub::new(
            HubLimits { log_bytes: usize::MAX },
            Arc::new(Rules(settings.log)),
            inboxes,
            move || wake.store(true, Relaxed),
        );
        Self {
            link: Link::new(time.instant(), time.number()),
            hub: Arc::new(hub),
            topics: names.collect(),
            keeper: Keeper::default(),
            workers,
            wires: [None; 2],
            sabotage: settings.sabotage,
            full_percent: settings.full_percent,
            tally: Tally::default(),
            calls: BTreeMap::new(),
            wanted: BTreeSet::new(),
            uncompared: BTreeSet::new(),
            generations: [(0, 0); 2],
            jobs,
            replid: 0,
            requests: BTreeMap::new(),
            inputs: VecDeque::new(),
            is_announced: false,
            is_told: [false; 2],
        }
    }

    /// Does everything that can be done at this moment.
    pub(super) fn run(&mut self, time: &mut Time, network: &mut Network) {
        loop {
            let actions = self.link.take_actions();
            let has_jobs = self.jobs.swap(false, Relaxed);
            let is_idle = actions.is_empty() && !has_jobs;
            for action in actions {
                self.perform(time, network, action);
            }
            if has_jobs {
                self.work(time, network);
            }
            if is_idle {
                break;
            }
        }
        for (number, worker) in self.workers.iter_mut().enumerate() {
            worker.wake(time, number);
        }
    }

    fn perform(&mut self, time: &mut Time, network: &mut Network, action: Action) {
        if !matches!(action, Action::Probe(_)) {
            time.say(|| format!("action {action:?}"));
        }
        match action {
            Action::Dial { side, generation, after } => {
                self.generations[side as usize].0 = generation;
                let after = Moment::try_from(after.as_micros()).unwrap();
                time.after(after, Event::Dial(side, generation));
            }
            Action::Close(side) => self.close(time, network, side),
            Action::Subscribe(batch, topics) => {
                let request = Request::Subscribe(batch, names(&topics).into());
                self.send_subscriber(time, network, request);
            }
            Action::Unsubscribe(topics) => {
                let request = Request::Unsubscribe(names(&topics));
                self.send_subscriber(time, network, request);
            }
            Action::Compare(batch, topics) => {
                // A batch is tried again in a second at the earliest, and topics may have to go alone.
                let bound = 2 * (self.topics.len() + 8);
                bounded(time, &mut self.tally.compares, bound, "comparisons");
                let (names, replid) = (names(&topics).into(), self.replid);
                let request = |number| Request::Compare { number, batch, names, replid };
                self.ask(time, network, Pending::Compare(batch), request);
            }
            Action::Probe(probe) => {
                let bound = 3 + 2 * DIALS_MAX;
                bounded(time, &mut self.tally.probes, bound, "probes");
                if self.sabotage == Some(Sabotage::EchoesInvented) {
                    self.report(time, LinkEvent::Echo(probe));
                    self.report(time, LinkEvent::Answered(probe));
                }
                let request = |number| Request::Probe { number, probe };
                self.ask(time, network, Pending::Probe(probe), request);
            }
            Action::Inspect(generation) => {
                let wire = self.wires[Side::Subscriber as usize].unwrap_or_default();
                let request = |number| Request::Inspect { number, wire };
                self.ask(time, network, Pending::Inspect(generation), request);
            }
            Action::Settle(call, ok) => self.settle(time, network, call, ok),
            Action::Announce(up) => self.announce(time, network, up),
            Action::TornDown(why) => self.torn_down(time, network, why),
            Action::Denied(topic, _) => {
                self.uncompared.remove(&name(&topic));
            }
        }
    }

    fn announce(&mut self, time: &mut Time, network: &mut Network, up: bool) {
        if up == self.is_announced {
            time.violate(&format!("announced twice: {up}"));
        }
        self.is_announced = up;
        self.hub.link_changed(up);
        if up && !self.uncompared.is_empty() {
            time.violate(&format!("up before a comparison of {:?}", self.uncompared));
        }
        if up {
            self.link_came_up(time, network);
        }
    }

    /// The connections are not given up for subscriptions that are all there.
    fn torn_down(&mut self, time: &mut Time, network: &Network, why: &str) {
        if let Some(wire) = self.wires[Side::Subscriber as usize]
            && why.contains("the subscriptions")
            && !network.tampered.contains(&wire)
            && !network.is_stalled(time.now, wire, Way::ToServer)
        {
            time.violate(&format!("given up without a reason: {why}"));
        }
    }

    fn settle(&mut self, time: &mut Time, network: &mut Network, call: CallId, ok: bool) {
        if self.calls.remove(&call).is_none() {
            time.violate(&format!("the call {call} was settled twice, or never made"));
        }
        self.call_settled(time, network, call, ok);
    }

    /// Asks the link for topics, as the broker's door does.
    pub(super) fn subscribe(&mut self, time: &mut Time, wanted: &[Name]) -> CallId {
        let call = time.number();
        let topics: Vec<Topic> = wanted.iter().map(|name| self.topics[*name].clone()).collect();
        time.say(|| format!("call {call}: subscribe {wanted:?}"));
        self.calls.insert(call, time.now);
        self.wanted.extend(wanted);
        self.link.subscribe(time.instant(), call, &topics);
        call
    }

    pub(super) fn unsubscribe(&mut self, time: &mut Time, given: &[Name]) {
        let topics: Vec<Topic> = given.iter().map(|name| self.topics[*name].clone()).collect();
        time.say(|| format!("unsubscribe {given:?}"));
        self.wanted.retain(|name| !given.contains(name));
        self.uncompared.retain(|name| !given.contains(name));
        self.link.unsubscribe(time.instant(), &topics);
    }

    // Connections.

    /// The pause before a dial is over, or what it waited for has changed.
    pub(super) fn dial(&mut self, time: &mut Time, network: &mut Network, side: Side, number: u64) {
        if self.generations[side as usize].0 == number {
            bounded(time, &mut self.tally.dials[side as usize], DIALS_MAX, "dials of one side");
            self.generations[side as usize].1 = time.now;
            let handshake = 3 * time.between(0..=network.latency_max) + MILLISECOND;
            time.after(handshake, Event::Dialed(side, number));
        }
    }

    pub(super) fn dialed(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        side: Side,
        number: u64,
    ) {
        let (generation, since) = self.generations[side as usize];
        if generation != number || self.wires[side as usize].is_some() {
            return;
        }
        let event = match network.dial(time, side, since) {
            Dialed::Pending(until) => return time.at(until, Event::Dialed(side, number)),
            Dialed::Refused => LinkEvent::Lost(side, number),
            Dialed::Connected { wire, replid } => {
                self.wires[side as usize] = Some(wire);
                self.is_told[side as usize] = true;
                match side {
                    Side::Commands => self.replid = replid,
                    Side::Subscriber => self.uncompared.clone_from(&self.wanted),
                }
                LinkEvent::Connected(side, number)
            }
        };
        time.say(|| format!("dialed {event:?}"));
        self.link.handle(time.instant(), event);
    }

    fn close(&mut self, time: &mut Time, network: &mut Network, side: Side) {
        self.is_told[side as usize] = false;
        if let Some(wire) = self.wires[side as usize].take() {
            network.close(time, wire);
            self.forget_requests(time, network, side, false);
        }
    }

    /// What was asked on a connection that is gone has no answer. Tasks of the driver may end without a report.
    fn forget_requests(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        side: Side,
        reports: bool,
    ) {
        if side == Side::Commands {
            for (_, pending) in std::mem::take(&mut self.requests) {
                self.failed(time, network, pending, reports.then_some(Refusal::Lost));
            }
        }
    }

    fn send_subscriber(&mut self, time: &mut Time, network: &mut Network, request: Request) {
        match self.wires[Side::Subscriber as usize] {
            Some(wire) => network.send(time, wire, request),
            None if self.is_told[Side::Subscriber as usize] => {} // The link will hear that it has ended.
            None => time.violate(&format!("without a connection: {request:?}")),
        }
    }

    // Requests.

    fn ask(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        pending: Pending,
        request: impl FnOnce(u64) -> Request,
    ) {
        let number = time.number();
        let is_call = matches!(pending, Pending::Read(..) | Pending::Publish);
        match self.wires[Side::Commands as usize] {
            Some(wire) => {
                self.requests.insert(number, pending);
                network.send(time, wire, request(number));
                time.after(ANSWER_MAX, Event::Deadline(number));
            }
            None if is_call || self.is_told[Side::Commands as usize] => {
                self.failed(time, network, pending, Some(Refusal::Lost));
            }
            None => time.violate(&format!("without a connection: {pending:?}")),
        }
    }

    /// Reads a topic for the keeper.
    pub(super) fn ask_read(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        (name, wait): (Name, u64),
        after: Option<u64>,
    ) {
        let replid = self.replid;
        let request = |number| Request::Read { number, name, after, replid };
        self.ask(time, network, Pending::Read(name, wait), request);
    }

    /// A client of this node publishes.
    pub(super) fn publish(&mut self, time: &mut Time, network: &mut Network, name: Name) {
        let (payload, replid) = (time.number(), self.replid);
        time.say(|| format!("here: {name} {payload}"));
        let request = |number| Request::Publish { number, name, payload, replid };
        self.ask(time, network, Pending::Publish, request);
    }

    pub(super) fn deadline(&mut self, time: &mut Time, network: &mut Network, number: u64) {
        if let Some(pending) = self.requests.remove(&number) {
            time.say(|| format!("no answer to {pending:?}"));
            self.failed(time, network, pending, Some(Refusal::Lost));
        }
    }

    /// A request failed; without a refusal, who sent it has ended as well and reports nothing.
    fn failed(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        pending: Pending,
        refusal: Option<Refusal>,
    ) {
        match (pending, refusal) {
            (Pending::Read(name, wait), _) => self.read_ended(time, network, (name, wait), None),
            (Pending::Compare(batch), Some(refusal)) => {
                self.report(time, LinkEvent::CompareFailed(batch, refusal));
            }
            (Pending::Probe(probe), Some(refusal)) => {
                self.report(time, LinkEvent::ProbeFailed(probe, refusal));
            }
            _ => {}
        }
    }

    // What arrives.

    pub(super) fn receive(&mut self, time: &mut Time, network: &mut Network, wire: WireId) {
        while let Some(reply) = network.receive(time, wire) {
            if self.wires[Side::Subscriber as usize] == Some(wire) {
                self.pushed(time, network, reply);
            } else if self.wires[Side::Commands as usize] == Some(wire) {
                self.answered(time, network, reply);
            } // Otherwise it is of a connection that this node has closed.
        }
    }

    fn pushed(&mut self, time: &mut Time, network: &mut Network, reply: Reply) {
        match reply {
            Reply::Message(name, position, payload) => {
                time.say(|| format!("message {name} {position:?} {payload}"));
                self.hub.deliver(self.publication(name, position, payload));
            }
            Reply::Garbled(name) => {
                time.say(|| format!("a message of {name} cannot be read"));
                self.hub.suspect(&self.topics[name]);
            }
            // The queue of the driver may be full.
            Reply::Echo(_) if time.chance(self.full_percent) => {}
            Reply::Echo(probe) => self.report(time, LinkEvent::Echo(probe)),
            Reply::Comparison(batch, positions) => {
                time.say(|| format!("comparison {batch} {positions:?}"));
                for (name, _) in &positions {
                    self.uncompared.remove(name);
                }
                if self.sabotage != Some(Sabotage::ComparisonsUnheard) {
                    for (name, position) in positions {
                        self.hub.compare(&self.topics[name], position);
                    }
                }
                if !time.chance(self.full_percent) {
                    self.report(time, LinkEvent::Compared(batch));
                }
            }
            Reply::Subscribed(batch, result) => {
                self.report(time, LinkEvent::Subscribed(batch, result));
            }
            Reply::End => self.ended(time, network, Side::Subscriber),
            other => time.violate(&format!("on the subscriber connection: {other:?}")),
        }
    }

    fn answered(&mut self, time: &mut Time, network: &mut Network, reply: Reply) {
        let (number, replid, result) = match reply {
            Reply::Published(number, result, replid) => (number, replid, result.map(|_| None)),
            Reply::Read(number, result, replid) => (number, replid, result.map(Some)),
            Reply::Done(number, result, replid) => (number, replid, result.map(|()| None)),
            Reply::Inspected(number, view) => {
                if let Some(Pending::Inspect(generation)) = self.requests.remove(&number) {
                    self.report(time, LinkEvent::Inspected(generation, view));
                }
                return;
            }
            Reply::End => return self.ended(time, network, Side::Commands),
            other => return time.violate(&format!("on the commands connection: {other:?}")),
        };
        self.replid = replid;
        let Some(pending) = self.requests.remove(&number) else { return };
        match (result, pending) {
            (Ok(Some(read)), Pending::Read(name, wait)) => {
                self.read_ended(time, network, (name, wait), Some(read));
            }
            (Ok(_), Pending::Probe(probe)) => self.report(time, LinkEvent::Answered(probe)),
            (Ok(_), _) => {}
            (Err(refusal), pending) => self.failed(time, network, pending, Some(refusal)),
        }
    }

    fn ended(&mut self, time: &mut Time, network: &mut Network, side: Side) {
        self.wires[side as usize] = None;
        let generation = self.generations[side as usize].0;
        self.report(time, LinkEvent::Lost(side, generation));
        let reports = time.chance(50);
        self.forget_requests(time, network, side, reports);
    }

    pub(super) fn publication(
        &self,
        name: Name,
        position: Position,
        payload: u64,
    ) -> Arc<Publication> {
        let topic = self.topics[name].clone();
        Arc::new(Publication::new(topic, position, 0, payload.to_string().as_bytes()))
    }

    // The link's inputs.

    /// Reports to the link, behind what was reported before.
    fn report(&mut self, time: &mut Time, event: LinkEvent) {
        let earliest = self.inputs.back().map_or(0, |(at, _)| *at);
        let at = (time.now + time.between(0..=REPORT_MAX)).max(earliest);
        self.inputs.push_back((at, event));
        time.at(at, Event::Input);
    }

    pub(super) fn input(&mut self, time: &mut Time) {
        // One at a time: what it leads to is done before the next one.
        if let Some((_, event)) = self.inputs.pop_front_if(|(at, _)| *at <= time.now) {
            if !matches!(event, LinkEvent::Echo(_)) {
                time.say(|| format!("event {event:?}"));
            }
            if let LinkEvent::Lost(side, number) = event
                && self.generations[side as usize].0 == number
            {
                self.is_told[side as usize] = false;
            }
            self.link.handle(time.instant(), event);
        }
    }

    pub(super) fn tick(&mut self, time: &mut Time) {
        self.link.tick(time.instant());
        time.after(Moment::try_from(TICK.as_micros()).unwrap(), Event::Tick);
    }

    /// What keeps a publication from coming back; none without both connections.
    pub(super) fn obstacles(&self, now: Moment, network: &Network) -> Option<[bool; 6]> {
        let [commands, subscriber] = self.wires;
        commands.zip(subscriber).map(|(from, to)| network.obstacles(now, from, to))
    }

    /// Topics that the server has this node subscribed to.
    pub(super) fn channels(&self, network: &Network) -> Option<BTreeSet<Name>> {
        let wire = self.wires[Side::Subscriber as usize]?;
        network.server_of(wire)?.server.channels(wire).cloned()
    }
}

/// Counts one more, and objects if there were more than `bound` in the last second.
fn bounded(time: &mut Time, counted: &mut VecDeque<Moment>, bound: usize, what: &str) {
    let since = time.now.saturating_sub(SECOND);
    while counted.pop_front_if(|at| *at < since).is_some() {}
    counted.push_back(time.now);
    if counted.len() > bound {
        time.violate(&format!("{} {what} in a second", counted.len()));
    }
}

/// The number of a topic.
pub(super) fn name(topic: &Topic) -> Name {
    topic.as_str()[1..].parse().unwrap()
}

/// The numbers of topics, in order: the link's own order is not always the same.
fn names(topics: &[Topic]) -> Vec<Name> {
    let mut names: Vec<Name> = topics.iter().map(name).collect();
    names.sort_unstable();
    names
}
