//! Why a dial failed, in one line that tells an operator what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use rustls::{AlertDescription, CertificateError};

use super::tls::{SETTING_CA, SETTING_CERTIFICATE, TlsError};
use crate::redis::address::HostPort;

type SharedError = Arc<dyn Error + Send + Sync>;

/// Why no connection came about, and with whom.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {failure}")]
pub(crate) struct DialError {
    /// The server or Sentinel that was dialled; the URL where it did not come to that.
    pub(crate) address: String,
    pub(crate) failure: Failure,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Files(TlsError),
    #[error("the name cannot be resolved ({0}); check the host in `broker.redis.url` and the DNS")]
    Resolve(String),
    #[error("nothing listens there; is Redis running, and is `broker.redis.url` right?")]
    Refused,
    #[error("it cannot be reached ({0}); check `broker.redis.url`, the network and firewalls")]
    Unreachable(String),
    #[error("nothing came of {0} in time; {hint}", hint = .0.hint())]
    TimedOut(Step),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error(
        "it closed the connection; is this its TLS port (then write rediss://), or a proxy that has no Redis?"
    )]
    Closed,
    #[error("it asks for a password; put it into `broker.redis.url`: redis://user:password@host")]
    NoCredentials,
    #[error("it refuses the credentials ({0}); check user and password in `broker.redis.url`")]
    Credentials(String),
    #[error("the user may not do what is needed ({0}); allow it with ACL SETUSER")]
    Forbidden(String),
    #[error("the database cannot be used ({0}); check the number at the end of `broker.redis.url`")]
    Database(String),
    #[error(
        "it has as many clients as it takes; raise its `maxclients`, or see who they are: CLIENT LIST"
    )]
    MaxClients,
    #[error(
        "it is in protected mode, which takes only clients of its own machine; give it a password"
    )]
    ProtectedMode,
    #[error(
        "it does not speak Redis' protocol; check `broker.redis.url` (a TLS port needs rediss://)"
    )]
    NotRedis,
    #[error("it is Redis {0}; 6.2 or later is needed")]
    TooOld(String),
    #[error("it is a Sentinel; write redis+sentinel://host:26379/name-of-the-master")]
    Sentinel,
    #[error(
        "it is in cluster mode, which is not supported; name a Redis that is not, or Sentinels"
    )]
    Cluster,
    #[error(
        "it is a replica{0}; the master is needed: name it, or Sentinels, in `broker.redis.url`"
    )]
    NotMaster(String),
    #[error("it is still loading its data")]
    Loading,
    #[error(
        "it does not say which data it holds (no master_replid in INFO replication); use a real Redis"
    )]
    NoIdentity,
    #[error("no Sentinel answered: {0}")]
    NoSentinel(String),
    #[error("the Sentinels watch no master of this name; check it in `broker.redis.url`: …/name")]
    UnknownMaster,
    #[error("it answered: {0}")]
    Other(String),
}

/// What a dial was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Files,
    Resolve,
    Connect,
    Tls,
    Hello,
}

impl Step {
    fn hint(self) -> &'static str {
        match self {
            Self::Files => "is their file system reachable?",
            Self::Resolve => "check the DNS",
            Self::Connect => "check the host in `broker.redis.url`, the network and firewalls",
            Self::Tls => "if the port is not one for TLS, write redis:// for rediss://",
            Self::Hello => "is it a Redis, and is it stopped or busy?",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "reading the certificate files",
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Tls => "the TLS handshake",
            Self::Hello => "the greeting",
        })
    }
}

impl DialError {
    /// Whether nothing was heard of the server, so that any other error says more.
    pub(super) fn is_silent(&self) -> bool {
        matches!(
            self.failure,
            Failure::Resolve(_)
                | Failure::Refused
                | Failure::Unreachable(_)
                | Failure::TimedOut(Step::Resolve | Step::Connect)
        )
    }
}

impl Failure {
    pub(crate) fn at(self, address: impl fmt::Display) -> DialError {
        DialError { address: address.to_string(), failure: self }
    }

    /// A server that took the connection and then said nothing.
    pub(crate) fn no_reply() -> Self {
        Self::TimedOut(Step::Hello)
    }

    /// Of connecting.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            _ => Self::Unreachable(error.to_string()),
        }
    }

    /// Of the TLS handshake, or of reading and writing after it.
    pub(super) fn of_tls(error: &io::Error, server: &HostPort) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(error) => Self::Tls(tls_text(error, server)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Tls(
                "it closed the connection; if the port is not one for TLS, write redis:// for rediss://"
                    .to_owned(),
            ),
            None => Self::Tls(error.to_string()),
        }
    }

    /// Of the greeting, and of the commands after it.
    pub(crate) fn of_reply(error: &RedisError, server: Option<&HostPort>) -> Self {
        let detail = error.detail().unwrap_or_default();
        match error.kind() {
            ErrorKind::Io => Self::of_io(error, server),
            ErrorKind::Parse => Self::NotRedis,
            ErrorKind::RESP3NotSupported => Self::TooOld("before 6.0".to_owned()),
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Self::Loading,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Forbidden(detail.to_owned()),
            ErrorKind::Server(ServerErrorKind::ResponseError) => Self::of_response(error, detail),
            _ => match error.code() {
                Some("NOAUTH") => Self::NoCredentials,
                Some("WRONGPASS") => Self::Credentials(detail.to_owned()),
                Some("DENIED") => Self::ProtectedMode,
                Some("NOPROTO") => Self::TooOld("without RESP3".to_owned()),
                _ => Self::Other(said(error)),
            },
        }
    }

    fn of_response(error: &RedisError, detail: &str) -> Self {
        let detail_lower = detail.to_ascii_lowercase();
        if detail_lower.contains("max number of clients") {
            Self::MaxClients
        } else if error.to_string().contains("refused to switch database") {
            Self::Database(detail.to_owned())
        } else if detail_lower.starts_with("unknown command") && detail_lower.contains("hello") {
            Self::TooOld("before 6.0, or HELLO is renamed".to_owned())
        } else if detail_lower.starts_with("unknown command") {
            Self::Forbidden(format!("{detail}: it is renamed or removed"))
        } else if detail_lower.contains("auth") || detail_lower.contains("password") {
            Self::Credentials(detail.to_owned())
        } else {
            Self::Other(said(error))
        }
    }

    fn of_io(error: &RedisError, server: Option<&HostPort>) -> Self {
        // The library keeps the error in an `Arc`, and hands out that one.
        let shared = error.source().and_then(|source| source.downcast_ref::<SharedError>());
        let io = shared.and_then(|shared| shared.downcast_ref::<io::Error>());
        match (io, server) {
            (Some(io), Some(server)) if is_of_tls(io) => Self::of_tls(io, server),
            _ => Self::Closed,
        }
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
}

fn tls_text(error: &rustls::Error, server: &HostPort) -> String {
    match error {
        // A bad signature: the authority's name is known, but it has another key, as when it was made anew.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => format!(
            "its certificate is not signed by an authority that is trusted; put the authority's certificate into `{SETTING_CA}`"
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "its certificate is for another name than `{}`; name it as the certificate does (with Sentinel: `resolve-hostnames` and `announce-hostnames`)",
            server.host
        ),
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS; write redis:// for rediss://, or name its TLS port".to_owned()
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => format!("it asks for a certificate of the client; set `{SETTING_CERTIFICATE}`"),
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => format!("it refuses the certificate in `{SETTING_CERTIFICATE}` ({error})"),
        _ => one_line(&error.to_string()),
    }
}

/// What the server said, rather than the library's words for it.
pub(crate) fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => one_line(&format!("{code} {detail}")),
        (Some(code), None) => one_line(code),
        _ => one_line(&error.to_string()),
    }
}

/// What a foreign server says goes into a log line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
