//! The reference page of the metrics, written from the table.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::events::Events;
use super::exposition::family;
use super::process;
use super::snapshot::Snapshot;
use super::table::{Row, SECTIONS};

const INTRODUCTION: &str = "\
# Metrics

This page is generated from the table of metrics in the code; a test keeps the two equal.

`GET /metrics` on the admin listener answers in the text format of Prometheus. Names and units follow its rules: seconds, bytes, `_total` for counters.

- Every series is there from the start, at zero, so `rate()` sees the first event too. Only what concerns a kind of broker that the node does not have is left out.
- No label holds a topic, an address or anything else that a client chose: the number of series does not grow.
- Counters begin at zero with the process. Add the nodes up in Prometheus.
- A publication that a connected subscriber skips is counted in `tickcast_deliveries_dropped_total`, and the client sees a sign of it: an offset jump or a `gap`.
  After a `reset` nobody knows how many there were, so those are counted as notices, in `tickcast_reset_notices_total`.
";

const TABLE_HEAD: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n";

/// Labels whose values depend on the build and the machine.
const OPEN_LABELS: [&str; 4] = ["version", "revision", "rustc", "worker"];

/// The text of `docs/reference/metrics.md`.
pub(super) fn markdown() -> String {
    let events = Events::default();
    let snapshots = [Snapshot::empty(&events), Snapshot::empty_with_redis(&events)];
    let mut page = INTRODUCTION.to_owned();
    for (title, rows) in SECTIONS {
        let families: Vec<_> = rows.iter().map(|row| on_any_node(row, &snapshots)).collect();
        append_section(&mut page, title, &families);
    }
    append_section(&mut page, "Process", &process::families());
    page
}

/// A metric with the series that it has on one node or another.
fn on_any_node(row: &Row, snapshots: &[Snapshot<'_>; 2]) -> MetricFamily {
    let [mut one, other] = snapshots.each_ref().map(|snapshot| family(row, snapshot));
    let more = other.get_metric().iter().filter(|metric| !one.get_metric().contains(metric));
    let all = one.get_metric().iter().chain(more).cloned().collect();
    one.set_metric(all);
    one
}

fn append_section(page: &mut String, title: &str, families: &[MetricFamily]) {
    page.extend(["\n## ", title, "\n\n", about(title), TABLE_HEAD]);
    page.extend(families.iter().map(row));
}

fn row(family: &MetricFamily) -> String {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "",
    };
    format!(
        "| `{}` | {kind} | {} | {}{} |\n",
        family.name(),
        labels(family),
        family.help(),
        buckets(family)
    )
}

/// What a section needs to be said in front of its table.
fn about(title: &str) -> &'static str {
    match title {
        "Broker inside the node" => "On nodes without `broker.redis.url` only.\n\n",
        "Redis" => "On nodes with `broker.redis.url` only.\n\n",
        _ => "",
    }
}

/// The labels, each with the values it can have.
fn labels(family: &MetricFamily) -> String {
    let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
    for pair in family.get_metric().iter().flat_map(Metric::get_label) {
        match labels.iter_mut().find(|(name, _)| *name == pair.name()) {
            Some((_, values)) if values.contains(&pair.value()) => {}
            Some((_, values)) => values.push(pair.value()),
            None => labels.push((pair.name(), vec![pair.value()])),
        }
    }
    let text = labels.iter().map(|(name, values)| {
        let is_open = OPEN_LABELS.contains(name);
        if is_open { format!("`{name}`") } else { format!("`{name}`: {}", values.join(", ")) }
    });
    text.collect::<Vec<_>>().join("; ")
}

fn buckets(family: &MetricFamily) -> String {
    let Some(metric) = family.get_metric().first() else { return String::new() };
    let bounds =
        metric.get_histogram().get_bucket().iter().map(|bucket| bucket.upper_bound().to_string());
    let bounds = bounds.collect::<Vec<_>>();
    if bounds.is_empty() { String::new() } else { format!(" Buckets up to {}.", bounds.join(", ")) }
}
