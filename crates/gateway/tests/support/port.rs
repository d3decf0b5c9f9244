//! A port of one's own, for servers that end and come back on it.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// A port of the loopback address that nobody else is given as long as this lives.
///
/// It is bound but does not listen. Whoever binds with `SO_REUSEADDR` can listen on it; while nobody does, connections
/// are refused.
#[derive(Debug)]
pub(crate) struct Port {
    _guard: Socket,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn free() -> Self {
        let guard = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        guard.set_reuse_address(true).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        guard.bind(&any.into()).expect("a free port");
        let address = guard.local_addr().ok().and_then(|address| address.as_socket());
        Self { _guard: guard, address: address.expect("an address of IPv4") }
    }
}
