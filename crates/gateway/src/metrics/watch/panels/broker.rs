//! The way to Redis and back, or the broker inside the node.

use super::Unit::{Bytes, Count, PerSecond, Seconds};
use super::{Panel, lines, query};

pub(super) const PANELS: &[Panel] = &[
    lines(
        "Broker up",
        Count,
        "1 while the node's probes come back through Redis and its own subscription.",
        &[query("{{instance}}", "min by (instance) (tickcast_broker_up{*})")],
    ),
    lines(
        "Time to publish",
        Seconds,
        "How long the broker takes for a publish request.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_broker_publish_duration_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_broker_publish_duration_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    lines(
        "Round trip of probes",
        Seconds,
        "From the node through Redis and its own subscription, and the age of the newest probe that came back. At 2.5 s the link counts as down.",
        &[
            query(
                "round trip {{instance}}",
                "max by (instance) (tickcast_broker_round_trip_seconds{*})",
            ),
            query("age {{instance}}", "max by (instance) (tickcast_broker_probe_age_seconds{*})"),
        ],
    ),
    lines(
        "From the broker",
        PerSecond,
        "Publications that came from the broker, once per node, and those that a node had already.",
        &[
            query(
                "{{instance}}",
                "sum by (instance) (rate(tickcast_broker_publications_received_total{*}[~]))",
            ),
            query("had already", "sum(rate(tickcast_broker_publications_duplicate_total{*}[~]))"),
        ],
    ),
    lines(
        "Calls that failed",
        PerSecond,
        "Calls that the broker did not carry out. Reads and subscriptions of the node are tried again.",
        &[query("{{op}}", "sum by (op) (rate(tickcast_broker_errors_total{*}[~]))")],
    ),
    lines(
        "Connections to Redis",
        PerSecond,
        "Attempts to connect. Each node keeps two connections; attempts that go on are a Redis that cannot be reached, or one that throws the node out.",
        &[
            query("{{result}}", "sum by (result) (rate(tickcast_broker_connects_total{*}[~]))"),
            query("again", "sum(rate(tickcast_broker_reconnects_total{*}[~]))"),
        ],
    ),
    lines(
        "Waiting inside Redis",
        Bytes,
        "What Redis holds for a node's subscriptions and could not send yet. At its `client-output-buffer-limit` for pubsub (32 MiB at once, 8 MiB for a minute) it closes the connection.",
        &[query("{{instance}}", "max by (instance) (tickcast_broker_output_buffer_bytes{*})")],
    ),
    lines(
        "On the way to Redis",
        Bytes,
        "Publications that were sent and not answered yet, against their bound. At it publications are refused before they are sent.",
        &[
            query("{{instance}}", "max by (instance) (tickcast_broker_in_flight_bytes{*})"),
            query("bound", "min(tickcast_broker_in_flight_max_bytes{*})"),
        ],
    ),
    lines(
        "Subscriptions at the broker",
        Count,
        "Topics that nodes have asked the broker for, those it has not confirmed yet, and those it refuses.",
        &[
            query("{{instance}}", "sum by (instance) (tickcast_broker_subscriptions{*})"),
            query("pending", "sum(tickcast_broker_subscriptions_pending{*})"),
            query("denied", "sum(tickcast_broker_subscriptions_denied{*})"),
        ],
    ),
];

pub(super) const MEMORY_PANELS: &[Panel] = &[
    lines(
        "Kept by the broker",
        Bytes,
        "Values and history, against `broker.memory.memory`. At the bound history is given up; then publications are refused.",
        &[
            query("{{instance}}", "sum by (instance) (tickcast_broker_retained_bytes{*})"),
            query("bound", "min(tickcast_broker_retained_max_bytes{*})"),
        ],
    ),
    lines(
        "Topics",
        Count,
        "Topics that the broker knows.",
        &[query("{{instance}}", "sum by (instance) (tickcast_broker_topics{*})")],
    ),
    lines(
        "Idempotency keys",
        Count,
        "Keys that are remembered, each for five minutes.",
        &[query("{{instance}}", "sum by (instance) (tickcast_broker_idempotency_keys{*})")],
    ),
];
