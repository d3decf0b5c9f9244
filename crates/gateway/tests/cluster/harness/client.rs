//! One of many clients. It does what the documentation tells a client to do, and nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::world::World;
use crate::oracle::{Follower, Place};

/// Topics of one subscribe command.
const COMMAND_TOPICS: usize = 500;

/// What a client wants.
#[derive(Debug, Clone)]
pub(crate) struct Interests {
    pub(crate) topics: Vec<String>,
    /// `all` or `latest`.
    pub(crate) mode: &'static str,
}

/// What has happened to a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// When it began to connect for the first time.
    pub(crate) arrived: Option<Instant>,
    /// Connections that ended, although the client had not hung up.
    pub(crate) ends: u64,
    /// From the end of a connection to the first acknowledgement on the next.
    pub(crate) absences: Vec<Duration>,
    pub(crate) gaps: u64,
    pub(crate) resets: u64,
    /// When it was told that the broker is down, and up.
    pub(crate) downs: Vec<Instant>,
    pub(crate) ups: Vec<Instant>,
    /// Nodes that said they go away, and those that were left for another one before they had gone.
    pub(crate) goaways: u64,
    pub(crate) moves: u64,
    /// The codes with which nodes have closed its connections.
    pub(crate) closes: Vec<u16>,
    /// How old publications were when they came, if that was asked for.
    pub(crate) ages: Vec<(Instant, Duration)>,
    /// When the last publication came.
    pub(crate) heard: Option<Instant>,
    /// When the last acknowledgement came.
    pub(crate) acknowledged: Option<Instant>,
}

/// A client, through all its connections.
#[derive(Debug)]
pub(crate) struct Client {
    world: Arc<World>,
    interests: Interests,
    follower: Follower,
    /// Topic by topic where to go on, as the documentation's client keeps it.
    seen: HashMap<String, Place>,
    /// Topics to ask for on this connection.
    to_ask: VecDeque<String>,
    /// Topics that were not to be had a moment ago.
    later: Vec<String>,
    is_asking: bool,
    /// When the connection before this one ended.
    ended: Option<Instant>,
    /// Topics that a second connection has taken over, if there is one.
    taken_over: Option<HashSet<String>>,
    /// Whether the ages of publications are noted.
    pub(crate) is_timed: bool,
    pub(crate) notes: Notes,
}

/// Which of a client's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    First,
    Second,
}

/// A client that many look at.
pub(crate) type Shared = Arc<Mutex<Client>>;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    r#type: Option<&'a str>,
    #[serde(borrow)]
    topic: Option<&'a str>,
    #[serde(borrow)]
    epoch: Option<&'a str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    to: u64,
    #[serde(borrow)]
    broker: Option<&'a str>,
    reconnect_in_ms: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Client {
    pub(crate) fn new(name: String, interests: Interests, world: Arc<World>) -> Self {
        Self {
            world,
            interests,
            follower: Follower::new(name),
            seen: HashMap::new(),
            to_ask: VecDeque::new(),
            later: Vec::new(),
            is_asking: false,
            ended: None,
            taken_over: None,
            is_timed: false,
            notes: Notes::default(),
        }
    }

    /// It has a new connection.
    pub(crate) fn connects(&mut self) {
        self.to_ask = self.interests.topics.clone().into();
        self.later.clear();
        self.is_asking = false;
    }

    /// It has none any more.
    pub(crate) fn disconnects(&mut self, by_itself: bool) {
        self.notes.ends += u64::from(!by_itself);
        self.ended.get_or_insert(Instant::now());
        self.follower.loses_connection();
    }

    /// Whether it can go on on a second connection: it is not in the middle of subscribing.
    pub(crate) fn can_move(&self) -> bool {
        !self.is_asking && self.to_ask.is_empty() && self.later.is_empty()
    }

    /// It has a second connection, which is to take over.
    pub(crate) fn begins_to_move(&mut self) {
        self.to_ask = self.interests.topics.clone().into();
        self.taken_over = Some(HashSet::new());
    }

    /// Whether the second connection has taken over everything, so that the first can be left.
    pub(crate) fn has_moved(&mut self) -> bool {
        let topics = self.interests.topics.len();
        let has_moved = self.taken_over.as_ref().is_some_and(|topics_of| topics_of.len() == topics);
        if has_moved {
            self.taken_over = None;
            self.notes.moves += 1;
        }
        has_moved
    }

    /// The first connection has ended before the second has taken over everything: the second goes on alone.
    pub(crate) fn loses_first(&mut self) {
        self.taken_over = None;
        self.ended.get_or_insert(Instant::now());
    }

    /// The second connection has ended before that. `false` if topics have gone with it, so that the first is useless.
    pub(crate) fn loses_second(&mut self) -> bool {
        self.to_ask.clear();
        self.later.clear();
        self.is_asking = false;
        let taken_over = self.taken_over.take();
        self.follower.loses_second();
        taken_over.is_none_or(|topics| topics.is_empty())
    }

    /// The next command that it has to send on its newest connection, if any.
    pub(crate) fn next_command(&mut self) -> Option<String> {
        if self.is_asking || self.to_ask.is_empty() {
            return None;
        }
        self.is_asking = true;
        let topics: Vec<_> = self.to_ask.drain(..self.to_ask.len().min(COMMAND_TOPICS)).collect();
        let mode = self.interests.mode;
        let is_moving = self.taken_over.is_some();
        let items = topics.iter().map(|topic| {
            let asked = if is_moving {
                self.follower.asks_beside(topic)
            } else {
                self.follower.asks(topic, true)
            };
            // The oracle and the documentation's way of counting agree on where the client is.
            assert_eq!(asked, self.seen.get(topic), "{topic}");
            let Some(Place { epoch, offset }) = asked else {
                return format!(r#"{{"topic":"{topic}","mode":"{mode}"}}"#);
            };
            let since = format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#);
            format!(r#"{{"topic":"{topic}","mode":"{mode}","since":{since}}}"#)
        });
        let items = items.collect::<Vec<_>>().join(",");
        Some(format!(r#"{{"type":"subscribe","id":1,"topics":[{items}]}}"#))
    }

    /// Whether there are topics to ask for again in a moment.
    pub(crate) fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// The moment is over. The node may still be at work on these topics, so they come first.
    pub(crate) fn asks_again(&mut self) {
        for topic in self.later.drain(..) {
            self.to_ask.push_front(topic);
        }
    }

    /// A text frame came. Returns in how much time the node wants to be left, if it says so.
    pub(crate) fn receives(&mut self, which: Which, text: &str) -> Option<Duration> {
        let message: Message<'_> =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let now = Instant::now();
        if let (Which::First, Some(topic), Some(taken_over)) =
            (which, message.topic, &self.taken_over)
            && taken_over.contains(topic)
        {
            return None; // From the acknowledgement on, the second connection delivers it.
        }
        match (message.r#type, message.topic) {
            (None, Some(topic)) => self.publication(topic, &message, text),
            (Some("gap"), Some(topic)) => {
                self.notes.gaps += 1;
                let place = self.place(topic, text);
                place.offset = place.offset.max(message.to);
            }
            (Some("reset"), Some(topic)) => {
                self.notes.resets += 1;
                let epoch = message.epoch.unwrap_or_else(|| panic!("{text}")).to_owned();
                *self.place(topic, text) =
                    Place { epoch, offset: message.offset.saturating_sub(1) };
            }
            (Some("subscribed"), None) => {
                self.acknowledgement(text);
                return None;
            }
            (Some("goaway"), None) => self.notes.goaways += 1,
            (Some("status"), None) => match message.broker {
                Some("down") => self.notes.downs.push(now),
                Some("up") => self.notes.ups.push(now),
                _ => panic!("{text}"),
            },
            _ => {}
        }
        self.world.judge(|judge| self.follower.receives(text, &mut judge.oracle));
        message.reconnect_in_ms.map(Duration::from_millis)
    }

    fn place(&mut self, topic: &str, text: &str) -> &mut Place {
        self.seen.get_mut(topic).unwrap_or_else(|| panic!("never acknowledged: {text}"))
    }

    fn publication(&mut self, topic: &str, message: &Message<'_>, text: &str) {
        let now = Instant::now();
        self.notes.heard = Some(now);
        let place = self.place(topic, text);
        // A second connection repeats what the first has brought meanwhile.
        let is_news = message.offset > place.offset;
        place.offset = place.offset.max(message.offset);
        let place = Place { epoch: place.epoch.clone(), offset: message.offset };
        let data = message.data.expect("a payload");
        let age = self.world.judge(|judge| judge.ledger.sees(topic, &place, data.get()));
        if self.is_timed && is_news {
            self.notes.ages.extend(age.map(|age| (now, age)));
        }
    }

    /// Topics that cannot be had for a moment are asked for again; any other refusal is for the oracle to find.
    fn acknowledgement(&mut self, text: &str) {
        self.is_asking = false;
        let now = Instant::now();
        self.notes.acknowledged = Some(now);
        self.notes.absences.extend(self.ended.take().map(|ended| now - ended));
        let mut message: Value = serde_json::from_str(text).expect("it was read before");
        let errors = message["errors"].as_array_mut().expect("errors");
        errors.retain(|error| {
            let is_for_now = error["code"] == "unavailable";
            if is_for_now {
                self.later.push(error["topic"].as_str().expect("a topic").to_owned());
            }
            !is_for_now
        });
        for topic in message["topics"].as_array().expect("topics") {
            let offset = topic["offset"].as_u64().expect("an offset").saturating_sub(1);
            let epoch = topic["epoch"].as_str().expect("an epoch").to_owned();
            let name = topic["topic"].as_str().expect("a topic").to_owned();
            if let Some(taken_over) = &mut self.taken_over {
                taken_over.insert(name.clone());
            }
            self.seen.entry(name).or_insert(Place { epoch, offset });
        }
        let text = message.to_string();
        self.world.judge(|judge| self.follower.receives(&text, &mut judge.oracle));
    }

    /// Whether each of its topics was acknowledged once.
    pub(crate) fn has_everything(&self) -> bool {
        self.seen.len() == self.interests.topics.len()
    }

    pub(crate) fn follows(&self, topic: &str) -> bool {
        self.interests.topics.iter().any(|known| known == topic)
    }

    /// Whether it has everything up to these places.
    pub(crate) fn has_reached(&self, ends: &HashMap<String, Place>) -> bool {
        self.interests.topics.iter().all(|topic| {
            let (Some(end), Some(seen)) = (ends.get(topic), self.seen.get(topic)) else {
                return true;
            };
            seen.epoch == end.epoch && seen.offset >= end.offset
        })
    }

    /// What it still misses, if anything, where its topics end at these places.
    pub(crate) fn lags(&self, ends: &HashMap<String, Place>) -> Option<String> {
        let lag = self.interests.topics.iter().find_map(|topic| {
            let (end, seen) = (ends.get(topic)?, self.seen.get(topic));
            (seen != Some(end)).then(|| format!("{topic} is at {seen:?} and not at {end:?}"))
        });
        let is_up_to_date = self.world.judge(|judge| self.follower.is_up_to_date(&judge.oracle));
        lag.or_else(|| (!is_up_to_date).then(|| "something that was published".to_owned()))
    }

    /// It has nothing left to read.
    pub(crate) fn is_done(&self) {
        self.world.judge(|judge| self.follower.is_done(&mut judge.oracle));
    }
}
