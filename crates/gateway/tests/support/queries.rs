//! What the shipped dashboard asks Prometheus for.

use std::path::Path;

use serde_json::Value;

/// One query of the dashboard, with its variables filled in.
#[derive(Debug)]
pub(crate) struct Query {
    /// The title of the panel.
    pub(crate) panel: String,
    /// What can be sent to Prometheus.
    pub(crate) expression: String,
    /// It stands in a row that is closed at first, because only some clusters have what it shows.
    pub(crate) is_special: bool,
}

/// All queries of `deploy/grafana/dashboards/tickcast.json`, over all nodes of these jobs and with this range, such as
/// `30s`: several scrapes must lie in it.
pub(crate) fn queries(job: &str, range: &str) -> Vec<Query> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/dashboards/tickcast.json");
    let text = std::fs::read_to_string(path).expect("the dashboard is in the repository");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        collect(panel, false, &mut queries);
        list(&panel["panels"]).iter().for_each(|inner| collect(inner, true, &mut queries));
    }
    for query in &mut queries {
        let expression = query.expression.replace("$job", job).replace("$instance", ".+");
        query.expression = expression.replace("$__rate_interval", range);
        assert!(!query.expression.contains('$'), "a variable is left: {query:?}");
    }
    assert!(queries.len() > 50, "{} queries are not the whole dashboard", queries.len());
    queries
}

fn collect(panel: &Value, is_special: bool, queries: &mut Vec<Query>) {
    let title = panel["title"].as_str().unwrap_or_default();
    for target in list(&panel["targets"]) {
        let expression = target["expr"].as_str().expect("a query has an expression").to_owned();
        queries.push(Query { panel: title.to_owned(), expression, is_special });
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
