//! The whole cluster in eight numbers.

use super::Unit::{Count, PerSecond, Seconds, Share};
use super::{Kind, Panel, number, query};

pub(super) const PANELS: &[Panel] = &[
    number(
        "Nodes ready",
        Count,
        (None, None),
        "Nodes on which a publication made now would arrive: what /readyz says. The second number is how many are there.",
        &[query("ready", "sum(tickcast_ready{*})"), query("there", "count(tickcast_ready{*})")],
    ),
    Panel {
        title: "Broker",
        kind: Kind::UpOrDown,
        unit: Count,
        about: "Whether all nodes reach their broker. While one does not, publishing through it is refused; its clients stay connected and are told.",
        queries: &[query("broker", "min(tickcast_broker_up{*})")],
    },
    number(
        "Clients",
        Count,
        (None, None),
        "Open WebSocket connections of all nodes.",
        &[query("clients", r#"sum(tickcast_connections{*,transport="websocket"})"#)],
    ),
    number(
        "Publications",
        PerSecond,
        (None, None),
        "Publications accepted per second, each counted once.",
        &[query(
            "publications",
            r#"sum(rate(tickcast_publications_total{*,result="accepted"}[~]))"#,
        )],
    ),
    number(
        "Deliveries",
        PerSecond,
        (None, None),
        "Publications handed to sockets per second, once per subscriber.",
        &[query("deliveries", "sum(rate(tickcast_deliveries_total{*}[~]))")],
    ),
    number(
        "Delivery latency, 99th percentile",
        Seconds,
        (Some(0.1), Some(0.25)),
        "From the clock of the publishing node to the write to subscribers. 99 of 100 publications are faster on their worker.",
        &[query(
            "p99",
            "histogram_quantile(0.99, sum by (le) (rate(tickcast_delivery_latency_seconds_bucket{*}[~])))",
        )],
    ),
    number(
        "Skipped against their will",
        Share,
        (Some(0.001), Some(0.01)),
        "Share of publications that subscribers in mode `all` did not get, each named in a gap notice. Conflation, which clients ask for, is not in it.",
        &[query(
            "skipped",
            r#"sum(rate(tickcast_deliveries_dropped_total{*,reason!="conflated"}[~])) / (sum(rate(tickcast_deliveries_total{*}[~])) + sum(rate(tickcast_deliveries_dropped_total{*,reason!="conflated"}[~])))"#,
        )],
    ),
    number(
        "Busiest worker",
        Share,
        (Some(0.7), Some(0.9)),
        "The processor share of the worker thread that has most to do. At 100 % its clients wait, even if other cores are idle.",
        &[query("busiest", "max(rate(tickcast_worker_cpu_seconds_total{*}[~]))")],
    ),
];
