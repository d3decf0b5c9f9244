//! The publishing side: sends requests on the open schedule, whatever the server does, and reads the answers.
//!
//! Requests go out pipelined over a few keep-alive connections, round robin; no answer is waited for before the next
//! planned send. The one exception is the bound on requests in flight: at it, sends are held back and counted, and since
//! latency is measured from the plan, the delay shows. The answers give the last offset of every topic, from which the
//! [`Judge`](crate::receivers::Judge) knows what should have arrived.

mod link;

use std::ops::Range;

use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::http::{Message, excerpt};
use crate::latency::{Latencies, LatencySummary};
use crate::payload::Payload;
use crate::plan::{Schedule, TopicPlan};
use crate::reactor::Clock;
use crate::target::Targets;
use crate::units::index;
use link::{Link, Request};

/// Tokens of the publishing connections; far above any subscriber's.
const FIRST_TOKEN: usize = usize::MAX / 2;
/// Requests sent in one go when the schedule has slipped, so that subscribers are read in between.
const REQUESTS_PER_TURN: u32 = 32;

/// How publications are made.
#[derive(Debug, Clone)]
pub struct PublishPlan {
    /// When.
    pub schedule: Schedule,
    /// Publication `n` goes to topic `n` modulo their number.
    pub topics: TopicPlan,
    /// What.
    pub payload: Payload,
    /// Keep-alive connections, at least 1.
    pub connections: usize,
    /// Requests without an answer at any time, at least 1.
    pub in_flight: usize,
}

/// What became of the publications.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Published {
    /// Publications that the schedule planned.
    pub planned: u64,
    /// Publications handed to the kernel.
    pub sent: u64,
    /// Publications that the server acknowledged with an offset.
    pub accepted: u64,
    /// Publications that the server refused.
    pub refused: u64,
    /// The first refusal.
    pub first_refusal: Option<String>,
    /// Publications whose connection ended before the answer: they may have been delivered. Only with several servers.
    pub cut_off: u64,
    /// Publications without an answer at the end.
    pub unanswered: u64,
    /// Times that a send was held back because too many requests were without an answer.
    pub held_back: u64,
    /// Planned send to answer, of the requests planned inside the window.
    pub answer: LatencySummary,
    /// Planned send to actual send, of the same requests: how late the generator itself was.
    pub lag: LatencySummary,
}

/// The publisher.
#[derive(Debug)]
pub struct Publisher {
    plan: PublishPlan,
    targets: Targets,
    registry: Registry,
    links: Vec<Link>,
    /// Connections that were replaced.
    replaced: usize,
    clock: Clock,
    /// Reading of the clock at which the schedule begins.
    start: u64,
    window: Range<u64>,
    /// The next request of the schedule.
    next: u64,
    /// By topic: the highest offset that was acknowledged.
    highest: Vec<u64>,
    held_back: bool,
    answers: Latencies,
    lags: Latencies,
    body: Vec<u8>,
    published: Published,
}

impl Publisher {
    /// Connects to the servers in turn, with a bounded wait.
    ///
    /// # Errors
    /// If a server cannot be reached.
    pub fn connect(
        plan: PublishPlan,
        targets: Targets,
        registry: &Registry,
        clock: Clock,
    ) -> Result<Self, LoadError> {
        let registry = registry
            .try_clone()
            .map_err(LoadError::system("sharing the event loop", "raise the open files limit"))?;
        let links = (0..plan.connections.max(1))
            .map(|place| open(&targets, place, place, &registry))
            .collect::<Result<_, _>>()?;
        let published = Published { planned: plan.schedule.publications(), ..Published::default() };
        Ok(Self {
            targets,
            registry,
            links,
            replaced: 0,
            clock,
            start: u64::MAX,
            window: 0..0,
            next: 0,
            highest: vec![0; index(plan.topics.topics())],
            held_back: false,
            answers: Latencies::default(),
            lags: Latencies::default(),
            body: Vec::new(),
            published,
            plan,
        })
    }

    /// Begins the schedule at a reading of the clock, and returns the measured window on that clock.
    pub fn start_at(&mut self, start: u64) -> Range<u64> {
        let window = self.plan.schedule.window_ns();
        self.start = start;
        self.window = window.start + start..window.end + start;
        self.window.clone()
    }

    /// Whether the token is one of the publisher's.
    #[must_use]
    pub fn owns(&self, token: usize) -> bool {
        token.checked_sub(FIRST_TOKEN).is_some_and(|number| number < self.links.len())
    }

    /// When the next request is due; `None` at the end of the schedule, or while answers must come first.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let more = self.next < self.plan.schedule.requests() && !self.is_full();
        more.then(|| self.start.saturating_add(self.plan.schedule.due_ns(self.next)))
    }

    /// Sends what is due by now.
    ///
    /// # Errors
    /// If a publishing connection breaks.
    pub fn publish_due(&mut self) -> Result<(), LoadError> {
        for _ in 0..REQUESTS_PER_TURN {
            let planned = self.start.saturating_add(self.plan.schedule.due_ns(self.next));
            let over = self.next >= self.plan.schedule.requests();
            if over || planned > self.clock.now() {
                return Ok(());
            }
            if self.is_full() {
                self.published.held_back += u64::from(!self.held_back);
                self.held_back = true;
                return Ok(());
            }
            self.held_back = false;
            self.send(planned)?;
        }
        Ok(())
    }

    fn send(&mut self, planned: u64) -> Result<(), LoadError> {
        let publications = self.plan.schedule.per_request();
        let first = self.next * u64::from(publications);
        let path = self.encode_body(first, publications, planned);
        let place = index(self.next) % self.links.len();
        let request = Request { planned, first, publications };
        let sent = self.links[place].send(&path, &self.body, request);
        sent.or_else(|error| self.replace(place, error))?;
        self.next += 1;
        self.published.sent += u64::from(publications);
        if self.window.contains(&planned) {
            self.lags.record(self.clock.now().saturating_sub(planned));
        }
        Ok(())
    }

    /// Makes the body of a request in `self.body` and returns its path.
    fn encode_body(&mut self, first: u64, publications: u32, planned: u64) -> String {
        let Self { plan, body, .. } = self;
        body.clear();
        let topic = |number: u64| plan.topics.name(number % plan.topics.topics());
        if publications == 1 {
            plan.payload.append(body, planned);
            return format!("/v1/topics/{}", topic(first));
        }
        for number in first..first + u64::from(publications) {
            body.push(if number == first { b'[' } else { b',' });
            body.extend_from_slice(
                format!("{{\"topic\":\"{}\",\"data\":", topic(number)).as_bytes(),
            );
            plan.payload.append(body, planned);
            body.push(b'}');
        }
        body.push(b']');
        "/v1/publish".to_owned()
    }

    /// Handles a publishing connection that is ready: sends what waits, reads answers.
    ///
    /// # Errors
    /// If the connection breaks, or an answer is not one.
    pub fn ready(&mut self, token: usize, writable: bool) -> Result<(), LoadError> {
        let Some(number) = token.checked_sub(FIRST_TOKEN) else { return Ok(()) };
        let Some(link) = self.links.get_mut(number) else { return Ok(()) };
        let flushed = if writable { link.flush() } else { Ok(()) };
        // What has come is booked, even if it was the last.
        let filled = flushed.and_then(|()| link.fill());
        let mut inbox = std::mem::take(&mut self.links[number].inbox);
        let mut done = 0;
        while let Some(message) =
            Message::read(&inbox[done..]).map_err(|error| unreadable(error.to_string()))?
        {
            done += message.length;
            let request = self.links[number]
                .in_flight
                .pop_front()
                .ok_or_else(|| unreadable("an answer without a request".to_owned()))?;
            self.book(&request, &message);
        }
        inbox.drain(..done);
        self.links[number].inbox = inbox;
        filled.or_else(|error| self.replace(number, error))
    }

    /// Puts a connection to another server in the place of one that has ended.
    fn replace(&mut self, place: usize, error: LoadError) -> Result<(), LoadError> {
        let cut_off = self.links[place].in_flight.iter();
        let cut_off: u64 = cut_off.map(|request| u64::from(request.publications)).sum();
        for _ in 1..self.targets.count() {
            self.replaced += 1;
            if let Ok(link) = open(&self.targets, place + self.replaced, place, &self.registry) {
                self.links[place] = link;
                self.published.cut_off += cut_off;
                return Ok(());
            }
        }
        Err(error)
    }

    /// Books the answer to a request.
    fn book(&mut self, request: &Request, message: &Message<'_>) {
        if self.window.contains(&request.planned) {
            self.answers.record(self.clock.now().saturating_sub(request.planned));
        }
        let offsets = offsets(message.body, request.publications);
        let topics = self.plan.topics.topics();
        for (number, offset) in (request.first..).zip(offsets) {
            let Some(offset) = offset else {
                self.published.refused += 1;
                self.published.first_refusal.get_or_insert_with(|| {
                    format!("{}: {}", message.first_line, excerpt(message.body))
                });
                continue;
            };
            self.published.accepted += 1;
            let highest = &mut self.highest[index(number % topics)];
            *highest = offset.max(*highest);
        }
    }

    /// By topic: the highest offset acknowledged so far.
    #[must_use]
    pub fn highest(&self) -> &[u64] {
        &self.highest
    }

    /// Whether requests are still without an answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.requests_in_flight() > 0
    }

    /// The numbers so far.
    #[must_use]
    pub fn published(&self) -> Published {
        let unanswered = |request: &Request| u64::from(request.publications);
        Published {
            unanswered: self.links.iter().flat_map(|link| &link.in_flight).map(unanswered).sum(),
            answer: self.answers.summary(),
            lag: self.lags.summary(),
            ..self.published.clone()
        }
    }

    /// Requests handed to the schedule so far, for the progress line.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.published.sent
    }

    fn is_full(&self) -> bool {
        self.requests_in_flight() >= self.plan.in_flight.max(1)
    }

    fn requests_in_flight(&self) -> usize {
        self.links.iter().map(|link| link.in_flight.len()).sum()
    }
}

/// Opens the connection in one place, to the server with this number.
fn open(
    targets: &Targets,
    number: usize,
    place: usize,
    registry: &Registry,
) -> Result<Link, LoadError> {
    let mut link = Link::connect(targets.at(number))?;
    registry
        .register(
            &mut link.stream,
            Token(FIRST_TOKEN + place),
            Interest::READABLE | Interest::WRITABLE,
        )
        .map_err(LoadError::system("watching the publisher", "free some memory"))?;
    Ok(link)
}

fn unreadable(problem: String) -> LoadError {
    LoadError::Server {
        place: "an answer to a publish request".to_owned(),
        problem,
        fix: "check that --url is the public listener of a server that speaks this wire",
    }
}

/// The acknowledged offset of each publication of a request; `None` where it was refused.
///
/// A body that is not the answer of this wire counts as a refusal of all.
fn offsets(body: &[u8], publications: u32) -> Vec<Option<u64>> {
    #[derive(Deserialize)]
    struct Position {
        offset: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Batch {
        results: Vec<Position>,
    }
    let mut offsets: Vec<Option<u64>> = if publications == 1 {
        serde_json::from_slice::<Position>(body).map_or_else(|_| vec![], |one| vec![one.offset])
    } else {
        serde_json::from_slice::<Batch>(body).map_or_else(
            |_| vec![],
            |batch| batch.results.into_iter().map(|position| position.offset).collect(),
        )
    };
    offsets.resize(index(u64::from(publications)), None);
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_give_one_outcome_per_publication() {
        let single = br#"{"topic":"load.0","epoch":"k3f9","offset":7}"#;
        assert_eq!(offsets(single, 1), [Some(7)]);
        let batch = br#"{"results":[{"topic":"load.0","epoch":"k","offset":7},{"topic":"load.1","error":{"code":"forbidden","detail":"no"}}]}"#;
        assert_eq!(offsets(batch, 2), [Some(7), None]);
        assert_eq!(offsets(batch, 3), [Some(7), None, None]);
        let problem = br#"{"type":"about:blank","status":503,"code":"broker_unavailable"}"#;
        assert_eq!(offsets(problem, 1), [None]);
        assert_eq!(offsets(problem, 2), [None, None]);
        assert_eq!(offsets(b"", 1), [None]);
    }
}
