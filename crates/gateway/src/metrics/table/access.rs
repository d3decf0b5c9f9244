//! Keys and rights.

use super::{Row, counter};

pub(super) const ACCESS: &[Row] = &[
    counter(
        "tickcast_auth_failures_total",
        "Requests, commands and single topics that were refused for want of a key or a right. rate_limited: the key had used up its rate.",
        &["reason"],
        |s, out| {
            for (reason, count) in s.events.auth_failures() {
                out.value(&[reason], count);
            }
        },
    ),
    counter(
        "tickcast_key_uses_total",
        "How often each configured key, by its name, was presented: by requests over HTTP, and once by each WebSocket.",
        &["key"],
        |s, out| {
            for (name, uses) in &s.keys {
                out.value(&[name], *uses);
            }
        },
    ),
];
