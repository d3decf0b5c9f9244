//! What reached the subscribers, and what did not.

use super::{Row, WEBSOCKET, counter, histogram};
use crate::metrics::LATENCY_BUCKETS_MS;

pub(super) const DELIVERY: &[Row] = &[
    counter(
        "tickcast_deliveries_total",
        "Publications handed to sockets, once per subscriber.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.fanout.deliveries)),
    ),
    counter(
        "tickcast_deliveries_dropped_total",
        "Publications that subscribers skipped, each with a sign that the client sees. conflated: by mode latest, as asked for; slow_consumer, expired, lost: named in a gap notice.",
        &["transport", "reason"],
        |s, out| {
            out.value(&[WEBSOCKET, "conflated"], s.sum(|worker| worker.fanout.conflated));
            out.value(
                &[WEBSOCKET, "slow_consumer"],
                s.sum(|worker| worker.fanout.gaps_slow.publications),
            );
            out.value(
                &[WEBSOCKET, "expired"],
                s.sum(|worker| worker.fanout.gaps_expired.publications),
            );
            out.value(&[WEBSOCKET, "lost"], s.sum(|worker| worker.fanout.gaps_lost.publications));
        },
    ),
    counter(
        "tickcast_gap_notices_total",
        "Gap notices sent. slow_consumer: the client fell behind the log; expired: it resumed from before it; lost: the broker lost publications.",
        &["reason"],
        |s, out| {
            out.value(&["slow_consumer"], s.sum(|worker| worker.fanout.gaps_slow.notices));
            out.value(&["expired"], s.sum(|worker| worker.fanout.gaps_expired.notices));
            out.value(&["lost"], s.sum(|worker| worker.fanout.gaps_lost.notices));
        },
    ),
    counter(
        "tickcast_reset_notices_total",
        "Reset notices sent: the client's position is of another epoch.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.fanout.resets)),
    ),
    histogram(
        "tickcast_delivery_latency_seconds",
        "Time from the publishing node's clock to the end of the turn that wrote the publication to its subscribers. Counted once per publication and worker, in steps of 1 ms.",
        &[],
        |s, out| {
            let bounds = LATENCY_BUCKETS_MS.iter().map(|millis| *millis as f64 / 1e3);
            let counts: [u64; LATENCY_BUCKETS_MS.len() + 1] =
                std::array::from_fn(|bucket| s.sum(|worker| worker.latency[bucket]));
            let sum = s.sum(|worker| worker.latency_sum_ms) as f64 / 1e3;
            out.histogram(&[], bounds, &counts, sum);
        },
    ),
];
