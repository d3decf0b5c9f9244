//! Facts about a Redis, for whoever wants to know why it does not work, or will not one day. No judgement is made here.

mod permissions;
mod readings;
mod sentinels;

use std::time::Duration;

use tokio::time::timeout;

use super::dial::{DialError, Dialer, TlsError};
use super::{RedisUrl, TlsFiles};

/// All questions together, once the server is reached.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A value, or why it cannot be read. Managed services forbid many of the questions.
pub type Reading<T> = Result<T, Unreadable>;

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// What could be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As the URL or Sentinel names the server: `host:port`, or the path of the socket.
    pub address: String,
    /// The address that the name was resolved to.
    pub peer: String,
    /// As the server says it.
    pub version: Reading<String>,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: Reading<String>,
    /// Whether it can be written to.
    pub role: Reading<Role>,
    /// Replicas that are connected to it.
    pub replicas: Reading<u64>,
    /// Replicas that must be connected, or it refuses to write; 0 if it never asks.
    pub min_replicas_to_write: Reading<u64>,
    /// Its memory.
    pub memory: Memory,
    /// Its clients.
    pub clients: Clients,
    /// What it keeps for a subscriber that does not read, before it disconnects it.
    pub pubsub_buffer: Reading<BufferLimit>,
    /// What it writes to disk.
    pub persistence: Persistence,
    /// The shortest of several questions, there and back.
    pub round_trip: Duration,
    /// Its clock, against this machine's.
    pub clock: Reading<Clock>,
    /// What the user may do with names of the prefix.
    pub permissions: Vec<Permission>,
    /// What each Sentinel says, in the order of the URL. Empty without Sentinels.
    pub sentinels: Vec<SentinelFacts>,
}

/// Whether a server takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Master,
    /// It follows another server.
    Replica {
        /// `host:port` of the server that it follows.
        of: String,
        /// Whether it hears from it.
        connected: bool,
    },
}

/// The memory of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used: Reading<u64>,
    /// `maxmemory` in bytes; 0 for no limit.
    pub max: Reading<u64>,
    /// `maxmemory-policy`: what it does at the limit.
    pub policy: Reading<String>,
}

/// The clients of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Connected now.
    pub connected: Reading<u64>,
    /// `maxclients`.
    pub max: Reading<u64>,
}

/// `client-output-buffer-limit` of one class of clients. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimit {
    /// Bytes at which the client is disconnected at once.
    pub hard: u64,
    /// Bytes at which it is disconnected after a while.
    pub soft: u64,
    /// That while.
    pub soft_for: Duration,
}

/// What a server writes to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persistence {
    /// `save`: when it writes a snapshot. Empty for never.
    pub save: Reading<String>,
    /// Whether it keeps an append-only file.
    pub append_only: Reading<bool>,
    /// Whether the last snapshot and the last write to the file worked; else it may refuse to write.
    pub last_write_ok: Reading<bool>,
}

/// A clock, compared with this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Microseconds that it is ahead; negative if it is behind.
    pub ahead_micros: i64,
    /// The true difference is at most this much larger or smaller.
    pub uncertainty: Duration,
}

/// Whether something is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// A command, as an ACL rule names it: `evalsha`, `client|list`.
    pub command: &'static str,
    /// The server's reason, if it is not.
    pub refusal: Option<String>,
}

/// What one Sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelFacts {
    /// `host:port` of the Sentinel.
    pub address: String,
    /// `host:port` of the master; none if it watches no master of this name.
    pub master: Reading<Option<String>>,
    /// What it says to `SENTINEL CKQUORUM`: whether enough Sentinels are there to replace the master.
    pub quorum: Reading<String>,
}

/// Why a Redis could not be inspected: it could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct InspectError {
    text: String,
    /// What the Sentinels say, where there are some.
    pub sentinels: Vec<SentinelFacts>,
}

/// Reaches a Redis as a node would and finds out what matters to one. It may be any server, also a replica.
///
/// Nothing is changed, except that keys and a channel of a node named `doctor` are used and removed again.
///
/// # Errors
/// If the server cannot be reached. A single question that fails is no error but an [`Unreadable`].
pub async fn inspect(url: &RedisUrl, tls: &TlsFiles, prefix: &str) -> Result<Facts, InspectError> {
    let dialer = Dialer::new(url.clone(), tls.clone())?;
    let sentinels = sentinels::read(&dialer).await;
    let dialed = match dialer.inspect().await {
        Ok(dialed) => dialed,
        Err(error) => return Err(InspectError { text: error.to_string(), sentinels }),
    };
    let address = dialed.server.address.clone();
    let reading = Box::pin(readings::read(dialed, prefix, sentinels.clone()));
    match timeout(INSPECT_TIMEOUT, reading).await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(text)) => Err(InspectError { text: format!("{address}: {text}"), sentinels }),
        Err(_) => {
            let text = format!(
                "{address}: not all questions were answered within {} s; is the server busy?",
                INSPECT_TIMEOUT.as_secs()
            );
            Err(InspectError { text, sentinels })
        }
    }
}

impl From<TlsError> for InspectError {
    fn from(error: TlsError) -> Self {
        Self { text: error.to_string(), sentinels: Vec::new() }
    }
}

impl From<&DialError> for Unreadable {
    fn from(error: &DialError) -> Self {
        Self(error.to_string())
    }
}
