//! One attempt at one server: every address that it has, until one of them is what is needed.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::error::{DialError, Failure, Step};
use super::handshake::{self, Greeting};
use super::stream::{self, Stream};
use super::{Dialed, DriverTask, Purpose};
use crate::redis::address::{HostPort, Login};

/// How to speak to a server once it is found.
pub(super) struct Attempt<'a> {
    pub(super) login: Option<&'a Login>,
    pub(super) database: u32,
    pub(super) tls: Option<&'a TlsConnector>,
    pub(super) push: Option<Arc<dyn AsyncPushSender>>,
    pub(super) purpose: Purpose,
}

impl Attempt<'_> {
    /// Tries every address of a server. A name may stand for several servers of which one is the master.
    pub(super) async fn server(
        &self,
        server: &HostPort,
        until: Instant,
    ) -> Result<Dialed, DialError> {
        let peers = stream::resolve(server, until).await?;
        self.peers(server, peers, until).await
    }

    pub(super) async fn peers(
        &self,
        server: &HostPort,
        peers: Vec<SocketAddr>,
        until: Instant,
    ) -> Result<Dialed, DialError> {
        let mut tries = Tries::new(peers, until);
        while let Some((peer, until)) = tries.next() {
            let dialed = match stream::tcp(server, peer, self.tls, until).await {
                Ok(stream) => self.over(stream, Some(server), (server, &peer), until).await,
                Err(error) => Err(error),
            };
            match dialed {
                Ok(dialed) => return Ok(dialed),
                Err(error) => tries.failed(error),
            }
        }
        Err(tries.failure(server))
    }

    pub(super) async fn socket(&self, path: &Path, until: Instant) -> Result<Dialed, DialError> {
        let stream = stream::unix(path, until).await?;
        self.over(stream, None, (&path.display(), &path.display()), until).await
    }

    async fn over(
        &self,
        stream: Box<dyn Stream>,
        server: Option<&HostPort>,
        (address, peer): (&(dyn fmt::Display + Sync), &(dyn fmt::Display + Sync)),
        until: Instant,
    ) -> Result<Dialed, DialError> {
        let greeting =
            Greeting { login: self.login, database: self.database, push: self.push.clone() };
        let exchange = async {
            let (mut connection, task) = handshake::greet(stream, greeting).await?;
            let introduction = handshake::introduce(&mut connection, self.purpose).await?;
            Ok((connection, task, introduction))
        };
        let (connection, task, introduction) = match timeout_at(until, Box::pin(exchange)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return Err(Failure::of_reply(&error, server).at(address)),
            Err(_) => return Err(Failure::TimedOut(Step::Hello).at(address)),
        };
        let facts = introduction.facts(self.purpose, address.to_string(), peer.to_string());
        let server = facts.map_err(|failure| failure.at(address))?;
        Ok(Dialed { connection, task, server, client_id: introduction.client_id })
    }
}

/// Connects to a Sentinel. It is not asked who it is: its user may be allowed nothing but the questions of a client.
///
/// # Errors
/// If no connection came about until the deadline.
pub(crate) async fn open_sentinel(
    sentinel: &HostPort,
    login: Option<&Login>,
    tls: Option<&TlsConnector>,
    push: Option<Arc<dyn AsyncPushSender>>,
    until: Instant,
) -> Result<(MultiplexedConnection, DriverTask), DialError> {
    let mut tries = Tries::new(stream::resolve(sentinel, until).await?, until);
    while let Some((peer, until)) = tries.next() {
        let stream = match stream::tcp(sentinel, peer, tls, until).await {
            Ok(stream) => stream,
            Err(error) => {
                tries.failed(error);
                continue;
            }
        };
        let greeting = Greeting { login, database: 0, push: push.clone() };
        match timeout_at(until, Box::pin(handshake::greet(stream, greeting))).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => tries.failed(Failure::of_reply(&error, Some(sentinel)).at(sentinel)),
            Err(_) => tries.failed(Failure::TimedOut(Step::Hello).at(sentinel)),
        }
    }
    Err(tries.failure(sentinel))
}

/// Candidates that are tried one after the other. Each gets its share of the time that is left, so that one which
/// swallows everything does not keep the next from being tried.
pub(super) struct Tries<T> {
    left: std::vec::IntoIter<T>,
    until: Instant,
    failure: Option<DialError>,
}

impl<T> Tries<T> {
    pub(super) fn new(candidates: Vec<T>, until: Instant) -> Self {
        Self { left: candidates.into_iter(), until, failure: None }
    }

    /// The next candidate, and until when it may be tried.
    pub(super) fn next(&mut self) -> Option<(T, Instant)> {
        let candidates = u32::try_from(self.left.len()).unwrap_or(u32::MAX).max(1);
        let now = Instant::now();
        let share = self.until.saturating_duration_since(now) / candidates;
        self.left.next().map(|candidate| (candidate, now + share))
    }

    /// Remembers the error that says most.
    pub(super) fn failed(&mut self, error: DialError) {
        if self.failure.as_ref().is_none_or(DialError::is_silent) {
            self.failure = Some(error);
        }
    }

    /// Why none of them worked.
    pub(super) fn failure(self, address: impl fmt::Display) -> DialError {
        self.failure.unwrap_or_else(|| Failure::Resolve("it has no address".to_owned()).at(address))
    }
}
