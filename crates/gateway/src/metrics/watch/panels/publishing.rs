//! What publishers and readers over HTTP see.

use super::Unit::{Bytes, PerSecond, Seconds, Share};
use super::{Panel, lines, query, stack};

pub(super) const PANELS: &[Panel] = &[
    stack(
        "Publications by result",
        PerSecond,
        "Over HTTP and WebSocket together. broker_unavailable: nothing was sent; outcome_unknown: may have been; both may be tried again with the same idempotency key.",
        &[query("{{result}}", "sum by (result) (rate(tickcast_publications_total{*}[~]))")],
    ),
    lines(
        "Publications that failed",
        Share,
        "Share of publications that the broker did not take. Publishers get 503 and try again.",
        &[query(
            "failed",
            r#"sum(rate(tickcast_publications_total{*,result=~"broker_unavailable|outcome_unknown|broker_full"}[~])) / sum(rate(tickcast_publications_total{*}[~]))"#,
        )],
    ),
    lines(
        "Requests",
        PerSecond,
        "Requests on the public listener, by route and class of the status. ws 1xx: became a WebSocket.",
        &[query(
            "{{route}} {{code}}",
            "sum by (route, code) (rate(tickcast_http_requests_total{*}[~])) > 0",
        )],
    ),
    lines(
        "Duration of requests, 99th percentile",
        Seconds,
        "From a request's header to the answer, by route. A publisher has its answer within 1 s, whatever happens.",
        &[query(
            "{{route}}",
            "histogram_quantile(0.99, sum by (le, route) (rate(tickcast_http_request_duration_seconds_bucket{*}[~])))",
        )],
    ),
    lines(
        "Size of payloads",
        Bytes,
        "Payloads as they were published. The bound is `limits.payload_bytes`.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_publication_size_bytes_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_publication_size_bytes_bucket{*}[~])))",
            ),
        ],
    ),
    lines(
        "Refused for their key",
        PerSecond,
        "Requests and commands that were refused, by reason. unknown_key on many nodes at once: somebody tries keys, or one was taken away too early.",
        &[query("{{reason}}", "sum by (reason) (rate(tickcast_auth_failures_total{*}[~]))")],
    ),
    lines(
        "Keys in use",
        PerSecond,
        "How often the 20 keys are presented that are used most. A key without a line may still be used seldom, or by a WebSocket that has been open for long: docs/how-to/rotate-a-key.md says how to find out.",
        &[query("{{key}}", "topk(20, sum by (key) (rate(tickcast_key_uses_total{*}[~])) > 0)")],
    ),
];
