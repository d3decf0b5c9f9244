//! Makes a connection to the Redis of a URL: finds it, connects, authenticates, and makes sure that it is the master.
//!
//! Nothing here retries or reconnects: one call is one attempt with one deadline, and names are resolved anew by each.
//! The client library would do less: it sets no TCP options, asks Sentinel only once, and follows its own deadlines.

mod error;
mod handshake;
mod session;
mod stream;
mod tls;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use redis::{PushInfo, PushKind};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::TlsFiles;
use super::address::{Place, RedisUrl};
use super::sentinel::{self, Patience};
use session::{Attempt, Tries};
use tls::TlsSource;

pub(crate) use error::{DialError, Failure, said};
pub(crate) use handshake::info_field;
pub(crate) use session::open_sentinel;
pub use tls::TlsError;

/// A whole dial, from the first name that is resolved to the proof that the server is the master.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials one Redis, again and again.
pub(crate) struct Dialer {
    url: RedisUrl,
    tls: Option<TlsSource>,
}

/// A connection to a master.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) connection: MultiplexedConnection,
    /// Carries the connection, and ends when it is lost.
    pub(crate) task: DriverTask,
    pub(crate) server: ServerFacts,
    /// The number of the connection at the server, unless the user may not ask for it.
    pub(crate) client_id: Option<u64>,
}

/// Which server a connection has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerFacts {
    /// As the URL or Sentinel names it: `host:port`, or the path of the socket.
    pub(crate) address: String,
    /// The address that the name was resolved to.
    pub(crate) peer: String,
    /// Changes with every start of the server. Empty where the server does not say.
    pub(crate) run_id: String,
    /// The identity of the data: changes whenever they may have been rewound.
    pub(crate) replid: String,
    /// As the server says it, `7.0.15`. Empty where it does not.
    pub(crate) version: String,
}

/// What a connection is for. Its name at the server, and what the server must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Commands,
    Subscriber,
    /// Any server is good enough to be looked at.
    Inspect,
}

/// The task that reads and writes for a connection. Dropping it closes the connection.
///
/// As a future it is ready when the connection is lost; like any future it must not be polled after that.
#[derive(Debug)]
pub(crate) struct DriverTask(JoinHandle<()>);

impl Dialer {
    /// Reads the certificate files once, so that a mistake in them is found at the start.
    ///
    /// Each dial reads them again: renewed certificates take effect with the next connection, without a restart.
    /// The system's own authorities are read only here.
    ///
    /// # Errors
    /// If the files are needed and cannot be used.
    pub(crate) fn new(url: RedisUrl, tls: TlsFiles) -> Result<Self, TlsError> {
        let tls = url.uses_tls().then(|| TlsSource::new(tls)).transpose()?;
        Ok(Self { url, tls })
    }

    /// What is dialled.
    pub(crate) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// A connection for everything but subscriptions.
    ///
    /// # Errors
    /// If no connection to a master came about within [`DIAL_TIMEOUT`].
    pub(crate) async fn commands(&self) -> Result<Dialed, DialError> {
        self.dial(Purpose::Commands, None).await
    }

    /// A connection for subscriptions. What the server pushes goes to `push`, inside the driver task: it must be quick.
    ///
    /// The library's own notice of a disconnection is left out. [`Dialed::task`] says it, also for a connection that
    /// this dial tried and gave up.
    ///
    /// # Errors
    /// As [`Dialer::commands`].
    pub(crate) async fn subscriber(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Dialed, DialError> {
        self.dial(Purpose::Subscriber, Some(push_sender(push))).await
    }

    /// A connection to look at the server, whatever it is.
    ///
    /// # Errors
    /// If no connection came about within [`DIAL_TIMEOUT`].
    pub(crate) async fn inspect(&self) -> Result<Dialed, DialError> {
        self.dial(Purpose::Inspect, None).await
    }

    async fn dial(
        &self,
        purpose: Purpose,
        push: Option<Arc<dyn AsyncPushSender>>,
    ) -> Result<Dialed, DialError> {
        let until = Instant::now() + DIAL_TIMEOUT;
        let tls = self.connector(until).await?;
        let (login, database) = (self.url.login(), self.url.database());
        let attempt = Attempt { login, database, tls: tls.as_ref(), push, purpose };
        match self.url.place() {
            Place::Socket(path) => attempt.socket(path, until).await,
            Place::Server(server) => attempt.server(server, until).await,
            Place::Sentinels(sentinels) => {
                let answers =
                    sentinel::ask(sentinels, tls.as_ref(), until, Patience::Majority).await;
                let mut tries = Tries::new(answers.candidates(sentinels)?, until);
                while let Some((master, until)) = tries.next() {
                    match attempt.server(&master, until).await {
                        Ok(dialed) => return Ok(dialed),
                        Err(error) => tries.failed(error),
                    }
                }
                Err(tries.failure(&sentinels.master))
            }
        }
    }

    /// The certificates of this moment. None without TLS.
    ///
    /// # Errors
    /// If the files cannot be used, or reading them takes longer than `until`.
    pub(super) async fn connector(
        &self,
        until: Instant,
    ) -> Result<Option<TlsConnector>, DialError> {
        let Some(source) = self.tls.clone() else { return Ok(None) };
        // A file system may hang; the runtime's only thread must not.
        let reading = tokio::task::spawn_blocking(move || source.connector());
        let failure = match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(Ok(connector))) => return Ok(Some(connector)),
            Ok(Ok(Err(error))) => Failure::Files(error),
            Ok(Err(error)) => Failure::Other(error.to_string()),
            Err(_) => Failure::TimedOut(error::Step::Files),
        };
        Err(failure.at(&self.url))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Purpose {
    /// The name of the connection at the server.
    fn name(self) -> &'static str {
        match self {
            Self::Commands => "tickcast-commands",
            Self::Subscriber => "tickcast-subscriber",
            Self::Inspect => "tickcast-doctor",
        }
    }
}

impl DriverTask {
    fn spawn(driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(driver))
    }
}

impl Future for DriverTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // However the task ended, the connection is gone.
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands pushes to a closure that cannot fail.
pub(super) fn push_sender(
    push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Arc<dyn AsyncPushSender> {
    Arc::new(move |info: PushInfo| {
        if info.kind != PushKind::Disconnection {
            push(info);
        }
        Ok::<(), SendError>(())
    })
}

#[cfg(test)]
pub(super) mod tests;
