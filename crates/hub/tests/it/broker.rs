//! A naive broker: it keeps everything in lists, and remembers what it should have told the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use tickcast_hub::{Job, State, TopicRules as _};
use tickcast_protocol::{Epoch, Position, Publication, Topic};

use crate::oracle::PublisherLog;
use crate::rules::Rules;

/// The first epoch of every topic is called `a`, the second `b`.
const FIRST_EPOCH: u64 = 10;

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) log: PublisherLog,
    rules: Arc<Rules>,
    /// Publications retained per topic.
    history: usize,
    records: BTreeMap<Topic, Record>,
    published: u64,
}

#[derive(Debug)]
struct Record {
    position: Position,
    /// Everything of this epoch.
    publications: Vec<Arc<Publication>>,
    is_subscribed: bool,
}

/// How a topic gets a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flip {
    /// Everything is forgotten.
    Restart,
    /// A failover: offset, value and history stay, under a new epoch.
    Fence,
}

impl Broker {
    pub(crate) fn new(rules: Arc<Rules>, history: usize) -> Self {
        let log = PublisherLog::new(history > 0);
        Self { log, rules, history, records: BTreeMap::new(), published: 0 }
    }

    fn keeps_value(&self, topic: &Topic) -> bool {
        self.rules.options(topic.as_str()).keeps_value
    }

    fn record(&mut self, topic: &Topic) -> &mut Record {
        let keeps_value = self.keeps_value(topic);
        let log = &mut self.log;
        self.records.entry(topic.clone()).or_insert_with(|| {
            let epoch = Epoch::new(FIRST_EPOCH);
            log.begin(topic.as_str(), epoch, keeps_value);
            let position = Position { epoch, offset: 0 };
            Record { position, publications: Vec::new(), is_subscribed: false }
        })
    }

    /// Orders and keeps a publication with a payload of at least `size` bytes. It is returned if the node is to get it:
    /// if it is subscribed and the publication `arrives`.
    pub(crate) fn publish(
        &mut self,
        topic: &Topic,
        size: usize,
        now: u64,
        arrives: bool,
    ) -> Option<Arc<Publication>> {
        self.published += 1;
        // A number that no parser would print again like this, and a text for the size.
        let data = format!("{{\"n\":{}.50,\"t\":\"{}\"}}", self.published, "x".repeat(size));
        let record = self.record(topic);
        record.position.offset += 1;
        let publication =
            Arc::new(Publication::new(topic.clone(), record.position, now, data.as_bytes()));
        record.publications.push(Arc::clone(&publication));
        let reaches_node = record.is_subscribed && arrives;
        self.log.publish(topic.as_str(), publication.offset(), &data, reaches_node);
        reaches_node.then_some(publication)
    }

    /// Starts a new epoch. The node learns of it by itself.
    pub(crate) fn flip(&mut self, topic: &Topic, flip: Flip) {
        let keeps_value = self.keeps_value(topic);
        let record = self.record(topic);
        let epoch = Epoch::new(record.position.epoch.number() + 1);
        let offset = if flip == Flip::Fence { record.position.offset } else { 0 };
        record.position = Position { epoch, offset };
        if flip == Flip::Restart {
            record.publications.clear();
        }
        for publication in &mut record.publications {
            let position = Position { epoch, offset: publication.offset() };
            *publication =
                Arc::new(Publication::new(topic.clone(), position, 0, publication.data()));
        }
        let kept: Vec<_> = record.publications.clone();
        self.log.begin(topic.as_str(), epoch, keeps_value);
        for publication in kept {
            let data = String::from_utf8(publication.data().to_vec()).unwrap();
            self.log.publish(topic.as_str(), publication.offset(), &data, false);
        }
    }

    /// The reading half of a job. Idle jobs read nothing.
    pub(crate) fn read(&mut self, job: &Job) -> Option<State> {
        let history = self.history;
        let (topic, after) = match job {
            Job::Open { topic } | Job::Position { topic } => (topic, None),
            Job::Repair { topic, after } => (topic, Some(*after)),
            Job::History { topic } => (topic, Some(0)),
            Job::Idle { .. } => return None,
        };
        let keeps_value = self.keeps_value(topic);
        let record = self.record(topic);
        record.is_subscribed |= matches!(job, Job::Open { .. });
        let retained = &record.publications[record.publications.len().saturating_sub(history)..];
        let wanted = |p: &&Arc<Publication>| after.is_some_and(|after| p.offset() > after);
        Some(State {
            position: record.position,
            value: record.publications.last().filter(|_| keeps_value).cloned(),
            history: retained.iter().filter(wanted).cloned().collect(),
            complete: matches!(job, Job::History { .. }) || history == 0,
        })
    }

    pub(crate) fn unsubscribe(&mut self, topic: &Topic) {
        self.record(topic).is_subscribed = false;
    }

    pub(crate) fn is_subscribed(&self, topic: &Topic) -> bool {
        self.records.get(topic).is_some_and(|record| record.is_subscribed)
    }

    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.records.keys().cloned().collect()
    }
}
