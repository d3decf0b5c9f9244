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

/// How long requests took.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [AtomicU64; DURATION_BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    fn observe(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BUCKETS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    /// Upper bounds in seconds.
    pub(super) fn bounds() -> impl Iterator<Item = f64> {
        DURATION_BUCKETS_US.iter().map(|micros| *micros as f64 / 1e6)
    }

    /// The count of each bucket, the last for more.
    pub(super) fn counts(&self) -> [u64; DURATION_BUCKETS_US.len() + 1] {
        array::from_fn(|bucket| self.buckets[bucket].load(Relaxed))
    }

    /// The sum in seconds.
    pub(super) fn sum(&self) -> f64 {
        self.sum_us.load(Relaxed) as f64 / 1e6
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
#[derive(Debug, Default)]
pub(super) struct Events {
    refused: AtomicU64,
    publishes: [AtomicU64; PublishResult::COUNT],
    requests: [[[AtomicU64; CODES.len()]; MethodLabel::COUNT]; ROUTES],
    durations: [Durations; ROUTES],
}

impl Events {
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
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
        self.durations[route as usize].observe(elapsed);
    }

    /// Connections turned away.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
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

    /// Durations of requests with their route.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        Route::ALL.iter().map(|route| route.as_str()).zip(&self.durations)
    }
}
