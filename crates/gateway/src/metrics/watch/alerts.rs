//! The alerts: when each fires, and what it says to whoever is woken by it.
//!
//! `deploy/prometheus/rules/` and `docs/reference/alerts.md` are written from here, by [`rules`](super::rules) and
//! [`reference`](super::reference). What to do about an alert stands in `docs/runbooks/`, one page each.

mod balancer;
mod broker;
mod clients;
mod nodes;
mod service;

/// How soon somebody has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// Users are affected now, or are about to be: wake somebody.
    Critical,
    /// Will hurt if nobody does anything: today.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One alert.
#[derive(Debug)]
pub(super) struct Alert {
    /// Also the name of its page in `docs/runbooks/`.
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) expression: &'static str,
    /// How long the expression must hold.
    pub(super) after: &'static str,
    /// One line: what is wrong.
    pub(super) summary: &'static str,
    /// What is wrong where, with the value; a template of Prometheus.
    pub(super) description: &'static str,
}

/// A series that Prometheus computes again and again, because alerts look at it over a long time.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) name: &'static str,
    pub(super) expression: &'static str,
    pub(super) about: &'static str,
}

/// The alerts, in groups with a title.
pub(super) const GROUPS: &[(&str, &[Alert])] = &[
    ("service", service::ALERTS),
    ("clients", clients::ALERTS),
    ("broker", broker::ALERTS),
    ("balancer", balancer::ALERTS),
    ("nodes", nodes::ALERTS),
];

/// The recorded series.
pub(super) const RECORDINGS: &[Recording] = &[
    Recording {
        name: "job:tickcast_connections:sum",
        expression: "sum by (job) (tickcast_connections)",
        about: "Connections of all nodes.",
    },
    Recording {
        name: "instance:tickcast_connections:sum",
        expression: "sum by (job, instance) (tickcast_connections)",
        about: "Connections of a node, whatever they carry.",
    },
    Recording {
        name: "job:tickcast_delivery_latency_seconds:p99_rate5m",
        expression: "histogram_quantile(0.99, sum by (job, le) (rate(tickcast_delivery_latency_seconds_bucket[5m])))",
        about: "Delivery latency: 99 of 100 publications are faster.",
    },
    Recording {
        name: "job:tickcast_delivery_slow:ratio_rate5m",
        expression: r#"1 - sum by (job) (rate(tickcast_delivery_latency_seconds_bucket{le="0.25"}[5m])) / sum by (job) (rate(tickcast_delivery_latency_seconds_count[5m]))"#,
        about: "Share of publications that took longer than 250 ms, in 5 minutes.",
    },
    Recording {
        name: "job:tickcast_delivery_slow:ratio_rate1h",
        expression: r#"1 - sum by (job) (rate(tickcast_delivery_latency_seconds_bucket{le="0.25"}[1h])) / sum by (job) (rate(tickcast_delivery_latency_seconds_count[1h]))"#,
        about: "The same in an hour.",
    },
];
