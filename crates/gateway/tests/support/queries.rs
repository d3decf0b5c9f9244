//! What the shipped dashboard asks Prometheus for.

use std::path::Path;

use serde_json::Value;

/// One query of the dashboard, with its variables filled in.
#[derive(Debug)]
pub(crate) struct Query {
    /// The row of the panel, and its title.
    pub(crate) row: String,
    pub(crate) panel: String,
    /// What can be sent to Prometheus.
    pub(crate) expression: String,
}

impl Query {
    /// Only nodes without Redis have what it shows.
    pub(crate) fn is_of_memory(&self) -> bool {
        self.row == "Broker inside the node (without Redis)"
    }

    /// Only a load balancer has what it shows.
    pub(crate) fn is_of_the_balancer(&self) -> bool {
        self.row == "Load balancer"
    }
}

/// All queries of `deploy/grafana/dashboards/tickcast.json`, over all nodes of these jobs and with this range, such as
/// `30s`: several scrapes must lie in it.
pub(crate) fn queries(job: &str, range: &str) -> Vec<Query> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/dashboards/tickcast.json");
    let text = std::fs::read_to_string(path).expect("the dashboard is in the repository");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut queries = Vec::new();
    let mut row = "";
    for panel in list(&dashboard["panels"]) {
        if panel["type"] == "row" {
            row = panel["title"].as_str().unwrap_or_default();
        }
        collect(row, panel, &mut queries);
        list(&panel["panels"]).iter().for_each(|inner| collect(row, inner, &mut queries));
    }
    for query in &mut queries {
        let expression = query.expression.replace("$job", job).replace("$instance", ".+");
        query.expression = expression.replace("$__rate_interval", range);
        assert!(!query.expression.contains('$'), "a variable is left: {query:?}");
    }
    assert!(queries.len() > 50, "{} queries are not the whole dashboard", queries.len());
    for is_of_it in [Query::is_of_memory, Query::is_of_the_balancer] {
        assert!(queries.iter().any(is_of_it), "a row has another title");
    }
    queries
}

fn collect(row: &str, panel: &Value, queries: &mut Vec<Query>) {
    let title = panel["title"].as_str().unwrap_or_default();
    for target in list(&panel["targets"]) {
        let expression = target["expr"].as_str().expect("a query has an expression").to_owned();
        queries.push(Query { row: row.to_owned(), panel: title.to_owned(), expression });
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
