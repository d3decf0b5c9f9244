//! Publishes as fast as the nodes take it: a closed loop, for finding the most there is.
//!
//! Every connection keeps a fixed number of requests under way; an answer makes room for the next request. A node handles
//! the requests of one connection one after another, so what reaches Redis at once is one request per connection; the
//! others only spare the node the wait for the generator. Latency is not measured here: a closed loop would hide it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::requests::Requests;
use crate::error::LoadError;
use crate::http::{Message, excerpt};
use crate::reactor::Reactor;
use crate::receivers::Receivers;
use crate::target::Target;
use crate::units::{nanos, thousands};

/// Tokens of the publishing connections; far above any subscriber's.
const FIRST_TOKEN: usize = usize::MAX / 2;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without any answer.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether it is enough.
const STEP: Duration = Duration::from_millis(10);
/// Read buffer shared by all connections.
const SCRATCH_BYTES: usize = 64 << 10;

/// What the nodes answered so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered {
    /// Publications accepted with an offset.
    pub(super) accepted: u64,
    /// Publications that were not.
    pub(super) refused: u64,
    /// The first refusal.
    pub(super) first_refusal: Option<String>,
}

/// One keep-alive connection.
#[derive(Debug)]
struct Lane {
    stream: TcpStream,
    out: Vec<u8>,
    /// Bytes of `out` that are with the kernel already.
    written: usize,
    /// Unfinished answers.
    inbox: Vec<u8>,
    in_flight: usize,
}

/// The publishing connections.
#[derive(Debug)]
pub(super) struct Flood<'a> {
    requests: &'a Requests,
    lanes: Vec<Lane>,
    /// Requests without an answer per connection.
    depth: usize,
    next: usize,
    answered: Answered,
    scratch: Vec<u8>,
}

impl<'a> Flood<'a> {
    /// Connects, in turn to each of the nodes.
    pub(super) fn connect(
        requests: &'a Requests,
        urls: &[String],
        (connections, depth): (usize, usize),
        reactor: &Reactor,
    ) -> Result<Self, LoadError> {
        let targets: Vec<Target> =
            urls.iter().map(|url| Target::resolve(url)).collect::<Result<_, _>>()?;
        let mut lanes = Vec::new();
        for (number, target) in targets.iter().cycle().take(connections).enumerate() {
            let open = || {
                let stream = BlockingStream::connect_timeout(&target.address, CONNECT_TIMEOUT)?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let mut stream = TcpStream::from_std(stream);
                let interest = Interest::READABLE | Interest::WRITABLE;
                reactor.registry().register(&mut stream, Token(FIRST_TOKEN + number), interest)?;
                Ok(stream)
            };
            let stream = open().map_err(LoadError::system(
                format!("connecting publisher {number} to {}", target.address),
                "look at the node's log",
            ))?;
            lanes.push(Lane { stream, out: vec![], written: 0, inbox: vec![], in_flight: 0 });
        }
        let scratch = vec![0; SCRATCH_BYTES];
        Ok(Self { requests, lanes, depth, next: 0, answered: Answered::default(), scratch })
    }

    /// What the nodes answered so far.
    pub(super) fn answered(&self) -> &Answered {
        &self.answered
    }

    /// Publishes until `is_enough`, which is told the answers and the reading of the clock.
    pub(super) fn run(
        &mut self,
        reactor: &mut Reactor,
        mut receivers: Option<&mut Receivers>,
        is_enough: impl Fn(&Answered, u64) -> bool,
    ) -> Result<(), LoadError> {
        for lane in 0..self.lanes.len() {
            self.top_up(lane)?;
        }
        let mut progress = (self.answered.accepted, reactor.clock.now());
        while !is_enough(&self.answered, reactor.clock.now()) {
            self.turn(reactor, receivers.as_deref_mut(), true)?;
            self.check_progress(&mut progress, reactor.clock.now())?;
        }
        Ok(())
    }

    /// Sends nothing more and takes the answers that are still to come.
    pub(super) fn settle(
        &mut self,
        reactor: &mut Reactor,
        mut receivers: Option<&mut Receivers>,
    ) -> Result<(), LoadError> {
        let mut progress = (self.answered.accepted, reactor.clock.now());
        while self.lanes.iter().any(|lane| lane.in_flight > 0) {
            self.turn(reactor, receivers.as_deref_mut(), false)?;
            self.check_progress(&mut progress, reactor.clock.now())?;
        }
        Ok(())
    }

    fn turn(
        &mut self,
        reactor: &mut Reactor,
        mut receivers: Option<&mut Receivers>,
        goes_on: bool,
    ) -> Result<(), LoadError> {
        let deadline = reactor.clock.now() + nanos(STEP);
        for ready in reactor.wait(deadline)? {
            match (ready.token.checked_sub(FIRST_TOKEN), receivers.as_deref_mut()) {
                (Some(lane), _) if lane < self.lanes.len() => {
                    if ready.writable {
                        self.lanes[lane].flush()?;
                    }
                    self.read(lane)?;
                    if goes_on {
                        self.top_up(lane)?;
                    }
                }
                (_, Some(receivers)) => receivers.ready(ready)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses to wait for ever for nodes that accept nothing.
    fn check_progress(&self, progress: &mut (u64, u64), now: u64) -> Result<(), LoadError> {
        if self.answered.accepted > progress.0 {
            *progress = (self.answered.accepted, now);
        }
        if now - progress.1 <= nanos(SILENCE_MAX) {
            return Ok(());
        }
        let (accepted, refused) = (self.answered.accepted, self.answered.refused);
        let reason = self.answered.first_refusal.as_deref().unwrap_or("no answer");
        Err(LoadError::Timeout {
            waited_for: format!(
                "the next accepted publication after {} (refused {}: {reason})",
                thousands(accepted),
                thousands(refused)
            ),
            limit: SILENCE_MAX,
            fix: "start a Redis and the gateway with --redis by hand and publish with curl",
        })
    }

    /// Sends as many requests as there is room for, in one write.
    fn top_up(&mut self, lane: usize) -> Result<(), LoadError> {
        let Self { requests, lanes, depth, next, .. } = self;
        let lane = &mut lanes[lane];
        if lane.in_flight == *depth {
            return Ok(());
        }
        while lane.in_flight < *depth {
            lane.out.extend_from_slice(requests.get(*next));
            *next += 1;
            lane.in_flight += 1;
        }
        lane.flush()
    }

    /// Reads and books all answers that the socket has.
    fn read(&mut self, number: usize) -> Result<(), LoadError> {
        let Self { requests, lanes, answered, scratch, .. } = self;
        let lane = &mut lanes[number];
        loop {
            match lane.stream.read(scratch) {
                Ok(0) => return Err(broken(ErrorKind::UnexpectedEof.into())),
                Ok(length) => {
                    lane.inbox.extend_from_slice(&scratch[..length]);
                    lane.book(answered, requests.publications())?;
                    // A short read has emptied the socket, and the next arrival is a new edge.
                    if length < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

impl Lane {
    /// Writes until nothing waits or the socket is full.
    fn flush(&mut self) -> Result<(), LoadError> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn book(&mut self, answered: &mut Answered, publications: u64) -> Result<(), LoadError> {
        let mut done = 0;
        while let Some(message) = Message::read(&self.inbox[done..])
            .map_err(|error| broken(std::io::Error::other(error)))?
        {
            done += message.length;
            self.in_flight = self.in_flight.saturating_sub(1);
            let accepted = accepted(&message, publications);
            answered.accepted += accepted;
            if accepted < publications {
                answered.refused += publications - accepted;
                answered.first_refusal.get_or_insert_with(|| {
                    format!("{}: {}", message.first_line, excerpt(message.body))
                });
            }
        }
        self.inbox.drain(..done);
        Ok(())
    }
}

/// How many publications of a request were accepted: all with 200, those with an offset otherwise.
fn accepted(message: &Message<'_>, publications: u64) -> u64 {
    match message.status() {
        Some(200) => publications,
        Some(207) => crate::units::count(memmem::find_iter(message.body, b"\"offset\":").count())
            .min(publications),
        _ => 0,
    }
}

fn broken(source: std::io::Error) -> LoadError {
    LoadError::System {
        action: "publishing as fast as possible".to_owned(),
        source,
        fix: "look at the node's log: it closed a publisher's connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn only_publications_with_an_offset_count() {
        let count = |status: &str, body: &str| {
            let bytes = answer(status, body);
            accepted(&Message::read(&bytes).expect("http").expect("complete"), 2)
        };
        assert_eq!(count("200 OK", "{}"), 2);
        let partly = r#"{"results":[{"topic":"a","epoch":"k","offset":7},{"topic":"b","error":{"code":"x"}}]}"#;
        assert_eq!(count("207 Multi-Status", partly), 1);
        assert_eq!(count("503 Service Unavailable", "{\"offset\":1}"), 0);
    }
}
