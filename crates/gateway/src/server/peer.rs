//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The address of a client. IPv4 is held as its mapped IPv6 address, and shown as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer(Ipv6Addr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped()),
            IpAddr::V6(address) => Self(address),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_canonical().fmt(f)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
