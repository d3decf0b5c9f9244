//! What reaches the subscribers, how fast, and what does not.

use super::Unit::{BytesPerSecond, Count, PerSecond, Seconds};
use super::{Panel, heatmap, lines, query, stack};

pub(super) const PANELS: &[Panel] = &[
    lines(
        "Delivery latency",
        Seconds,
        "From the clock of the publishing node to the end of the turn that wrote the publication to its subscribers. If the publisher was on another node, the difference of the two clocks is in it.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_delivery_latency_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_delivery_latency_seconds_bucket{*}[~])))",
            ),
            query(
                "p99.9",
                "histogram_quantile(0.999, sum by (le) (rate(tickcast_delivery_latency_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    heatmap(
        "Delivery latency, all of it",
        Seconds,
        "Every publication by its latency. Two bands are two kinds of traffic, or one slow node.",
        &[query(
            "{{le}}",
            "sum by (le) (increase(tickcast_delivery_latency_seconds_bucket{*}[~]))",
        )],
    ),
    stack(
        "Deliveries by node",
        PerSecond,
        "Publications handed to sockets, once per subscriber.",
        &[query("{{instance}}", "sum by (instance) (rate(tickcast_deliveries_total{*}[~]))")],
    ),
    lines(
        "Fan-out",
        Count,
        "Deliveries per accepted publication: the average number of subscribers that each one reaches.",
        &[query(
            "deliveries per publication",
            r#"sum(rate(tickcast_deliveries_total{*}[~])) / sum(rate(tickcast_publications_total{*,result="accepted"}[~]))"#,
        )],
    ),
    lines(
        "Deliveries per write",
        Count,
        "How many publications one write to a socket carries. It rises under load: that is what keeps a busy node fast.",
        &[query(
            "{{instance}}",
            "sum by (instance) (rate(tickcast_deliveries_total{*}[~])) / sum by (instance) (rate(tickcast_writes_total{*}[~]))",
        )],
    ),
    lines(
        "Skipped, by reason",
        PerSecond,
        "Publications that subscribers skipped. conflated: mode `latest`, as asked for. slow_consumer: fell behind the log; expired: resumed from before it; lost: the broker lost them. The last three are named in gap notices.",
        &[query("{{reason}}", "sum by (reason) (rate(tickcast_deliveries_dropped_total{*}[~]))")],
    ),
    lines(
        "Notices to clients",
        PerSecond,
        "Gap notices by reason, and resets: what clients are told when something is missing.",
        &[
            query("gap: {{reason}}", "sum by (reason) (rate(tickcast_gap_notices_total{*}[~]))"),
            query("reset", "sum(rate(tickcast_reset_notices_total{*}[~]))"),
        ],
    ),
    lines(
        "Bytes on the wire",
        BytesPerSecond,
        "Bytes written to and read from WebSocket connections, without TCP and TLS.",
        &[
            query("sent", "sum(rate(tickcast_sent_bytes_total{*}[~]))"),
            query("received", "sum(rate(tickcast_received_bytes_total{*}[~]))"),
        ],
    ),
    lines(
        "Full sockets",
        PerSecond,
        "Times that a socket took less than the client was owed. Some are normal; many, on all nodes at once, are a network that is too small.",
        &[query("{{instance}}", "sum by (instance) (rate(tickcast_socket_full_total{*}[~]))")],
    ),
];
