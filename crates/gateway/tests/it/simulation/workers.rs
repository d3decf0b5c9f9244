//! Workers: each mirrors the logs of the topics that it has joined, and one subscriber per topic reads everything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tickcast_hub::{Inbox, Item, LocalTopic, Next, TopicLog};
use tickcast_protocol::{Epoch, Position, Publication};

use super::node::{Node, NodeSettings, Sabotage};
use super::redis::{Name, Truth};
use super::time::{Event, Moment, Time};

/// A subscriber of a topic, with the mirror that it reads.
#[derive(Debug)]
pub(super) struct Follower {
    local: LocalTopic,
    pub(super) log: Option<TopicLog>,
    pub(super) cursor: u64,
    pub(super) resets: u64,
    /// Gaps, other than those of a log that keeps little.
    pub(super) gaps: u64,
    is_log_short: bool,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    inbox: Arc<Inbox>,
    woken: Arc<AtomicBool>,
    is_due: bool,
    drain_max: Moment,
    is_log_short: bool,
    generation: u32,
    pub(super) followers: BTreeMap<Name, Follower>,
    items: VecDeque<Item>,
}

impl Worker {
    pub(super) fn new(settings: &NodeSettings) -> Self {
        let woken = Arc::new(AtomicBool::new(false));
        let wake = Arc::clone(&woken);
        Self {
            inbox: Arc::new(Inbox::new(settings.inbox, move || wake.store(true, Relaxed))),
            woken,
            is_due: false,
            drain_max: settings.drain_max,
            is_log_short: settings.log < 1000,
            generation: 0,
            followers: BTreeMap::new(),
            items: VecDeque::new(),
        }
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Has its turn soon, if the inbox woke it.
    pub(super) fn wake(&mut self, time: &mut Time, number: usize) {
        if self.woken.swap(false, Relaxed) && !self.is_due {
            self.is_due = true;
            let pause = time.between(0..=self.drain_max);
            time.after(pause, Event::Drain(number));
        }
    }
}

impl Node {
    /// The first subscriber of a topic comes to a worker, or the last one goes.
    pub(super) fn join_or_leave(&mut self, time: &mut Time, number: usize, name: Name) {
        if !self.leave(time, number, name) {
            time.say(|| format!("worker {number} joins {name}"));
            let worker = &mut self.workers[number];
            worker.generation += 1;
            let local =
                LocalTopic { index: u32::try_from(name).unwrap(), generation: worker.generation };
            let is_log_short = worker.is_log_short;
            let (log, cursor, resets, gaps) = (None, 0, 0, 0);
            let follower = Follower { local, log, cursor, resets, gaps, is_log_short };
            worker.followers.insert(name, follower);
            self.hub.join(&self.topics[name], number, local);
        }
    }

    /// Whether there was a subscriber.
    pub(super) fn leave(&mut self, time: &mut Time, number: usize, name: Name) -> bool {
        let follower = self.workers[number].followers.remove(&name);
        if let Some(follower) = &follower {
            time.say(|| format!("worker {number} leaves {name}"));
            self.hub.leave(&self.topics[name], number, follower.local);
        }
        follower.is_some()
    }

    /// A subscriber wants what lies before the log.
    pub(super) fn want_history(&mut self, number: usize, name: Name) {
        if let Some(follower) = self.workers[number].followers.get(&name) {
            self.hub.want_history(&self.topics[name], number, follower.local);
        }
    }

    /// One turn of a worker.
    pub(super) fn drain(&mut self, time: &mut Time, truth: &Truth, number: usize) {
        let worker = &mut self.workers[number];
        worker.is_due = false;
        let stale = worker.inbox.take(&mut worker.items);
        for item in std::mem::take(&mut worker.items) {
            if let Some((name, follower)) = find(&mut worker.followers, &item) {
                follower.apply(time, truth, name, item);
            }
        }
        if !stale.is_empty() && self.sabotage != Some(Sabotage::StaleForgotten) {
            time.say(|| format!("worker {number} has missed items of {stale:?}"));
            self.hub.resync(number, &stale);
        }
    }
}

fn find<'a>(
    followers: &'a mut BTreeMap<Name, Follower>,
    item: &Item,
) -> Option<(Name, &'a mut Follower)> {
    let (Item::Publication { local, .. } | Item::Log { local, .. } | Item::Trim { local, .. }) =
        item
    else {
        return None;
    };
    let name = local.index as Name;
    followers.get_mut(&name).filter(|follower| follower.local == *local).map(|found| (name, found))
}

impl Follower {
    fn apply(&mut self, time: &mut Time, truth: &Truth, name: Name, item: Item) {
        match item {
            Item::Publication { publication, floor, .. } => {
                let expected = self.log.as_ref().map(TopicLog::position);
                let Position { epoch, offset } = publication.position();
                if expected != Some(Position { epoch, offset: offset - 1 }) {
                    time.violate(&format!("{name}: {publication:?} follows {expected:?}"));
                }
                if let Some(log) = &mut self.log {
                    log.append(publication, 0);
                }
                self.read(time, truth, name);
                if let Some(log) = &mut self.log {
                    log.trim_to(floor);
                }
            }
            Item::Log { log, .. } => {
                self.replace(time, truth, name, *log);
                self.read(time, truth, name);
            }
            Item::Trim { floor, .. } => {
                if let Some(log) = &mut self.log {
                    log.trim_to(floor);
                }
            }
            Item::Link { .. } => {}
        }
    }

    fn replace(&mut self, time: &mut Time, truth: &Truth, name: Name, log: TopicLog) {
        match &self.log {
            None => self.cursor = log.last(),
            Some(old) if old.epoch() != log.epoch() => {
                time.say(|| format!("{name}: reset to {:?}", log.position()));
                self.resets += 1;
                self.cursor = log.floor();
            }
            Some(old) if old.last() > log.last() => {
                time.violate(&format!("{name}: back from {} to {}", old.last(), log.last()));
            }
            Some(_) => {}
        }
        // What lies before the cursor must be true as well: others may begin there.
        let mut at = log.floor();
        while at < self.cursor {
            match log.next(at) {
                Next::Following(found) | Next::Hole(Some(found)) => {
                    check(time, truth, name, log.epoch(), found);
                    at = found.offset();
                }
                Next::UpToDate | Next::Hole(None) | Next::Fallen => break,
            }
        }
        self.log = Some(log);
    }

    /// Reads everything that is new.
    fn read(&mut self, time: &mut Time, truth: &Truth, name: Name) {
        let Some(log) = &self.log else { return };
        let epoch = log.epoch();
        loop {
            let missed_to = match log.next(self.cursor) {
                Next::UpToDate => return,
                Next::Following(found) => {
                    check(time, truth, name, epoch, found);
                    self.cursor = found.offset();
                    continue;
                }
                Next::Hole(Some(found)) => found.offset() - 1,
                Next::Hole(None) => log.last(),
                Next::Fallen if self.is_log_short => {
                    // It was too slow for the log. That is its own affair.
                    self.cursor = log.floor();
                    continue;
                }
                Next::Fallen => log.floor(),
            };
            self.gaps += 1;
            let missed = self.cursor + 1..=missed_to;
            time.say(|| format!("{name}: gap {missed:?} in {epoch}"));
            // A gap may only name what the broker no longer had when it was asked.
            let is_lost = |offset| truth.is_lost(name, Position { epoch, offset });
            if !missed.clone().all(is_lost) {
                time.violate(&format!("{name}: a gap of {missed:?} in {epoch}, which is not lost"));
            }
            self.cursor = missed_to;
        }
    }
}

/// A publication is the one that the server gave this place to.
fn check(time: &mut Time, truth: &Truth, name: Name, epoch: Epoch, found: &Publication) {
    let position = found.position();
    let known = truth.get(name, position);
    let data = std::str::from_utf8(found.data()).ok().and_then(|data| data.parse().ok());
    if position.epoch != epoch || known.is_none() || known != data {
        time.violate(&format!("{name}: {position:?} in {epoch} is {data:?}, but was {known:?}"));
    }
}
