//! What nodes need of their machines, and what happens while they change.

use super::{Alert, Severity::Warning};

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "TickcastFilesNearLimit",
        severity: Warning,
        expression: r#"process_open_fds{job="tickcast"} / process_max_fds{job="tickcast"} > 0.85"#,
        after: "10m",
        summary: "A node is about to run out of open files.",
        description: "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the open files that it may have. Without one no connection can be accepted.",
    },
    Alert {
        name: "TickcastWorkerSaturated",
        severity: Warning,
        expression: "rate(tickcast_worker_cpu_seconds_total[5m]) + rate(tickcast_worker_cpu_wait_seconds_total[5m]) > 0.9",
        after: "10m",
        summary: "A worker has more to do than one thread can.",
        description: "Worker {{ $labels.worker }} of {{ $labels.instance }} would need {{ $value | humanizePercentage }} of a core. Its clients get everything late.",
    },
    Alert {
        name: "TickcastInboxOverflows",
        severity: Warning,
        expression: "rate(tickcast_hub_inbox_overflows_total[5m]) > 0",
        after: "5m",
        summary: "Publications come faster than a worker takes them.",
        description: "{{ $value | humanize }} publications per second find the inbox of a worker of {{ $labels.instance }} full. The worker reads them from the log instead, late.",
    },
    Alert {
        name: "TickcastLogMemoryFull",
        severity: Warning,
        expression: "tickcast_hub_log_bytes / tickcast_hub_log_max_bytes > 0.9",
        after: "10m",
        summary: "The memory for recent publications is nearly full.",
        description: "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of hub.log_memory. At the bound logs get shorter, and clients that fall behind get a gap sooner.",
    },
    Alert {
        name: "TickcastPanics",
        severity: Warning,
        expression: "sum by (job, instance) (increase(tickcast_connection_panics_total[15m])) > 0",
        after: "0m",
        summary: "A node has a bug: serving a connection panicked.",
        description: "{{ $labels.instance }} closed {{ $value | humanize }} connections in the last 15 minutes because serving them panicked. The place is in its log.",
    },
    Alert {
        name: "TickcastConfigReloadFailed",
        severity: Warning,
        expression: "tickcast_config_last_reload_successful == 0",
        after: "5m",
        summary: "A node could not read its configuration anew.",
        description: "{{ $labels.instance }} runs on its old configuration (tickcast_config_last_reload_successful is {{ $value }}): the new one has an error, which is in its log.",
    },
    Alert {
        name: "TickcastDrainStuck",
        severity: Warning,
        expression: "tickcast_drain_overdue_seconds > 60",
        after: "1m",
        summary: "A node that leaves does not end.",
        description: "{{ $labels.instance }} should have ended {{ $value | humanizeDuration }} ago: drain.timeout is over, and it is still there.",
    },
];
