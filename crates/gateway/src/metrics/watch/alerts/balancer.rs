//! The load balancer in front of the nodes: without it nobody reaches nodes that are all well.

use super::{Alert, Severity::Critical};

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "TickcastBalancerDown",
        severity: Critical,
        expression: r#"up{job="haproxy"} == 0"#,
        after: "1m",
        summary: "The load balancer does not answer Prometheus.",
        description: "{{ $labels.instance }} could not be scraped for a minute (up is {{ $value }}). If it is really down, nobody reaches the nodes through it, however well they are.",
    },
    Alert {
        name: "TickcastBalancerNoServers",
        severity: Critical,
        expression: r#"haproxy_backend_active_servers{proxy=~"publish|subscribe"} == 0"#,
        after: "1m",
        summary: "The load balancer has no node to send requests to.",
        description: "{{ $labels.instance }} uses {{ $value }} nodes in its backend {{ $labels.proxy }}, and answers 503 to whatever goes there.",
    },
];
