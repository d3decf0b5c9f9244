//! Subscribing and unsubscribing: one reply per command, in the client's order, before the first data of its topics.

use std::ops::RangeInclusive;

use tickcast_protocol::{
    AckPosition, ErrorCode, Id, Mode, Rate, Rejection, ServerMessage, Since, SubscribeItem,
    Subscribed, Topic,
};

use super::{
    ConnectionId, Fanout, FanoutLimits, Flags, LocalState, NONE, Replies, Subscription, Timer,
    to_u32,
};
use crate::inbox::LocalTopic;
use crate::log::TopicLog;
use crate::options::TopicOptions;

/// Names that one connection's waiting subscribe commands may have in all: bounds the replies that come at once.
const WAITING_NAMES_MAX: u32 = 1000;

/// The numbers that the commands of one connection may have. A number is free for use again 2^32 commands later.
pub(super) fn numbers_of(connection: ConnectionId) -> RangeInclusive<u64> {
    let first = u64::from(connection.0) << 32;
    first..=first | u64::from(u32::MAX)
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    since: Option<Since>,
    /// The look at the broker's position that decides, if `since` lies beyond the log.
    look: Option<u64>,
}

/// A subscribe command that is not answered yet.
#[derive(Debug)]
pub(super) struct Ack {
    connection: ConnectionId,
    id: Option<Id>,
    /// In the client's order. A topic that is given back or given up while the command waits is a rejection from then on.
    items: Vec<Result<Topic, Rejection>>,
    /// Topics that are not settled; each has this command in its list.
    waiting: usize,
}

/// What a subscription waits for before it can be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The topic is being opened.
    Log,
    /// What the broker retains from before the log.
    History,
    /// The broker's word on an offset beyond the log: another node may have been quicker.
    Position,
}

impl Fanout {
    /// Changes the bounds. Nobody loses what they hold; the next command is judged by the new ones.
    pub fn set_limits(&mut self, limits: FanoutLimits) {
        self.limits = limits;
    }

    /// Subscribes a connection to topics, or changes the options of those it holds.
    ///
    /// The one reply comes when every topic is settled: at once if the worker knows them all, else when the hub has
    /// opened them, at the latest after [`settle_ms`](FanoutLimits::settle_ms).
    pub fn subscribe(
        &mut self,
        connection: ConnectionId,
        id: Option<Id>,
        items: Vec<Result<SubscribeItem, Rejection>>,
        replies: &mut impl Replies,
    ) {
        let Some(state) = self.connections.get(connection.index()) else { return };
        let names = to_u32(items.len()).max(1);
        if state.waiting > 0 && state.waiting + names > WAITING_NAMES_MAX {
            let message =
                "too many names of earlier subscribe commands wait for their topics; try again";
            return replies.reply(
                connection,
                &ServerMessage::Error { id: id.as_ref(), code: ErrorCode::Unavailable, message },
            );
        }
        let number = numbers_of(connection).start() | u64::from(self.next_ack);
        self.next_ack = self.next_ack.wrapping_add(1);
        let items =
            items.into_iter().map(|item| self.take_item(connection, item?)).collect::<Vec<_>>();
        let waiting = self.wait_for_all(connection, &items, number);
        let ack = Ack { connection, id, items, waiting };
        if waiting == 0 {
            return self.complete(ack, replies);
        }
        self.acks.insert(number, ack);
        if let Some(state) = self.connections.get_mut(connection.index()) {
            state.waiting += names;
        }
        self.wheel.add(self.now + self.limits.settle_ms, Timer::Settle(number));
    }

    /// Lets a command wait for those of its topics that are not settled, and counts them.
    fn wait_for_all(
        &mut self,
        connection: ConnectionId,
        items: &[Result<Topic, Rejection>],
        number: u64,
    ) -> usize {
        let mut waiting = 0;
        for topic in items.iter().flatten() {
            if let Some((index, need)) = self.need(connection, topic)
                && self.wait_for(topic, number)
            {
                waiting += 1;
                self.ask(index, need);
            }
        }
        waiting
    }

    /// Notes that a command waits for a topic; false if it does so already.
    fn wait_for(&mut self, topic: &Topic, number: u64) -> bool {
        let Some(index) = self.names.get(topic).copied() else { return false };
        let state = &mut self.topics[index as usize];
        if state.acks.last() == Some(&number) {
            return false;
        }
        if state.acks.len() == state.acks.capacity() {
            // Commands that were answered late or whose connection has gone leave their numbers behind.
            state.acks.retain(|number| self.acks.contains_key(number));
        }
        state.acks.push(number);
        true
    }

    /// Asks the hub for what a subscription waits for. The answer is a new log.
    fn ask(&mut self, index: u32, need: Need) {
        let topic = self.subscriptions[index as usize].topic;
        let state = &self.topics[topic as usize];
        match need {
            Need::Log => {} // It was asked for when the worker joined the topic.
            Need::History => {
                let local = LocalTopic { index: topic, generation: state.generation };
                self.hub.want_history(&state.name, self.worker, local);
            }
            Need::Position => {
                if let Some(start) = self.starting.get_mut(&index)
                    && start.look.is_none()
                {
                    start.look = self.hub.want_position(&state.name);
                }
            }
        }
    }

    /// Makes the subscription, or changes the one that is there.
    fn take_item(
        &mut self,
        connection: ConnectionId,
        item: SubscribeItem,
    ) -> Result<Topic, Rejection> {
        if let Some(index) = self.find(connection, &item.topic) {
            let subscription = &self.subscriptions[index as usize];
            let options = self.topics[subscription.topic as usize].options;
            if let Some(mode) = item.mode {
                let (mode, rate) = effective(mode, item.max_rate, &options);
                self.set_options(index, mode, rate);
            }
            return Ok(item.topic);
        }
        let held = self
            .connections
            .get(connection.index())
            .map_or(0, |state| state.subscriptions as usize);
        if held >= self.limits.subscriptions_per_connection {
            let message = format!(
                "the connection holds {held} subscriptions; at most {} are allowed",
                self.limits.subscriptions_per_connection
            );
            let (topic, code) = (item.topic.to_string(), ErrorCode::TooManySubscriptions);
            return Err(Rejection { topic, code, message });
        }
        self.add_subscription(connection, &item);
        Ok(item.topic)
    }

    fn add_subscription(&mut self, connection: ConnectionId, item: &SubscribeItem) {
        let topic = self.local_topic(&item.topic);
        let state = &mut self.topics[topic as usize];
        let (mode, rate) =
            effective(item.mode.unwrap_or(state.options.mode), item.max_rate, &state.options);
        let owner = &mut self.connections[connection.index()];
        let index = to_u32(self.subscriptions.insert(Subscription {
            cursor: 0,
            ready_at: 0,
            topic,
            connection: connection.0,
            slot: to_u32(state.subscriptions.len()),
            next: owner.first,
            next_dirty: NONE,
            interval_ms: rate.map_or(0, Rate::interval_ms),
            mode,
            flags: Flags(Flags::PENDING),
        }));
        state.subscriptions.push(index);
        owner.first = index;
        owner.subscriptions += 1;
        self.starting.insert(index, Start { since: item.since, look: None });
    }

    fn local_topic(&mut self, name: &Topic) -> u32 {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let index = to_u32(self.topics.vacant_key());
        let options = self.hub.join(name, self.worker, LocalTopic { index, generation });
        self.topics.insert(LocalState {
            name: name.clone(),
            generation,
            options,
            log: None,
            subscriptions: Vec::new(),
            acks: Vec::new(),
            is_deferred: false,
            floor: 0,
            is_long: false,
        });
        self.names.insert(name.clone(), index);
        index
    }

    /// The connection's subscription of this topic. Walks its list: a connection has few.
    fn find(&self, connection: ConnectionId, topic: &Topic) -> Option<u32> {
        let topic = *self.names.get(topic)?;
        let mut index = self.connections.get(connection.index())?.first;
        while index != NONE {
            let subscription = &self.subscriptions[index as usize];
            if subscription.topic == topic {
                return Some(index);
            }
            index = subscription.next;
        }
        None
    }

    /// The subscription that cannot be acknowledged yet, and what it waits for; none if it is already, or can be.
    fn need(&self, connection: ConnectionId, topic: &Topic) -> Option<(u32, Need)> {
        let index = self.find(connection, topic)?;
        let subscription = &self.subscriptions[index as usize];
        if !subscription.flags.has(Flags::PENDING) {
            return None;
        }
        let Some(log) = &self.topics[subscription.topic as usize].log else {
            return Some((index, Need::Log));
        };
        let start = self.starting.get(&index)?;
        let since = start.since.filter(|since| since.epoch == Some(log.epoch()))?;
        if since.offset > log.known() {
            let is_decided = start.look.is_some_and(|look| log.look() >= look);
            return (!is_decided).then_some((index, Need::Position));
        }
        // The newest publication is all that mode `latest` needs, wherever it left off.
        let is_older = since.offset < log.floor() && !log.is_complete();
        (is_older && subscription.mode == Mode::All).then_some((index, Need::History))
    }

    fn is_settled(&self, connection: ConnectionId, topic: &Topic) -> bool {
        self.need(connection, topic).is_none()
    }

    /// A topic has a new log: acknowledgements that waited for it may be complete.
    pub(super) fn settle_topic(&mut self, topic: u32, replies: &mut impl Replies) {
        let state = &mut self.topics[topic as usize];
        if state.acks.is_empty() {
            return;
        }
        let name = state.name.clone();
        let (mut still_waiting, mut needs_history) = (Vec::new(), None);
        for number in std::mem::take(&mut state.acks) {
            let Some(ack) = self.acks.get(&number) else { continue };
            let Some((index, need)) = self.need(ack.connection, &name) else {
                self.settle_one(number, replies);
                continue;
            };
            still_waiting.push(number);
            if need == Need::History {
                needs_history = Some(index);
            } else {
                self.ask(index, need);
            }
        }
        if let Some(index) = needs_history {
            // Once for all of them: the answer is a whole log.
            self.ask(index, Need::History);
        }
        if let Some(state) = self.topics.get_mut(topic as usize) {
            state.acks.append(&mut still_waiting);
        }
    }

    /// One topic fewer that this command waits for.
    fn settle_one(&mut self, number: u64, replies: &mut impl Replies) {
        let Some(ack) = self.acks.get_mut(&number) else { return };
        ack.waiting -= 1;
        if ack.waiting > 0 {
            return;
        }
        let Some(mut ack) = self.acks.remove(&number) else { return };
        // While it waited for one topic, the log of another may have moved on beyond a `since`.
        ack.waiting = self.wait_for_all(ack.connection, &ack.items, number);
        if ack.waiting == 0 {
            self.finish(ack, replies);
        } else {
            self.acks.insert(number, ack);
        }
    }

    /// A subscribe command has waited long enough: what is not settled is given up.
    pub(super) fn settle_late(&mut self, number: u64, replies: &mut impl Replies) {
        let Some(mut ack) = self.acks.remove(&number) else { return };
        let mut others = Vec::new();
        for item in &mut ack.items {
            if let Ok(topic) = item
                && !self.is_settled(ack.connection, topic)
            {
                others.extend(self.give_up(ack.connection, topic, ErrorCode::Unavailable));
                *item = Err(rejection(topic, ErrorCode::Unavailable));
            }
        }
        self.finish(ack, replies);
        for number in others {
            self.settle_one(number, replies);
        }
    }

    fn finish(&mut self, ack: Ack, replies: &mut impl Replies) {
        if let Some(state) = self.connections.get_mut(ack.connection.index()) {
            state.waiting -= to_u32(ack.items.len()).max(1);
            self.complete(ack, replies);
        }
    }

    /// Answers a subscribe command, each of whose topics is settled or rejected.
    fn complete(&mut self, ack: Ack, replies: &mut impl Replies) {
        let mut topics = Vec::with_capacity(ack.items.len());
        let mut errors = Vec::new();
        let mut started = Vec::new();
        for item in ack.items {
            match item.and_then(|topic| self.start(ack.connection, topic)) {
                Ok((subscribed, index)) => {
                    topics.push(subscribed);
                    started.push(index);
                }
                Err(rejection) => errors.push(rejection),
            }
        }
        self.counters.subscribes_accepted += topics.len() as u64;
        self.counters.subscribes_rejected += errors.len() as u64;
        let message =
            ServerMessage::Subscribed { id: ack.id.as_ref(), topics: &topics, errors: &errors };
        replies.reply(ack.connection, &message);
        for index in started {
            self.mark(index);
        }
    }

    /// Starts the subscription if it is pending, and tells how it stands.
    fn start(
        &mut self,
        connection: ConnectionId,
        topic: Topic,
    ) -> Result<(Subscribed, u32), Rejection> {
        let found = self.find(connection, &topic).and_then(|index| {
            let log = self.topics[self.subscriptions[index as usize].topic as usize].log.as_ref();
            Some((index, log?))
        });
        // None only for a topic that the command names twice and that was given up the first time.
        let Some((index, log)) = found else {
            return Err(rejection(&topic, ErrorCode::Unavailable));
        };
        let subscription = &mut self.subscriptions[index as usize];
        if let Some(Start { since, .. }) = self.starting.remove(&index) {
            place(subscription, log, since);
            let has_gap = subscription.flags.has(Flags::EXPIRED) && subscription.mode == Mode::All;
            let counters = &mut self.counters;
            match (since, subscription.flags.has(Flags::RESET), has_gap) {
                (None, ..) => {}
                (_, true, _) => counters.resumes_reset += 1,
                (_, false, true) => counters.resumes_gap += 1,
                (_, false, false) => {
                    let missed = log.last().saturating_sub(subscription.cursor);
                    let owed =
                        if subscription.mode == Mode::Latest { missed.min(1) } else { missed };
                    counters.resumes_complete += 1;
                    counters.resumes_replayed += owed;
                }
            }
        }
        let max_rate = Rate::from_interval_ms(subscription.interval_ms);
        let mode = subscription.mode;
        // What the client has seen exists, although this node has yet to hear of it.
        let offset = log.last().max(subscription.cursor);
        let position = AckPosition { epoch: log.epoch(), offset };
        Ok((Subscribed { topic, position, mode, max_rate }, index))
    }

    /// Gives topics back; names that the connection does not hold are confirmed just the same.
    pub fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        id: Option<&Id>,
        names: Vec<Result<Topic, Rejection>>,
        replies: &mut impl Replies,
    ) {
        let mut topics = Vec::with_capacity(names.len());
        let mut errors = Vec::new();
        for name in names {
            match name {
                Ok(topic) => {
                    self.give_back(connection, &topic, replies);
                    topics.push(topic);
                }
                Err(rejection) => errors.push(rejection),
            }
        }
        replies.reply(
            connection,
            &ServerMessage::Unsubscribed { id, topics: &topics, errors: &errors },
        );
    }

    fn give_back(&mut self, connection: ConnectionId, topic: &Topic, replies: &mut impl Replies) {
        for number in self.give_up(connection, topic, ErrorCode::Unsubscribed) {
            self.settle_one(number, replies);
        }
    }

    /// Ends a subscription, says so in the commands of its connection that are not answered yet, and returns those of them
    /// that waited for it.
    fn give_up(&mut self, connection: ConnectionId, topic: &Topic, why: ErrorCode) -> Vec<u64> {
        let Some(index) = self.find(connection, topic) else { return Vec::new() };
        let state = &mut self.topics[self.subscriptions[index as usize].topic as usize];
        let mut waiting = Vec::new();
        for (number, ack) in self.acks.range_mut(numbers_of(connection)) {
            for item in &mut ack.items {
                if item.as_ref() == Ok(topic) {
                    *item = Err(rejection(topic, why));
                }
            }
            if let Some(at) = state.acks.iter().position(|waiting| waiting == number) {
                state.acks.swap_remove(at);
                waiting.push(*number);
            }
        }
        self.drop_subscription(index);
        waiting
    }
}

/// Why a topic of a subscribe command is not subscribed although nothing was wrong with it.
fn rejection(topic: &Topic, code: ErrorCode) -> Rejection {
    let message = match code {
        ErrorCode::Unsubscribed => "unsubscribed before the command was answered",
        _ => "the topic could not be settled within a second; try again",
    };
    Rejection { topic: topic.to_string(), code, message: message.to_owned() }
}

/// Sets the cursor of a subscription that starts now.
fn place(subscription: &mut Subscription, log: &TopicLog, since: Option<Since>) {
    subscription.flags.clear(Flags::PENDING);
    let fresh_start = log.value().map_or(log.last(), |value| value.offset() - 1);
    let Some(since) = since else {
        subscription.cursor = fresh_start;
        return;
    };
    if since.epoch != Some(log.epoch()) {
        subscription.flags.set(Flags::RESET_EPOCH);
        subscription.cursor = fresh_start;
    } else if since.offset > log.known() {
        subscription.flags.set(Flags::RESET_AHEAD);
        subscription.cursor = fresh_start;
    } else {
        subscription.cursor = since.offset;
        if since.offset < log.floor() {
            subscription.flags.set(Flags::EXPIRED);
        }
    }
}

/// The options in effect: a rate makes sense in mode `latest` only, and the topic's own bound holds there always.
fn effective(mode: Mode, rate: Option<Rate>, options: &TopicOptions) -> (Mode, Option<Rate>) {
    match mode {
        Mode::All => (Mode::All, None),
        // Rates order by their interval: the larger interval is the slower rate.
        Mode::Latest => (Mode::Latest, rate.max(options.max_rate)),
    }
}
