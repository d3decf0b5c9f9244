//! The opening handshake (RFC 6455, section 4.2): the checks, and the 101 response.

use fastwebsockets::upgrade;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, Version};
use tickcast_protocol::ErrorCode;

use crate::api::host::{NO_HOST, has_host};
use crate::api::problem::Problem;

/// The client protocol; also what a client that names none gets.
pub(crate) const PROTOCOL: &str = "tickcast.v1";

/// Checks an upgrade request and makes the 101 response; the socket comes through the [`OnUpgrade`] after that.
///
/// Extensions are declined by not naming them: an offer of permessage-deflate is answered without it.
///
/// # Errors
/// A [`Problem`] that names the header at fault; 426 for another version of the protocol.
pub(crate) fn accept(
    request: &mut Request<Incoming>,
) -> Result<(Response<()>, OnUpgrade), Problem> {
    check(request.method(), request.version(), request.headers())?;
    let protocol = choose_protocol(request.headers())?;
    // Taken before the crate does it: its own future would wrap the socket into its reader.
    let on_upgrade = hyper::upgrade::on(&mut *request);
    let (response, _upgraded) = upgrade::upgrade(request)
        .map_err(|error| bad(&format!("the handshake was refused: {error}")))?;
    let (mut parts, _body) = response.into_parts();
    if let Some(protocol) = protocol {
        parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((Response::from_parts(parts, ()), on_upgrade))
}

fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    if method != Method::GET {
        return Err(Problem::method_not_allowed(method, "GET"));
    }
    if version != Version::HTTP_11 {
        return Err(bad("WebSocket needs HTTP/1.1"));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(bad("this is a WebSocket endpoint; `Upgrade: websocket` is missing"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad("`Connection: Upgrade` is missing"));
    }
    if !has_host(version, headers) {
        return Err(bad(NO_HOST));
    }
    match single(headers, &SEC_WEBSOCKET_VERSION) {
        Some("13") => {}
        _ => return Err(Problem::upgrade_required()),
    }
    match single(headers, &SEC_WEBSOCKET_KEY) {
        Some(key) if is_key(key) => Ok(()),
        _ => Err(bad("exactly one `Sec-WebSocket-Key` of 16 bytes in base64 is needed")),
    }
}

/// 16 bytes in base64 are 22 digits, the last of them with four low bits of zero, and `==`.
fn is_key(key: &str) -> bool {
    key.len() == 24
        && key.ends_with("==")
        && key[..22].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        && matches!(key.as_bytes()[21], b'A' | b'Q' | b'g' | b'w')
}

/// A client that offers sub-protocols must offer one that we speak; one that offers none gets it anyway.
fn choose_protocol(headers: &HeaderMap) -> Result<Option<&'static str>, Problem> {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    if tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|token| token == PROTOCOL) {
        return Ok(Some(PROTOCOL));
    }
    Err(bad("no sub-protocol in common; this node speaks `tickcast.v1`"))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(ErrorCode::BadHandshake, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    const GOOD: [(&str, &str); 5] = [
        ("host", "x"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ];

    #[test]
    fn a_good_request_passes() {
        assert!(check(&Method::GET, Version::HTTP_11, &headers(&GOOD)).is_ok());
    }

    #[test]
    fn each_header_is_needed_once() {
        for (index, (name, value)) in GOOD.iter().enumerate() {
            let mut without = GOOD.to_vec();
            without.remove(index);
            assert!(
                check(&Method::GET, Version::HTTP_11, &headers(&without)).is_err(),
                "without {name}"
            );
            if !matches!(*name, "upgrade" | "connection") {
                let mut twice = GOOD.to_vec();
                twice.push((name, value));
                assert!(
                    check(&Method::GET, Version::HTTP_11, &headers(&twice)).is_err(),
                    "two {name}"
                );
            }
        }
        assert!(check(&Method::GET, Version::HTTP_10, &headers(&GOOD)).is_err());
        assert!(check(&Method::POST, Version::HTTP_11, &headers(&GOOD)).is_err());
    }

    #[test]
    fn keys() {
        assert!(is_key("x3JJHMbDL1EzLkh9GBhXDw=="));
        for key in
            ["", "x3JJHMbDL1EzLkh9GBhXDw", "x3JJHMbDL1EzLkh9GBhXDx==", "x3JJHMbDL1EzLkh9GBhX-w=="]
        {
            assert!(!is_key(key), "{key}");
        }
    }

    #[test]
    fn sub_protocols() {
        let choose = |value: &str| choose_protocol(&headers(&[("sec-websocket-protocol", value)]));
        assert_eq!(choose_protocol(&headers(&[])).unwrap(), None);
        assert_eq!(choose("tickcast.v1").unwrap(), Some(PROTOCOL));
        assert_eq!(choose("graphql-ws, tickcast.v1").unwrap(), Some(PROTOCOL));
        assert!(choose("graphql-ws").is_err());
        assert!(choose("").is_err());
    }
}
