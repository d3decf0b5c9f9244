//! The rules as Prometheus reads them: `deploy/prometheus/rules/`.

use std::fmt::Write as _;

use super::alerts::{Alert, GROUPS, RECORDINGS, Recording};

const HEAD: &str = "\
# Generated from the tables in crates/gateway/src/metrics/watch/alerts; `make docs` writes this file anew.
# deploy/prometheus/tests/ has the tests: `promtool test rules deploy/prometheus/tests/*.yaml`.

groups:
";

/// The recorded series: `recording.yaml`.
pub(super) fn recordings() -> String {
    let mut text = HEAD.to_owned() + "  - name: tickcast.recordings\n    rules:\n";
    for Recording { name, expression, about } in RECORDINGS {
        let (name, expression) = (quoted(name), quoted(expression));
        writeln!(text, "      # {about}\n      - record: {name}\n        expr: {expression}")
            .unwrap();
    }
    text
}

/// The alerts: `alerts.yaml`.
pub(super) fn alerts() -> String {
    let mut text = HEAD.to_owned();
    for (group, alerts) in GROUPS {
        writeln!(text, "  - name: tickcast.{group}\n    rules:").unwrap();
        for alert in *alerts {
            append(&mut text, alert);
        }
    }
    text
}

fn append(text: &mut String, alert: &Alert) {
    let Alert { name, expression, after, severity, summary, description } = alert;
    let page = page(alert);
    let severity = severity.as_str();
    let [expression, summary, description] = [expression, summary, description].map(|t| quoted(t));
    write!(
        text,
        "      - alert: {name}\n        expr: {expression}\n        for: {after}\n        labels:\n          \
         severity: {severity}\n        annotations:\n          summary: {summary}\n          \
         description: {description}\n          runbook: {page}\n"
    )
    .unwrap();
}

/// Where it is said what to do: a path in this repository.
pub(super) fn page(alert: &Alert) -> String {
    format!("docs/runbooks/{}.md", alert.name)
}

/// A text as YAML takes any text: in single quotes, with those inside doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
