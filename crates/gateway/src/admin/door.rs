//! Who may use the routes under `/admin/`.
//!
//! On a loopback address they are open to whoever is on the machine, except to pages: a browser there runs the scripts of
//! strangers. Such a page sends an `Origin`, or, if it pretends to be of the listener's own origin by a name that was
//! made to point here, a `Host` that is a name.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use tickcast_protocol::ErrorCode;

use crate::access::{self, Asker, Key};
use crate::api::problem::Problem;
use crate::node::Node;
use crate::server::Peer;

/// Who acts as operator.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) client: Peer,
    /// None where none is needed.
    pub(super) key: Option<Arc<Key>>,
}

/// Whether a request to the admin listener may act as operator, and who that is. It comes through a connection of `peer`.
///
/// # Errors
/// 401 or 403, as a [`Problem`].
pub(super) fn authorize(
    node: &Node,
    peer: Peer,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Operator, Problem> {
    if headers.contains_key(ORIGIN) {
        return Err(forbidden("pages may not do this: the request has an `Origin`"));
    }
    let config = node.config();
    let client = peer.of_request(&config, headers);
    let who = access::of_request(node, client, headers)?;
    let is_loopback = config.server.admin_listen.ip().to_canonical().is_loopback();
    if who.is_none() && is_loopback && !is_addressed_plainly(uri, headers) {
        return Err(forbidden("without a key, `Host` must be an IP address or `localhost`"));
    }
    let allowed = node.access.current().may_administer(who.as_deref(), is_loopback);
    let asker = Asker::of_request(client, headers);
    allowed.map_err(|denied| denied.noted(node, asker, who.as_deref(), None))?;
    Ok(Operator { client, key: who })
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(ErrorCode::Forbidden, detail)
}

/// Whether the request names the listener by an address, or by the one name that nobody can point elsewhere.
fn is_addressed_plainly(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).into_iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = Authority::try_from(HeaderValue::as_bytes(host));
    let in_uri = uri.authority().is_none_or(is_plain);
    in_uri && host.is_ok_and(|host| is_plain(&host))
}

fn is_plain(authority: &Authority) -> bool {
    let host = authority.host();
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    };
    let is_local = is_address || host.eq_ignore_ascii_case("localhost");
    is_local && !authority.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let check = |uri: &str, hosts: &[&str], is_good: bool| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(is_addressed_plainly(&uri, &headers), is_good, "{uri} {hosts:?}");
        };
        for host in ["127.0.0.1", "127.0.0.1:8081", "[::1]:8081", "localhost", "LOCALHOST:1"] {
            check("/admin/drain", &[host], true);
        }
        for host in ["", "evil.example", "evil.example:8081", "127.0.0.1.evil.example", "[::1"] {
            check("/admin/drain", &[host], false);
        }
        check("/admin/drain", &["localhost.evil.example"], false);
        check("/admin/drain", &["evil.example@localhost"], false);
        check("/admin/drain", &[], false);
        check("/admin/drain", &["localhost", "localhost"], false);
        check("http://evil.example/admin/drain", &["localhost"], false);
        check("http://localhost:8081/admin/drain", &["localhost"], true);
    }
}
