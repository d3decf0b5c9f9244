//! What went wrong and healed: resumes, holes, overflows.

use super::Unit::{Bytes, Count, PerSecond};
use super::{Panel, lines, query};

pub(super) const PANELS: &[Panel] = &[
    lines(
        "Resumes",
        PerSecond,
        "Topics subscribed with a position. complete: nothing is missing; gap: the position is older than what is kept; reset: it is of another epoch.",
        &[query("{{result}}", "sum by (result) (rate(tickcast_resumes_total{*}[~]))")],
    ),
    lines(
        "Replayed",
        PerSecond,
        "Publications that clients had missed and got by resuming.",
        &[query("replayed", "sum(rate(tickcast_resume_replayed_publications_total{*}[~]))")],
    ),
    lines(
        "Holes from the broker",
        PerSecond,
        "Holes that nodes found in the offsets of topics, those they filled from history, and topics whose offsets began anew.",
        &[
            query("found", "sum(rate(tickcast_sequence_gaps_total{*}[~]))"),
            query("repaired", "sum(rate(tickcast_sequence_gaps_repaired_total{*}[~]))"),
            query("new epochs", "sum(rate(tickcast_epoch_changes_total{*}[~]))"),
        ],
    ),
    lines(
        "Recent publications in memory",
        Bytes,
        "The logs from which clients are served, against `hub.log_memory` of one node. At the bound logs get shorter, and slow consumers get a gap sooner.",
        &[
            query("{{instance}}", "sum by (instance) (tickcast_hub_log_bytes{*})"),
            query("bound of one node", "min(tickcast_hub_log_max_bytes{*})"),
        ],
    ),
    lines(
        "Waiting for a worker",
        Count,
        "Publications and notices in the inboxes of the workers, against their bound.",
        &[
            query("{{instance}}", "sum by (instance) (tickcast_hub_inbox_items{*})"),
            query("bound of one node", "min(tickcast_hub_inbox_max_items{*})"),
        ],
    ),
    lines(
        "Inboxes that were full",
        PerSecond,
        "Items that found a worker's inbox full. The worker reads the log instead: nothing is lost, but it is late.",
        &[query(
            "{{instance}}",
            "sum by (instance) (rate(tickcast_hub_inbox_overflows_total{*}[~]))",
        )],
    ),
];
