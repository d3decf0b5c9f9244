//! The load balancer of `deploy/haproxy`, as it sees itself and the nodes.
//!
//! What its metrics are called stands in `balancer.txt`, and a test of the cluster compares that with what it exports.

use super::Unit::{Count, PerSecond};
use super::{Panel, lines, query};

pub(super) const PANELS: &[Panel] = &[
    lines(
        "Nodes in use",
        Count,
        "Nodes that the load balancer uses for publishing and for subscribing. Without Redis it uses none for publishing, and answers 503 itself.",
        &[query("{{proxy}}", "sum by (proxy) (haproxy_backend_active_servers{*})")],
    ),
    lines(
        "Use of each node",
        Count,
        "1 while the load balancer sends anything to a node. A node that leaves goes to 0 before it sends its clients away.",
        &[query(
            "{{server}} {{proxy}}",
            r#"max by (proxy, server) (haproxy_server_status{*,state="UP"})"#,
        )],
    ),
    lines(
        "Sessions of each node",
        Count,
        "Requests and WebSockets that the load balancer has open, by node. A node after a restart gets new ones little by little.",
        &[query(
            "{{server}} {{proxy}}",
            "sum by (proxy, server) (haproxy_server_current_sessions{*})",
        )],
    ),
    lines(
        "Errors that clients get",
        PerSecond,
        "Answers through the load balancer by class. 5xx that no node has counted are its own: it had no node, or lost the one it asked.",
        &[query(
            "{{proxy}} {{code}}",
            r#"sum by (proxy, code) (rate(haproxy_backend_http_responses_total{*,code=~"4xx|5xx"}[~]))"#,
        )],
    ),
    lines(
        "Asked again",
        PerSecond,
        "Requests that a node refused or did not answer, and that were tried once more: at all, and at another node.",
        &[
            query("{{proxy}}", "sum by (proxy) (rate(haproxy_backend_retry_warnings_total{*}[~]))"),
            query(
                "{{proxy}}, another node",
                "sum by (proxy) (rate(haproxy_backend_redispatch_warnings_total{*}[~]))",
            ),
        ],
    ),
    lines(
        "Connections for publishing",
        PerSecond,
        "Connections to nodes that are opened for publications, and those that are used again. An opened one waits for its turn at the node: in a storm that is seconds.",
        &[
            query(
                "opened",
                r#"sum(rate(haproxy_server_connection_attempts_total{*,proxy="publish"}[~]))"#,
            ),
            query(
                "used again",
                r#"sum(rate(haproxy_server_connection_reuses_total{*,proxy="publish"}[~]))"#,
            ),
        ],
    ),
];
