//! The address of a gateway, as it is given on the command line.

use std::fmt;
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
}

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    fn from_str(text: &str) -> Result<Self, GatewayUrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let is_encrypted = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(GatewayUrlError::Scheme(scheme.to_owned())),
        };
        let uri: Uri =
            format!("http://{rest}").parse().map_err(|_error| GatewayUrlError::NotUrl)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(GatewayUrlError::NotUrl)?;
        if uri.query().is_some() {
            return Err(GatewayUrlError::NotUrl);
        }
        let base = uri.path().trim_end_matches('/').to_owned();
        let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        Ok(Self { is_encrypted, host: host.to_owned(), port, base })
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

impl GatewayUrl {
    /// The host without the brackets that an IPv6 address has in a URL, and nowhere else.
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for bad in ["", "http://", "http://a b", "http://a?x=1", "https://"] {
            check(bad, Err(GatewayUrlError::NotUrl));
        }
    }
}
