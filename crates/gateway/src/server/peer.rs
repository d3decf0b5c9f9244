//! Who is at the other end of a connection: the client, also where a proxy stands between.
//!
//! A proxy may tell in two ways, and only a proxy that is trusted is believed: with the header of the PROXY protocol, once
//! per connection, or with `X-Forwarded-For`, in each request. What others claim about themselves is no matter.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName};

use crate::config::{Config, Network, ProxyProtocol};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a client. IPv4 is held as its mapped IPv6 address, and shown as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer(Ipv6Addr);

impl Peer {
    /// The address, IPv4 as its mapped one.
    pub(super) const fn address(self) -> Ipv6Addr {
        self.0
    }

    /// Whether it is one of the proxies that are believed.
    pub(crate) fn is_trusted(self, proxies: &[Network]) -> bool {
        proxies.iter().any(|network| network.contains(IpAddr::V6(self.0)))
    }

    /// Whose request came through this connection: what the trusted proxies say about it, else the connection's own peer.
    ///
    /// Every proxy appends the address that it was called from, so the list is read from its end: the first address
    /// that is not one of a trusted proxy is the client's, and what stands before it is the client's own claim.
    pub(crate) fn of_request(self, config: &Config, headers: &HeaderMap) -> Self {
        let server = &config.server;
        let proxies = &server.trusted_proxies;
        if server.proxy_protocol == ProxyProtocol::Required || !self.is_trusted(proxies) {
            return self;
        }
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        let mut client = self;
        for item in lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        {
            // Beyond what cannot be read nothing is known. It must not spoil what the proxies have put behind it.
            let Some(address) = read_address(item.trim_ascii()) else { break };
            client = address.into();
            if !client.is_trusted(proxies) {
                break;
            }
        }
        client
    }
}

/// An address, perhaps with a port, as some proxies write it.
fn read_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_error| with_port()).ok()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(direct: &str, lines: &[&str]) -> String {
        let mut config = Config::default();
        config.server.trusted_proxies =
            ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let direct: IpAddr = direct.parse().unwrap();
        let off = Peer::from(direct).of_request(&config, &headers).to_string();
        config.server.proxy_protocol = ProxyProtocol::Required;
        assert_eq!(Peer::from(direct).of_request(&config, &headers), Peer::from(direct));
        off
    }

    #[test]
    fn the_nearest_address_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("127.0.0.1", &["1.1.1.1, 9.9.9.9"]), "9.9.9.9", "the first is forged");
        assert_eq!(client("127.0.0.1", &["1.1.1.1, 9.9.9.9, 10.0.0.7"]), "9.9.9.9");
        assert_eq!(client("127.0.0.1", &["1.1.1.1", "9.9.9.9,10.0.0.7"]), "9.9.9.9");
        assert_eq!(client("127.0.0.1", &["10.0.0.8, 10.0.0.7"]), "10.0.0.8", "all are proxies");
        assert_eq!(client("::ffff:127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("fd00::1", &["[2001:db8::1], 9.9.9.9:80"]), "9.9.9.9");
    }

    #[test]
    fn others_are_not_believed() {
        assert_eq!(client("9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(client("127.0.0.2", &["1.1.1.1"]), "127.0.0.2");
        for nonsense in ["unknown", "", "1.1.1", "1.1.1.1 9.9.9.9", "999.1.1.1", "\u{a0}"] {
            assert_eq!(client("127.0.0.1", &[nonsense]), "127.0.0.1", "{nonsense}");
            let line = format!("1.1.1.1, {nonsense}, 10.0.0.7");
            assert_eq!(client("127.0.0.1", &[&line]), "10.0.0.7", "{nonsense}");
        }
    }
}
