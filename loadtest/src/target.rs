//! The server under test, as an address: resolved once, so that no name look-up happens during a run.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::LoadError;

/// Connections from one source address. An address has 28,232 ports in the default range, but the system searches half
/// of them first: beyond 14,000 connections each further one would cost it a search of 0.2 ms.
const CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// Receive buffer of a client that never reads, in bytes: small, so that it is stuck soon. The system doubles it.
const STUCK_BUFFER_BYTES: usize = 4096;

/// The key that clients present. It is never shown.
#[derive(Clone, Default)]
pub struct Key(String);

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let is_sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
        is_sendable.then(|| Self(text.to_owned())).ok_or("it has characters that no key has")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// A server reached by plain HTTP.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// `host:port` as given, for the `Host` field.
    pub host: String,
    key: Key,
}

/// The servers of a run, at least one.
#[derive(Debug, Clone)]
pub struct Targets(Vec<Target>);

impl Targets {
    /// Reads one or more addresses, separated by commas, and resolves them. All get the same key.
    ///
    /// # Errors
    /// As [`Target::resolve`].
    pub fn resolve(urls: &str, key: Option<&Key>) -> Result<Self, LoadError> {
        let resolve = |url: &str| {
            let target = Target::resolve(url.trim())?;
            Ok(Target { key: key.cloned().unwrap_or_default(), ..target })
        };
        urls.split(',').map(resolve).collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one with this number; beyond the last it begins anew.
    #[must_use]
    pub fn at(&self, number: usize) -> &Target {
        &self.0[number % self.0.len()]
    }
}

impl Target {
    /// Reads `http://host:port` and resolves the host.
    ///
    /// # Errors
    /// If it has another form, or the host is unknown.
    pub fn resolve(url: &str) -> Result<Self, LoadError> {
        let refuse = |problem| LoadError::Usage {
            flag: "--url",
            value: url.to_owned(),
            problem,
            fix: "give the public listener, for example http://127.0.0.1:8080".to_owned(),
        };
        let host = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|host| !host.is_empty() && !host.contains('/'))
            .ok_or_else(|| refuse("not of the form http://host:port"))?;
        let with_port = if host.ends_with(']') || !host.contains(':') {
            format!("{host}:80")
        } else {
            host.to_owned()
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|_unresolved| refuse("the host is unknown or the port is no number"))?
            .next()
            .ok_or_else(|| refuse("the host has no address"))?;
        Ok(Self { address, host: host.to_owned(), key: Key::default() })
    }

    /// The fields of every request that are about this server: `Host`, and the key if there is one.
    #[must_use]
    pub fn fields(&self) -> String {
        match self.key.0.as_str() {
            "" => format!("Host: {}\r\n", self.host),
            key => format!("Host: {}\r\nAuthorization: Bearer {key}\r\n", self.host),
        }
    }

    /// Begins to connect client number `connection`; a stuck one gets a small receive buffer.
    ///
    /// # Errors
    /// If the system has no ports, descriptors or memory left.
    pub fn connect(&self, connection: usize, stuck: bool) -> Result<TcpStream, LoadError> {
        let open = || {
            let domain = Domain::for_address(self.address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            if stuck {
                socket.set_recv_buffer_size(STUCK_BUFFER_BYTES)?;
            }
            if let Some(source) = source_address(self.address.ip(), connection) {
                socket.bind(&SocketAddr::new(source, 0).into())?;
                // Ends with a reset, because a port in TIME_WAIT could not be bound again for a minute.
                socket.set_linger(Some(Duration::ZERO))?;
            }
            match socket.connect(&self.address.into()) {
                Err(error)
                    if error.kind() != ErrorKind::WouldBlock
                        && error.raw_os_error() != Some(EINPROGRESS) =>
                {
                    Err(error)
                }
                _ => Ok(TcpStream::from_std(socket.into())),
            }
        };
        open().map_err(LoadError::system(
            format!("connecting client {connection} to {}", self.address),
            "check that the server listens there and that ports and open files suffice",
        ))
    }
}

/// "In progress": the normal answer to a non-blocking connect.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// Where client `connection` comes from: each block has its own address, of which loopback has many without any set-up.
/// `None`, for the first block, leaves it to the system, which can reuse the ports of connections that closed just now.
fn source_address(server: IpAddr, connection: usize) -> Option<IpAddr> {
    let block = u8::try_from(connection / CONNECTIONS_PER_ADDRESS).unwrap_or(u8::MAX).min(254);
    (server.is_loopback() && server.is_ipv4() && block > 0)
        .then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 1, block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_refused_with_a_fix() {
        let target = Target::resolve("http://127.0.0.1:8080/").expect("an address");
        assert_eq!((target.address.port(), target.host.as_str()), (8080, "127.0.0.1:8080"));
        assert_eq!(Target::resolve("http://127.0.0.1").expect("an address").address.port(), 80);
        for wrong in
            ["127.0.0.1:8080", "https://127.0.0.1", "http://", "http://127.0.0.1:x", "http://a/b"]
        {
            let error = Target::resolve(wrong).expect_err("refused").to_string();
            assert!(error.contains("--url") && error.contains("http://127.0.0.1:8080"), "{error}");
        }
    }

    #[test]
    fn several_servers_take_turns_and_the_key_is_not_shown() {
        let key: Key = "tck_hunter2".parse().expect("a key");
        let targets = Targets::resolve("http://127.0.0.1:1, http://127.0.0.1:2", Some(&key));
        let targets = targets.expect("two addresses");
        let ports: Vec<_> = (0..3).map(|number| targets.at(number).address.port()).collect();
        assert_eq!((targets.count(), ports), (2, vec![1, 2, 1]));
        let fields = "Host: 127.0.0.1:1\r\nAuthorization: Bearer tck_hunter2\r\n";
        assert_eq!(targets.at(0).fields(), fields);
        assert!(!format!("{targets:?} {key:?}").contains("hunter2"));
        assert!("a b".parse::<Key>().is_err());
        assert!(Targets::resolve("http://127.0.0.1:1,", None).is_err());
    }

    #[test]
    fn further_blocks_of_clients_come_from_their_own_addresses() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source_address(loopback, 0), None);
        assert_eq!(source_address(loopback, 9_999), None);
        assert_eq!(source_address(loopback, 10_000), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))));
        assert_eq!(source_address(loopback, 25_000), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 2))));
        assert_eq!(source_address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 45_000), None);
    }
}
