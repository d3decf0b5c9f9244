//! What Grafana's linter of dashboards asks for, rule by rule: [`RULES`].

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::panels::Unit;
use super::super::promql::selectors;
use super::dashboard::dashboard;
use super::{known, promtool};

/// All rules of the linter (github.com/grafana/dashboard-linter) that are not experimental, and the test of each.
const RULES: [(&str, fn()); 17] = [
    ("template-datasource-rule", the_data_source_is_a_variable),
    ("template-job-rule", job_and_instance_are_variables_that_follow_the_time),
    ("template-instance-rule", job_and_instance_are_variables_that_follow_the_time),
    ("template-label-promql-rule", promtool::every_variable_is_valid),
    ("template-on-time-change-reload-rule", job_and_instance_are_variables_that_follow_the_time),
    ("panel-datasource-rule", every_panel_and_query_uses_the_variable_data_source),
    ("panel-title-description-rule", every_panel_has_a_title_of_its_own_and_a_description),
    ("panel-units-rule", every_panel_has_a_unit_that_grafana_knows),
    ("panel-no-targets-rule", every_panel_has_queries_with_a_legend),
    ("target-logql-rule", nothing_is_asked_of_logs),
    ("target-logql-auto-rule", nothing_is_asked_of_logs),
    ("target-promql-rule", promtool::every_query_is_valid),
    ("target-rate-interval-rule", every_range_is_the_rate_interval),
    ("target-job-rule", every_selector_asks_for_the_variables),
    ("target-instance-rule", every_selector_asks_for_the_variables),
    ("target-counter-agg-rule", counters_are_seen_as_rates),
    ("uneditable-dashboard-rule", the_dashboard_cannot_be_edited_by_mistake),
];

#[test]
fn every_rule_has_a_test_and_is_there_once() {
    let names: BTreeSet<_> = RULES.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), RULES.len());
    assert!(names.iter().all(|name| name.ends_with("-rule")));
}

/// All panels, also those inside a closed row.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let list = |value: &'_ Value| value["panels"].as_array().cloned().unwrap_or_default();
    assert!(!list(dashboard).is_empty());
    let outer = dashboard["panels"].as_array().unwrap();
    let inner = outer.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    outer.iter().chain(inner).collect()
}

/// Panels that show something, with their title.
fn drawn(dashboard: &Value) -> Vec<(&str, &Value)> {
    let panels = panels(dashboard).into_iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| (panel["title"].as_str().unwrap_or_default(), panel)).collect()
}

fn targets(panel: &Value) -> &Vec<Value> {
    panel["targets"].as_array().unwrap()
}

fn variable<'a>(dashboard: &'a Value, name: &str) -> &'a Value {
    let list = dashboard["templating"]["list"].as_array().unwrap();
    list.iter().find(|variable| variable["name"] == name).unwrap()
}

#[test]
fn the_data_source_is_a_variable() {
    let dashboard = dashboard();
    let source = variable(&dashboard, "datasource");
    assert_eq!(source["type"], "datasource");
    assert_eq!(source["query"], "prometheus");
    assert_eq!(source["label"], "Data source");
}

#[test]
fn job_and_instance_are_variables_that_follow_the_time() {
    let (dashboard, known) = (dashboard(), known());
    for (name, label) in [("job", "Job"), ("instance", "Instance")] {
        let variable = variable(&dashboard, name);
        assert_eq!(variable["type"], "query", "{name}");
        assert_eq!(variable["label"], label);
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
        assert_eq!(variable["multi"], true, "{name}");
        assert_eq!(variable["includeAll"], true, "{name}");
        assert_eq!(variable["allValue"], ".+", "{name}");
        assert_eq!(variable["refresh"], 2, "{name} is read again when the time changes");
        let (selector, label) = label_values(variable);
        assert_eq!(label, name);
        let metrics = selector.strip_prefix(r#"{__name__=~""#).unwrap().split('"').next().unwrap();
        assert!(metrics.split('|').all(|metric| known.contains_key(metric)), "{selector}");
    }
}

/// Of which series a variable has the values of which label.
fn label_values(variable: &Value) -> (&str, &str) {
    let query = variable["query"]["query"].as_str().unwrap();
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    inside.unwrap().rsplit_once(", ").unwrap()
}

/// The selectors of the variables, as Grafana sends them.
pub(super) fn selectors_of_variables() -> Vec<String> {
    let dashboard = dashboard();
    let names = ["job", "instance"];
    let selectors = names.map(|name| label_values(variable(&dashboard, name)).0.to_owned());
    selectors.map(|selector| selector.replace("$job", ".+")).to_vec()
}

#[test]
fn the_dashboard_cannot_be_edited_by_mistake() {
    assert_eq!(dashboard()["editable"], false);
}

#[test]
fn every_panel_and_query_uses_the_variable_data_source() {
    for (title, panel) in drawn(&dashboard()) {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in targets(panel) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    for mark in dashboard()["annotations"]["list"].as_array().unwrap() {
        assert_eq!(mark["datasource"]["uid"], "${datasource}");
    }
}

#[test]
fn every_panel_has_a_title_of_its_own_and_a_description() {
    let dashboard = dashboard();
    let mut titles = BTreeSet::new();
    for (title, panel) in drawn(&dashboard) {
        assert!(!title.is_empty() && titles.insert(title), "`{title}` is there twice");
        let about = panel["description"].as_str().unwrap();
        assert!(about.ends_with('.') && about.len() > 20, "{title}: {about}");
    }
}

#[test]
fn every_panel_has_a_unit_that_grafana_knows() {
    use Unit::{Bytes, BytesPerSecond, Count, PerSecond, Seconds, Share};
    let ids = [Count, PerSecond, Seconds, Bytes, BytesPerSecond, Share].map(Unit::id);
    assert_eq!(ids, ["short", "cps", "s", "bytes", "Bps", "percentunit"]);
    for (title, panel) in drawn(&dashboard()) {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        assert!(ids.contains(&unit), "{title}: {unit}");
    }
}

/// Legends tell the lines apart.
#[test]
fn every_panel_has_queries_with_a_legend() {
    for (title, panel) in drawn(&dashboard()) {
        let targets = targets(panel);
        assert!(!targets.is_empty(), "{title}");
        let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
        assert_eq!(names.len(), targets.len(), "{title}");
        for target in targets {
            assert!(!target["legendFormat"].as_str().unwrap().is_empty(), "{title}");
        }
    }
}

/// The expressions of the panels, with the title.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let panels = drawn(dashboard);
    let targets =
        panels.iter().flat_map(|(title, panel)| targets(panel).iter().map(|t| (*title, t)));
    targets.map(|(title, target)| (title, target["expr"].as_str().unwrap())).collect()
}

/// What asks Loki has two rules of its own.
#[test]
fn nothing_is_asked_of_logs() {
    let dashboard = dashboard();
    for (title, panel) in drawn(&dashboard) {
        let sources = targets(panel).iter().map(|target| &target["datasource"]);
        for source in sources.chain([&panel["datasource"]]) {
            assert_eq!(source["type"], "prometheus", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let mut sources = variables.filter(|variable| variable["type"] == "datasource");
    assert!(sources.all(|source| source["query"] == "prometheus"));
}

#[test]
fn every_selector_asks_for_the_variables() {
    for (title, expression) in expressions(&dashboard()) {
        for selector in selectors(expression) {
            for matcher in [("job", "=~", "$job"), ("instance", "=~", "$instance")] {
                assert!(selector.matchers.contains(&matcher), "{title}: {expression}");
            }
        }
    }
}

#[test]
fn every_range_is_the_rate_interval() {
    for (title, expression) in expressions(&dashboard()) {
        for selector in selectors(expression) {
            let is_known = selector.range.is_none_or(|range| range == "$__rate_interval");
            assert!(is_known, "{title}: {expression}");
        }
    }
}

#[test]
fn counters_are_seen_as_rates() {
    for (title, expression) in expressions(&dashboard()) {
        for selector in selectors(expression) {
            let ends = ["_total", "_bucket", "_count", "_sum"];
            let is_counter = ends.iter().any(|end| selector.metric.ends_with(end));
            let is_rate = matches!(selector.function, Some("rate" | "irate" | "increase"));
            assert_eq!(is_counter, selector.range.is_some() && is_rate, "{title}: {expression}");
        }
    }
}

/// Panels neither overlap nor stick out.
#[test]
fn panels_fill_a_grid() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64()), "{}", panel["title"]);
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for y in place("y")..place("y") + place("h") {
            for x in place("x")..place("x") + place("w") {
                assert!(taken.insert((x, y)), "{} overlaps another", panel["title"]);
            }
        }
    }
}
