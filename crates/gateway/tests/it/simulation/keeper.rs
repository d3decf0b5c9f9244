//! Does the hub's jobs as the gateway's keeper does: subscribes before it reads, one read per topic at a time, tries
//! again after a pause for as long as the hub holds the topic, and gives idle topics back after their grace period.

use std::collections::{BTreeMap, VecDeque};

use tickcast_broker::redis::link::CallId;
use tickcast_hub::{Job, State};
use tickcast_protocol::Position;

use super::network::Network;
use super::node::{Node, name};
use super::redis::{Name, Read};
use super::time::{Event, MILLISECOND, Moment, SECOND, Time};

/// How long a topic stays subscribed after its last subscriber went.
pub(super) const GRACE: Moment = 5 * SECOND;

/// How long a call may take.
const CALL_MAX: Moment = SECOND;

/// First and longest pause between two attempts.
const RETRY_MIN: Moment = 50 * MILLISECOND;
const RETRY_MAX: Moment = 2 * SECOND;

/// What a read is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// Subscribe, then read.
    Open,
    Repair(u64),
    History,
    Position,
}

/// What a read waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Call(CallId),
    Answer,
    Pause,
    /// It has ended; the keeper has not noticed yet.
    Over,
}

/// The reads of one topic: one under way, and those that follow.
#[derive(Debug)]
struct Reads {
    purpose: Purpose,
    waits: Waits,
    pause: Moment,
    /// Tells a wait from an earlier one.
    wait: u64,
    next: VecDeque<Purpose>,
}

impl Reads {
    fn new(purpose: Purpose, next: VecDeque<Purpose>) -> Self {
        Self { purpose, waits: Waits::Pause, pause: RETRY_MIN, wait: 0, next }
    }
}

/// The jobs under way.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    reads: BTreeMap<Name, Reads>,
    ended: VecDeque<Name>,
    idle: VecDeque<(Moment, Name)>,
}

impl Keeper {
    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.reads.is_empty()
    }
}

impl Node {
    /// One turn of the keeper.
    pub(super) fn work(&mut self, time: &mut Time, network: &mut Network) {
        while let Some(name) = self.keeper.ended.pop_front() {
            self.read_next(time, network, name);
        }
        for job in self.hub.take_jobs() {
            time.say(|| format!("job {job:?}"));
            match job {
                Job::Open { topic } => self.read(time, network, name(&topic), Purpose::Open),
                Job::Repair { topic, after } => {
                    self.read(time, network, name(&topic), Purpose::Repair(after));
                }
                Job::History { topic } => self.read(time, network, name(&topic), Purpose::History),
                Job::Position { topic } => {
                    self.read(time, network, name(&topic), Purpose::Position);
                }
                Job::Idle { topic } => {
                    self.keeper.idle.push_back((time.now + GRACE, name(&topic)));
                    time.after(GRACE, Event::GraceEnds);
                }
            }
        }
        self.close_idle(time);
    }

    fn close_idle(&mut self, time: &mut Time) {
        let mut closed = Vec::new();
        while let Some((_, name)) = self.keeper.idle.pop_front_if(|(at, _)| *at <= time.now) {
            if self.hub.close_if_idle(&self.topics[name]) {
                self.keeper.reads.remove(&name);
                self.keeper.ended.retain(|ended| *ended != name);
                closed.push(name);
            }
        }
        if !closed.is_empty() {
            self.unsubscribe(time, &closed);
        }
    }

    /// A call is settled. Who has stopped waiting for it needs no answer.
    pub(super) fn call_settled(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        call: CallId,
        ok: bool,
    ) {
        let waits = |reads: &Reads| reads.waits == Waits::Call(call);
        let found = self.keeper.reads.iter().find(|(_, reads)| waits(reads));
        if let Some(name) = found.map(|(name, _)| *name) {
            self.subscribed(time, network, name, ok);
        }
    }

    fn read(&mut self, time: &mut Time, network: &mut Network, name: Name, purpose: Purpose) {
        if let Some(reads) = self.keeper.reads.get_mut(&name) {
            reads.next.push_back(purpose);
        } else {
            self.begin(time, network, name, Reads::new(purpose, VecDeque::new()));
        }
    }

    fn begin(&mut self, time: &mut Time, network: &mut Network, name: Name, reads: Reads) {
        self.keeper.reads.insert(name, reads);
        self.attempt(time, network, name);
    }

    fn read_next(&mut self, time: &mut Time, network: &mut Network, name: Name) {
        let Some(mut reads) = self.keeper.reads.remove(&name) else { return };
        if let Some(purpose) = reads.next.pop_front() {
            self.begin(time, network, name, Reads::new(purpose, reads.next));
        }
    }

    /// One attempt of a topic's read, from the beginning.
    fn attempt(&mut self, time: &mut Time, network: &mut Network, name: Name) {
        if !self.hub.holds(&self.topics[name]) {
            return self.read_is_over(time, network, name);
        }
        let Some(reads) = self.keeper.reads.get(&name) else { return };
        if !matches!(reads.purpose, Purpose::Open) {
            return self.subscribed(time, network, name, true);
        }
        let (wait, call) = (time.number(), self.subscribe(time, &[name]));
        if let Some(reads) = self.keeper.reads.get_mut(&name) {
            (reads.wait, reads.waits) = (wait, Waits::Call(call));
            time.after(CALL_MAX, Event::Read(name, wait));
        }
    }

    /// The topic is subscribed as far as that is needed, or cannot be.
    fn subscribed(&mut self, time: &mut Time, network: &mut Network, name: Name, ok: bool) {
        if !ok {
            return self.back_off(time, name);
        }
        let Some(reads) = self.keeper.reads.get_mut(&name) else { return };
        (reads.wait, reads.waits) = (time.number(), Waits::Answer);
        let wait = reads.wait;
        let after = match reads.purpose {
            Purpose::Open | Purpose::Position => None,
            Purpose::Repair(after) => Some(after),
            Purpose::History => Some(0),
        };
        self.ask_read(time, network, (name, wait), after);
    }

    fn back_off(&mut self, time: &mut Time, name: Name) {
        let Some(reads) = self.keeper.reads.get_mut(&name) else { return };
        reads.waits = Waits::Pause;
        reads.wait = time.number();
        let pause = time.between(reads.pause / 2..=reads.pause);
        reads.pause = (reads.pause * 2).min(RETRY_MAX);
        time.after(pause, Event::Read(name, reads.wait));
    }

    /// A read has waited long enough.
    pub(super) fn read_wakes(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        name: Name,
        wait: u64,
    ) {
        match self.keeper.reads.get(&name) {
            Some(reads) if reads.wait == wait => match reads.waits {
                Waits::Pause => self.attempt(time, network, name),
                Waits::Call(_) => self.back_off(time, name),
                Waits::Answer | Waits::Over => {}
            },
            _ => {}
        }
    }

    /// Who sleeps before the next attempt is woken.
    pub(super) fn link_came_up(&mut self, time: &mut Time, network: &mut Network) {
        let sleeps =
            |(name, reads): (&Name, &Reads)| (reads.waits == Waits::Pause).then_some(*name);
        let names: Vec<Name> = self.keeper.reads.iter().filter_map(sleeps).collect();
        for name in names {
            self.attempt(time, network, name);
        }
    }

    /// The answer to a topic's read came, or none will.
    pub(super) fn read_ended(
        &mut self,
        time: &mut Time,
        network: &mut Network,
        (name, wait): (Name, u64),
        read: Option<Read>,
    ) {
        let Some(reads) = self.keeper.reads.get(&name) else { return };
        if reads.wait != wait {
            return; // It was for an earlier life of the topic.
        }
        let Some(read) = read else { return self.back_off(time, name) };
        time.say(|| format!("read {name} for {:?}: {read:?}", reads.purpose));
        let purpose = reads.purpose;
        let publication = |(offset, payload): (u64, u64)| {
            let position = Position { offset, ..read.position };
            self.publication(name, position, payload)
        };
        let state = State {
            position: read.position,
            value: read.value.map(publication),
            history: read.history.iter().copied().map(publication).collect(),
            complete: matches!(purpose, Purpose::History),
        };
        let topic = &self.topics[name];
        match purpose {
            Purpose::Open => self.hub.opened(topic, state),
            Purpose::Repair(_) => self.hub.repaired(topic, state),
            Purpose::History => self.hub.history_loaded(topic, state),
            Purpose::Position => self.hub.position_read(topic, state.position),
        }
        self.read_is_over(time, network, name);
    }

    fn read_is_over(&mut self, time: &mut Time, network: &mut Network, name: Name) {
        if let Some(reads) = self.keeper.reads.get_mut(&name) {
            reads.waits = Waits::Over;
            self.keeper.ended.push_back(name);
            self.work(time, network);
        }
    }
}
