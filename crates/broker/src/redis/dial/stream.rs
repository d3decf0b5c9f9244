//! Byte streams to a server: TCP with its options, TLS over it, Unix sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::error::{DialError, Failure, Step};
use crate::redis::address::HostPort;

/// A peer that is gone without a word is noticed after about 20 s of silence, or 10 s after the first byte that it
/// does not acknowledge. The probes of the link are quicker; this frees what they have given up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// More addresses of one name are not tried.
const ADDRESSES_MAX: usize = 8;

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Asks for the addresses of a host, never from memory.
pub(super) async fn resolve(
    server: &HostPort,
    until: Instant,
) -> Result<Vec<SocketAddr>, DialError> {
    let lookup = lookup_host((server.host.as_str(), server.port));
    let found = match timeout_at(until, lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(Failure::Resolve(error.to_string()).at(server)),
        Err(_) => return Err(Failure::TimedOut(Step::Resolve).at(server)),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Failure::Resolve("it has no address".to_owned()).at(server));
    }
    Ok(addresses)
}

/// Connects to one address of a server.
pub(super) async fn tcp(
    server: &HostPort,
    address: SocketAddr,
    tls: Option<&TlsConnector>,
    until: Instant,
) -> Result<Box<dyn Stream>, DialError> {
    let stream = match timeout_at(until, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::of_connect(&error).at(server)),
        Err(_) => return Err(Failure::TimedOut(Step::Connect).at(server)),
    };
    set_options(&stream).map_err(|error| Failure::of_connect(&error).at(server))?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => encrypt(server, stream, tls, until).await,
    }
}

async fn encrypt(
    server: &HostPort,
    stream: TcpStream,
    tls: &TlsConnector,
    until: Instant,
) -> Result<Box<dyn Stream>, DialError> {
    let name = match ServerName::try_from(server.host.clone()) {
        Ok(name) => name,
        Err(error) => return Err(Failure::Tls(error.to_string()).at(server)),
    };
    match timeout_at(until, Box::pin(tls.connect(name, stream))).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(Failure::of_tls(&error, server).at(server)),
        Err(_) => Err(Failure::TimedOut(Step::Tls).at(server)),
    }
}

/// Connects to a Unix socket.
pub(super) async fn unix(path: &Path, until: Instant) -> Result<Box<dyn Stream>, DialError> {
    match timeout_at(until, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(Failure::of_connect(&error).at(path.display())),
        Err(_) => Err(Failure::TimedOut(Step::Connect).at(path.display())),
    }
}

fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    // Requests go out in whole batches already; to wait for more would only add latency.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}
