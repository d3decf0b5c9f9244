//! The address of a gateway, as it is given on the command line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// Where a gateway is: `http://host:port` or `https://host:port`, perhaps with a path in front of `/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    /// Whether it is reached over TLS.
    pub(super) is_encrypted: bool,
    /// A name or an address; an IPv6 address stands in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or a path without the last slash.
    pub(super) base: String,
}

/// Why a text is not the address of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayUrlError {
    /// Not a URL.
    #[error("not a URL; expected for example http://127.0.0.1:8080")]
    NotUrl,
    /// Something else.
    #[error("{0}:// is not supported; use http:// or https://")]
    Scheme(String),
    /// What stands for the port is none.
    #[error(
        "`{0}` is no port; expected a number from 1 to 65535, for example http://127.0.0.1:8080"
    )]
    Port(String),
    /// A part that a gateway's address does not have, and that would be lost.
    #[error("{0} has no place in the address of a gateway; a key is given with --key")]
    Part(&'static str),
}

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    fn from_str(text: &str) -> Result<Self, GatewayUrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.contains(":/") => return Err(GatewayUrlError::NotUrl),
            None => ("http", text),
        };
        let is_encrypted = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(GatewayUrlError::Scheme(scheme.to_owned())),
        };
        let uri: Uri =
            format!("http://{rest}").parse().map_err(|_error| GatewayUrlError::NotUrl)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(GatewayUrlError::NotUrl)?;
        let lost = [
            (uri.query().is_some(), "a query"),
            (rest.contains('#'), "a fragment"),
            (rest.split('/').next().is_some_and(|authority| authority.contains('@')), "a user"),
        ];
        if let Some((_, part)) = lost.into_iter().find(|(is_there, _)| *is_there) {
            return Err(GatewayUrlError::Part(part));
        }
        let base = uri.path().trim_end_matches('/').to_owned();
        let port = match port_of(&uri, host) {
            None => {
                if is_encrypted {
                    443
                } else {
                    80
                }
            }
            // A wrong one must not become another: whoever listens there would be sent the key.
            Some(port) => match port.parse() {
                Ok(number @ 1..) => number,
                _ => return Err(GatewayUrlError::Port(port.to_owned())),
            },
        };
        Ok(Self { is_encrypted, host: host.to_owned(), port, base })
    }
}

/// What stands where the port belongs.
fn port_of<'a>(uri: &'a Uri, host: &str) -> Option<&'a str> {
    uri.authority()?.as_str().strip_prefix(host)?.strip_prefix(':')
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

impl GatewayUrl {
    /// Whether it is on this machine by its name.
    pub(super) fn is_local(&self) -> bool {
        let host = self.bare_host();
        let address = host.parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// The host without the brackets that an IPv6 address has in a URL, and nowhere else.
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine() {
        let is_local = |text: &str| text.parse::<GatewayUrl>().unwrap().is_local();
        for text in ["localhost:1", "http://127.3.0.1:1", "ws://[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_local(text), "{text}");
        }
        for text in ["example.com", "http://192.0.2.1", "[2001:db8::1]:1", "localhost.example.com"]
        {
            assert!(!is_local(text), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, GatewayUrlError>| {
            let url = text.parse::<GatewayUrl>().map(|url| url.to_string());
            assert_eq!(url, expected.map(str::to_owned), "{text}");
        };
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080"));
        check("http://example.com/", Ok("http://example.com:80"));
        check("localhost:8080", Ok("http://localhost:8080"));
        check("ws://localhost:8080", Ok("http://localhost:8080"));
        check("http://[::1]:8080/tickers/", Ok("http://[::1]:8080/tickers"));
        check("https://example.com", Ok("https://example.com:443"));
        check("wss://example.com:8443/a", Ok("https://example.com:8443/a"));
        check("ftp://example.com", Err(GatewayUrlError::Scheme("ftp".to_owned())));
        check("HTTPS://example.com", Ok("https://example.com:443"));
        for port in ["184800", "65536", "99999", "80a", "-1", "0", ""] {
            for host in ["http://127.0.0.1", "wss://[::1]", "example.com"] {
                let text = format!("{host}:{port}");
                check(&text, Err(GatewayUrlError::Port(port.to_owned())));
            }
        }
        check("http://a?x=1", Err(GatewayUrlError::Part("a query")));
        check("http://a/b#c", Err(GatewayUrlError::Part("a fragment")));
        check("http://user:secret@a", Err(GatewayUrlError::Part("a user")));
        for bad in ["", "http://", "http://a b", "https://", "http:/127.0.0.1:80"] {
            check(bad, Err(GatewayUrlError::NotUrl));
        }
    }
}
