//! The tables against the metrics, against the rules of those who read them, and against the files.

mod linter;
mod promtool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prometheus::proto::{Metric, MetricType};

use super::alerts::{Alert, GROUPS, RECORDINGS};
use super::panels::SECTIONS;
use super::promql::{Selector, grouping_labels, selectors};
use super::{dashboard, reference, rules};
use crate::metrics::events::Events;
use crate::metrics::exposition::family;
use crate::metrics::process;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::{Row, SECTIONS as METRICS};

/// Metrics that no panel and no alert looks at, and why.
const NOT_WATCHED: &[(&str, &str)] = &[
    ("tickcast_workers", "a constant of the node"),
    ("tickcast_topics", "a number without a good or a bad value"),
    ("tickcast_client_addresses", "as many as clients come from; what is refused has a panel"),
    ("tickcast_subscriptions", "as many as the clients like"),
    (
        "tickcast_subscribe_requests_total",
        "what clients ask for; the refused ones have their answer",
    ),
    ("tickcast_commands_invalid_total", "mistakes of client programs, answered"),
    ("tickcast_commands_refused_total", "clients that send too much, answered"),
    ("tickcast_http_answers_cut_total", "slow clients, one by one"),
    ("tickcast_http_held_bytes", "bounded; beyond it requests fail, and those have a panel"),
    ("tickcast_http_held_max_bytes", "a bound that stands in the configuration"),
    ("tickcast_http_held_refused_total", "they are among the failed requests, which have a panel"),
    ("tickcast_pings_total", "the round trips have a panel"),
    ("tickcast_broker_messages_undecodable_total", "a newer node: during an upgrade"),
    ("tickcast_broker_positions_compared_total", "goes on all the time"),
    ("haproxy_process_build_info", "says which jobs are load balancers"),
];

/// Labels that Prometheus adds, and that of the buckets.
const GIVEN_LABELS: [&str; 3] = ["job", "instance", "le"];

/// Labels whose values depend on the build, the machine and the configuration.
const OPEN_LABELS: [&str; 5] = ["version", "revision", "rustc", "worker", "key"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn alerts() -> impl Iterator<Item = &'static Alert> {
    GROUPS.iter().flat_map(|(_, alerts)| *alerts)
}

/// Every expression of the tables, with the place where it stands.
fn expressions() -> Vec<(String, String)> {
    let panels = SECTIONS.iter().flat_map(|section| section.panels);
    let queries =
        panels.flat_map(|panel| panel.queries.iter().map(|query| (panel.title, query.live())));
    let alerts = alerts().map(|alert| (alert.name, alert.expression.to_owned()));
    let recordings =
        RECORDINGS.iter().map(|recording| (recording.name, recording.expression.to_owned()));
    let all = queries.chain(alerts).chain(recordings);
    all.map(|(place, expression)| (place.to_owned(), expression)).collect()
}

/// What a metric has: its kind, and the values of its labels.
struct Known {
    kind: MetricType,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// All metrics that a node or the load balancer can have.
fn known() -> BTreeMap<String, Known> {
    let events = Events::default();
    let snapshots = [Snapshot::empty(&events), Snapshot::empty_with_redis(&events)];
    let rows = || METRICS.iter().flat_map(|(_, rows)| *rows);
    let families = snapshots.iter().flat_map(|one| rows().map(|row: &Row| family(row, one)));
    let mut known = BTreeMap::new();
    for family in families.chain(process::families()) {
        let name = family.name().to_owned();
        let entry = known
            .entry(name)
            .or_insert(Known { kind: family.get_field_type(), labels: BTreeMap::new() });
        for pair in family.get_metric().iter().flat_map(Metric::get_label) {
            let values = entry.labels.entry(pair.name().to_owned()).or_default();
            values.insert(pair.value().to_owned());
        }
    }
    known.extend(of_the_balancer());
    known
}

/// What `balancer.txt` says.
fn of_the_balancer() -> BTreeMap<String, Known> {
    let lines = include_str!("balancer.txt").lines().filter(|line| !line.starts_with('#'));
    let metrics = lines.map(|line| {
        let mut words = line.split(' ');
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let kind = match kind {
            "counter" => MetricType::COUNTER,
            "gauge" => MetricType::GAUGE,
            other => panic!("{name}: {other} is no kind"),
        };
        let label = |word: &str| {
            let (label, values) = word.split_once('=').unwrap();
            (label.to_owned(), values.split('|').map(str::to_owned).collect())
        };
        (name.to_owned(), Known { kind, labels: words.map(label).collect() })
    });
    metrics.collect()
}

fn is_recorded(selector: &Selector<'_>) -> bool {
    RECORDINGS.iter().any(|recording| recording.name == selector.metric)
}

/// The metric behind a selector; none for what Prometheus itself knows.
fn metric_of<'a>(selector: &Selector<'a>, known: &'a BTreeMap<String, Known>) -> Option<&'a str> {
    if selector.metric == "up" || is_recorded(selector) {
        return None;
    }
    let is_histogram =
        |stem: &str| known.get(stem).is_some_and(|metric| metric.kind == MetricType::HISTOGRAM);
    let name = selector.family(is_histogram);
    let (name, _) = known.get_key_value(name)?;
    Some(name)
}

#[test]
fn every_expression_asks_for_what_there_is() {
    let known = known();
    for (place, expression) in expressions() {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty(), "{place}: {expression}");
        let mut labels: BTreeSet<&str> = GIVEN_LABELS.into();
        for selector in &selectors {
            let is_given = selector.metric == "up" || is_recorded(selector);
            let metric = metric_of(selector, &known).map(|name| &known[name]);
            assert!(is_given || metric.is_some(), "{place}: there is no {}", selector.metric);
            let Some(metric) = metric else { continue };
            let is_part =
                ["_bucket", "_count", "_sum"].iter().any(|end| selector.metric.ends_with(end));
            let is_histogram = metric.kind == MetricType::HISTOGRAM;
            assert_eq!(is_part, is_histogram, "{place}: {} is a histogram", selector.metric);
            for (label, _, value) in &selector.matchers {
                check_values(&place, metric, label, value);
            }
            labels.extend(metric.labels.keys().map(String::as_str));
        }
        for label in grouping_labels(&expression) {
            assert!(labels.contains(label), "{place}: nothing has a label `{label}`");
        }
    }
}

fn check_values(place: &str, metric: &Known, label: &str, value: &str) {
    if GIVEN_LABELS.contains(&label) || OPEN_LABELS.contains(&label) {
        return;
    }
    let values = metric.labels.get(label);
    let values = values.unwrap_or_else(|| panic!("{place}: there is no label `{label}`"));
    for value in value.split('|') {
        let is_known = values.contains(value) || values.contains("*");
        assert!(is_known, "{place}: `{label}` is never `{value}`");
    }
}

/// The bound of the latency alert is one of the buckets, written as in the exposition.
#[test]
fn the_bound_of_slow_deliveries_is_a_bucket() {
    let events = Events::default();
    let text = crate::metrics::exposition::text(&Snapshot::empty(&events)).unwrap();
    assert!(text.contains("tickcast_delivery_latency_seconds_bucket{le=\"0.25\"}"), "{text}");
}

#[test]
fn every_metric_is_watched_or_is_known_not_to_be() {
    let known = known();
    let expressions = expressions();
    let mut watched = BTreeSet::new();
    for (_, expression) in &expressions {
        for selector in selectors(expression) {
            watched.extend(metric_of(&selector, &known).map(str::to_owned));
        }
    }
    for name in known.keys().filter(|name| !name.starts_with("process_")) {
        let is_excused = NOT_WATCHED.iter().any(|(excused, _)| excused == name);
        assert_ne!(
            watched.contains(name),
            is_excused,
            "{name}: give it a panel, or a reason in NOT_WATCHED; not both"
        );
    }
}

#[test]
fn alerts_say_what_they_must() {
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("Tickcast"), "{name}");
        assert!(alert.summary.ends_with('.') && alert.summary.len() > 15, "{name}");
        assert!(alert.description.contains("{{ $value"), "{name} does not say its value");
        assert!(alert.description.contains("{{ $labels."), "{name} does not say where");
        let digits = alert.after.trim_end_matches(['s', 'm']);
        assert!(digits.parse::<u32>().is_ok(), "{name}: {}", alert.after);
    }
}

/// The headings of every page, in their order.
const HEADINGS: [&str; 4] = ["## Symptom", "## Metric", "## Action", "## Verification"];

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let folder = root().join("docs/runbooks");
    let pages = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let pages: BTreeSet<String> = pages.map(|name| name.into_string().unwrap()).collect();
    let names: BTreeSet<String> = alerts().map(|alert| format!("{}.md", alert.name)).collect();
    assert_eq!(pages, names);
    let known = known();
    let titles: BTreeSet<_> =
        SECTIONS.iter().flat_map(|section| section.panels).map(|panel| panel.title).collect();
    for alert in alerts() {
        let text = std::fs::read_to_string(root().join(rules::page(alert))).unwrap();
        let name = alert.name;
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, HEADINGS, "{name}");
        let expression = with_recordings(alert.expression);
        let is_named = |selector: &Selector<'_>| {
            let metric = metric_of(selector, &known).unwrap_or(selector.metric);
            text.contains(metric)
        };
        let watched = selectors(&expression);
        assert!(watched.iter().any(is_named), "{name} does not name a metric of its alert");
        for panel in emphasised(&text) {
            assert!(titles.contains(panel), "{name}: there is no panel `{panel}`");
        }
    }
}

/// The expression with recorded series replaced by what they record.
fn with_recordings(expression: &str) -> String {
    RECORDINGS.iter().fold(expression.to_owned(), |text, recording| {
        text.replace(recording.name, &format!("({})", recording.expression))
    })
}

/// What stands in asterisks and begins with a capital: the titles of panels.
fn emphasised(text: &str) -> Vec<&str> {
    let parts = text.split('*').skip(1).step_by(2);
    parts.filter(|part| part.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

/// These files are written from the tables. After a change, run the tests with `TICKCAST_BLESS=1` to write them.
#[test]
fn the_files_are_current() {
    let files = [
        ("deploy/grafana/dashboards/tickcast.json", dashboard::text()),
        ("deploy/prometheus/rules/recording.yaml", rules::recordings()),
        ("deploy/prometheus/rules/alerts.yaml", rules::alerts()),
        ("docs/reference/alerts.md", reference::markdown()),
    ];
    for (name, text) in files {
        let path = root().join(name);
        if std::env::var_os("TICKCAST_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let is_current = std::fs::read_to_string(&path).unwrap_or_default() == text;
        assert!(is_current, "{name} is out of date; run with TICKCAST_BLESS=1");
    }
}
