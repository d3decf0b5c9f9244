//! Requests over HTTP, and publishing over any transport.

use super::{Row, counter, histogram};

pub(super) const PUBLISHING: &[Row] = &[
    counter(
        "tickcast_http_requests_total",
        "Requests answered on the public listener, by route, method and class of the status code. 1xx: became a WebSocket.",
        &["route", "method", "code"],
        |s, out| {
            for (labels, count) in s.events.requests() {
                out.value(&labels, count);
            }
        },
    ),
    histogram(
        "tickcast_http_request_duration_seconds",
        "Time from a request's header to the answer.",
        &["route"],
        |s, out| {
            for (route, durations) in s.events.durations() {
                out.buckets(&[route], durations);
            }
        },
    ),
    counter(
        "tickcast_publications_total",
        "Publications handed to the broker, over HTTP and WebSocket, by its answer. duplicate: the idempotency key was known. Requests that were invalid are only in tickcast_http_requests_total.",
        &["result"],
        |s, out| {
            for (result, count) in s.events.publishes() {
                out.value(&[result], count);
            }
        },
    ),
    histogram(
        "tickcast_publication_size_bytes",
        "Size of the payloads handed to the broker.",
        &[],
        |s, out| out.buckets(&[], s.events.sizes()),
    ),
];
