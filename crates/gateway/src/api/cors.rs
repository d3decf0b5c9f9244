//! Which pages may use the HTTP API from a browser (`cors.origins`).
//!
//! Two things keep others out. Without the headers given here a browser shows a page no answer of another origin. But it
//! does *send* a plain `POST` to anywhere, a node on the developer's own machine included; so a `POST` that comes from
//! a page of a foreign origin is refused as well. What is not a browser sends no `Origin` and is not concerned.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use hyper::{Response, StatusCode};

use super::Answer;

/// What pages may send beyond what needs no permission.
const REQUEST_HEADERS: &str = "content-type, idempotency-key, authorization, if-none-match";

/// What pages may see beyond what needs no permission.
const RESPONSE_HEADERS: &str = "etag, retry-after, idempotency-replayed";

/// How long a browser may remember the permission, in seconds. Browsers cut it to two hours at most.
const MAX_AGE_SECONDS: &str = "7200";

/// What the page that a request comes from may do.
#[derive(Debug, PartialEq)]
pub(crate) struct Grant {
    page: Page,
    /// Other pages may get another answer, so caches must keep them apart.
    varies: bool,
}

/// Where a request comes from.
#[derive(Debug, PartialEq)]
enum Page {
    /// No page, or one of the node's own.
    Own,
    /// Wherever it comes from, it is allowed.
    Any,
    /// A page of an origin that is listed.
    Listed(HeaderValue),
    /// A page of an origin that is not.
    Foreign,
}

impl Grant {
    /// Decides about a request by its headers.
    pub(crate) fn of(origins: &[String], headers: &HeaderMap) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            return Self { page: Page::Any, varies: false };
        }
        let page = match headers.get(ORIGIN) {
            None => Page::Own,
            Some(origin) if is_listed(origins, origin) => Page::Listed(origin.clone()),
            Some(origin) if is_own(origin, headers) => Page::Own,
            Some(_) => Page::Foreign,
        };
        Self { page, varies: !origins.is_empty() }
    }

    /// Whether the request comes from a page that may not use this API.
    pub(crate) fn is_refused(&self) -> bool {
        self.page == Page::Foreign
    }

    /// Tells the browser.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let origin = match &self.page {
            Page::Any => HeaderValue::from_static("*"),
            Page::Listed(origin) => origin.clone(),
            Page::Own | Page::Foreign => return,
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static(RESPONSE_HEADERS);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }

    /// Answers an `OPTIONS` request; [`Grant::apply`] does the rest, as for any answer.
    pub(crate) fn preflight(&self) -> Answer {
        let mut answer = Response::default();
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if matches!(self.page, Page::Any | Page::Listed(_)) {
            let headers = answer.headers_mut();
            let methods = HeaderValue::from_static("GET, HEAD, POST");
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            let request_headers = HeaderValue::from_static(REQUEST_HEADERS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, request_headers);
            let max_age = HeaderValue::from_static(MAX_AGE_SECONDS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, max_age);
        }
        answer
    }
}

/// Is the origin one of a list, or the list open to any?
pub(super) fn is_listed(origins: &[String], origin: &HeaderValue) -> bool {
    origins.iter().any(|listed| listed == "*" || listed.as_bytes() == origin.as_bytes())
}

/// A page of this very host. The scheme is not compared: in front of the node a proxy may speak TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.as_bytes();
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    matches!((authority, host), (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(origins: &[&str], origin: Option<&str>) -> Grant {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("api.example.com:8080"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        Grant::of(&origins, &headers)
    }

    #[test]
    fn who_is_refused() {
        let check = |origins: &[&str], origin: Option<&str>, is_refused: bool| {
            assert_eq!(grant(origins, origin).is_refused(), is_refused, "{origins:?} {origin:?}");
        };
        let listed = &["https://a.example"][..];
        check(&[], None, false);
        check(listed, None, false);
        check(listed, Some("https://a.example"), false);
        check(listed, Some("https://b.example"), true);
        check(listed, Some("http://a.example"), true);
        check(listed, Some("https://a.example:444"), true);
        check(listed, Some("https://a.example.evil"), true);
        check(listed, Some("null"), true);
        check(&[], Some("https://a.example"), true);
        check(&["*"], Some("https://b.example"), false);
        check(&["*"], Some("null"), false);
        check(&[], Some("http://api.example.com:8080"), false);
        check(&[], Some("https://API.example.com:8080"), false);
        check(&[], Some("http://api.example.com"), true);
        check(&[], Some("ftp://api.example.com:8080"), true);
        check(&[], Some(""), true);
    }

    #[test]
    fn what_the_browser_is_told() {
        let check = |origins: &[&str], origin: Option<&str>, allow: Option<&str>, varies: bool| {
            let grant = grant(origins, origin);
            let mut answer = grant.preflight();
            grant.apply(answer.headers_mut());
            let headers = answer.headers();
            let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!(answer.status(), 204);
            assert_eq!(text(ACCESS_CONTROL_ALLOW_ORIGIN), allow, "{origins:?} {origin:?}");
            assert_eq!(text(VARY).is_some(), varies, "{origins:?} {origin:?}");
            for name in [
                ACCESS_CONTROL_EXPOSE_HEADERS,
                ACCESS_CONTROL_ALLOW_METHODS,
                ACCESS_CONTROL_ALLOW_HEADERS,
                ACCESS_CONTROL_MAX_AGE,
            ] {
                assert_eq!(headers.contains_key(&name), allow.is_some(), "{name}");
            }
        };
        let listed = &["https://a.example"][..];
        check(&[], None, None, false);
        check(&[], Some("https://a.example"), None, false);
        check(listed, None, None, true);
        check(listed, Some("https://a.example"), Some("https://a.example"), true);
        check(listed, Some("https://b.example"), None, true);
        check(&["*"], None, Some("*"), false);
        check(&["*"], Some("https://b.example"), Some("*"), false);
    }
}
