//! The broker: what is true of each kind, and of one only.

use tickcast_broker::{BrokerStats, LinkStats};

use super::{Row, counter, gauge, histogram};
use crate::metrics::snapshot::Snapshot;

pub(super) const BROKER: &[Row] = &[
    gauge(
        "tickcast_broker_up",
        "1 if the node reaches its broker. memory: the broker inside the node; redis: probes come back.",
        &["broker"],
        |s, out| {
            let kind = if s.broker.link.is_some() { "redis" } else { "memory" };
            out.value(&[kind], s.node.broker_up);
        },
    ),
    gauge(
        "tickcast_broker_subscriptions",
        "Topics that this node has asked the broker for.",
        &[],
        |s, out| out.value(&[], s.broker.subscriptions as u64),
    ),
    counter(
        "tickcast_broker_publications_received_total",
        "Publications that came from the broker, once per node whatever the number of subscribers.",
        &[],
        |s, out| out.value(&[], s.broker.link.map_or(s.hub.delivered, |link| link.received)),
    ),
    counter(
        "tickcast_broker_publications_duplicate_total",
        "Publications that came from the broker although the node had them: ignored.",
        &[],
        |s, out| out.value(&[], s.hub.duplicates),
    ),
    histogram(
        "tickcast_broker_publish_duration_seconds",
        "Time that the broker took for a publish request, whatever the number of its items. After 1 s nobody waits any longer.",
        &[],
        |s, out| out.buckets(&[], s.events.broker_publishes()),
    ),
    counter(
        "tickcast_broker_errors_total",
        "Calls that the broker did not carry out, because it could not be reached or did not answer within 1 s. read: for readers over HTTP and for topics that are opened or repaired; those are tried again.",
        &["op"],
        |s, out| {
            for (call, count) in s.events.broker_errors() {
                out.value(&[call], count);
            }
        },
    ),
];

pub(super) const MEMORY_BROKER: &[Row] = &[
    gauge("tickcast_broker_topics", "Topics that the broker knows.", &[], |s, out| {
        memory(s, |broker| out.value(&[], broker.topics as u64));
    }),
    gauge(
        "tickcast_broker_retained_bytes",
        "Bytes of values and history that the broker keeps.",
        &[],
        |s, out| memory(s, |broker| out.value(&[], broker.bytes as u64)),
    ),
    gauge(
        "tickcast_broker_retained_max_bytes",
        "Bound on tickcast_broker_retained_bytes. At it history is given up; then publications are refused.",
        &[],
        |s, out| memory(s, |_| out.value(&[], s.limits.broker_bytes as u64)),
    ),
    gauge(
        "tickcast_broker_idempotency_keys",
        "Idempotency keys that are remembered.",
        &[],
        |s, out| memory(s, |broker| out.value(&[], broker.keys as u64)),
    ),
];

pub(super) const REDIS: &[Row] = &[
    gauge(
        "tickcast_broker_probe_age_seconds",
        "Time since the newest probe came back: from this node through Redis and its own subscription. Twice a second if all is well; at 2.5 the link counts as down. Before the first: since the node started.",
        &[],
        |s, out| {
            redis(s, |link| out.number(&[], link.echo_age.unwrap_or(s.uptime).as_secs_f64()));
        },
    ),
    gauge(
        "tickcast_broker_round_trip_seconds",
        "How long the newest probe that came back was under way.",
        &[],
        |s, out| redis(s, |link| out.number(&[], link.round_trip.as_secs_f64())),
    ),
    counter(
        "tickcast_broker_connects_total",
        "Attempts to connect to Redis. Each node keeps two connections.",
        &["result"],
        |s, out| {
            redis(s, |link| {
                out.value(&["success"], link.connects);
                out.value(&["failure"], link.connects_failed);
            });
        },
    ),
    counter(
        "tickcast_broker_reconnects_total",
        "Connections to Redis that were made after the first two.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.reconnects)),
    ),
    gauge(
        "tickcast_broker_subscriptions_pending",
        "Topics whose subscription Redis has not confirmed yet.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.pending as u64)),
    ),
    gauge(
        "tickcast_broker_subscriptions_denied",
        "Topics whose subscription Redis refuses: its access rules leave the channel out.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.denied as u64)),
    ),
    counter(
        "tickcast_broker_messages_undecodable_total",
        "Messages from Redis that could not be read, by a newer node or by a stranger. The topic was read again.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.undecodable)),
    ),
    counter(
        "tickcast_broker_positions_compared_total",
        "Positions of topics compared with those in Redis, to find what pub/sub has lost.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.compared)),
    ),
    gauge(
        "tickcast_broker_in_flight_bytes",
        "Bytes of publications that were sent to Redis and not answered yet.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.in_flight_bytes as u64)),
    ),
    gauge(
        "tickcast_broker_in_flight_max_bytes",
        "Bound on tickcast_broker_in_flight_bytes. At it publications are refused before they are sent.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.in_flight_max_bytes as u64)),
    ),
    gauge(
        "tickcast_broker_output_buffer_bytes",
        "What Redis holds for this node's subscriptions and could not send yet, when last looked at. At its client-output-buffer-limit for pubsub it closes the connection.",
        &[],
        |s, out| redis(s, |link| out.value(&[], link.output_buffer_bytes as u64)),
    ),
];

/// Reads a series that only the broker inside the node has.
fn memory(snapshot: &Snapshot<'_>, read: impl FnOnce(&BrokerStats)) {
    if snapshot.broker.link.is_none() {
        read(&snapshot.broker);
    }
}

/// Reads a series that only Redis has.
fn redis(snapshot: &Snapshot<'_>, read: impl FnOnce(&LinkStats)) {
    if let Some(link) = &snapshot.broker.link {
        read(link);
    }
}
