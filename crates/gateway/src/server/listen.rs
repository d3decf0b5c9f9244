//! Binds a listener, and says what is in its way.

pub(crate) mod occupant;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use self::occupant::Occupant;

/// Connections that the kernel may complete before they are accepted: when a node is lost, all its clients come at once.
/// The kernel takes no more than `net.core.somaxconn`.
pub(crate) const BACKLOG: u32 = 4096;

/// One of the listeners of a node, by the ways to set its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    flag: &'static str,
    setting: &'static str,
}

pub(super) const PUBLIC: Listener = Listener { flag: "--listen", setting: "server.listen" };
pub(super) const ADMIN: Listener =
    Listener { flag: "--admin-listen", setting: "server.admin_listen" };

/// Why an address could not be bound: what is wrong, what to do, where to read on and what to run.
#[derive(Debug)]
pub struct ListenError {
    listener: Listener,
    address: SocketAddr,
    source: io::Error,
    /// Who listens there, if that can be seen.
    occupant: Option<Occupant>,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener: Listener { flag, setting }, address, source, occupant } = self;
        write!(f, "cannot listen on {address} (`{setting}`): {source}")?;
        if let Some(occupant) = occupant {
            write!(f, "; {occupant} listens there")?;
        }
        let (fix, run) = self.advice();
        write!(
            f,
            "\n  fix: {fix}, or choose another address with {flag}\n  see: docs/reference/configuration.md#server\n  run: {run}"
        )
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl ListenError {
    /// What to do about it, and a command that tells more.
    fn advice(&self) -> (&'static str, String) {
        let port = self.address.port();
        match (self.source.kind(), &self.occupant) {
            (ErrorKind::AddrInUse, Some(occupant)) if occupant.is_self() => (
                "give `server.listen` and `server.admin_listen` different ports",
                "tickcast config".to_owned(),
            ),
            (ErrorKind::AddrInUse, Some(occupant)) => {
                ("end that process", format!("ps -fp {}", occupant.pid))
            }
            (ErrorKind::AddrInUse, None) => {
                ("end the process that listens there", format!("sudo ss -ltnp 'sport = :{port}'"))
            }
            (ErrorKind::PermissionDenied, _) => (
                "let the node use ports below 1024 (AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit)",
                "sysctl net.ipv4.ip_unprivileged_port_start".to_owned(),
            ),
            (ErrorKind::AddrNotAvailable, _) => {
                ("use an address of this machine", "ip -brief address".to_owned())
            }
            _ => ("see to what the system says", "tickcast doctor".to_owned()),
        }
    }
}

/// A socket that has an address and does not listen yet. It fails where something listens there already.
pub(crate) fn bind_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Binds an address.
pub(super) fn bind(address: SocketAddr, listener: Listener) -> Result<TcpListener, ListenError> {
    let listen = || bind_socket(address)?.listen(BACKLOG);
    listen().map_err(|source| {
        let is_taken = source.kind() == ErrorKind::AddrInUse;
        let occupant = if is_taken { occupant::of(address) } else { None };
        ListenError { listener, address, source, occupant }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: ErrorKind, occupant: Option<Occupant>) -> String {
        let (listener, address) = (PUBLIC, SocketAddr::from(([127, 0, 0, 1], 80)));
        ListenError { listener, address, source: kind.into(), occupant }.to_string()
    }

    #[test]
    fn every_reason_has_its_advice() {
        for (kind, run) in [
            (ErrorKind::AddrInUse, "sudo ss -ltnp 'sport = :80'"),
            (ErrorKind::PermissionDenied, "sysctl net.ipv4.ip_unprivileged_port_start"),
            (ErrorKind::AddrNotAvailable, "ip -brief address"),
            (ErrorKind::Other, "tickcast doctor"),
        ] {
            let said = said(kind, None);
            let lines: Vec<_> = said.lines().collect();
            assert!(lines[0].starts_with("cannot listen on 127.0.0.1:80 (`server.listen`): "));
            assert!(lines[1].ends_with("or choose another address with --listen"), "{said}");
            assert_eq!(lines[3], format!("  run: {run}"));
        }
    }

    #[tokio::test]
    async fn who_listens_is_named() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), PUBLIC).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, ADMIN).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(process {}) listens there", std::process::id())),
            "{error}"
        );
        assert!(error.contains("give `server.listen` and `server.admin_listen` different ports"));
    }
}
