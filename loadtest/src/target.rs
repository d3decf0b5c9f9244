//! The server under test, as an address: resolved once, so that no name look-up happens during a run.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::LoadError;

/// Connections from one source address. An address has 28,232 ports in the default range, but the system searches half
/// of them first: beyond 14,000 connections each further one would cost it a search of 0.2 ms.
const CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// Receive buffer of a client that never reads, in bytes: small, so that it is stuck soon. The system doubles it.
const STUCK_BUFFER_BYTES: usize = 4096;

/// A server reached by plain HTTP.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// `host:port` as given, for the `Host` field.
    pub host: String,
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
        Ok(Self { address, host: host.to_owned() })
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
    fn further_blocks_of_clients_come_from_their_own_addresses() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source_address(loopback, 0), None);
        assert_eq!(source_address(loopback, 9_999), None);
        assert_eq!(source_address(loopback, 10_000), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))));
        assert_eq!(source_address(loopback, 25_000), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 2))));
        assert_eq!(source_address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 45_000), None);
    }
}
