//! The metrics of a node: name, kind, meaning, labels, and how each is read.
//!
//! One row, one metric. The exposition and `docs/metrics.md` are both made from it. A row reads every series it can
//! ever have on this node, also those that are still zero. Rows about a kind of broker that the node does not have read
//! none, and are left out.

use prometheus::proto::MetricType;
use tickcast_broker::{BrokerStats, LinkStats};

use super::exposition::Series;
use super::snapshot::Snapshot;
use super::{CloseReason, LATENCY_BUCKETS_MS};

/// One metric.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) read: Read,
}

/// Reads the series of a row.
type Read = fn(&Snapshot<'_>, &mut Series);

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::COUNTER, help, labels, read }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::GAUGE, help, labels, read }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::HISTOGRAM, help, labels, read }
}

/// The one transport of live data in this version.
const WEBSOCKET: &str = "websocket";

/// All metrics: the headings of the reference page, and what stands under each.
pub(super) const SECTIONS: &[(&str, &[Row])] = &[
    ("Node", NODE),
    ("Connections", CONNECTIONS),
    ("Subscriptions", SUBSCRIPTIONS),
    ("HTTP and publishing", PUBLISHING),
    ("Broker", BROKER),
    ("Broker inside the node", MEMORY_BROKER),
    ("Redis", REDIS),
    ("Hub", HUB),
    ("Delivery", DELIVERY),
];

const NODE: &[Row] = &[
    gauge(
        "tickcast_build_info",
        "Always 1; the label names the version of the program.",
        &["version"],
        |_, out| out.value(&[env!("CARGO_PKG_VERSION")], 1),
    ),
    gauge(
        "tickcast_ready",
        "1 if a publication made now would arrive: what /readyz says.",
        &[],
        |s, out| out.value(&[], s.node.ready),
    ),
    gauge("tickcast_draining", "1 once the node has begun to stop.", &[], |s, out| {
        out.value(&[], s.node.draining);
    }),
    gauge(
        "tickcast_workers",
        "Worker threads. Each owns the connections that it accepted.",
        &[],
        |s, out| out.value(&[], s.workers.len() as u64),
    ),
    counter(
        "tickcast_log_lines_dropped_total",
        "Log lines that were dropped because standard error did not keep up or was gone.",
        &[],
        |s, out| out.value(&[], s.log_lines_dropped),
    ),
];

const CONNECTIONS: &[Row] = &[
    gauge(
        "tickcast_connections",
        "Open connections of the public listener. http: those that serve requests, or are in their handshake.",
        &["transport"],
        |s, out| {
            out.value(&["http"], s.http_connections());
            out.value(&[WEBSOCKET], s.sum(|worker| worker.connections));
        },
    ),
    gauge(
        "tickcast_connections_max",
        "Bound on all open connections of the public listener together.",
        &[],
        |s, out| out.value(&[], s.limits.connections as u64),
    ),
    counter(
        "tickcast_connections_opened_total",
        "Connections that completed their handshake.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.opened)),
    ),
    counter(
        "tickcast_connections_closed_total",
        "Connections that ended. lost: by the network; slow_consumer: took nothing for the stall timeout; drain: the node stopped; internal: serving it panicked.",
        &["transport", "reason"],
        |s, out| {
            for (reason, text) in CloseReason::TEXTS.iter().enumerate() {
                out.value(&[WEBSOCKET, text], s.sum(|worker| worker.closed[reason]));
            }
        },
    ),
    counter(
        "tickcast_connection_panics_total",
        "Connections that were closed because serving them panicked: a bug, whose place is in the log. The others went on.",
        &["transport"],
        |s, out| {
            out.value(&["http"], s.events.http_panics());
            out.value(&[WEBSOCKET], s.sum(|worker| worker.panics));
        },
    ),
    counter(
        "tickcast_connections_rejected_total",
        "Connections that were turned away before they were served. limit: tickcast_connections_max was reached.",
        &["reason"],
        |s, out| out.value(&["limit"], s.events.refused()),
    ),
    gauge(
        "tickcast_slow_consumers",
        "Connections whose socket has been full since a second ago or longer.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.stalled)),
    ),
    counter(
        "tickcast_socket_full_total",
        "Times that a socket took less than the client was owed. The rest follows from the log once it is writable.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.blocked)),
    ),
    counter(
        "tickcast_writes_total",
        "Writes to sockets. One write carries everything that a connection is owed in a turn.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.writes)),
    ),
    counter(
        "tickcast_sent_bytes_total",
        "Bytes written to sockets, after the handshake.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.sent_bytes)),
    ),
    counter(
        "tickcast_received_bytes_total",
        "Bytes read from sockets, after the handshake.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.received_bytes)),
    ),
    counter(
        "tickcast_pings_total",
        "Pings sent to connections that were silent for the ping interval.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.pings)),
    ),
];

const SUBSCRIPTIONS: &[Row] = &[
    gauge(
        "tickcast_subscriptions",
        "Subscriptions held now: one per connection and topic.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.subscriptions)),
    ),
    gauge(
        "tickcast_topics",
        "Topics that have subscribers on this node, or had until a moment ago.",
        &[],
        |s, out| out.value(&[], s.hub.topics as u64),
    ),
    counter(
        "tickcast_subscribe_requests_total",
        "Topics asked for in subscribe commands, by the answer that each got.",
        &["result"],
        |s, out| {
            out.value(&["accepted"], s.sum(|worker| worker.fanout.subscribes_accepted));
            out.value(&["rejected"], s.sum(|worker| worker.fanout.subscribes_rejected));
        },
    ),
    counter(
        "tickcast_resumes_total",
        "Topics subscribed with a position. complete: nothing was missing; gap: the position was older than what is retained; reset: it was of another epoch.",
        &["result"],
        |s, out| {
            out.value(&["complete"], s.sum(|worker| worker.fanout.resumes_complete));
            out.value(&["gap"], s.sum(|worker| worker.fanout.resumes_gap));
            out.value(&["reset"], s.sum(|worker| worker.fanout.resumes_reset));
        },
    ),
    counter(
        "tickcast_commands_invalid_total",
        "Messages of clients that were no command; each was answered with an error.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.commands_bad)),
    ),
];

const PUBLISHING: &[Row] = &[
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
                out.histogram(&[route], durations.bounds(), &durations.counts(), durations.sum());
            }
        },
    ),
    counter(
        "tickcast_publish_messages_total",
        "Publications handed to the broker, over HTTP and WebSocket, by its answer. duplicate: the idempotency key was known. Requests that were invalid are only in tickcast_http_requests_total.",
        &["result"],
        |s, out| {
            for (result, count) in s.events.publishes() {
                out.value(&[result], count);
            }
        },
    ),
    histogram(
        "tickcast_publish_message_size_bytes",
        "Size of the payloads handed to the broker.",
        &[],
        |s, out| {
            let sizes = s.events.sizes();
            out.histogram(&[], sizes.bounds(), &sizes.counts(), sizes.sum());
        },
    ),
];

const BROKER: &[Row] = &[
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
        "tickcast_broker_messages_received_total",
        "Publications that came from the broker, once per node whatever the number of subscribers.",
        &[],
        |s, out| out.value(&[], s.broker.link.map_or(s.hub.delivered, |link| link.received)),
    ),
    counter(
        "tickcast_broker_messages_duplicate_total",
        "Publications that came from the broker although the node had them: ignored.",
        &[],
        |s, out| out.value(&[], s.hub.duplicates),
    ),
];

const MEMORY_BROKER: &[Row] = &[
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

const REDIS: &[Row] = &[
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

const HUB: &[Row] = &[
    gauge(
        "tickcast_hub_log_bytes",
        "Bytes of recent publications in the topic logs of this node.",
        &[],
        |s, out| out.value(&[], s.hub.log_bytes as u64),
    ),
    gauge(
        "tickcast_hub_log_max_bytes",
        "Bound on tickcast_hub_log_bytes. At it logs get shorter, and slow consumers get a gap sooner.",
        &[],
        |s, out| out.value(&[], s.limits.log_bytes as u64),
    ),
    gauge(
        "tickcast_hub_inbox_items",
        "Publications and notices that wait for a worker, over all workers.",
        &[],
        |s, out| out.value(&[], s.inbox_items as u64),
    ),
    gauge(
        "tickcast_hub_inbox_max_items",
        "Bound on tickcast_hub_inbox_items: the sum of the workers' bounds.",
        &[],
        |s, out| out.value(&[], s.limits.inbox_items as u64),
    ),
    counter(
        "tickcast_hub_inbox_overflows_total",
        "Items that found a worker's inbox full. The worker reads the whole log of the topic instead; nothing is lost that the log holds.",
        &[],
        |s, out| out.value(&[], s.inbox_overflows),
    ),
    counter(
        "tickcast_sequence_gaps_total",
        "Holes that the node found in the offsets of a topic.",
        &[],
        |s, out| out.value(&[], s.hub.gaps_found),
    ),
    counter(
        "tickcast_sequence_gaps_repaired_total",
        "Holes that the node filled from the broker's history, so that no subscriber saw them.",
        &[],
        |s, out| out.value(&[], s.hub.gaps_repaired),
    ),
    counter(
        "tickcast_epoch_changes_total",
        "Topics whose offsets began anew while they had subscribers: the broker lost or rewound its state.",
        &[],
        |s, out| out.value(&[], s.hub.resets),
    ),
];

const DELIVERY: &[Row] = &[
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
