//! The log oracle: what was published and what each client received, judged against the contract.
//!
//! It knows nothing of nodes, logs or cursors. A [`Follower`] reads the text frames of one client as that client could:
//! after an acknowledgement it knows which offset comes next, and every frame continues from there or says why not. The
//! [`Oracle`] holds what all followers and publishers must agree on: one payload at each place of each topic.
//!
//! It is written for topics that keep their value.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// It came again, or out of order.
    Repeated,
    /// Something was skipped without a word.
    Hole,
    /// Another payload than the publisher's, or than another client got.
    OtherPayload,
    /// It came, but no publisher was told so.
    NeverPublished,
    /// It has not come, although the client has nothing left to read.
    Missing,
    /// It came without a subscription, or before its acknowledgement.
    Unasked,
    /// A gap that does not begin where the client is, or ends beyond what was published, or in a mode without gaps.
    WrongGap,
    /// A reset was owed and did not come first.
    NoReset,
    /// A reset inside the epoch that the client was in.
    NeedlessReset,
    /// Back to an epoch that was left.
    EpochReturned,
    /// The frame after a reset was another one than it announced.
    WrongStart,
    /// A topic was refused, or a command was answered with an error.
    Refused,
    /// Not a message of the protocol.
    Unreadable,
}

/// One breach, with what is needed to look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) breach: Breach,
    pub(crate) detail: String,
}

/// What happened that is allowed, so that a test can say how much of it there must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) gaps: u64,
    /// Publications that gaps have named.
    pub(crate) named: u64,
    /// Publications that mode `latest` passed over.
    pub(crate) conflated: u64,
    pub(crate) resets: u64,
    /// Subscriptions that were acknowledged.
    pub(crate) started: u64,
    /// Of those, the ones that came back to the same epoch with a position.
    pub(crate) resumed: u64,
    /// Publications that came a second time because two connections overlapped, as they must.
    pub(crate) overlapped: u64,
}

/// A place in a topic, as clients give it for `since`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// Findings beyond this many say nothing new.
const FINDINGS_MAX: usize = 20;

/// The judge.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    topics: HashMap<String, Epochs>,
    findings: Vec<Finding>,
    tally: Tally,
}

/// The publications of a topic by epoch.
type Epochs = HashMap<String, Run>;

#[derive(Debug, Default)]
struct Run {
    publications: HashMap<u64, Publication>,
    /// The last one of which a publisher was told.
    last: u64,
    /// The last one that a gap has named.
    named: u64,
}

#[derive(Debug)]
struct Publication {
    data: Box<str>,
    is_published: bool,
}

impl Oracle {
    /// A publisher was told that its payload has this place.
    pub(crate) fn published(&mut self, topic: &str, place: &Place, data: &str) {
        self.tally.published += 1;
        let run = self.run(topic, &place.epoch);
        run.last = run.last.max(place.offset);
        self.agree(topic, (&place.epoch, place.offset), data, true);
    }

    /// The verdict so far on everything but what may still be under way.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The verdict at the end, when publishers and clients have nothing left to wait for.
    pub(crate) fn verdict(mut self) -> Result<Tally, Vec<Finding>> {
        let topics = std::mem::take(&mut self.topics);
        for (topic, epochs) in &topics {
            for (epoch, run) in epochs {
                let place = |offset: &u64| format!("{topic} {epoch}:{offset}");
                let unknown = run.publications.iter().find(|(_, known)| !known.is_published);
                if let Some((offset, _)) = unknown {
                    self.find(Breach::NeverPublished, place(offset));
                }
                if run.named > run.last {
                    self.find(Breach::WrongGap, format!("up to {}", place(&run.named)));
                }
            }
        }
        if self.findings.is_empty() { Ok(self.tally) } else { Err(self.findings) }
    }

    fn run(&mut self, topic: &str, epoch: &str) -> &mut Run {
        if !self.topics.get(topic).is_some_and(|epochs| epochs.contains_key(epoch)) {
            let epochs = self.topics.entry(topic.to_owned()).or_default();
            epochs.insert(epoch.to_owned(), Run::default());
        }
        self.topics.get_mut(topic).and_then(|epochs| epochs.get_mut(epoch)).expect("just made")
    }

    /// Everyone must see the same payload at the same place.
    fn agree(&mut self, topic: &str, place: (&str, u64), data: &str, is_published: bool) {
        let (epoch, offset) = place;
        let publications = &mut self.run(topic, epoch).publications;
        let Some(known) = publications.get_mut(&offset) else {
            publications.insert(offset, Publication { data: data.into(), is_published });
            return;
        };
        known.is_published |= is_published;
        if *known.data != *data {
            let detail = format!("{topic} {epoch}:{offset}: {} and {data}", known.data);
            self.find(Breach::OtherPayload, detail);
        }
    }

    fn find(&mut self, breach: Breach, detail: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { breach, detail });
        }
    }
}

/// One client through all its connections.
#[derive(Debug)]
pub(crate) struct Follower {
    name: String,
    topics: HashMap<String, Following>,
}

/// A topic, as one client knows it. Survives connections.
#[derive(Debug, Default)]
struct Following {
    /// The last offset that came or was named, in the epoch that the client is in.
    place: Option<Place>,
    left: Vec<String>,
    stream: Stream,
    is_latest: bool,
    /// The place with which a second connection was asked to take over.
    beside: Option<Place>,
    overlap: Option<Overlap>,
}

/// What a connection that has taken over has yet to repeat: it goes on where it was asked to, not where the other one
/// has got to in the meantime.
#[derive(Debug, Clone, Copy)]
struct Overlap {
    next: u64,
    until: u64,
}

/// What the connection of now owes the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stream {
    /// Nothing: there is no subscription.
    #[default]
    None,
    /// An acknowledgement; `true` if the client gave the place where it is.
    Asked(bool),
    /// A reset before anything else.
    Reset,
    /// Exactly this offset.
    Exactly(u64),
    /// The next ones.
    Live,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    r#type: Option<&'a str>,
    #[serde(borrow)]
    topic: Option<&'a str>,
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    epoch: Option<&'a str>,
    #[serde(default)]
    from: u64,
    #[serde(default)]
    to: u64,
    #[serde(borrow)]
    topics: Option<&'a RawValue>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Acked<'a> {
    topic: &'a str,
    epoch: &'a str,
    offset: u64,
    mode: &'a str,
}

impl Follower {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), topics: HashMap::new() }
    }

    /// On a new connection the client asks for a topic, with its place if `resume`. Returns the place to ask with.
    pub(crate) fn asks(&mut self, topic: &str, resume: bool) -> Option<&Place> {
        let following = self.topics.entry(topic.to_owned()).or_default();
        if !resume {
            following.place = None;
        }
        (following.beside, following.overlap) = (None, None);
        following.stream = Stream::Asked(following.place.is_some());
        following.place.as_ref()
    }

    /// The client asks a second connection to take over a topic, which the first one still delivers. Returns the place
    /// to ask with. From the acknowledgement on only the second one counts.
    pub(crate) fn asks_beside(&mut self, topic: &str) -> Option<&Place> {
        let following = self.topics.entry(topic.to_owned()).or_default();
        if following.place.is_none() {
            following.stream = Stream::Asked(false);
        }
        following.beside.clone_from(&following.place);
        following.place.as_ref()
    }

    /// The second connection is gone before it has taken over anything.
    pub(crate) fn loses_second(&mut self) {
        self.topics.values_mut().for_each(|following| following.beside = None);
    }

    /// The connection is gone.
    pub(crate) fn loses_connection(&mut self) {
        for following in self.topics.values_mut() {
            following.stream = Stream::None;
            (following.beside, following.overlap) = (None, None);
        }
    }

    /// A text frame came.
    pub(crate) fn receives(&mut self, text: &str, oracle: &mut Oracle) {
        let Ok(message) = serde_json::from_str::<Message<'_>>(text) else {
            return self.find(oracle, Breach::Unreadable, text);
        };
        match (message.r#type, message.topic) {
            (None, Some(topic)) => self.publication(topic, &message, text, oracle),
            (Some("gap"), Some(topic)) => self.gap(topic, &message, text, oracle),
            (Some("reset"), Some(topic)) => self.reset(topic, &message, text, oracle),
            (Some("subscribed"), None) => self.acknowledgement(&message, text, oracle),
            (Some("error"), None) => self.find(oracle, Breach::Refused, text),
            (Some("unsubscribed"), None) => {
                let names = message.topics.map(|topics| serde_json::from_str(topics.get()));
                let Some(Ok(names)) = names else {
                    return self.find(oracle, Breach::Unreadable, text);
                };
                let names: Vec<String> = names;
                names.iter().for_each(|name| drop(self.topics.remove(name)));
            }
            (Some("status" | "goaway" | "pong"), None) => {}
            _ => self.find(oracle, Breach::Unreadable, text),
        }
    }

    /// The client has nothing left to read and its publishers are done: it must be up to date in every topic it holds.
    pub(crate) fn is_done(&self, oracle: &mut Oracle) {
        for (topic, following) in &self.topics {
            let Some(place) = following.place.as_ref() else {
                let detail = format!("no acknowledgement of {topic}");
                self.find(oracle, Breach::Missing, &detail);
                continue;
            };
            let last = oracle.run(topic, &place.epoch).last;
            if following.stream != Stream::None && place.offset < last {
                let detail = format!("{topic} {place}, but {last} was published");
                self.find(oracle, Breach::Missing, &detail);
            }
        }
    }

    /// Whether the client has everything that publishers were told of.
    pub(crate) fn is_up_to_date(&self, oracle: &Oracle) -> bool {
        self.topics.iter().all(|(topic, following)| {
            let Some(place) = &following.place else { return false };
            let run = oracle.topics.get(topic).and_then(|epochs| epochs.get(&place.epoch));
            run.is_none_or(|run| run.last <= place.offset)
        })
    }

    fn acknowledgement(&mut self, message: &Message<'_>, text: &str, oracle: &mut Oracle) {
        let acked =
            message.topics.map(|topics| serde_json::from_str::<Vec<Acked<'_>>>(topics.get()));
        let Some(Ok(acked)) = acked else { return self.find(oracle, Breach::Unreadable, text) };
        if message.errors.is_none_or(|errors| errors.get() != "[]") {
            self.find(oracle, Breach::Refused, text);
        }
        for Acked { topic, epoch, offset, mode } in acked {
            let Some(following) = self.topics.get_mut(topic) else {
                self.find(oracle, Breach::Unasked, text);
                continue;
            };
            following.is_latest = mode == "latest";
            if let Some(since) = following.beside.take() {
                oracle.tally.started += 1;
                oracle.tally.resumed += u64::from(following.is_taken_over(since, epoch, offset));
                continue;
            }
            let Stream::Asked(with_place) = following.stream else { continue };
            oracle.tally.started += 1;
            let is_near = |place: &&Place| place.epoch == epoch && place.offset <= offset;
            if let Some(place) = following.place.as_ref().filter(|_| with_place) {
                let is_near = is_near(&place);
                oracle.tally.resumed += u64::from(is_near);
                following.stream = if is_near { Stream::Live } else { Stream::Reset };
            } else {
                // The value at this offset comes first.
                let offset = offset.saturating_sub(1);
                following.place = Some(Place { epoch: epoch.to_owned(), offset });
                following.stream = Stream::Live;
            }
        }
    }

    fn publication(&mut self, name: &str, message: &Message<'_>, text: &str, oracle: &mut Oracle) {
        let offset = message.offset;
        if self.overlaps(name, message, text, oracle) {
            return;
        }
        let (breach, place) = match self.topics.get_mut(name) {
            None => return self.find(oracle, Breach::Unasked, text),
            Some(Following { stream: Stream::None | Stream::Asked(_), .. }) => {
                return self.find(oracle, Breach::Unasked, text);
            }
            Some(Following { place: None, .. }) => return self.find(oracle, Breach::Unasked, text),
            Some(Following { stream, place: Some(place), is_latest, .. }) => {
                let is_jump = offset > place.offset + 1;
                let breach = match *stream {
                    Stream::Reset => Some(Breach::NoReset),
                    Stream::Exactly(exactly) if offset != exactly => Some(Breach::WrongStart),
                    _ if offset <= place.offset => Some(Breach::Repeated),
                    _ if is_jump && !*is_latest => Some(Breach::Hole),
                    _ => None,
                };
                if is_jump && *is_latest {
                    oracle.tally.conflated += offset - place.offset - 1;
                }
                *stream = Stream::Live;
                place.offset = place.offset.max(offset);
                (breach, &*place)
            }
        };
        oracle.tally.delivered += 1;
        if let Some(data) = message.data {
            oracle.agree(name, (&place.epoch, offset), data.get(), false);
        }
        if let Some(breach) = breach {
            self.find(oracle, breach, text);
        }
    }

    /// Judges a publication that the connection of before may have brought already; `false` if it has not.
    fn overlaps(
        &mut self,
        name: &str,
        message: &Message<'_>,
        text: &str,
        oracle: &mut Oracle,
    ) -> bool {
        let Some(following) = self.topics.get_mut(name) else { return false };
        let Some(Overlap { next, until }) = following.overlap else { return false };
        let (offset, is_latest) = (message.offset, following.is_latest);
        following.overlap = (offset < until).then_some(Overlap { next: offset + 1, until });
        let is_again = offset <= until;
        if is_again {
            oracle.tally.overlapped += 1;
            if let (Some(data), Some(place)) = (message.data, &following.place) {
                oracle.agree(name, (&place.epoch, offset), data.get(), false);
            }
        }
        if offset < next {
            self.find(oracle, Breach::Repeated, text);
        } else if offset > next && !is_latest {
            self.find(oracle, Breach::Hole, text);
        }
        is_again
    }

    fn gap(&mut self, name: &str, message: &Message<'_>, text: &str, oracle: &mut Oracle) {
        let &Message { from, to, .. } = message;
        let following = self.topics.get_mut(name);
        let Some(Following { stream, place: Some(place), is_latest: false, overlap, .. }) =
            following
        else {
            return self.find(oracle, Breach::WrongGap, text);
        };
        let next = overlap.map_or(place.offset + 1, |overlap| overlap.next);
        *overlap = overlap
            .filter(|overlap| to < overlap.until)
            .map(|Overlap { until, .. }| Overlap { next: to + 1, until });
        let is_right = *stream == Stream::Live && from == next && to >= from;
        place.offset = place.offset.max(to);
        let run = oracle.run(name, &place.epoch);
        run.named = run.named.max(to);
        oracle.tally.gaps += 1;
        oracle.tally.named += to.saturating_sub(from) + 1;
        if !is_right {
            self.find(oracle, Breach::WrongGap, text);
        }
    }

    fn reset(&mut self, name: &str, message: &Message<'_>, text: &str, oracle: &mut Oracle) {
        let (Some(following), Some(epoch)) = (self.topics.get_mut(name), message.epoch) else {
            return self.find(oracle, Breach::Unasked, text);
        };
        let is_owed = following.stream == Stream::Reset;
        let offset = message.offset.saturating_sub(1);
        let before = following.place.replace(Place { epoch: epoch.to_owned(), offset });
        let before = before.map(|place| place.epoch).unwrap_or_default();
        following.stream = Stream::Exactly(message.offset);
        following.overlap = None;
        oracle.tally.resets += 1;
        let is_returned = following.left.iter().any(|left| left == epoch);
        if before == epoch {
            if !is_owed {
                self.find(oracle, Breach::NeedlessReset, text);
            }
            return;
        }
        following.left.push(before);
        if is_returned {
            self.find(oracle, Breach::EpochReturned, text);
        }
    }

    fn find(&self, oracle: &mut Oracle, breach: Breach, text: &str) {
        oracle.find(breach, format!("{}: {text}", self.name));
    }
}

impl Following {
    /// A second connection has taken over from `since`, and the topic is at this place. `true` if it goes on in the
    /// same epoch.
    fn is_taken_over(&mut self, since: Place, epoch: &str, offset: u64) -> bool {
        self.overlap = None;
        if since.epoch != epoch || since.offset > offset {
            self.stream = Stream::Reset;
            return false;
        }
        self.stream = Stream::Live;
        let Some(place) = self.place.as_ref().filter(|place| place.epoch == since.epoch) else {
            // The first connection knew of another epoch already; this one has yet to hear of it.
            self.place = Some(since);
            return true;
        };
        if place.offset > since.offset {
            self.overlap = Some(Overlap { next: since.offset + 1, until: place.offset });
        }
        true
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}
