//! What users notice.

use super::{Alert, Severity::Critical, Severity::Warning};

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "TickcastDown",
        severity: Critical,
        expression: r#"up{job="tickcast"} == 0"#,
        after: "2m",
        summary: "A node does not answer Prometheus.",
        description: "{{ $labels.instance }} could not be scraped for 2 minutes (up is {{ $value }}). Its clients have gone to the other nodes, if it is really down.",
    },
    Alert {
        name: "TickcastNoneReady",
        severity: Critical,
        expression: "sum by (job) (tickcast_ready) == 0",
        after: "1m",
        summary: "No node is ready: nothing can be published.",
        description: "{{ $value }} nodes of {{ $labels.job }} would take a publication. Clients stay connected and get what comes once one of them is ready again.",
    },
    Alert {
        name: "TickcastNotReady",
        severity: Warning,
        expression: "tickcast_ready == 0 and on (job, instance) tickcast_draining == 0 and on (job, instance) tickcast_broker_up == 1",
        after: "2m",
        summary: "A node is not ready although it reaches its broker.",
        description: "{{ $labels.instance }} has said for 2 minutes that it is not ready (tickcast_ready is {{ $value }}). Its /readyz names the reason.",
    },
    Alert {
        name: "TickcastBrokerDown",
        severity: Critical,
        expression: "tickcast_broker_up == 0",
        after: "1m",
        summary: "A node does not reach its broker.",
        description: "{{ $labels.instance }} has not heard from its broker ({{ $labels.broker }}) for a minute (tickcast_broker_up is {{ $value }}). Publishing through it is refused, and its clients get nothing new.",
    },
    Alert {
        name: "TickcastWorkerHangs",
        severity: Critical,
        expression: "tickcast_worker_silence_seconds >= 5",
        after: "30s",
        summary: "A worker hangs: its clients get nothing.",
        description: "A worker of {{ $labels.instance }} has not begun a turn for {{ $value }} seconds. Its clients are connected and get nothing, and the node takes nobody new.",
    },
    Alert {
        name: "TickcastPublishErrors",
        severity: Critical,
        expression: r#"sum by (job) (rate(tickcast_publications_total{result=~"broker_unavailable|outcome_unknown|broker_full"}[5m])) / sum by (job) (rate(tickcast_publications_total[5m])) > 0.01"#,
        after: "5m",
        summary: "More than 1 % of publications fail.",
        description: "{{ $value | humanizePercentage }} of the publications to {{ $labels.job }} were answered with 503.",
    },
    Alert {
        name: "TickcastDeliveryLatencyBurn",
        severity: Critical,
        expression: "job:tickcast_delivery_slow:ratio_rate5m > 14.4 * 0.001 and job:tickcast_delivery_slow:ratio_rate1h > 14.4 * 0.001",
        after: "2m",
        summary: "Too many deliveries take longer than 250 ms.",
        description: "{{ $value | humanizePercentage }} of the publications of {{ $labels.job }} took longer than 250 ms in the last 5 minutes, and too many in the last hour as well. If 99.9 % in 30 days is the target, this pace uses the month's allowance up in two days.",
    },
];
