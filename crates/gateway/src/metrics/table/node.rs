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
    gauge("tickcast_draining", "1 once the node has begun to stop.", &[], |s, out| {
        out.value(&[], s.node.draining);
    }),
    counter(
        "tickcast_log_lines_dropped_total",
        "Log lines that were dropped because standard error did not keep up or was gone.",
        &[],
        |s, out| out.value(&[], s.log_lines_dropped),
    ),
];
