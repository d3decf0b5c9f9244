//! Who is connected, who comes and goes, and how well they are reached.

use super::Unit::{Bytes, Count, PerSecond, Seconds};
use super::{Panel, heatmap, lines, query, stack};

pub(super) const PANELS: &[Panel] = &[
    stack(
        "Clients by node",
        Count,
        "Open WebSocket connections. After a node came back it takes new clients only: old ones stay where they are until they reconnect or reach `websocket.max_age`.",
        &[query(
            "{{instance}}",
            r#"sum by (instance) (tickcast_connections{*,transport="websocket"})"#,
        )],
    ),
    lines(
        "Opened and closed",
        PerSecond,
        "Connections that completed their handshake, and those that ended, by reason. client: it closed; lost: the network did; drain and max_age: the node asked it to go.",
        &[
            query("opened", "sum(rate(tickcast_connections_opened_total{*}[~]))"),
            query(
                "closed: {{reason}}",
                "sum by (reason) (rate(tickcast_connections_closed_total{*}[~]))",
            ),
        ],
    ),
    lines(
        "Turned away, and waiting",
        PerSecond,
        "Connections refused per second. limit: the node is full; queue: too many wait to be admitted; address: too many come from one address; draining: the node leaves; proxy: no proxy that is trusted says whose they are; origin: `access.origins` does not list their page; auth: a wrong key; bad_handshake: another mistake of the client. gave up: the client hung up while it waited to be admitted.",
        &[
            query(
                "{{reason}}",
                "sum by (reason) (rate(tickcast_connections_rejected_total{*}[~]))",
            ),
            query("gave up", "sum(rate(tickcast_admission_abandoned_total{*}[~]))"),
        ],
    ),
    lines(
        "Waiting for admission",
        Count,
        "Accepted sockets that wait for their turn under `server.accept_rate`, against the bound of one node. A spike after a node was lost is normal, and is what admission is for.",
        &[
            query("{{instance}}", "sum by (instance) (tickcast_connections_waiting{*})"),
            query("bound of one node", "max(tickcast_connections_waiting_max{*})"),
        ],
    ),
    lines(
        "Wait for admission",
        Seconds,
        "How long those waited who were admitted. It is what `server.accept_rate` costs clients: above some seconds they begin to give up.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_admission_wait_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_admission_wait_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    lines(
        "Imbalance",
        Count,
        "The node with most clients against the average. 1 is even. A node that has just come back makes it rise.",
        &[query(
            "largest / average",
            r#"max(sum by (instance) (tickcast_connections{*,transport="websocket"})) / avg(sum by (instance) (tickcast_connections{*,transport="websocket"}))"#,
        )],
    ),
    lines(
        "Handshake",
        Seconds,
        "From the request for a WebSocket to the open connection, in the node. Time on the way and in a load balancer comes on top.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_handshake_duration_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_handshake_duration_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    lines(
        "Round trip of pings",
        Seconds,
        "Ping to pong, of clients that were silent for the ping interval: the network's part of what clients feel.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_ping_rtt_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_ping_rtt_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    heatmap(
        "Age of connections at their end",
        Seconds,
        "How long connections lasted. A band at one age points to a timeout between the clients and the node.",
        &[query(
            "{{le}}",
            "sum by (le) (increase(tickcast_connection_duration_seconds_bucket{*}[~]))",
        )],
    ),
    lines(
        "Slow consumers",
        Count,
        "Connections whose socket has been full for a second or longer. They cost the others nothing; in mode `all` they get gap notices.",
        &[query("{{instance}}", "sum by (instance) (tickcast_slow_consumers{*})")],
    ),
    lines(
        "Unfinished input",
        Bytes,
        "Memory that holds messages of clients that are not complete. It is bounded per worker; who goes on beyond it is closed with 1013.",
        &[query("{{instance}}", "sum by (instance) (tickcast_input_unfinished_bytes{*})")],
    ),
    lines(
        "Waiting for full sockets",
        Bytes,
        "Bytes in the node that wait for full sockets: the rest of a frame that was begun, and replies. Publications wait in the log, not here.",
        &[query("{{instance}}", "sum by (instance) (tickcast_output_pending_bytes{*})")],
    ),
];
