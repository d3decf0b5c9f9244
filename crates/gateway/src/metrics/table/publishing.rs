//! Requests over HTTP, and publishing over any transport.

use super::{Row, counter, gauge, histogram};
use crate::api::held::Held;

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
    gauge(
        "tickcast_http_held_bytes",
        "Memory that slow clients hold over HTTP. request: bodies that have come in part; answer: answers of more than 4 KiB that are not taken.",
        &["what"],
        |s, out| {
            for (what, (bytes, _)) in Held::TEXTS.iter().zip(s.node.http_memory) {
                out.value(&[what], bytes as u64);
            }
        },
    ),
    gauge(
        "tickcast_http_held_max_bytes",
        "Bound on tickcast_http_held_bytes, for requests and for answers.",
        &[],
        |s, out| out.value(&[], s.limits.http_bytes as u64),
    ),
    counter(
        "tickcast_http_held_refused_total",
        "Requests that were answered with 503 because tickcast_http_held_max_bytes was reached by what others hold.",
        &["what"],
        |s, out| {
            for (what, (_, refused)) in Held::TEXTS.iter().zip(s.node.http_memory) {
                out.value(&[what], refused);
            }
        },
    ),
    counter(
        "tickcast_http_answers_cut_total",
        "Connections that were cut because their client did not take an answer within http.answer_timeout.",
        &[],
        |s, out| out.value(&[], s.node.http_cut),
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
