//! The node as a whole.

use super::{Row, counter, gauge};

pub(super) const NODE: &[Row] = &[
    gauge(
        "tickcast_build_info",
        "Always 1; the labels name the version of the program, the revision of its source and the compiler.",
        &["version", "revision", "rustc"],
        |_, out| {
            let (revision, rustc) = (env!("TICKCAST_REVISION"), env!("TICKCAST_RUSTC"));
            out.value(&[env!("CARGO_PKG_VERSION"), revision, rustc], 1);
        },
    ),
    gauge(
        "tickcast_ready",
        "1 if a publication made now would arrive: what /readyz says.",
        &[],
        |s, out| out.value(&[], s.node.ready),
    ),
    gauge(
        "tickcast_draining",
        "1 once the node has begun to stop: it is not ready, and sends its clients to other nodes.",
        &[],
        |s, out| out.value(&[], s.node.draining),
    ),
    gauge(
        "tickcast_drain_overdue_seconds",
        "For how long a node that leaves is there although `drain.timeout` is over; 0 before, and while it serves.",
        &[],
        |s, out| out.value(&[], s.node.overdue),
    ),
    counter(
        "tickcast_log_lines_dropped_total",
        "Log lines that were dropped because standard error did not keep up or was gone.",
        &[],
        |s, out| out.value(&[], s.log_lines_dropped),
    ),
    counter(
        "tickcast_config_reloads_total",
        "Times that the running node was told to read its configuration again. failure: it had errors, which are in the log, and the old one stayed in force.",
        &["result"],
        |s, out| {
            for (result, count) in s.events.reloads().counts() {
                out.value(&[result], count);
            }
        },
    ),
    gauge(
        "tickcast_config_last_reload_successful",
        "1 if the configuration in force is what was read last; 0 since a reload has failed.",
        &[],
        |s, out| out.value(&[], s.events.reloads().is_good().into()),
    ),
    gauge(
        "tickcast_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was read, in seconds since 1970: at the start or by a reload.",
        &[],
        |s, out| out.value(&[], s.events.reloads().last_good()),
    ),
];
