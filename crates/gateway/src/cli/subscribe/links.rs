//! The connections of a run: the one that counts, and the one that is to follow it.
//!
//! A node that goes away says so in good time. Then a second connection is made while the first still delivers, and the
//! first is left only when the second has acknowledged everything: whoever watches notices nothing.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connection::{OpenError, Reader, Received, Writer, open};
use crate::cli::client::Target;

/// After that much silence a ping asks whether the gateway is still there. A gateway pings after 25 s by default.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// And after that much the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// One connection.
pub(super) struct Link {
    /// Rises from connection to connection; never 0.
    pub(super) id: u64,
    pub(super) writer: Writer,
    reader: Reader,
    since: Instant,
    /// When something arrived last.
    heard: Instant,
    /// Was a ping sent since?
    has_asked: bool,
    /// When the node wants this connection to be left, if it does.
    pub(super) leave_at: Option<Instant>,
}

impl Link {
    fn new(id: u64, (reader, writer): (Reader, Writer)) -> Self {
        let now = Instant::now();
        Self { id, writer, reader, since: now, heard: now, has_asked: false, leave_at: None }
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Something has arrived.
    pub(super) fn hears(&mut self) {
        self.heard = Instant::now();
        self.has_asked = false;
    }

    /// Asks a gateway that is quiet whether it is there. `false` if it has been silent for too long.
    pub(super) async fn is_alive(&mut self, now: Instant) -> bool {
        if now >= self.heard + QUIET_MAX && !self.has_asked {
            self.has_asked = true;
            self.writer.send_text(r#"{"type":"ping"}"#.to_owned()).await;
        }
        now < self.heard + SILENCE_MAX
    }

    fn wake(&self) -> Instant {
        self.heard + if self.has_asked { SILENCE_MAX } else { QUIET_MAX }
    }
}

type Opened = Result<(Reader, Writer), OpenError>;

/// A connection that is being made.
pub(super) type Opening = Pin<Box<dyn Future<Output = Opened>>>;

/// The connection that is to follow.
pub(super) enum Next {
    /// None is wanted.
    None,
    /// It is to be made at this time.
    At(Instant),
    /// It is being made.
    Opening(Opening),
    /// It is there, and has not acknowledged everything yet.
    Open(Link),
}

/// Which of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    Next,
}

/// What happens.
pub(super) enum Event {
    /// Something has arrived.
    Received(Which, Received),
    /// The next connection is there, or could not be made.
    Opened(Opened),
    /// A time has come.
    Tick,
}

/// All connections.
pub(super) struct Links {
    target: Target,
    pub(super) current: Option<Link>,
    pub(super) next: Next,
    opened: u64,
}

impl Links {
    /// None yet; the first is made at once.
    pub(super) fn new(target: Target) -> Self {
        Self { target, current: None, next: Next::At(Instant::now()), opened: 0 }
    }

    /// Waits for what happens next, until `due` at most. May be given up and called again without loss.
    pub(super) async fn event(&mut self, due: Option<Instant>) -> Event {
        let wake = self.wake(due);
        let Self { current, next, .. } = self;
        tokio::select! {
            received = read(current.as_mut()) => Event::Received(Which::Current, received),
            event = follow(next) => event,
            () = until(wake) => Event::Tick,
        }
    }

    fn wake(&self, due: Option<Instant>) -> Option<Instant> {
        let next = match &self.next {
            Next::At(at) => Some(*at),
            Next::Open(link) => Some(link.wake()),
            Next::None | Next::Opening(_) => None,
        };
        [due, next, self.current.as_ref().map(Link::wake)].into_iter().flatten().min()
    }

    /// One of the connections, if there is that one.
    pub(super) fn get(&mut self, which: Which) -> Option<&mut Link> {
        match (which, &mut self.next) {
            (Which::Current, _) => self.current.as_mut(),
            (Which::Next, Next::Open(link)) => Some(link),
            (Which::Next, _) => None,
        }
    }

    /// The one on which to ask for topics: the newest.
    pub(super) fn newest(&mut self) -> Option<&mut Link> {
        match &mut self.next {
            Next::Open(link) => Some(link),
            _ => self.current.as_mut(),
        }
    }

    /// Begins to make the next connection if its time has come.
    pub(super) fn open_due(&mut self, now: Instant) {
        if matches!(self.next, Next::At(at) if at <= now) {
            let target = self.target.clone();
            self.next = Next::Opening(Box::pin(async move { open(&target).await }));
        }
    }

    /// The next connection is there.
    pub(super) fn opened(&mut self, halves: (Reader, Writer)) {
        self.opened += 1;
        self.next = Next::Open(Link::new(self.opened, halves));
    }

    /// The next connection becomes the current one; returns the one before.
    pub(super) fn promote(&mut self) -> Option<Link> {
        match std::mem::replace(&mut self.next, Next::None) {
            Next::Open(link) => {
                self.next = link.leave_at.map_or(Next::None, Next::At);
                self.current.replace(link)
            }
            other => {
                self.next = other;
                None
            }
        }
    }

    /// The current connection is to be left at this time, for another one.
    pub(super) fn leave_at(&mut self, which: Which, at: Instant) {
        if let Some(link) = self.get(which) {
            link.leave_at = Some(at);
        }
        match &mut self.next {
            Next::None if which == Which::Current => self.next = Next::At(at),
            Next::At(before) => *before = at.min(*before),
            _ => {}
        }
    }
}

async fn read(link: Option<&mut Link>) -> Received {
    match link {
        Some(link) => link.reader.next().await,
        None => pending().await,
    }
}

async fn follow(next: &mut Next) -> Event {
    match next {
        Next::None | Next::At(_) => pending().await,
        Next::Opening(opening) => Event::Opened(opening.await),
        Next::Open(link) => Event::Received(Which::Next, link.reader.next().await),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
