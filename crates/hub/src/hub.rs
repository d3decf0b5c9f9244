//! The node-wide half: one log per topic that has subscribers here, fed by the broker's reader.
//!
//! Everything that needs the broker is a [`Job`]; whoever joins hub and broker takes the jobs, asks the broker, and
//! brings back a [`State`]. One short lock per topic orders what its workers are told: a worker that joins gets the log
//! at one instant and then every later publication, so a snapshot misses nothing and repeats nothing.

mod counters;
mod look;
mod pending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use tickcast_protocol::{Position, Publication, Topic};

use self::counters::AtomicCounters;
pub use self::counters::HubStats;
use self::look::Look;
use self::pending::Pending;
use crate::inbox::{Inbox, Item, LocalTopic};
use crate::job::{Job, State};
use crate::log::TopicLog;
use crate::options::{TopicOptions, TopicRules};

/// Bounds of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    /// Bytes of publications in all logs of the node together. Beyond it a topic that grows lets its own oldest
    /// publications go first, down to its newest.
    pub log_bytes: usize,
}

/// A topic without a publication for so many seconds is quiet.
const QUIET_SECONDS: u32 = 30;

/// The node-wide registry of live topics.
#[derive(Debug)]
pub struct Hub {
    limits: HubLimits,
    rules: Arc<dyn TopicRules>,
    workers: Vec<Arc<Inbox>>,
    topics: DashMap<Topic, Arc<Entry>, ahash::RandomState>,
    jobs: Jobs,
    /// Seconds since the start, moved on by [`Hub::sweep`]: precise enough for ages, free to read.
    second: AtomicU32,
    log_bytes: AtomicUsize,
    counters: AtomicCounters,
}

/// Open jobs. Bounded by the number of live topics times the kinds of jobs, because each entry notes what it has open.
struct Jobs {
    queue: Mutex<VecDeque<Job>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Entry {
    topic: Topic,
    options: TopicOptions,
    live: Mutex<Live>,
}

/// What the node knows of a topic, and what it is waiting for. No log yet means that the topic is being opened.
#[derive(Debug, Default)]
struct Live {
    log: Option<TopicLog>,
    members: Vec<Member>,
    pending: Pending,
    repair: Repair,
    is_loading_history: bool,
    look: Look,
    interest: Interest,
}

/// Whether the state of a topic is being read again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Repair {
    #[default]
    None,
    Open,
    /// The broker went on while it may have been read: the answer may be too old.
    Outdated,
}

/// Whether a topic is on its way out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// No idle job is open.
    #[default]
    Wanted,
    /// The last subscriber went and an idle job is open.
    Fading,
    /// Someone came since, so that the grace period starts anew.
    Revived,
    /// Taken out of the map; whoever still holds the entry looks again.
    Closed,
}

/// A worker that has subscribers of the topic.
#[derive(Debug)]
struct Member {
    worker: usize,
    local: LocalTopic,
    /// An item did not fit into the worker's inbox; it gets nothing until it asks for the whole log.
    is_stale: bool,
}

impl Hub {
    /// A hub that feeds these workers; `wake_jobs` is called when a job is queued and must not block.
    pub fn new(
        limits: HubLimits,
        rules: Arc<dyn TopicRules>,
        workers: Vec<Arc<Inbox>>,
        wake_jobs: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            limits,
            rules,
            workers,
            topics: DashMap::default(),
            jobs: Jobs { queue: Mutex::default(), wake: Box::new(wake_jobs) },
            second: AtomicU32::new(0),
            log_bytes: AtomicUsize::new(0),
            counters: AtomicCounters::default(),
        }
    }

    /// Takes the jobs that are open.
    pub fn take_jobs(&self) -> VecDeque<Job> {
        std::mem::take(&mut *self.jobs.queue.lock())
    }

    /// Takes in a publication from the broker and hands it to every worker that has subscribers of its topic.
    ///
    /// Called in order per topic. What does not continue the log (a jump in the offsets, another epoch) waits until the
    /// broker's state has been read again.
    pub fn deliver(&self, publication: Arc<Publication>) {
        self.counters.delivered.fetch_add(1, Relaxed);
        let Some(entry) =
            self.topics.get(publication.topic()).map(|entry| Arc::clone(entry.value()))
        else {
            return; // The last subscriber has just gone.
        };
        let mut live = entry.live.lock();
        match &live.log {
            Some(log) if live.repair == Repair::None && log.epoch() == publication.epoch() => {
                if publication.offset() == log.last() + 1 {
                    self.append(&entry, &mut live, &publication);
                } else if publication.offset() > log.last() {
                    self.counters.gaps_found.fetch_add(1, Relaxed);
                    self.repair(&entry, &mut live, publication);
                } else {
                    self.counters.duplicates.fetch_add(1, Relaxed);
                }
            }
            Some(_) if live.repair == Repair::None => self.repair(&entry, &mut live, publication),
            _ => live.pending.push(publication),
        }
    }

    fn append(&self, entry: &Entry, live: &mut Live, publication: &Arc<Publication>) {
        let Some(log) = &mut live.log else { return };
        let second = self.second.load(Relaxed);
        let before = log.bytes();
        log.append(Arc::clone(publication), second);
        log.trim(&entry.options.log, second);
        self.account(before, log);
        let floor = log.floor();
        for member in &mut live.members {
            let item = Item::Publication {
                local: member.local,
                publication: Arc::clone(publication),
                floor,
            };
            self.tell(&entry.topic, member, item);
        }
    }

    /// Brings the node's total up to date with one log, and shortens this log if the total is over its bound.
    fn account(&self, before: usize, log: &mut TopicLog) {
        let grown = log.bytes().saturating_sub(before);
        let total = self.log_bytes.fetch_add(grown, Relaxed) + grown;
        self.log_bytes.fetch_sub(before.saturating_sub(log.bytes()), Relaxed);
        if grown > 0 && total > self.limits.log_bytes {
            let over = log.bytes();
            log.release(total - self.limits.log_bytes);
            self.log_bytes.fetch_sub(over - log.bytes(), Relaxed);
        }
    }

    fn tell(&self, topic: &Topic, member: &mut Member, item: Item) {
        if member.is_stale {
            return;
        }
        member.is_stale = !self.workers[member.worker].push(topic, item);
    }

    fn tell_log(&self, entry: &Entry, live: &mut Live) {
        let Some(log) = &live.log else { return };
        for member in live.members.iter_mut().filter(|member| !member.is_stale) {
            let item = Item::Log { local: member.local, log: Box::new(log.clone()) };
            self.tell(&entry.topic, member, item);
        }
    }

    /// Tells every worker that the broker link came up or went down.
    pub fn link_changed(&self, up: bool) {
        for inbox in &self.workers {
            inbox.push_link(up);
        }
    }

    /// The broker stands at `position`, and everything up to it has been delivered or is lost: what the log lacks now will
    /// not come by itself.
    pub fn compare(&self, topic: &Topic, position: Position) {
        self.with_entry(topic, |entry, live| {
            let Some(log) = &live.log else { return };
            let is_epoch = log.epoch() == position.epoch;
            if !is_epoch || log.last() < position.offset {
                let is_found = is_epoch && live.repair == Repair::None;
                self.counters.gaps_found.fetch_add(u64::from(is_found), Relaxed);
                self.read_again(entry, live);
            }
        });
    }

    /// Reads the topic's state again: a publication is missing, or might be.
    pub fn suspect(&self, topic: &Topic) {
        self.with_entry(topic, |entry, live| self.read_again(entry, live));
    }

    /// Asks for a repair that begins after this call.
    fn read_again(&self, entry: &Entry, live: &mut Live) {
        if live.repair == Repair::None {
            self.ask_repair(entry, live);
        } else {
            live.repair = Repair::Outdated;
        }
    }

    fn repair(&self, entry: &Entry, live: &mut Live, publication: Arc<Publication>) {
        live.pending.push(publication);
        self.ask_repair(entry, live);
    }

    fn ask_repair(&self, entry: &Entry, live: &mut Live) {
        if let Some(log) = &live.log
            && live.repair == Repair::None
        {
            let job = Job::Repair { topic: entry.topic.clone(), after: log.last() };
            live.repair = Repair::Open;
            live.pending.begin_read();
            self.queue_job(job);
        }
    }

    fn queue_job(&self, job: Job) {
        self.jobs.queue.lock().push_back(job);
        (self.jobs.wake)();
    }

    /// A worker's first subscriber of the topic came. The worker gets the log as soon as there is one, and the options
    /// that the topic has had since it was opened: they are the same for all workers, whatever the rules say by now.
    pub fn join(&self, topic: &Topic, worker: usize, local: LocalTopic) -> TopicOptions {
        loop {
            let entry = self.entry(topic);
            let mut live = entry.live.lock();
            if live.interest == Interest::Closed {
                continue; // It was closed between the look-up and the lock; it is out of the map by now.
            }
            if live.interest == Interest::Fading {
                live.interest = Interest::Revived;
            }
            // Most topics have one member; a vector would make room for four.
            live.members.reserve_exact(1);
            live.members.push(Member { worker, local, is_stale: false });
            if let (Some(log), Some(member)) = (live.log.clone(), live.members.last_mut()) {
                self.tell(&entry.topic, member, Item::Log { local, log: Box::new(log) });
            }
            return entry.options;
        }
    }

    fn entry(&self, topic: &Topic) -> Arc<Entry> {
        if let Some(entry) = self.topics.get(topic) {
            return Arc::clone(entry.value());
        }
        let mut is_new = false;
        let entry = Arc::clone(
            self.topics
                .entry(topic.clone())
                .or_insert_with(|| {
                    is_new = true;
                    Arc::new(Entry {
                        topic: topic.clone(),
                        options: self.rules.options(topic.as_str()),
                        live: Mutex::default(),
                    })
                })
                .value(),
        );
        if is_new {
            self.queue_job(Job::Open { topic: topic.clone() });
        }
        entry
    }

    /// A worker's last subscriber of the topic went.
    pub fn leave(&self, topic: &Topic, worker: usize, local: LocalTopic) {
        let Some(entry) = self.topics.get(topic).map(|entry| Arc::clone(entry.value())) else {
            return;
        };
        let mut live = entry.live.lock();
        live.members.retain(|member| (member.worker, member.local) != (worker, local));
        self.ask_idle(topic, &mut live);
    }

    fn ask_idle(&self, topic: &Topic, live: &mut Live) {
        if live.members.is_empty() && live.interest == Interest::Wanted {
            live.interest = Interest::Fading;
            self.queue_job(Job::Idle { topic: topic.clone() });
        }
    }

    /// A worker needs what the broker retains from before the log; it gets a whole log when that has been read.
    pub fn want_history(&self, topic: &Topic, worker: usize, local: LocalTopic) {
        let Some(entry) = self.topics.get(topic).map(|entry| Arc::clone(entry.value())) else {
            return;
        };
        let mut live = entry.live.lock();
        let log = live.log.as_ref().filter(|log| log.is_complete()).cloned();
        if let (Some(log), Some(member)) = (log, find(&mut live, worker, local)) {
            self.tell(topic, member, Item::Log { local, log: Box::new(log) });
        } else if !live.is_loading_history {
            live.is_loading_history = true;
            self.queue_job(Job::History { topic: topic.clone() });
        }
    }

    /// A worker has drained its inbox and asks for the logs of topics whose items did not fit.
    pub fn resync(&self, worker: usize, topics: &[Topic]) {
        for topic in topics {
            let Some(entry) = self.topics.get(topic).map(|entry| Arc::clone(entry.value())) else {
                continue;
            };
            let mut live = entry.live.lock();
            let Some(log) = live.log.clone() else { continue };
            let stale =
                live.members.iter_mut().filter(|member| member.worker == worker && member.is_stale);
            for member in stale {
                member.is_stale = false;
                self.tell(
                    topic,
                    member,
                    Item::Log { local: member.local, log: Box::new(log.clone()) },
                );
            }
        }
    }

    /// The topic is subscribed at the broker and its state was read after that.
    pub fn opened(&self, topic: &Topic, state: State) {
        self.with_entry(topic, |entry, live| {
            if live.log.is_none() {
                live.log = Some(self.build_log(entry, state));
                self.splice(entry, live);
                self.tell_log(entry, live);
            }
        });
    }

    /// The topic's state was read again after a publication went missing or the epoch changed.
    pub fn repaired(&self, topic: &Topic, state: State) {
        self.with_entry(topic, |entry, live| {
            let is_outdated = std::mem::take(&mut live.repair) == Repair::Outdated;
            let Live { log: Some(log), pending, .. } = &mut **live else { return };
            if log.epoch() == state.position.epoch {
                self.catch_up(entry, log, pending, state);
            } else {
                self.counters.resets.fetch_add(1, Relaxed);
                self.log_bytes.fetch_sub(log.bytes(), Relaxed);
                // What came before the first publication of this epoch is of one that is over.
                let epoch = state.position.epoch;
                pending.drop_before(epoch);
                // The retained history belongs to the old epoch: only the current value carries over.
                let fresh = State { history: Vec::new(), complete: false, ..state };
                live.log = Some(self.build_log(entry, fresh));
            }
            self.splice(entry, live);
            self.tell_log(entry, live);
            if is_outdated {
                self.ask_repair(entry, live);
            }
        });
    }

    /// Takes a log to where the broker stands, with whatever is still to be had of what is missing.
    fn catch_up(&self, entry: &Entry, log: &mut TopicLog, pending: &Pending, state: State) {
        let (before, second) = (log.bytes(), self.second.load(Relaxed));
        let missing_from = log.last() + 1;
        let covers = state.history.first().is_some_and(|first| first.offset() <= missing_from);
        if covers && state.position.offset >= missing_from {
            self.counters.gaps_repaired.fetch_add(1, Relaxed);
        }
        // What came behind the hole may be all there is: the broker need not retain it.
        let came = pending.iter().filter(|publication| {
            publication.epoch() == log.epoch() && publication.offset() <= state.position.offset
        });
        let mut known = state.history;
        known.extend(came.cloned());
        known.sort_by_key(|publication| publication.offset());
        for publication in known {
            log.append(publication, second);
        }
        log.advance(state.position.offset);
        if let Some(value) = state.value {
            log.adopt_value(value, second);
        }
        log.trim(&entry.options.log, second);
        self.account(before, log);
    }

    /// The whole history was read.
    pub fn history_loaded(&self, topic: &Topic, state: State) {
        self.with_entry(topic, |entry, live| {
            live.is_loading_history = false;
            let Some(log) = &mut live.log else { return };
            if log.epoch() != state.position.epoch {
                // The repair that this change of epoch leads to starts the topic anew; ask again after it.
                self.ask_repair(entry, live);
                return;
            }
            let (before, second) = (log.bytes(), self.second.load(Relaxed));
            log.prepend(state.history, second);
            log.set_complete();
            log.trim(&entry.options.log, second);
            self.account(before, log);
            self.tell_log(entry, live);
        });
    }

    fn with_entry(&self, topic: &Topic, act: impl FnOnce(&Entry, &mut MutexGuard<'_, Live>)) {
        if let Some(entry) = self.topics.get(topic).map(|entry| Arc::clone(entry.value())) {
            let mut live = entry.live.lock();
            if live.interest != Interest::Closed {
                act(&entry, &mut live);
            }
        }
    }

    fn build_log(&self, entry: &Entry, state: State) -> TopicLog {
        let second = self.second.load(Relaxed);
        let mut log = TopicLog::new(state.position, entry.options.keeps_value);
        log.prepend(state.history, second);
        if let Some(value) = state.value {
            log.adopt_value(value, second);
        }
        if state.complete {
            log.set_complete();
        }
        log.trim(&entry.options.log, second);
        self.account(0, &mut log);
        log
    }

    /// Appends what came while the state was being read. What the read cannot explain asks for another one, unless it was
    /// there before the read began: then it never will be explained.
    fn splice(&self, entry: &Entry, live: &mut Live) {
        let second = self.second.load(Relaxed);
        while let Some((publication, is_known)) = live.pending.peek() {
            let Some(log) = &mut live.log else { return };
            let is_epoch = log.epoch() == publication.epoch();
            let follows = is_epoch && publication.offset() <= log.last() + 1;
            if !follows && !is_known {
                self.counters.gaps_found.fetch_add(u64::from(is_epoch), Relaxed);
                return self.ask_repair(entry, live);
            }
            let Some(publication) = live.pending.pop() else { return };
            // Of another epoch is now only a straggler of one that is over.
            if is_epoch {
                let before = log.bytes();
                // The read may know the last offset without retaining its publication.
                log.adopt_value(Arc::clone(&publication), second);
                log.append(publication, second);
                log.trim(&entry.options.log, second);
                self.account(before, log);
            }
        }
    }

    /// Ends the topic's life if it still has no subscriber; true if it is to be unsubscribed at the broker.
    pub fn close_if_idle(&self, topic: &Topic) -> bool {
        let Some(entry) = self.topics.get(topic).map(|entry| Arc::clone(entry.value())) else {
            return false;
        };
        let mut live = entry.live.lock();
        if !live.members.is_empty() || live.interest != Interest::Fading {
            live.interest = Interest::Wanted;
            self.ask_idle(topic, &mut live);
            return false;
        }
        live.interest = Interest::Closed;
        let bytes = live.log.take().map_or(0, |log| log.bytes());
        live.pending.clear();
        drop(live);
        self.log_bytes.fetch_sub(bytes, Relaxed);
        self.topics.remove(topic);
        true
    }

    /// Where the topic's log stands; none before it is open.
    pub fn position(&self, topic: &Topic) -> Option<Position> {
        let entry = self.topics.get(topic).map(|entry| Arc::clone(entry.value()))?;
        entry.live.lock().log.as_ref().map(TopicLog::position)
    }

    /// Whether the hub has the topic, be it open or being opened.
    pub fn holds(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// Moves the hub's clock to `second` (seconds since the start) and lets publications that are too old go.
    /// Called every two seconds; walks all topics.
    ///
    /// Workers are told about quiet topics only: those of the others come with the next publication.
    pub fn sweep(&self, second: u32) {
        self.second.store(second, Relaxed);
        for entry in &self.topics {
            let mut live = entry.live.lock();
            let Some(log) = &mut live.log else { continue };
            let (before, floor) = (log.bytes(), log.floor());
            log.trim(&entry.options.log, second);
            self.account(before, log);
            let new_floor = log.floor();
            if new_floor != floor && log.is_quiet(second, QUIET_SECONDS) {
                for member in &mut live.members {
                    self.tell(
                        &entry.topic,
                        member,
                        Item::Trim { local: member.local, floor: new_floor },
                    );
                }
            }
        }
    }

    /// Counters and gauges.
    pub fn stats(&self) -> HubStats {
        HubStats {
            topics: self.topics.len(),
            log_bytes: self.log_bytes.load(Relaxed),
            ..self.counters.stats()
        }
    }
}

fn find(live: &mut Live, worker: usize, local: LocalTopic) -> Option<&mut Member> {
    live.members.iter_mut().find(|member| (member.worker, member.local) == (worker, local))
}
