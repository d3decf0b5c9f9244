//! Refusals, as problem documents (RFC 9457): one table says what each error code means over HTTP.
//!
//! A problem says what happened (`detail`: the place and the value) and what to do about it (`hint`). Clients act on
//! `code`, which never changes. `docs/reference/errors.md` holds the same table; a test keeps the two equal.

use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE,
};
use hyper::{Method, Response, StatusCode};
use rand::RngExt as _;
use serde::Serialize;
use tickcast_broker::{PublishError, ReadError};
use tickcast_protocol::ErrorCode;

use super::{Answer, json_body};
use crate::access::{Denied, Refusal};
use crate::node::error_code;

/// Longest `detail`, in bytes: it may quote the client, and nobody needs a megabyte back.
const DETAIL_BYTES_MAX: usize = 300;

/// Seconds after which clients are told to come back where many of them are told so at once.
const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u32> = 1..=10;

/// A request that is refused, and why.
#[derive(Debug)]
pub(crate) struct Problem {
    code: ErrorCode,
    /// As in the table, except where HTTP has a more exact one.
    status: StatusCode,
    detail: String,
    /// Instead of what the table says.
    hint: Option<&'static str>,
    /// Instead of what the table says for `Retry-After`, in seconds.
    retry_after: Option<u32>,
    /// What the status demands beyond `Retry-After`.
    header: Option<(HeaderName, &'static str)>,
}

/// What an error code means over HTTP.
struct Meaning {
    status: StatusCode,
    /// Seconds, for `Retry-After`: set where the same request may succeed later.
    retry_after: Option<u32>,
    title: &'static str,
    hint: &'static str,
}

/// The members of a problem document.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    hint: &'a str,
}

impl Problem {
    /// The problem of this code. `detail` says what is wrong with this request: the place and the value.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        let status = meaning(code).status;
        Self { code, status, detail, hint: None, retry_after: None, header: None }
    }

    /// No route has this path.
    pub(crate) fn not_found(path: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is nothing at `{path}`"))
    }

    /// The path exists, with the methods `allowed`.
    pub(crate) fn method_not_allowed(method: &Method, allowed: &'static str) -> Self {
        let detail = format!("this path takes {allowed}, and not `{method}`");
        Self { header: Some((ALLOW, allowed)), ..Self::new(ErrorCode::MethodNotAllowed, detail) }
    }

    /// A WebSocket handshake of another version than 13.
    pub(crate) fn upgrade_required() -> Self {
        Self {
            status: StatusCode::UPGRADE_REQUIRED,
            header: Some((SEC_WEBSOCKET_VERSION, "13")),
            ..Self::new(ErrorCode::BadHandshake, "`Sec-WebSocket-Version` must be given, as 13")
        }
    }

    /// A body in a content coding: a node takes bodies as they are and unpacks nothing.
    pub(crate) fn unsupported_encoding() -> Self {
        Self {
            header: Some((ACCEPT_ENCODING, "identity")),
            ..Self::new(
                ErrorCode::UnsupportedMediaType,
                "`Content-Encoding` must be `identity` or left out: send the body uncompressed",
            )
        }
    }

    /// The same, with another hint than the usual one.
    pub(crate) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The same, with another `Retry-After` than the usual one.
    pub(crate) fn after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same, with a `Retry-After` that is another one for each client, so that they do not come back together.
    pub(crate) fn after_a_while(self) -> Self {
        self.after(rand::rng().random_range(RETRY_AFTER_SECONDS))
    }

    /// What is wrong, as a stable word.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// What is wrong with this request.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer to send.
    pub(crate) fn into_response(self) -> Answer {
        let Meaning { retry_after, title, hint, .. } = meaning(self.code);
        let code = self.code.as_str();
        let document = Document {
            r#type: format!("urn:tickcast:error:{code}"),
            title,
            status: self.status.as_u16(),
            code,
            detail: &self.detail,
            hint: self.hint.unwrap_or(hint),
        };
        // Texts and a number always serialize; without a body there would still be the status.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(json_body(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after.or(retry_after) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Self::new(error_code(error), error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (denied, code) = (refusal.denied(), refusal.code());
        let problem = Self::new(code, refusal.into_message());
        match denied {
            Denied::UnknownKey | Denied::MissingKey(_) => {
                Self { header: Some((WWW_AUTHENTICATE, "Bearer")), ..problem }
            }
            Denied::RateLimited(seconds) => problem.after(seconds),
            Denied::NoRight(_) => problem,
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let code = match error {
            ReadError::Unavailable(_) => ErrorCode::BrokerUnavailable,
            ReadError::Full(_) => ErrorCode::BrokerFull,
        };
        Self::new(code, error.to_string())
    }
}

/// The table. Codes that only WebSocket replies use have a row too: there is one list of codes.
#[rustfmt::skip]
fn meaning(code: ErrorCode) -> Meaning {
    use StatusCode as S;
    let (status, retry_after, title, hint) = match code {
        ErrorCode::BadJson => (S::BAD_REQUEST, None, "Not JSON",
            "Send exactly one JSON text in UTF-8, such as {\"price\":1.5}; a text needs its quotation marks."),
        ErrorCode::BadCommand => (S::BAD_REQUEST, None, "Not the expected shape",
            "An item of a batch is {\"topic\":…,\"data\":…}, optionally with \"key\", and nothing else."),
        ErrorCode::BadTopic => (S::BAD_REQUEST, None, "Not a topic name",
            "Use 1 to 200 bytes of A-Z a-z 0-9 _ - . : / = @, such as stocks.AAPL, without an empty, `.` or `..` path segment. There are no wildcards."),
        ErrorCode::BadOption => (S::BAD_REQUEST, None, "An option has a value it cannot have",
            "Correct or remove the option that the detail names."),
        ErrorCode::BadKey => (S::BAD_REQUEST, None, "Not an idempotency key",
            "Use 1 to 128 printable ASCII characters without spaces, such as a UUID."),
        ErrorCode::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, None, "The payload is too large",
            "Send less, or raise `limits.payload_bytes`."),
        ErrorCode::BatchTooLarge => (S::PAYLOAD_TOO_LARGE, None, "The batch is too large",
            "Split the batch, or raise `limits.batch_items` or `limits.batch_bytes`."),
        ErrorCode::TooManySubscriptions => (S::BAD_REQUEST, None, "Too many subscriptions",
            "Use more connections, or raise `limits.subscriptions_per_connection`."),
        ErrorCode::Unauthorized => (S::UNAUTHORIZED, None, "No key, or a wrong one",
            "Send `Authorization: Bearer <key>`; whoever operates this node makes keys with `tickcast key new`."),
        ErrorCode::Forbidden => (S::FORBIDDEN, None, "Not allowed",
            "Ask whoever operates this node; a key has `rights` and `topics`."),
        ErrorCode::RateLimited => (S::TOO_MANY_REQUESTS, Some(1), "Too many publications",
            "Try again after `Retry-After`, or ask for a higher `rate` of the key."),
        ErrorCode::NotConfigured => (S::NOT_IMPLEMENTED, None, "Not configured",
            "The node must be configured for this first."),
        ErrorCode::NoValue => (S::NOT_FOUND, None, "The topic has no value",
            "Publish to it first; a topic with `retain_value = false` never has one."),
        ErrorCode::IdempotencyConflict => (S::CONFLICT, None, "The key was used with another body",
            "Use a new key for each publication, and the same body for each retry."),
        ErrorCode::Unavailable => (S::SERVICE_UNAVAILABLE, Some(1), "Not available now",
            "Try again, or use another node."),
        ErrorCode::Unsubscribed => (S::CONFLICT, None, "Unsubscribed meanwhile",
            "Subscribe again if the topic is still wanted."),
        ErrorCode::BrokerUnavailable => (S::SERVICE_UNAVAILABLE, Some(1), "The broker cannot be reached",
            "Nothing was done: trying again is safe."),
        ErrorCode::OutcomeUnknown => (S::SERVICE_UNAVAILABLE, Some(1), "The outcome is unknown",
            "Try again with the same `Idempotency-Key`: it publishes once at most."),
        ErrorCode::BrokerFull => (S::SERVICE_UNAVAILABLE, Some(5), "The broker is full",
            "Nothing was published. Retain less, or raise the bound that the detail names, and try again."),
        ErrorCode::NotFound => (S::NOT_FOUND, None, "No such route",
            "The routes are /v1/topics/{topic}, /v1/publish, /v1/ws and /healthz."),
        ErrorCode::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, None, "The route has other methods",
            "Use a method that `Allow` names."),
        ErrorCode::RequestTimeout => (S::REQUEST_TIMEOUT, None, "The request took too long",
            "Send the body at once, or raise `http.body_timeout`."),
        ErrorCode::BadRequest => (S::BAD_REQUEST, None, "Not a request of HTTP/1.1",
            "Use an HTTP client, or correct what the detail names."),
        ErrorCode::UriTooLong => (S::URI_TOO_LONG, None, "The path and its query are too long",
            "Name fewer topics in the URL and subscribe to the others with a command, or raise `http.uri_bytes`."),
        ErrorCode::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, None, "The body is in a form that is not taken here",
            "Send the body as it is, uncompressed."),
        ErrorCode::TooManyConnections => (S::SERVICE_UNAVAILABLE, Some(5), "Too many connections",
            "Try again, use another node, or raise `server.max_connections`."),
        ErrorCode::TooManyFromAddress => (S::TOO_MANY_REQUESTS, Some(5), "Too many connections from one address",
            "Close what is not needed and try again after `Retry-After`, or raise `limits.connections_per_address`."),
        ErrorCode::BadOrigin => (S::FORBIDDEN, None, "The origin is not allowed",
            "List it in `cors.origins` for HTTP, in `access.origins` for WebSocket."),
        ErrorCode::BadHandshake => (S::BAD_REQUEST, None, "Not a WebSocket handshake",
            "Connect with a WebSocket client, such as new WebSocket(url)."),
    };
    Meaning { status, retry_after, title, hint }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::config::Right;

    /// In the order of the documentation.
    const CODES: &[ErrorCode] = &[
        ErrorCode::BadJson,
        ErrorCode::BadCommand,
        ErrorCode::BadTopic,
        ErrorCode::BadOption,
        ErrorCode::BadKey,
        ErrorCode::TooManySubscriptions,
        ErrorCode::BadHandshake,
        ErrorCode::BadRequest,
        ErrorCode::Unauthorized,
        ErrorCode::BadOrigin,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::NoValue,
        ErrorCode::MethodNotAllowed,
        ErrorCode::RequestTimeout,
        ErrorCode::IdempotencyConflict,
        ErrorCode::Unsubscribed,
        ErrorCode::PayloadTooLarge,
        ErrorCode::BatchTooLarge,
        ErrorCode::UriTooLong,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::RateLimited,
        ErrorCode::TooManyFromAddress,
        ErrorCode::NotConfigured,
        ErrorCode::Unavailable,
        ErrorCode::BrokerUnavailable,
        ErrorCode::OutcomeUnknown,
        ErrorCode::BrokerFull,
        ErrorCode::TooManyConnections,
    ];

    fn parts(problem: Problem) -> (u16, hyper::HeaderMap, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn a_problem_document() {
        let (status, headers, document) = parts(Problem::new(ErrorCode::BadTopic, "\"x\" is bad"));
        assert_eq!(status, 400);
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(document["type"], "urn:tickcast:error:bad_topic");
        assert_eq!(document["title"], "Not a topic name");
        assert_eq!(document["status"], 400);
        assert_eq!(document["code"], "bad_topic");
        assert_eq!(document["detail"], "\"x\" is bad");
        assert!(document["hint"].as_str().unwrap().contains("stocks.AAPL"));
    }

    #[test]
    fn what_a_status_demands() {
        let check = |problem: Problem, status: u16, name: HeaderName, value: &str| {
            let (got, headers, document) = parts(problem);
            assert_eq!((got, headers[&name].to_str().unwrap()), (status, value));
            assert_eq!(document["status"], status);
        };
        check(Problem::method_not_allowed(&Method::PUT, "GET"), 405, ALLOW, "GET");
        check(Problem::upgrade_required(), 426, SEC_WEBSOCKET_VERSION, "13");
        check(Problem::unsupported_encoding(), 415, ACCEPT_ENCODING, "identity");
        check(PublishError::Unavailable.into(), 503, RETRY_AFTER, "1");
        check(PublishError::OutcomeUnknown.into(), 503, RETRY_AFTER, "1");
        check(PublishError::Full("no room").into(), 503, RETRY_AFTER, "5");
        check(Refusal::from(Denied::UnknownKey).into(), 401, WWW_AUTHENTICATE, "Bearer");
        check(
            Refusal::from(Denied::MissingKey(Right::Publish)).into(),
            401,
            WWW_AUTHENTICATE,
            "Bearer",
        );
        check(Refusal::from(Denied::RateLimited(7)).into(), 429, RETRY_AFTER, "7");
        for code in CODES {
            let (status, headers, _) = parts(Problem::new(*code, ""));
            let is_for_later = status == 503 || status == 429;
            assert_eq!(is_for_later, headers.contains_key(RETRY_AFTER), "{code:?}");
        }
    }

    #[test]
    fn a_quotation_of_the_client_is_cut_between_characters() {
        let problem = Problem::new(ErrorCode::NotFound, "\u{e4}".repeat(1000));
        assert_eq!(problem.detail().len(), DETAIL_BYTES_MAX);
        let problem = Problem::new(ErrorCode::NotFound, format!("x{}", "\u{e4}".repeat(1000)));
        assert_eq!(problem.detail().len(), DETAIL_BYTES_MAX - 1);
    }

    #[test]
    fn every_code_is_in_the_openapi_document() {
        let document = include_str!("../../../../docs/reference/openapi.yaml");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: std::collections::HashSet<&str> = document.split(|c| !is_word(c)).collect();
        for code in CODES {
            // Those two are for WebSocket commands alone.
            let is_for_http = !matches!(code, ErrorCode::NotConfigured | ErrorCode::Unsubscribed);
            assert_eq!(words.contains(code.as_str()), is_for_http, "{code:?}");
        }
    }

    /// The section of `docs/reference/errors.md`. After a change, run with `TICKCAST_BLESS=1` to write it.
    #[test]
    fn the_documentation_has_this_table() {
        assert_eq!(CODES.len(), ErrorCode::BadHandshake as usize + 1, "a code is missing above");
        let rows = CODES.iter().map(|code| {
            let Meaning { status, title, hint, .. } = meaning(*code);
            format!("| `{}` | {} | {title} | {hint} |\n", code.as_str(), status.as_str())
        });
        let rows: String = rows.collect();
        let table = format!("| code | status | meaning | what to do |\n|---|---|---|---|\n{rows}");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/errors.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once("<!-- http:begin -->\n").unwrap();
        let (current, after) = rest.split_once("<!-- http:end -->").unwrap();
        if std::env::var_os("TICKCAST_BLESS").is_some() {
            let marks = ["<!-- http:begin -->\n", "<!-- http:end -->"];
            std::fs::write(path, [before, marks[0], &table, marks[1], after].concat()).unwrap();
        } else {
            assert!(current == table, "{path} is out of date; run with TICKCAST_BLESS=1");
        }
    }
}
