//! The reference page of the alerts: `docs/reference/alerts.md`.

use std::fmt::Write as _;

use super::alerts::{GROUPS, RECORDINGS};

const INTRODUCTION: &str = "\
# Alerts

This page is generated from the table of alerts in the code; a test keeps the two equal.

The rules are in [`deploy/prometheus/rules/`](../../deploy/prometheus/rules), for Prometheus 2.42 or later. Their metrics are on the page [Metrics](metrics.md).

- The nodes' job must be called `tickcast`; `TickcastDown` and `TickcastFilesNearLimit` look for it. The load balancer's must be called `haproxy`; `TickcastBalancerDown` looks for that. All other alerts, and the dashboard, take any name.
- `severity` is `critical`: users are affected, or are about to be; `warning`: it will hurt if nobody does anything; `info`: worth knowing.
- Every alert has a page that says what to look at and what to do. The annotation `runbook` is its path in this repository; put the address of your copy in front of it where your alerts are written out. [Send alerts to somebody](../how-to/send-alerts.md) says how they get there.
- Bounds that fit nobody in particular (10 clients, 1,000 connections) keep small installations quiet. The tests in [`deploy/prometheus/tests/`](../../deploy/prometheus/tests) show for each alert when it fires, what it says and when it ends; run them after a change with `promtool test rules`.
";

const TABLE_HEAD: &str = "| alert | severity | after | what is wrong |\n|---|---|---|---|\n";

/// The text of the page.
pub(super) fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (group, alerts) in GROUPS {
        write!(page, "\n## {}\n\n{TABLE_HEAD}", title(group)).unwrap();
        for alert in *alerts {
            let (name, severity) = (alert.name, alert.severity.as_str());
            let after = if alert.after == "0m" { "at once" } else { alert.after };
            let link = format!("[`{name}`](../runbooks/{name}.md)");
            writeln!(page, "| {link} | {severity} | {after} | {} |", alert.summary).unwrap();
        }
    }
    page += "\n## Conditions\n\n";
    for alert in GROUPS.iter().flat_map(|(_, alerts)| *alerts) {
        writeln!(page, "- `{}`: `{}`", alert.name, alert.expression).unwrap();
    }
    page += "\n## Recorded series\n\n| series | what it is |\n|---|---|\n";
    for recording in RECORDINGS {
        writeln!(page, "| `{}` | {} |", recording.name, recording.about).unwrap();
    }
    page
}

fn title(group: &str) -> String {
    let mut letters = group.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
