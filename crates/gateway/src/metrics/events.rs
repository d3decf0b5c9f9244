//! Requests, publishes, handshakes and refusals, counted where they happen.
//!
//! Every series exists from the start, in arrays indexed by its labels: counting is one relaxed addition per request,
//! without a look-up, and the first event of a kind is a step from 0 to 1 that `rate()` sees.

use std::array;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::{Method, StatusCode};
use tickcast_broker::{PublishError, Published};

use super::buckets::{
    AGE_BUCKETS_S, BROKER_BUCKETS_US, Buckets, DURATION_BUCKETS_US, SIZE_BUCKETS,
};
use super::{RejectReason, label_values};
use crate::router::Route;

/// Classes of status codes. 1xx is the switch to WebSocket.
pub(super) const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const ROUTES: usize = Route::ALL.len();

label_values! {
    /// Methods that a route of this node answers, and all others together: clients may invent methods.
    pub(super) enum MethodLabel {
        Get => "GET",
        Post => "POST",
        Options => "OPTIONS",
        Other => "other",
    }
}

label_values! {
    /// How a publication was answered. The words are those of the error codes.
    pub(super) enum PublishResult {
        Accepted => "accepted",
        /// The idempotency key was known: answered as the first time, delivered once.
        Duplicate => "duplicate",
        Conflict => "idempotency_conflict",
        Unavailable => "broker_unavailable",
        Unknown => "outcome_unknown",
        Full => "broker_full",
    }
}

label_values! {
    /// Why somebody was not allowed to do something.
    pub(crate) enum AuthFailure {
        UnknownKey => "unknown_key",
        MissingKey => "missing_key",
        NoRight => "no_right",
        RateLimited => "rate_limited",
    }
}

label_values! {
    /// What a node asks its broker for.
    pub(crate) enum BrokerCall {
        Publish => "publish",
        Read => "read",
        Subscribe => "subscribe",
    }
}

impl MethodLabel {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

impl PublishResult {
    fn of(result: &Result<Published, PublishError>) -> Self {
        match result {
            Ok(Published { duplicate: false, .. }) => Self::Accepted,
            Ok(Published { duplicate: true, .. }) => Self::Duplicate,
            Err(PublishError::IdempotencyConflict) => Self::Conflict,
            Err(PublishError::Unavailable) => Self::Unavailable,
            Err(PublishError::OutcomeUnknown) => Self::Unknown,
            Err(PublishError::Full(_)) => Self::Full,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whether requests of this route can have this method: some routes are told apart by it.
fn is_likely(route: Route, method: &str) -> bool {
    match route {
        Route::Publish => method == "POST",
        Route::Topic => method != "POST" && method != "OPTIONS",
        Route::Options => method == "OPTIONS",
        Route::PublishBatch | Route::WebSocket | Route::Health | Route::Other => {
            method != "OPTIONS"
        }
    }
}

label_values! {
    /// What came of reading the configuration again.
    pub(super) enum ReloadResult {
        Success => "success",
        Failure => "failure",
    }
}

/// Readings of the configuration, that of the start included where it says so.
#[derive(Debug)]
pub(super) struct Reloads {
    counts: [AtomicU64; ReloadResult::COUNT],
    /// The last one, also the first of all, was good.
    is_good: AtomicBool,
    /// The last good one, in seconds since 1970.
    last_good: AtomicU64,
}

impl Default for Reloads {
    /// A node that has started has read a good configuration.
    fn default() -> Self {
        Self {
            counts: Default::default(),
            is_good: AtomicBool::new(true),
            last_good: AtomicU64::new(unix_seconds()),
        }
    }
}

impl Reloads {
    fn count(&self, is_good: bool) {
        let result = if is_good { ReloadResult::Success } else { ReloadResult::Failure };
        self.counts[result as usize].fetch_add(1, Relaxed);
        self.is_good.store(is_good, Relaxed);
        if is_good {
            self.last_good.store(unix_seconds(), Relaxed);
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        ReloadResult::TEXTS.iter().copied().zip(counts)
    }

    pub(super) fn is_good(&self) -> bool {
        self.is_good.load(Relaxed)
    }

    pub(super) fn last_good(&self) -> u64 {
        self.last_good.load(Relaxed)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The counters of all events.
#[derive(Debug)]
pub(super) struct Events {
    reloads: Reloads,
    rejected: [AtomicU64; RejectReason::COUNT],
    admission_waits: Buckets,
    admissions_abandoned: AtomicU64,
    http_panics: AtomicU64,
    auth_failures: [AtomicU64; AuthFailure::COUNT],
    publishes: [AtomicU64; PublishResult::COUNT],
    requests: [[[AtomicU64; CODES.len()]; MethodLabel::COUNT]; ROUTES],
    durations: [Buckets; ROUTES],
    sizes: Buckets,
    handshakes: Buckets,
    ages: Buckets,
    round_trips: Buckets,
    broker_publishes: Buckets,
    broker_errors: [AtomicU64; BrokerCall::COUNT],
}

impl Default for Events {
    fn default() -> Self {
        Self {
            reloads: Reloads::default(),
            rejected: Default::default(),
            admission_waits: Buckets::new(&DURATION_BUCKETS_US, 1e6),
            admissions_abandoned: AtomicU64::default(),
            http_panics: AtomicU64::default(),
            auth_failures: Default::default(),
            publishes: Default::default(),
            requests: Default::default(),
            durations: array::from_fn(|_| Buckets::new(&DURATION_BUCKETS_US, 1e6)),
            sizes: Buckets::new(&SIZE_BUCKETS, 1.0),
            handshakes: Buckets::new(&DURATION_BUCKETS_US, 1e6),
            ages: Buckets::new(&AGE_BUCKETS_S, 1.0),
            round_trips: Buckets::new(&DURATION_BUCKETS_US, 1e6),
            broker_publishes: Buckets::new(&BROKER_BUCKETS_US, 1e6),
            broker_errors: Default::default(),
        }
    }
}

impl Events {
    pub(super) fn count_reload(&self, is_good: bool) {
        self.reloads.count(is_good);
    }

    /// Readings of the configuration.
    pub(super) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    pub(super) fn observe_payload(&self, bytes: usize) {
        self.sizes.observe(bytes as u64);
    }

    /// Sizes of payloads, in bytes.
    pub(super) fn sizes(&self) -> &Buckets {
        &self.sizes
    }

    pub(super) fn observe_admission_wait(&self, elapsed: Duration) {
        self.admission_waits.observe(micros(elapsed));
    }

    /// Times that connections waited to be let in, in seconds.
    pub(super) fn admission_waits(&self) -> &Buckets {
        &self.admission_waits
    }

    pub(super) fn count_admission_abandoned(&self) {
        self.admissions_abandoned.fetch_add(1, Relaxed);
    }

    /// Connections whose client has not waited for its turn.
    pub(super) fn admissions_abandoned(&self) -> u64 {
        self.admissions_abandoned.load(Relaxed)
    }

    pub(super) fn observe_handshake(&self, elapsed: Duration) {
        self.handshakes.observe(micros(elapsed));
    }

    /// Durations of handshakes, in seconds.
    pub(super) fn handshakes(&self) -> &Buckets {
        &self.handshakes
    }

    pub(super) fn observe_age(&self, seconds: u32) {
        self.ages.observe(seconds.into());
    }

    /// Ages of connections at their end, in seconds.
    pub(super) fn ages(&self) -> &Buckets {
        &self.ages
    }

    pub(super) fn observe_round_trip(&self, elapsed: Duration) {
        self.round_trips.observe(micros(elapsed));
    }

    /// Times between ping and pong, in seconds.
    pub(super) fn round_trips(&self) -> &Buckets {
        &self.round_trips
    }

    pub(super) fn observe_broker_publish(&self, elapsed: Duration) {
        self.broker_publishes.observe(micros(elapsed));
    }

    /// Times that publish calls to the broker took, in seconds.
    pub(super) fn broker_publishes(&self) -> &Buckets {
        &self.broker_publishes
    }

    pub(super) fn count_broker_error(&self, call: BrokerCall) {
        self.broker_errors[call as usize].fetch_add(1, Relaxed);
    }

    /// Calls to the broker that failed, by what they were for.
    pub(super) fn broker_errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.broker_errors.iter().map(|count| count.load(Relaxed));
        BrokerCall::TEXTS.iter().copied().zip(counts)
    }

    pub(super) fn count_rejected(&self, reason: RejectReason) {
        self.rejected[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count_http_panic(&self) {
        self.http_panics.fetch_add(1, Relaxed);
    }

    pub(super) fn count_auth_failure(&self, reason: AuthFailure) {
        self.auth_failures[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count_publishes(&self, results: &[Result<Published, PublishError>]) {
        for result in results {
            self.publishes[PublishResult::of(result) as usize].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn observe_request(
        &self,
        route: Route,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) {
        // The classes begin at 1xx; what is beyond 5xx does not leave this node.
        let class = usize::from(status.as_u16() / 100).clamp(1, CODES.len()) - 1;
        self.requests[route as usize][MethodLabel::of(method) as usize][class]
            .fetch_add(1, Relaxed);
        self.durations[route as usize].observe(micros(elapsed));
    }

    /// Connections turned away, with the reason.
    pub(super) fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rejected.iter().map(|count| count.load(Relaxed));
        RejectReason::TEXTS.iter().copied().zip(counts)
    }

    /// HTTP connections that ended by a panic.
    pub(super) fn http_panics(&self) -> u64 {
        self.http_panics.load(Relaxed)
    }

    /// Refusals for want of a key or a right, with their reason.
    pub(super) fn auth_failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.auth_failures.iter().map(|count| count.load(Relaxed));
        AuthFailure::TEXTS.iter().copied().zip(counts)
    }

    /// Publications with their result.
    pub(super) fn publishes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PublishResult::TEXTS
            .iter()
            .copied()
            .zip(self.publishes.iter().map(|count| count.load(Relaxed)))
    }

    /// Requests with their route, method and class of status code. A route and a method that do not go together are
    /// left out, unless they were counted all the same.
    pub(super) fn requests(&self) -> Vec<([&'static str; 3], u64)> {
        let mut series = Vec::new();
        for (route, methods) in Route::ALL.iter().zip(&self.requests) {
            for (method, codes) in MethodLabel::TEXTS.iter().zip(methods) {
                let is_likely = is_likely(*route, method);
                let counts = CODES.iter().zip(codes);
                let counts = counts
                    .map(|(code, count)| ([route.as_str(), *method, *code], count.load(Relaxed)));
                series.extend(counts.filter(|(_, count)| is_likely || *count > 0));
            }
        }
        series
    }

    /// Durations of requests, in seconds, with their route.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, &Buckets)> {
        Route::ALL.iter().map(|route| route.as_str()).zip(&self.durations)
    }
}
