//! Every route of the public listener, in one place: path and method in, answer out.
//!
//! The worker calls [`handle`] for each request of its HTTP connections. What holds for all answers is done here once:
//! problems become documents, pages get their CORS headers, connections that cannot go on say so, and each request is
//! counted. What a route does is in [`api`](crate::api).

use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use tickcast_protocol::ErrorCode;

use crate::access;
use crate::api::cors::Grant;
use crate::api::held::Held;
use crate::api::host::{NO_HOST, has_host};
use crate::api::problem::Problem;
use crate::api::upload::Upload;
use crate::api::websocket::Foreign;
use crate::api::{Answer, batch, health, publish, topic, websocket};
use crate::metrics::RejectReason;
use crate::node::Node;
use crate::server::Peer;
use crate::worker::{Context, Opening, Visitor};

/// The rest of the path is the topic.
const TOPICS: &str = "/v1/topics/";
const PUBLISH: &str = "/v1/publish";
const WEBSOCKET: &str = "/v1/ws";
const HEALTH: &str = "/healthz";

/// What a request is about, for the metrics: few words, whatever clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// `POST /v1/topics/{topic}`
    Publish,
    /// `/v1/publish`
    PublishBatch,
    /// `/v1/topics/{topic}`, other methods
    Topic,
    /// `/v1/ws`
    WebSocket,
    /// `/healthz`
    Health,
    /// `OPTIONS`, any path
    Options,
    /// Any other path
    Other,
}

impl Route {
    /// All of them, so that each has its metrics from the start.
    pub(crate) const ALL: [Self; 7] = [
        Self::Publish,
        Self::PublishBatch,
        Self::Topic,
        Self::WebSocket,
        Self::Health,
        Self::Options,
        Self::Other,
    ];

    /// The word of the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::PublishBatch => "publish_batch",
            Self::Topic => "topic",
            Self::WebSocket => "ws",
            Self::Health => "healthz",
            Self::Options => "options",
            Self::Other => "other",
        }
    }

    fn of(method: &Method, path: &str) -> Self {
        if method == Method::OPTIONS {
            return Self::Options;
        }
        match path {
            _ if path.starts_with(TOPICS) && method == Method::POST => Self::Publish,
            _ if path.starts_with(TOPICS) => Self::Topic,
            PUBLISH => Self::PublishBatch,
            WEBSOCKET => Self::WebSocket,
            HEALTH => Self::Health,
            _ => Self::Other,
        }
    }
}

/// The methods of a path, for `Allow`; none if there is nothing.
fn allowed_methods(path: &str) -> Option<&'static str> {
    match path {
        _ if path.starts_with(TOPICS) => Some("GET, HEAD, POST, OPTIONS"),
        PUBLISH => Some("POST, OPTIONS"),
        WEBSOCKET => Some("GET, OPTIONS"),
        HEALTH => Some("GET, HEAD, OPTIONS"),
        _ => None,
    }
}

/// Answers a request of a visitor.
pub(crate) async fn handle(
    context: Rc<Context>,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Answer {
    let started = Instant::now();
    let node = &context.node;
    let method = request.method().clone();
    let route = Route::of(&method, request.uri().path());
    let grant = Grant::of(&node.config().cors.origins, request.headers());
    let client = visitor.peer.of_request(&node.config(), request.headers());

    let is_handshake = route == Route::WebSocket && method == Method::GET;
    let checked = check(node, &request, is_handshake);

    let mut answer = if is_handshake {
        let answer = checked.and_then(|()| upgrade(&context, request, visitor, client));
        answer.unwrap_or_else(|problem| {
            node.metrics.count_rejected(reject_reason(problem.code()));
            problem.into_response()
        })
    } else {
        let (parts, body) = request.into_parts();
        let share = node.http_memory.share(Held::Request, node.config().http_memory());
        let mut upload = Upload::new(body).within(share);
        let answer = match checked {
            Ok(()) => dispatch(node, client, &parts, &mut upload, &grant).await,
            Err(problem) => Err(problem),
        };
        let answer = answer.unwrap_or_else(Problem::into_response);
        let (mut answer, taken) = node.http_memory.guard(answer, node.config().http_memory());
        if let Some(taken) = taken {
            visitor.expect_taken(taken, node.config().http.answer_timeout);
        }
        if !upload.is_done() {
            // What the client still sends would be taken for its next request.
            close(answer.headers_mut());
        }
        answer
    };

    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        grant.apply(answer.headers_mut());
        if node.is_leaving() {
            close(answer.headers_mut());
        }
    }
    let status = answer.status();
    if matches!(status.as_u16(), 401 | 403 | 429) {
        tracing::debug!(%client, route = route.as_str(), status = status.as_u16(), "a request was refused");
    }
    node.metrics.observe_request(route, &method, status, started.elapsed());
    answer
}

/// What holds for requests on all routes, beyond what hyper checks: that it says whom it is for, and how long it may be.
///
/// A handshake has rules of its own about `Host`, and words of its own for who breaks them.
fn check<B>(node: &Node, request: &Request<B>, is_handshake: bool) -> Result<(), Problem> {
    let length = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let most = node.config().http.uri_bytes.bytes();
    if length > most {
        let detail =
            format!("the path with its query has {length} bytes; at most {most} are taken");
        return Err(Problem::new(ErrorCode::UriTooLong, detail));
    }
    if is_handshake || has_host(request.version(), request.headers()) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::BadRequest, NO_HOST))
}

/// Hands a WebSocket over to the worker, with the subscriptions of its URL.
fn upgrade(
    context: &Rc<Context>,
    request: Request<Incoming>,
    visitor: &Visitor,
    client: Peer,
) -> Result<Answer, Problem> {
    let config = context.node.config();
    if let Err(Foreign(origin)) = websocket::check_origin(&config.access.origins, request.headers())
    {
        context.node.warnings.foreign_origin(&origin, client);
        return Err(Foreign(origin).into());
    }
    let topics_max = config.limits.subscriptions_per_connection;
    let who = access::of_handshake(&context.node, client, request.headers())?;
    let topics = websocket::read_subscriptions(request.uri().query(), topics_max)?;
    context.upgrade(request, visitor, Opening::new(topics, who, client))
}

/// Why a request for a WebSocket was refused, for the metrics.
fn reject_reason(code: ErrorCode) -> RejectReason {
    match code {
        ErrorCode::BadOrigin => RejectReason::Origin,
        ErrorCode::Unauthorized | ErrorCode::Forbidden => RejectReason::Auth,
        ErrorCode::TooManyFromAddress => RejectReason::Address,
        _ => RejectReason::BadHandshake,
    }
}

async fn dispatch(
    node: &Node,
    client: Peer,
    parts: &Parts,
    upload: &mut Upload<Incoming>,
    grant: &Grant,
) -> Result<Answer, Problem> {
    let path = parts.uri.path();
    let raw_topic = path.strip_prefix(TOPICS).unwrap_or_default();
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    let is_post = parts.method == Method::POST;
    if is_post && grant.is_refused() {
        return Err(foreign_page(&parts.headers));
    }
    match Route::of(&parts.method, path) {
        Route::Publish => publish::publish(node, client, raw_topic, parts, upload).await,
        Route::PublishBatch if is_post => batch::publish(node, client, parts, upload).await,
        // hyper leaves the body of an answer to HEAD out and keeps its length.
        Route::Topic if is_read => topic::read(node, client, raw_topic, parts).await,
        Route::Health if is_read => health::check(node),
        Route::Options => Ok(options(path, grant)),
        _ => Err(match allowed_methods(path) {
            Some(allowed) => Problem::method_not_allowed(&parts.method, allowed),
            None => Problem::not_found(path),
        }),
    }
}

fn foreign_page(headers: &HeaderMap) -> Problem {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    let origin = String::from_utf8_lossy(origin);
    Problem::new(ErrorCode::BadOrigin, format!("pages of `{origin}` may not publish here"))
}

/// `OPTIONS` is answered everywhere: a browser's preflight must not fail for another reason than its origin.
fn options(path: &str, grant: &Grant) -> Answer {
    let mut answer = grant.preflight();
    if let Some(allowed) = allowed_methods(path) {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    answer
}

fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let check = |method: Method, path: &str, route: Route, allowed: Option<&str>| {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
            assert_eq!(allowed_methods(path), allowed, "{method} {path}");
        };
        let topic = Some("GET, HEAD, POST, OPTIONS");
        check(Method::POST, "/v1/topics/a", Route::Publish, topic);
        check(Method::GET, "/v1/topics/a/b", Route::Topic, topic);
        check(Method::PUT, "/v1/topics/", Route::Topic, topic);
        check(Method::POST, "/v1/publish", Route::PublishBatch, Some("POST, OPTIONS"));
        check(Method::GET, "/v1/publish", Route::PublishBatch, Some("POST, OPTIONS"));
        check(Method::GET, "/v1/ws", Route::WebSocket, Some("GET, OPTIONS"));
        check(Method::HEAD, "/healthz", Route::Health, Some("GET, HEAD, OPTIONS"));
        check(Method::OPTIONS, "/v1/topics/a", Route::Options, topic);
        for path in
            ["", "*", "/", "/v1", "/v1/topics", "/v1/publish/", "/v1/WS", "//v1/ws", "/v2/ws"]
        {
            check(Method::GET, path, Route::Other, None);
            check(Method::OPTIONS, path, Route::Options, None);
        }
    }

    /// Their methods and answers are held against it by `tests/docs`.
    #[test]
    fn every_route_is_in_the_openapi_document() {
        let document = include_str!("../../../docs/reference/openapi.yaml");
        for route in Route::ALL {
            let path = match route {
                Route::Publish | Route::Topic => "/v1/topics/{topic}",
                Route::PublishBatch => PUBLISH,
                Route::WebSocket => WEBSOCKET,
                Route::Health => HEALTH,
                Route::Options | Route::Other => continue,
            };
            assert!(document.contains(&format!("\n  {path}:\n")), "{path}");
        }
    }

    #[test]
    fn labels_are_different() {
        let labels: std::collections::HashSet<_> =
            Route::ALL.iter().map(|route| route.as_str()).collect();
        assert_eq!(labels.len(), Route::ALL.len());
        assert_eq!(Route::ALL.len(), Route::Other as usize + 1);
    }
}
