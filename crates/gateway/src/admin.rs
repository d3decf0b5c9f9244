//! The admin listener: metrics, health, and what an operator does to a node, on a port of its own.
//!
//! It runs on the main runtime, so a worker that is busy does not delay it. A request has one connection and one answer,
//! within a time bound: whatever connects here (a scraper, a probe, something lost) can neither hold a place for long
//! nor take more of them than there are.

mod actions;
mod crowd;
mod door;
mod health;
mod spare;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tickcast_protocol::ErrorCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::crowd::{Asked, Crowd};
use self::health::Purpose;
use self::spare::Spare;
use crate::api::json_body;
use crate::api::problem::Problem;
use crate::node::Node;
use crate::server::Peer;

/// Time for a request's header to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for everything: the header, the answer, and the client taking it. A scrape takes milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a connection on the one spare file, which the next is waiting for.
const SPARE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after an accept that failed, for example because all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the routes of an operator begin with. The others are open to whoever reaches the listener.
const ADMIN: &str = "/admin/";

/// What the hint of the public listener would not say.
const ROUTES: &str = "The routes here are /metrics, /livez, /readyz, /admin/status, /admin/drain and /admin/reload. The API is at `server.listen`.";

type Answer = Response<Full<Bytes>>;

/// Serves the admin listener until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, node: Arc<Node>, stop: CancellationToken) {
    let mut crowd = Crowd::default();
    let mut spare = Spare::new(&listener);
    loop {
        let has_room = crowd.has_room();
        tokio::select! {
            // Who has made room goes before the next one comes.
            biased;
            () = stop.cancelled() => return,
            Some(()) = crowd.ended() => spare.restore(&listener),
            () = tokio::time::sleep(ACCEPT_PAUSE), if spare.is_used() => spare.restore(&listener),
            accepted = listener.accept(), if has_room => match accepted {
                Ok((socket, peer)) => {
                    let peer = Peer::from(peer.ip());
                    let timeout = if spare.is_used() { SPARE_TIMEOUT } else { CONNECTION_TIMEOUT };
                    let node = Arc::clone(&node);
                    crowd.enter(|asked| serve_connection(socket, peer, node, (timeout, asked)));
                }
                Err(error) if spare::is_lack_of_files(&error) => {
                    node.connections.note_lack_of_files();
                    if !spare.give_up() {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        spare.restore(&listener);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed; trying again in 100 ms");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_connection(
    socket: TcpStream,
    peer: Peer,
    node: Arc<Node>,
    (timeout, asked): (Duration, Asked),
) {
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Relaxed);
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&node, peer, &request).await) }
    });
    let connection = http1::Builder::new()
        // Without a timer hyper ignores the timeout.
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(_elapsed) => tracing::debug!("an admin connection took too long"),
    }
}

/// Answers a request. hyper leaves the body of an answer to HEAD out and keeps its length.
async fn answer(node: &Arc<Node>, peer: Peer, request: &Request<Incoming>) -> Answer {
    let (method, uri) = (request.method(), request.uri());
    let path = uri.path();
    let operator = path
        .starts_with(ADMIN)
        .then(|| door::authorize(node, peer, uri, request.headers()))
        .transpose();
    let operator = match operator {
        Ok(operator) => operator,
        Err(problem) => return problem.into_response(),
    };
    let is_action = match path {
        "/metrics" | "/livez" | "/readyz" | "/admin/status" => false,
        "/admin/drain" | "/admin/reload" => true,
        _ => return Problem::not_found(path).with_hint(ROUTES).into_response(),
    };
    let (is_right, allowed) = match is_action {
        true => (method == Method::POST, "POST"),
        false => (method == Method::GET || method == Method::HEAD, "GET, HEAD"),
    };
    if !is_right {
        return Problem::method_not_allowed(method, allowed).into_response();
    }
    match (path, operator) {
        ("/metrics", _) => metrics(Arc::clone(node)).await,
        ("/livez", _) => health::alive(node),
        ("/readyz", _) => ready(node, uri.query()),
        ("/admin/drain", Some(operator)) => actions::drain(node, &operator),
        ("/admin/reload", Some(_)) => actions::reload(node).await,
        _ => actions::status(node),
    }
}

/// The metrics. Reading them asks the operating system about every open file on older kernels, so it is done beside the
/// runtime that accepts connections.
async fn metrics(node: Arc<Node>) -> Answer {
    let rendered = tokio::task::spawn_blocking(move || node.metrics.render(&node)).await;
    match rendered {
        Ok(Ok(text)) => with_body(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            Full::new(text.into()),
        ),
        Ok(Err(error)) => broken(&error),
        Err(error) => broken(&error),
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Answer {
    tracing::error!(error, "the metrics could not be written");
    with_body(
        StatusCode::INTERNAL_SERVER_ERROR,
        "text/plain; charset=utf-8",
        Full::new(format!("{error}\n").into()),
    )
}

fn ready(node: &Node, query: Option<&str>) -> Answer {
    let purpose = match query.unwrap_or_default() {
        "" | "for=publish" => Purpose::Publish,
        "for=subscribe" => Purpose::Subscribe,
        other => {
            let detail =
                format!("`?{other}` is not known here; `?for=` is `publish` or `subscribe`");
            return Problem::new(ErrorCode::BadOption, detail).into_response();
        }
    };
    let report = health::report(node, purpose);
    let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Words and truth values always serialize; the status says it without a body too.
    json(status, serde_json::to_vec(&report).unwrap_or_default())
}

fn json(status: StatusCode, text: Vec<u8>) -> Answer {
    with_body(status, "application/json", json_body(text))
}

fn with_body(status: StatusCode, content_type: &'static str, body: Full<Bytes>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // All of it is true only now.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
