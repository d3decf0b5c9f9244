//! Requests, publishes and refusals, counted where they happen.
//!
//! Every series exists from the start, in arrays indexed by its labels: counting is one relaxed addition per request,
//! without a look-up, and the first event of a kind is a step from 0 to 1 that `rate()` sees.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tickcast_broker::{PublishError, Published};

use super::label_values;
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

/// Upper bounds of the buckets of request durations, in microseconds: 0.5 ms to 10 s, with the 250 ms that most targets
/// name and the 1 s within which a publisher has its answer.
const DURATION_BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Upper bounds of the buckets of payload sizes, in bytes: up to the default bound of a payload and one beyond.
const SIZE_BUCKETS: [u64; 7] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144];

/// Observations in buckets, counted in a small whole unit and shown in the base unit.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: &'static [u64],
    /// Small units in one base unit.
    unit: f64,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, unit, counts, sum: AtomicU64::default() }
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Upper bounds in the base unit.
    pub(super) fn bounds(&self) -> impl Iterator<Item = f64> {
        self.bounds.iter().map(|bound| *bound as f64 / self.unit)
    }

    /// The count of each bucket, the last for more.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// The sum in the base unit.
    pub(super) fn sum(&self) -> f64 {
        self.sum.load(Relaxed) as f64 / self.unit
    }
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

/// The counters of all events.
#[derive(Debug)]
pub(super) struct Events {
    refused: AtomicU64,
    http_panics: AtomicU64,
    publishes: [AtomicU64; PublishResult::COUNT],
    requests: [[[AtomicU64; CODES.len()]; MethodLabel::COUNT]; ROUTES],
    durations: [Buckets; ROUTES],
    sizes: Buckets,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            refused: AtomicU64::default(),
            http_panics: AtomicU64::default(),
            publishes: Default::default(),
            requests: Default::default(),
            durations: array::from_fn(|_| Buckets::new(&DURATION_BUCKETS_US, 1e6)),
            sizes: Buckets::new(&SIZE_BUCKETS, 1.0),
        }
    }
}

impl Events {
    pub(super) fn observe_payload(&self, bytes: usize) {
        self.sizes.observe(bytes as u64);
    }

    /// Sizes of payloads, in bytes.
    pub(super) fn sizes(&self) -> &Buckets {
        &self.sizes
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn count_http_panic(&self) {
        self.http_panics.fetch_add(1, Relaxed);
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
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.durations[route as usize].observe(micros);
    }

    /// Connections turned away.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// HTTP connections that ended by a panic.
    pub(super) fn http_panics(&self) -> u64 {
        self.http_panics.load(Relaxed)
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
