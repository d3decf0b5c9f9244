//! Whom a request is for.

use hyper::Version;
use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::Authority;

/// What is wrong with a request that does not say it.
pub(crate) const NO_HOST: &str = "exactly one `Host` is needed, and a name or address in it";

/// Whether it says so once, with a name that can be one. A request that does not is taken differently by the proxy in
/// front. An empty one says that there is no name; before HTTP/1.1 there was no such header.
pub(crate) fn has_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (Some(_), Some(_)) => false,
    }
}
