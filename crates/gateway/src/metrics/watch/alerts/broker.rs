//! The broker, and what it loses.

use super::{Alert, Severity::Warning};

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "TickcastPublicationsLost",
        severity: Warning,
        expression: r#"sum by (job) (increase(tickcast_gap_notices_total{reason="lost"}[5m])) > 0"#,
        after: "0m",
        summary: "Publications were lost on the way from the broker and could not be brought back.",
        description: "{{ $value | humanize }} gap notices told clients of {{ $labels.job }} in the last 5 minutes that publications are lost.",
    },
    Alert {
        name: "TickcastSequenceGaps",
        severity: Warning,
        expression: "sum by (job, instance) (increase(tickcast_sequence_gaps_total[10m])) > 0",
        after: "15m",
        summary: "The broker goes on losing publications, and the node goes on bringing them back.",
        description: "{{ $labels.instance }} found {{ $value | humanize }} holes in the last 10 minutes, and has found some for a quarter of an hour.",
    },
    Alert {
        name: "TickcastEpochChanged",
        severity: Warning,
        expression: "sum by (job) (increase(tickcast_epoch_changes_total[5m])) > 0",
        after: "0m",
        summary: "The broker has lost its state: topics began anew.",
        description: "{{ $value | humanize }} times in the last 5 minutes a node of {{ $labels.job }} saw the offsets of a topic begin anew. Its subscribers got a reset and the current value.",
    },
    Alert {
        name: "TickcastBrokerOutputBuffer",
        severity: Warning,
        expression: "tickcast_broker_output_buffer_bytes > 4 * 1024 * 1024",
        after: "30s",
        summary: "A node does not take from Redis what it subscribed to.",
        description: "{{ $value | humanize1024 }}B wait inside Redis for {{ $labels.instance }}. At 8 MiB for a minute, or 32 MiB at once, a Redis with default settings closes the connection.",
    },
    Alert {
        name: "TickcastSubscriptionsDenied",
        severity: Warning,
        expression: "tickcast_broker_subscriptions_denied > 0",
        after: "1m",
        summary: "Redis refuses subscriptions of a node.",
        description: "Redis refuses {{ $value }} topics to {{ $labels.instance }}: its user may not subscribe to the channels.",
    },
    Alert {
        name: "TickcastBrokerMemoryFull",
        severity: Warning,
        expression: "tickcast_broker_retained_bytes / tickcast_broker_retained_max_bytes > 0.9",
        after: "10m",
        summary: "The broker inside a node is nearly full.",
        description: "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of broker.memory.memory for values and history.",
    },
];
