//! Who is connected, who wants to be, and who does not keep up.

use super::{Alert, Severity::Info, Severity::Warning};

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "TickcastConnectionsNearLimit",
        severity: Warning,
        expression: "instance:tickcast_connections:sum / on (job, instance) tickcast_connections_max > 0.85",
        after: "10m",
        summary: "A node is nearly full.",
        description: "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the connections that it may have. At 100 % new ones are turned away.",
    },
    Alert {
        name: "TickcastConnectionsRejected",
        severity: Warning,
        expression: r#"sum by (job, instance, reason) (rate(tickcast_connections_rejected_total{reason=~"limit|queue"}[5m])) > 1"#,
        after: "5m",
        summary: "A node turns connections away.",
        description: "{{ $labels.instance }} turns {{ $value | humanize }} connections per second away ({{ $labels.reason }}).",
    },
    Alert {
        name: "TickcastAdmissionBacklog",
        severity: Warning,
        expression: "tickcast_connections_waiting / on (job, instance) tickcast_connections_waiting_max > 0.5",
        after: "2m",
        summary: "Many connections wait to be admitted.",
        description: "On {{ $labels.instance }} the queue of connections that wait for server.accept_rate has been half full for 2 minutes ({{ $value | humanizePercentage }}). When it is full they are turned away.",
    },
    Alert {
        name: "TickcastReconnectStorm",
        severity: Warning,
        expression: "sum by (job) (rate(tickcast_connections_opened_total[1m])) > 0.02 * job:tickcast_connections:sum and job:tickcast_connections:sum > 1000",
        after: "1m",
        summary: "Clients reconnect in masses.",
        description: "{{ $value | humanize }} connections per second are opened to {{ $labels.job }}: more than 2 % of all, each second.",
    },
    Alert {
        name: "TickcastConnectionImbalance",
        severity: Info,
        expression: "max by (job) (instance:tickcast_connections:sum) / avg by (job) (instance:tickcast_connections:sum) > 1.5 and job:tickcast_connections:sum > 1000",
        after: "30m",
        summary: "Connections are spread unevenly over the nodes.",
        description: "The node of {{ $labels.job }} with most connections has {{ $value | humanize }} times the average.",
    },
    Alert {
        name: "TickcastSlowConsumers",
        severity: Warning,
        expression: r#"tickcast_slow_consumers / on (job, instance) sum by (job, instance) (tickcast_connections{transport="websocket"}) > 0.02 and tickcast_slow_consumers > 10"#,
        after: "15m",
        summary: "Many clients do not keep up.",
        description: "The sockets of {{ $value | humanizePercentage }} of the clients of {{ $labels.instance }} are full.",
    },
    Alert {
        name: "TickcastDropsHigh",
        severity: Warning,
        expression: r#"sum by (job, instance) (rate(tickcast_deliveries_dropped_total{reason!="conflated"}[5m])) / (sum by (job, instance) (rate(tickcast_deliveries_total[5m])) + sum by (job, instance) (rate(tickcast_deliveries_dropped_total{reason!="conflated"}[5m]))) > 0.01"#,
        after: "10m",
        summary: "Subscribers miss publications against their will.",
        description: "On {{ $labels.instance }} subscribers skipped {{ $value | humanizePercentage }} of what they had asked for. Each was told in a gap notice.",
    },
    Alert {
        name: "TickcastResumeGaps",
        severity: Warning,
        expression: r#"sum by (job) (increase(tickcast_resumes_total{result!="complete"}[15m])) / sum by (job) (increase(tickcast_resumes_total[15m])) > 0.05 and sum by (job) (increase(tickcast_resumes_total[15m])) > 20"#,
        after: "15m",
        summary: "Clients that come back have missed something for good.",
        description: "{{ $value | humanizePercentage }} of the topics that clients of {{ $labels.job }} resumed had a gap or a reset: what they missed is not kept any longer.",
    },
    Alert {
        name: "TickcastKeysRefused",
        severity: Info,
        expression: r#"sum by (job) (rate(tickcast_auth_failures_total{reason="unknown_key"}[5m])) > 1"#,
        after: "5m",
        summary: "Many requests come with a key that nobody has.",
        description: "{{ $labels.job }} refuses {{ $value | humanize }} requests per second for an unknown key.",
    },
];
