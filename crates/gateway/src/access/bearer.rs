//! Where a request carries its key: `Authorization: Bearer <key>`, or for pages, which cannot set headers of a WebSocket
//! handshake, the sub-protocol `bearer.<key>`. Never the URL, which ends up in logs.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};

use super::{Asker, Denied, Key, Refusal};
use crate::node::Node;
use crate::server::Peer;

/// What the sub-protocol of a key begins with.
const PROTOCOL_PREFIX: &str = "bearer.";

/// Whose key a client's request presents.
pub(crate) fn of_request(
    node: &Node,
    client: Peer,
    headers: &HeaderMap,
) -> Result<Option<Arc<Key>>, Refusal> {
    identify(node, Asker::of_request(client, headers), in_authorization(headers))
}

/// Whose key a client presents that opens a WebSocket.
pub(crate) fn of_handshake(
    node: &Node,
    client: Peer,
    headers: &HeaderMap,
) -> Result<Option<Arc<Key>>, Refusal> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    let in_protocol = offered.filter_map(|name| name.trim().strip_prefix(PROTOCOL_PREFIX));
    identify(node, Asker::of_request(client, headers), in_authorization(headers).chain(in_protocol))
}

/// The text of each `Authorization: Bearer`; one that cannot be read is empty, which is no key. Other schemes are no
/// business of ours: a proxy in front may use them for itself.
fn in_authorization(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
        const SCHEME: &[u8] = b"bearer";
        let (scheme, text) = value.as_bytes().split_at_checked(SCHEME.len())?;
        let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && matches!(text, [] | [b' ', ..]);
        is_bearer.then(|| std::str::from_utf8(text).map(str::trim).unwrap_or_default())
    })
}

/// Whether there is an `Authorization`, and none that presents a key.
pub(super) fn has_other_scheme(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) && in_authorization(headers).next().is_none()
}

/// Which of several keys is meant cannot be told, so they are none.
fn identify<'a>(
    node: &Node,
    asker: Asker,
    mut bearers: impl Iterator<Item = &'a str>,
) -> Result<Option<Arc<Key>>, Refusal> {
    let who = match (bearers.next(), bearers.next()) {
        (_, Some(_)) => Err(Denied::UnknownKey),
        (bearer, None) => node.access.current().identify(bearer),
    };
    who.map_err(|denied| denied.noted(node, asker, None, None))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn bearers() {
        let check = |values: &[&str], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(in_authorization(&headers).collect::<Vec<_>>(), expected, "{values:?}");
        };
        check(&[], &[]);
        check(&["Bearer abc"], &["abc"]);
        check(&["bearer   abc "], &["abc"]);
        check(&["BEARER a b"], &["a b"]);
        check(&["Bearer"], &[""]);
        check(&["Bearer "], &[""]);
        check(&["Basic abc", "Bearer abc"], &["abc"]);
        check(&["Bearer a", "Bearer b"], &["a", "b"]);
        check(&["Bearerabc", "abc", "", "Bea"], &[]);
    }
}
