//! The verdict: what was published, what one client asked for and what it received, checked against the contract.
//!
//! The oracle knows nothing of logs, cursors or workers. It follows each topic of a client as that client could: after an
//! acknowledgement it knows which offset must come next, and every frame either continues from there or says why not.

use std::collections::{BTreeMap, BTreeSet};

use tickcast_protocol::{Epoch, Since};

use crate::frame::{Acked, Frame, Refused};

/// Everything that was ever published.
#[derive(Debug)]
pub(crate) struct PublisherLog {
    /// The broker retains publications beside the value.
    has_history: bool,
    topics: BTreeMap<String, TopicRecord>,
}

#[derive(Debug, Default)]
struct TopicRecord {
    keeps_value: bool,
    /// In the order in which they were valid.
    epochs: Vec<(Epoch, BTreeMap<u64, Published>)>,
}

#[derive(Debug)]
struct Published {
    data: String,
    /// It came to the node while the node was subscribed: the node has no excuse.
    reached_node: bool,
}

impl PublisherLog {
    pub(crate) fn new(has_history: bool) -> Self {
        Self { has_history, topics: BTreeMap::new() }
    }

    /// A topic starts, or starts anew.
    pub(crate) fn begin(&mut self, topic: &str, epoch: Epoch, keeps_value: bool) {
        let record = self.topics.entry(topic.to_owned()).or_default();
        record.keeps_value = keeps_value;
        record.epochs.push((epoch, BTreeMap::new()));
    }

    /// A publication in the topic's newest epoch.
    pub(crate) fn publish(&mut self, topic: &str, offset: u64, data: &str, reached_node: bool) {
        let record = self.topics.get_mut(topic).unwrap();
        let (_, publications) = record.epochs.last_mut().unwrap();
        publications.insert(offset, Published { data: data.to_owned(), reached_node });
    }

    /// The newest epoch, its last offset, and whether a node that was told everything knows its last publication.
    pub(crate) fn newest(&self, topic: &str) -> (Epoch, u64, bool) {
        let record = &self.topics[topic];
        let (epoch, publications) = record.epochs.last().unwrap();
        publications.last_key_value().map_or((*epoch, 0, false), |(offset, last)| {
            (*epoch, *offset, record.keeps_value || last.reached_node)
        })
    }

    /// The newest publication, if it came to the node.
    pub(crate) fn last_arrived(&self, topic: &str) -> Option<(Epoch, u64)> {
        let (epoch, publications) = self.topics[topic].epochs.last()?;
        let (offset, last) = publications.last_key_value()?;
        last.reached_node.then_some((*epoch, *offset))
    }

    fn epoch(&self, topic: &str, epoch: Epoch) -> Option<&BTreeMap<u64, Published>> {
        let record = self.topics.get(topic)?;
        record
            .epochs
            .iter()
            .find(|(known, _)| *known == epoch)
            .map(|(_, publications)| publications)
    }

    fn is_newer(&self, topic: &str, epoch: Epoch, than: Epoch) -> bool {
        let place = |epoch| self.topics[topic].epochs.iter().position(|(known, _)| *known == epoch);
        place(epoch) > place(than)
    }

    fn keeps_value(&self, topic: &str) -> bool {
        self.topics[topic].keeps_value
    }

    /// Whether what is lost on the way to the node may be had from the broker.
    fn is_readable(&self, topic: &str) -> bool {
        self.has_history || self.keeps_value(topic)
    }

    /// Whether a new subscriber that is acknowledged at this position gets a snapshot.
    fn has_value(&self, topic: &str, epoch: Epoch, offset: u64) -> bool {
        self.keeps_value(topic)
            && self
                .epoch(topic, epoch)
                .is_some_and(|publications| publications.contains_key(&offset))
    }
}

/// Judges one connection, from its attaching to its detaching.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    held: BTreeMap<String, Stream>,
    /// Commands without a reply, and the topics that they name.
    open: BTreeMap<u64, BTreeSet<String>>,
    /// Topics that the node should hold for this client once everything is answered: by which command, and since where.
    wanted: BTreeMap<String, (u64, Option<Since>)>,
    /// Where the subscription starts that a command's acknowledgement confirms.
    starts: BTreeMap<(u64, String), Option<Since>>,
    /// Commands whose reply is on its way, perhaps behind a socket that takes nothing.
    answered: BTreeSet<u64>,
    /// Topics that were given back while the command that asked for them was not answered yet.
    revoked: BTreeSet<(u64, String)>,
}

/// One topic that is acknowledged, as the client knows it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The command whose acknowledgement came first.
    by: u64,
    pub(crate) epoch: Epoch,
    /// The last offset that was received or named.
    pub(crate) cursor: u64,
    /// Where the topic stood at the acknowledgement.
    start: (Epoch, u64),
    /// The offset that the next frame must have, after a reset and after a gap that a value follows; and when the notice
    /// came, because both are handed to the socket together.
    announced: Option<(u64, u64)>,
    /// A reset must come before anything else.
    pub(crate) owed: Option<&'static str>,
    pub(crate) conflates: bool,
    pub(crate) interval_ms: u64,
    /// When the first byte of the last value came.
    pub(crate) value_at: Option<u64>,
    /// Nothing has come since the acknowledgement of a `since`.
    just_resumed: bool,
}

impl Oracle {
    /// The client sends a subscribe command.
    pub(crate) fn asked(&mut self, id: u64, items: &[(String, Option<Since>)]) {
        let topics = self.open.entry(id).or_default();
        for (topic, since) in items {
            topics.insert(topic.clone());
            // On a topic that is held already, `since` means nothing.
            let (_, start) = self.wanted.entry(topic.clone()).or_insert((id, *since));
            self.starts.insert((id, topic.clone()), *start);
        }
    }

    /// The client sends an unsubscribe command.
    pub(crate) fn gave_back(&mut self, id: u64, topics: &[String]) {
        for (open, named) in self.open.iter().filter(|(id, _)| !self.answered.contains(*id)) {
            let revoked = topics.iter().filter(|topic| named.contains(*topic));
            self.revoked.extend(revoked.map(|topic| (*open, topic.clone())));
        }
        self.open.insert(id, BTreeSet::new());
        self.wanted.retain(|topic, _| !topics.contains(topic));
    }

    /// The node answers a subscribe command. The client will hear of it; these topics it does not get.
    pub(crate) fn answered(&mut self, id: u64, refused: &[String]) {
        self.answered.insert(id);
        self.wanted.retain(|topic, (by, _)| *by > id || !refused.contains(topic));
    }

    /// Commands without a reply.
    pub(crate) fn unanswered(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// The topics that are acknowledged.
    pub(crate) fn held(&self) -> &BTreeMap<String, Stream> {
        &self.held
    }

    /// Whether options of the topic are under way: until the reply comes, the old and the new ones are both right.
    pub(crate) fn is_changing(&self, topic: &str) -> bool {
        self.open.values().any(|topics| topics.contains(topic))
    }

    /// The client receives a frame whose first byte came at `at`.
    pub(crate) fn received(
        &mut self,
        log: &PublisherLog,
        at: u64,
        frame: &Frame,
    ) -> Result<(), String> {
        let verdict = match frame {
            Frame::Subscribed { id, topics, errors } => self.subscribed(log, *id, topics, errors),
            Frame::Unsubscribed { id, topics } => {
                self.held.retain(|topic, _| !topics.contains(topic));
                self.close(*id)
            }
            Frame::Error { id, .. } => self.close(*id),
            Frame::Publication { topic, offset, data } => {
                let is_changing = self.is_changing(topic);
                self.stream(topic).and_then(|stream| {
                    stream.is_verbatim(log, topic, *offset, data)?;
                    stream.publication(at, *offset, is_changing)
                })
            }
            Frame::Gap { topic, from, to, reason } => {
                let is_changing = self.is_changing(topic);
                self.stream(topic).and_then(|stream| {
                    if stream.conflates && !is_changing {
                        return Err("mode `latest` has no gaps".to_owned());
                    }
                    stream.gap(log, topic, *from..=*to, reason)?;
                    let value_follows = reason != "lost" && log.keeps_value(topic);
                    stream.announced = value_follows.then_some((to + 1, at));
                    Ok(())
                })
            }
            Frame::Reset { topic, epoch, offset, reason } => {
                self.stream(topic).and_then(|stream| {
                    stream.reset(log, topic, (*epoch, *offset), reason)?;
                    stream.announced = Some((*offset, at));
                    Ok(())
                })
            }
        };
        verdict.map_err(|problem| format!("{frame}: {problem}"))
    }

    fn subscribed(
        &mut self,
        log: &PublisherLog,
        id: u64,
        topics: &[Acked],
        errors: &[Refused],
    ) -> Result<(), String> {
        self.close(id)?;
        for error in errors {
            let is_revoked = self.revoked.contains(&(id, error.topic.clone()));
            let is_held = self.held.get(&error.topic).is_some_and(|stream| stream.by <= id);
            match &*error.code {
                "unsubscribed" if !is_revoked => return Err("nobody did".to_owned()),
                "unavailable" if is_held => return Err("it is held".to_owned()),
                _ => {}
            }
        }
        topics.iter().try_for_each(|acked| self.acknowledged(log, id, acked))
    }

    fn close(&mut self, id: u64) -> Result<(), String> {
        self.open
            .remove(&id)
            .map(|_| ())
            .ok_or_else(|| "a second reply, or to no command".to_owned())
    }

    fn stream(&mut self, topic: &str) -> Result<&mut Stream, String> {
        self.held.get_mut(topic).ok_or_else(|| "the topic is not subscribed".to_owned())
    }

    fn acknowledged(&mut self, log: &PublisherLog, id: u64, acked: &Acked) -> Result<(), String> {
        let (topic, epoch, offset) = (&acked.topic, acked.epoch, acked.offset);
        let asked = (id, topic.clone());
        let Some(start) = self.starts.get(&asked).filter(|_| !self.revoked.contains(&asked)) else {
            return Err("not asked for, or given back since".to_owned());
        };
        if let Some(stream) = self.held.get_mut(topic) {
            if epoch == stream.epoch && stream.cursor > offset {
                return Err(format!("{} came before it was acknowledged", stream.cursor));
            }
            stream.set_options(acked);
            return Ok(());
        }
        let (cursor, owed) = match start {
            None if log.has_value(topic, epoch, offset) => (offset - 1, None),
            None => (offset, None),
            Some(since) if since.epoch != Some(epoch) => (offset, Some("unknown_epoch")),
            Some(since) if since.offset > offset => (offset, Some("offset_ahead")),
            Some(since) => (since.offset, None),
        };
        let mut stream = Stream {
            by: id,
            epoch,
            cursor,
            start: (epoch, offset),
            announced: None,
            owed,
            conflates: false,
            interval_ms: 0,
            value_at: None,
            just_resumed: start.is_some(),
        };
        stream.set_options(acked);
        self.held.insert(topic.clone(), stream);
        Ok(())
    }

    /// Everything is published, written, repaired and waited for: has the client arrived?
    pub(crate) fn arrived(&self, log: &PublisherLog) -> Result<(), String> {
        if !self.open.is_empty() {
            return Err(format!("commands without a reply: {:?}", self.unanswered()));
        }
        for (topic, stream) in &self.held {
            let (epoch, last, is_known) = log.newest(topic);
            if stream.waits_for_next(log, topic) {
                continue;
            }
            if stream.owed.is_some() || stream.epoch != epoch {
                if is_known {
                    return Err(format!("{topic}: the reset to {epoch}/{last} never came"));
                }
            } else if stream.cursor != last && (is_known || !stream.conflates) {
                return Err(format!("{topic}: stands at {}, not at {last}", stream.cursor));
            }
        }
        Ok(())
    }
}

impl Stream {
    /// With no value to show, a reset that is owed and the newest in mode `latest` are the next publication.
    pub(crate) fn waits_for_next(&self, log: &PublisherLog, topic: &str) -> bool {
        let (epoch, last, _) = log.newest(topic);
        let needs_value = self.owed.is_some() || self.conflates;
        needs_value && self.start == (epoch, last) && !log.has_value(topic, epoch, last)
    }

    fn set_options(&mut self, acked: &Acked) {
        self.conflates = acked.mode == "latest";
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of milliseconds, rounded for the wire"
        )]
        let interval = acked.max_rate.map_or(0, |hz| (1000.0 / hz).round() as u64);
        self.interval_ms = interval;
    }

    fn is_verbatim(
        &self,
        log: &PublisherLog,
        topic: &str,
        offset: u64,
        data: &str,
    ) -> Result<(), String> {
        match log.epoch(topic, self.epoch).and_then(|all| all.get(&offset)) {
            None => Err("never published".to_owned()),
            Some(published) if published.data != data => Err(format!("not verbatim: {data}")),
            Some(_) => Ok(()),
        }
    }

    fn publication(&mut self, at: u64, offset: u64, is_changing: bool) -> Result<(), String> {
        if let Some(reason) = self.owed {
            return Err(format!("a reset is owed: {reason}"));
        }
        let (announced, at) = self.announced.take().unwrap_or((offset, at));
        if announced != offset {
            return Err(format!("announced was {announced}"));
        }
        if offset <= self.cursor {
            return Err(format!("twice or out of order, after {}", self.cursor));
        }
        let may_skip = self.conflates || is_changing;
        if offset != self.cursor + 1 && !may_skip {
            return Err(format!("an unexplained hole after {}", self.cursor));
        }
        if let Some(before) = self.value_at
            && at < before + self.interval_ms
            && !is_changing
        {
            return Err(format!("faster than its rate: at {at}, after {before}"));
        }
        self.cursor = offset;
        self.value_at = Some(at);
        self.just_resumed = false;
        Ok(())
    }

    fn gap(
        &mut self,
        log: &PublisherLog,
        topic: &str,
        range: std::ops::RangeInclusive<u64>,
        reason: &str,
    ) -> Result<(), String> {
        let publications = log.epoch(topic, self.epoch).ok_or("no such epoch")?;
        if self.owed.is_some() || self.announced.is_some() {
            return Err("something else must come first".to_owned());
        }
        if *range.start() != self.cursor + 1 || range.is_empty() {
            return Err(format!("does not follow {}", self.cursor));
        }
        let in_gap: Vec<_> =
            publications.range(range.clone()).map(|(_, p)| p.reached_node).collect();
        if in_gap.len() as u64 != range.end() - range.start() + 1 {
            return Err("names what was never published".to_owned());
        }
        match reason {
            "lost" if in_gap.contains(&true) => return Err("not all of it is lost".to_owned()),
            "expired" if !self.just_resumed => return Err("nothing was resumed".to_owned()),
            "slow_consumer" if !in_gap.contains(&true) && !log.is_readable(topic) => {
                return Err("all of it is lost".to_owned());
            }
            "lost" | "expired" | "slow_consumer" => {}
            _ => return Err("no such reason".to_owned()),
        }
        self.cursor = *range.end();
        self.just_resumed = false;
        Ok(())
    }

    fn reset(
        &mut self,
        log: &PublisherLog,
        topic: &str,
        (epoch, offset): (Epoch, u64),
        reason: &str,
    ) -> Result<(), String> {
        let is_newer = log.is_newer(topic, epoch, self.epoch);
        match (self.owed, reason) {
            (_, "broker_restart") if is_newer => {}
            (Some(owed), reason) if owed == reason && epoch == self.epoch => {}
            (owed, _) => return Err(format!("in epoch {}, owed is {owed:?}", self.epoch)),
        }
        (self.epoch, self.cursor, self.owed) = (epoch, offset - 1, None);
        self.just_resumed = false;
        Ok(())
    }
}
