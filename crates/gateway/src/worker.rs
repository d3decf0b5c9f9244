//! A worker: one thread, one runtime, and the connections that live on it.
//!
//! An accepted socket is handed here once and stays. hyper serves its HTTP requests; after an upgrade to WebSocket the
//! socket leaves hyper and tokio and joins the worker's own set, where the dispatcher finds it. Handshake, commands and
//! fan-out of a connection happen on this thread only.

pub(crate) mod core;
mod departures;
#[cfg(feature = "testing")]
mod faults;
mod floods;
mod flush;
mod panics;
mod poller;
mod rights;
pub(crate) mod session;
pub(crate) mod socket;
mod tick;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tickcast_hub::Inbox;
use tickcast_protocol::ErrorCode;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::core::Opening;
use self::core::{PublishRequest, State};
use self::poller::Poller;
use crate::api::problem::Problem;
use crate::config::ProxyProtocol;
use crate::metrics::{LATENCY_BUCKETS_MS, RejectReason, WorkerCell};
use crate::node::{Item, Node};
use crate::router;
use crate::server::{Accepted, Peer, Place, proxy_protocol, refusal};
use crate::transport::websocket::handshake;

/// Accepted sockets that may wait for their worker. Beyond it the acceptor waits, and the kernel's backlog holds the rest.
pub(crate) const ACCEPTED_MAX: usize = 1024;

/// When the end of a node is hurried, a request that is there as a whole is answered within that: the broker has a second
/// for a publication. Others are cut.
const LAST_ANSWERS: Duration = Duration::from_millis(1100);

/// How long a connection that has not asked for anything yet is kept when the node drains.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Publications whose latency waits for the end of their flush; under load without end they are counted before it.
const TAKEN_MAX: usize = 16_384;

/// What a worker is started with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) node: Arc<Node>,
    pub(crate) inbox: Arc<Inbox>,
    /// Notified when the inbox stops being empty.
    pub(crate) wake: Arc<Notify>,
    pub(crate) cell: Arc<WorkerCell>,
    pub(crate) accepted: mpsc::Receiver<Accepted>,
}

/// What a request handler reaches: the node, and the worker it runs on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) node: Arc<Node>,
    state: RefCell<State>,
    wake: Arc<Notify>,
    /// HTTP connections and upgrades under way.
    requests: TaskTracker,
    /// Cancelled when the node drains. It is the worker's own, so that its connections do not meet those of others.
    draining: CancellationToken,
}

/// Runs a worker until the node drains and its connections are gone. The thread is its own.
///
/// # Errors
/// When the runtime or the epoll set cannot be made.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(setup))
}

async fn serve(setup: Setup) -> io::Result<()> {
    let Setup { index, node, inbox, wake, cell, mut accepted } = setup;
    cell.set_thread();
    let poller = Poller::new()?;
    let state = State::new(Arc::clone(&node), index, inbox, poller.registry()?);
    let (state, requests) = (RefCell::new(state), TaskTracker::new());
    let draining = node.life.draining().child_token();
    let context = Rc::new(Context { node, state, wake, requests, draining });
    spawn_local(wake_at_each_step(Rc::clone(&context)));
    let mut dispatcher = spawn_local(dispatch(Rc::clone(&context), poller, cell));
    loop {
        let next = context.draining.run_until_cancelled(accepted.recv());
        let socket = tokio::select! {
            socket = next => socket.flatten(),
            ended = &mut dispatcher => return Err(io::Error::other(format!("a turn failed: {ended:?}"))),
        };
        let Some(accepted) = socket else { break };
        context.requests.spawn_local(serve_http(Rc::clone(&context), accepted));
    }
    accepted.close();
    // They were let in, so they are served: the load balancer may have sent them before it knew.
    while let Ok(socket) = accepted.try_recv() {
        context.requests.spawn_local(serve_http(Rc::clone(&context), socket));
    }
    context.requests.close();
    tokio::select! {
        () = context.requests.wait() => {}
        () = context.node.life.ending().cancelled() => {
            // They end with this worker, and nobody sees them after it.
            context.node.life.tally().cut.fetch_add(context.requests.len() as u64, Relaxed);
        }
    }
    context.state.borrow_mut().is_drained = true;
    context.wake.notify_one();
    dispatcher.await.map_err(io::Error::other)?
}

/// Has the dispatcher take a turn whenever the node's life goes on: a turn looks where it is.
async fn wake_at_each_step(context: Rc<Context>) {
    let life = &context.node.life;
    for step in [life.draining(), life.hurrying(), life.ending()] {
        step.cancelled().await;
        context.wake.notify_one();
    }
}

fn http_builder(node: &Node) -> http1::Builder {
    let config = node.config();
    let config = &config.http;
    let mut http = http1::Builder::new();
    // Without a timer hyper ignores the timeout.
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_header_size(config.header_bytes.bytes())
        .max_buf_size(config.header_bytes.bytes().max(64 * 1024));
    http
}

/// A connection as its requests see it.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// Who is at its other end: its own peer, or the client that a proxy names.
    pub(crate) peer: Peer,
    /// Its place. A WebSocket takes it along.
    place: RefCell<Option<Place>>,
    /// Notified when it does not take an answer in time.
    stuck: Rc<Notify>,
}

impl Visitor {
    /// Gives the client so much time until the token of its answer is cancelled: then it has taken it, or is gone.
    pub(crate) fn expect_taken(&self, taken: CancellationToken, patience: Duration) {
        let stuck = Rc::clone(&self.stuck);
        spawn_local(async move {
            if tokio::time::timeout(patience, taken.cancelled()).await.is_err() {
                stuck.notify_one();
            }
        });
    }
}

/// Serves the HTTP requests of one connection, until it ends or is upgraded.
async fn serve_http(context: Rc<Context>, accepted: Accepted) {
    let node = Arc::clone(&context.node);
    shielded(&node, pin!(serve_requests(context, accepted))).await;
}

/// Works for one connection; a panic ends no more than that.
async fn shielded(node: &Node, work: Pin<&mut impl Future<Output = ()>>) {
    if let Err(panic) = panics::catch(work).await {
        note_panic(node, &panic);
    }
}

async fn serve_requests(context: Rc<Context>, accepted: Accepted) {
    let Accepted { socket, peer, mut place } = accepted;
    let mut socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::warn!(%peer, %error, "an accepted socket could not be registered");
        }
    };
    let Some(peer) = introduced(&context.node, &mut socket, peer).await else { return };
    if !place.claim(peer, &context.node.config()) {
        context.node.metrics.count_rejected(RejectReason::Address);
        context.node.warnings.crowded_address(peer);
        return refusal::answer(&mut socket, refusal::Refusal::Address).await;
    }
    let visitor = Rc::new(Visitor { peer, place: RefCell::new(Some(place)), stuck: Rc::default() });
    let is_asked = Cell::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        is_asked.set(true);
        let (context, visitor) = (Rc::clone(&context), Rc::clone(&visitor));
        async move { Ok::<_, Infallible>(answer(context, request, visitor).await) }
    });
    let http = http_builder(&context.node);
    let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
    let mut connection = pin!(connection);
    let grace = async {
        context.draining.cancelled().await;
        // A request may be on its way in a connection that has just come, and to that the end would look like a failure.
        if !is_asked.get() {
            let hurrying = context.node.life.hurrying().cancelled();
            drop(tokio::time::timeout(FIRST_REQUEST_GRACE, hurrying).await);
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = visitor.stuck.notified() => None,
        () = grace => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection => Some(result),
                () = visitor.stuck.notified() => None,
                () = out_of_patience(&context.node) => {
                    context.node.life.tally().cut.fetch_add(1, Relaxed);
                    return tracing::debug!(%peer, "a request that came too slowly for the end of the node is cut");
                }
            }
        }
    };
    match result {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "an HTTP connection ended early"),
        None => {
            context.node.http_memory.count_cut();
            tracing::debug!(%peer, "a client that did not take its answer in time is cut");
        }
    }
}

/// Waits until a node whose end is hurried has given the requests under way the time to be answered.
async fn out_of_patience(node: &Node) {
    node.life.hurrying().cancelled().await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// Whose connection it is: its own peer, or the one that the proxy at its other end names. None if it does not say so
/// although it must: then the connection is good for nothing.
async fn introduced(node: &Node, socket: &mut TcpStream, peer: Peer) -> Option<Peer> {
    if node.config().server.proxy_protocol == ProxyProtocol::Off {
        return Some(peer);
    }
    match proxy_protocol::read(socket).await {
        Ok(client) => Some(client.unwrap_or(peer)),
        Err(error) => {
            node.reject_unproxied(peer, &error);
            None
        }
    }
}

/// Answers a request. If that panics, the answer is 500, and nothing else on this connection.
async fn answer(
    context: Rc<Context>,
    request: Request<Incoming>,
    visitor: Rc<Visitor>,
) -> Response<Full<Bytes>> {
    let node = Arc::clone(&context.node);
    let handled = pin!(async move {
        #[cfg(feature = "testing")]
        faults::strike_request(&request);
        router::handle(context, request, &visitor).await
    });
    panics::catch(handled).await.unwrap_or_else(|panic| {
        note_panic(&node, &panic);
        broken()
    })
}

fn note_panic(node: &Node, panic: &str) {
    node.metrics.count_http_panic();
    tracing::error!(panic, "serving a connection panicked; it is closed, the others go on");
}

/// The answer that a request gets when there is no telling what is wrong.
fn broken() -> Response<Full<Bytes>> {
    let text = r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#;
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // How much of the request was read is not known.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

impl Context {
    /// Answers a WebSocket upgrade and takes the socket over once the answer is out.
    ///
    /// # Errors
    /// The [`Problem`] of a handshake that breaks a rule.
    pub(crate) fn upgrade(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
        visitor: &Visitor,
        #[cfg_attr(not(feature = "testing"), expect(unused_mut, reason = "tests add to it"))]
        mut opening: Opening,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let asked = Instant::now();
        let (response, on_upgrade) = handshake::accept(&mut request)?;
        #[cfg(feature = "testing")]
        let reload = faults::AwaitReload::of(&request, &self.node);
        #[cfg(feature = "testing")]
        {
            opening.is_echo = faults::asks_for_echo(&request);
        }
        drop(request);
        let Some(mut place) = visitor.place.take() else {
            let detail = "this connection has become a WebSocket before";
            return Err(Problem::new(ErrorCode::BadHandshake, detail));
        };
        if !place.claim(opening.client, &self.node.config()) {
            // The connection is the proxy's and goes on.
            visitor.place.replace(Some(place));
            self.node.warnings.crowded_address(opening.client);
            return Err(refusal::too_many_from_address());
        }
        let context = Rc::clone(self);
        self.requests.spawn_local(async move {
            let node = Arc::clone(&context.node);
            #[cfg(feature = "testing")]
            reload.wait(&node).await;
            shielded(&node, pin!(take_over(context, on_upgrade, opening, place, asked))).await;
        });
        Ok(response.map(|()| Full::default()))
    }

    fn publish(self: &Rc<Self>, request: PublishRequest) {
        let context = Rc::clone(self);
        spawn_local(async move {
            let item = Item {
                topic: request.topic.clone(),
                data: request.data.clone(),
                key: request.key.clone(),
            };
            let answered = pin!(async {
                #[cfg(feature = "testing")]
                context
                    .state
                    .borrow_mut()
                    .faults
                    .strike(request.connection, faults::Place::Publish);
                context.node.publish(vec![item]).await.pop()
            });
            let result = panics::catch(answered).await;
            context.state.borrow_mut().published(&request, result);
            context.wake.notify_one();
        });
    }
}

/// Takes an upgraded socket out of hyper and tokio and into the worker's set.
async fn take_over(
    context: Rc<Context>,
    on_upgrade: OnUpgrade,
    opening: Opening,
    place: Place,
    asked: Instant,
) {
    let parts = match on_upgrade.await.map(Upgraded::downcast::<TokioIo<TcpStream>>) {
        Ok(Ok(Parts { io, read_buf, .. })) => {
            io.into_inner().into_std().map(|socket| (socket, read_buf.to_vec()))
        }
        Ok(Err(_)) => Err(io::Error::other("the upgraded connection is not a TCP stream")),
        Err(error) => Err(io::Error::other(error)),
    };
    let attached = parts.and_then(|(socket, early)| {
        let socket = mio::net::TcpStream::from_std(socket);
        context.state.borrow_mut().attach(socket, early, opening, place)
    });
    match attached {
        Ok(()) => {
            context.node.metrics.observe_handshake(asked.elapsed());
            context.wake.notify_one();
        }
        Err(error) => tracing::debug!(%error, "a WebSocket connection was lost in its handshake"),
    }
}

/// The worker's one loop: waits for the hub, the sockets or a timer, and takes turns until nothing is left to do.
async fn dispatch(
    context: Rc<Context>,
    mut poller: Poller,
    cell: Arc<WorkerCell>,
) -> io::Result<()> {
    let started = Instant::now();
    let mut timer = pin!(sleep_until(started));
    let mut has_more = false;
    loop {
        if !has_more {
            tokio::select! {
                () = context.wake.notified() => {}
                ready = poller.ready() => ready?,
                () = timer.as_mut() => {}
            }
        }
        // Requests that are ready now publish before the turn, so that their publications are gathered into it.
        yield_now().await;
        has_more = turn(&context, &mut poller, started)?;
        let state = &mut *context.state.borrow_mut();
        if !has_more || state.taken.len() >= TAKEN_MAX {
            observe_latency(state);
        }
        state.counters.observe_turn(started.elapsed().saturating_sub(state.now));
        state.publish_counters();
        cell.set(&state.counters);
        if state.is_finished() {
            return Ok(());
        }
        timer.as_mut().reset(next_wake(state, started));
    }
}

/// One turn: apply, read, flush a chunk; true if more waits. Between turns the runtime gets its share.
fn turn(context: &Rc<Context>, poller: &mut Poller, started: Instant) -> io::Result<bool> {
    let state = &mut *context.state.borrow_mut();
    let now = started.elapsed();
    state.begin(now);
    poller.drain(|event| state.on_event(event))?;
    // After the sockets had their say: what came while the process was held up is no silence.
    let second = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    if second != state.second {
        state.tick(second);
    }
    state.resume();
    let is_departing = state.depart();
    let is_judging = state.judge_some();
    for request in std::mem::take(&mut state.publishes) {
        context.publish(request);
    }
    // What the flush lets go on reading is read in the next turn.
    Ok(state.flush_chunk() || is_departing || is_judging || !state.resumable.is_empty())
}

/// The next time that something is due without an event: a timer of the fan-out, or the tick of the second.
fn next_wake(state: &State, started: Instant) -> Instant {
    let second = started + Duration::from_secs(u64::from(state.second) + 1);
    let due = [state.fanout.next_due(), state.departures.next_due()];
    let due = due.into_iter().flatten().min().map(|due| started + Duration::from_millis(due));
    due.map_or(second, |due| due.min(second))
}

fn observe_latency(state: &mut State) {
    if state.taken.is_empty() {
        return;
    }
    let now = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    for published in state.taken.drain(..) {
        let elapsed = now.saturating_sub(published);
        let bucket = LATENCY_BUCKETS_MS.partition_point(|bound| *bound < elapsed);
        state.counters.latency[bucket] += 1;
        state.counters.latency_sum_ms += elapsed;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
