//! Where Redis is: `redis://user:password@host:6379/0` and its relatives.
//!
//! The parser is our own. A URL crate does not know the list of hosts that Sentinel needs, accepts what an operator has
//! mistyped, and its errors repeat the text, password included. Nothing here ever shows a password.

mod parse;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where Redis is, parsed. Shown without the password.
///
/// | form | reaches |
/// |---|---|
/// | `redis://[[user]:password@]host[:6379][/db]` | one Redis |
/// | `rediss://…` | the same over TLS |
/// | `unix:///path[?db=&user=&pass=]` | one Redis through a Unix socket |
/// | `redis+sentinel://[[user]:password@]host[:26379],…/master[/db][?sentinel_user=&sentinel_password=]` | the master that Sentinels name |
/// | `rediss+sentinel://…` | the same, Redis and Sentinels over TLS |
///
/// What stands before the `@` is for Redis itself; Sentinels that ask for a password have parameters of their own.
/// Users, passwords, paths and names are percent-decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    place: Place,
    tls: bool,
    login: Option<Login>,
    database: u32,
}

/// What a URL points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One Redis, by TCP.
    Server(HostPort),
    /// One Redis, by a Unix socket.
    Socket(PathBuf),
    /// The master that these Sentinels name.
    Sentinels(Sentinels),
}

/// The Sentinels of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentinels {
    /// At least one.
    pub(crate) hosts: Vec<HostPort>,
    /// The name under which they watch the master.
    pub(crate) master: String,
    /// For the Sentinels, not for the master.
    pub(crate) login: Option<Login>,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub(crate) host: String,
    /// Never 0.
    pub(crate) port: u16,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// None for Redis' default user.
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

/// Why a text is not the address of a Redis. Never shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}; {fix}")]
pub struct AddressError {
    text: String,
    fix: String,
}

impl AddressError {
    /// What is wrong, with the value.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &str {
        &self.fix
    }
}

impl RedisUrl {
    /// Whether the connection is encrypted, so that [`TlsFiles`](super::TlsFiles) matter.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.tls
    }

    /// Whether Sentinels say where the master is.
    #[must_use]
    pub fn uses_sentinel(&self) -> bool {
        matches!(self.place, Place::Sentinels(_))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    pub(crate) fn database(&self) -> u32 {
        self.database
    }
}

impl FromStr for RedisUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse::parse(text)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.place {
            Place::Server(server) => {
                write!(f, "{scheme}://")?;
                write_login(f, self.login.as_ref())?;
                write!(f, "{server}/{}", self.database)
            }
            Place::Socket(path) => {
                write!(f, "unix://{}?db={}", Encoded::path(path), self.database)?;
                write_parameters(f, self.login.as_ref(), '&', ["user", "pass"])
            }
            Place::Sentinels(sentinels) => {
                write!(f, "{scheme}+sentinel://")?;
                write_login(f, self.login.as_ref())?;
                for (index, host) in sentinels.hosts.iter().enumerate() {
                    write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
                }
                write!(f, "/{}/{}", Encoded::name(&sentinels.master), self.database)?;
                let names = ["sentinel_user", "sentinel_password"];
                write_parameters(f, sentinels.login.as_ref(), '?', names)
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

fn write_login(f: &mut fmt::Formatter<'_>, login: Option<&Login>) -> fmt::Result {
    let Some(login) = login else { return Ok(()) };
    write!(f, "{}:***@", Encoded::name(login.user.as_deref().unwrap_or_default()))
}

fn write_parameters(
    f: &mut fmt::Formatter<'_>,
    login: Option<&Login>,
    first: char,
    [user_name, password_name]: [&str; 2],
) -> fmt::Result {
    let Some(login) = login else { return Ok(()) };
    f.write_char(first)?;
    if let Some(user) = &login.user {
        write!(f, "{user_name}={}&", Encoded::name(user))?;
    }
    write!(f, "{password_name}=***")
}

/// Percent-encodes whatever could be mistaken for a part of the URL.
struct Encoded<'a> {
    bytes: &'a [u8],
    keep_slashes: bool,
}

impl<'a> Encoded<'a> {
    fn name(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), keep_slashes: false }
    }

    fn path(path: &'a Path) -> Self {
        Self { bytes: path.as_os_str().as_encoded_bytes(), keep_slashes: true }
    }
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes {
            let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            if plain || (self.keep_slashes && *byte == b'/') {
                f.write_char(char::from(*byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
