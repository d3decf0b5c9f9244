//! Connections of the public listener.

use super::{Row, WEBSOCKET, counter, gauge, histogram};
use crate::metrics::{CloseReason, GoawayReason};

pub(super) const CONNECTIONS: &[Row] = &[
    gauge(
        "tickcast_connections",
        "Open connections of the public listener. http: those that serve requests, or are in their handshake.",
        &["transport"],
        |s, out| {
            out.value(&["http"], s.node.http);
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
    histogram(
        "tickcast_handshake_duration_seconds",
        "Time from the header of a request for a WebSocket to the open connection.",
        &["transport"],
        |s, out| out.buckets(&[WEBSOCKET], s.events.handshakes()),
    ),
    histogram(
        "tickcast_connection_duration_seconds",
        "Age of connections at their end, in whole seconds.",
        &["transport"],
        |s, out| out.buckets(&[WEBSOCKET], s.events.ages()),
    ),
    counter(
        "tickcast_connections_closed_total",
        "Connections that ended. lost: by the network; slow_consumer: took nothing for the stall timeout; protocol_error: a frame broke RFC 6455, or was too large; flood: too many commands, fragments, pings or pongs, or a message without an end; unauthorized: five wrong keys; access_changed, key_revoked: after a reload; drain: the node stopped; max_age: did not go by itself when it was old; internal: serving it panicked.",
        &["transport", "reason"],
        |s, out| {
            for (reason, text) in CloseReason::TEXTS.iter().enumerate() {
                out.value(&[WEBSOCKET, text], s.sum(|worker| worker.closed[reason]));
            }
        },
    ),
    counter(
        "tickcast_goaways_total",
        "Clients that were told to connect elsewhere. drain: the node stops; max_age: the connection was old. Those that go by themselves count as closed by the client.",
        &["reason"],
        |s, out| {
            for (reason, text) in GoawayReason::TEXTS.iter().enumerate() {
                out.value(&[text], s.sum(|worker| worker.goaways[reason]));
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
        "Connections that were turned away before they were served. limit: tickcast_connections_max was reached; queue: tickcast_connections_waiting_max was; address: its client's address had limits.connections_per_address; draining: they waited when the node began to drain; proxy: they did not come through a trusted proxy with a header of the PROXY protocol, which is required. Requests for a WebSocket that were refused count too: origin: by access.origins; auth: their key is not known; bad_handshake: they broke another rule of the handshake, or of its query.",
        &["reason"],
        |s, out| {
            for (reason, count) in s.events.rejected() {
                out.value(&[reason], count);
            }
        },
    ),
    gauge(
        "tickcast_client_addresses",
        "Client addresses, for IPv6 networks of /64, whose open connections are counted for limits.connections_per_address. 0 without that bound.",
        &[],
        |s, out| out.value(&[], s.node.addresses as u64),
    ),
    gauge(
        "tickcast_connections_waiting",
        "Connections that wait to be let in at server.accept_rate, publishers, who go ahead, among them. Nothing has been done for them yet.",
        &[],
        |s, out| out.value(&[], s.node.waiting as u64),
    ),
    gauge(
        "tickcast_connections_waiting_max",
        "Bound on the connections that wait to be let in. A fifth of it is for those that publish or have not said yet what they want; if there is no place for one of the others, it counts as reason queue.",
        &[],
        |s, out| out.value(&[], s.limits.waiting as u64),
    ),
    histogram(
        "tickcast_admission_wait_seconds",
        "Time from accepting a connection to handing it to a worker, at server.accept_rate. Those that gave up or were turned away are not in it.",
        &[],
        |s, out| out.buckets(&[], s.events.admission_waits()),
    ),
    counter(
        "tickcast_admission_abandoned_total",
        "Connections whose client hung up while it waited to be let in. Nothing was done for them.",
        &[],
        |s, out| out.value(&[], s.events.admissions_abandoned()),
    ),
    gauge(
        "tickcast_input_unfinished_bytes",
        "Memory that holds messages of clients that are not complete, and input of clients that do not take their replies.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.unfinished_bytes)),
    ),
    gauge(
        "tickcast_output_pending_bytes",
        "Bytes that wait in the node for full sockets, as of the last second: the rest of a frame that was begun, and replies. Publications do not wait here, but in the log.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.pending_bytes)),
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
    histogram(
        "tickcast_ping_rtt_seconds",
        "Time from a ping to its pong: the way to a silent client and back.",
        &[],
        |s, out| out.buckets(&[], s.events.round_trips()),
    ),
];
