//! The topics of this node, and the way from the broker to the workers.

use super::{Row, counter, gauge};

pub(super) const HUB: &[Row] = &[
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
