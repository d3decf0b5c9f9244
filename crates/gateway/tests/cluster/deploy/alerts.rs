//! What Prometheus sees of the cluster, with the rules of `deploy/` and its own clock turned forward: it looks every second
//! and does not wait before it complains.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::deployment::{Deployment, fetch};
use crate::harness::alone;
use crate::process::{PATIENCE, until};
use crate::queries::queries;

/// All results of a query.
fn query(deployment: &Deployment, query: &str) -> Vec<Value> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/api/v1/query?query={encoded}");
    let Ok(body) = fetch(deployment.prometheus(), &path) else { return Vec::new() };
    let answer: Value =
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{body}")).clone()
}

/// Who is up, as `job/instance`.
fn up(deployment: &Deployment) -> BTreeSet<String> {
    let word = |target: &Value, label: &str| target["metric"][label].as_str().map(str::to_owned);
    let name =
        |target: &Value| Some(format!("{}/{}", word(target, "job")?, word(target, "instance")?));
    query(deployment, "up == 1").iter().filter_map(name).collect()
}

/// Whether an alert fires: for one node, or for any if none is named.
fn fires(deployment: &Deployment, alert: &str, instance: Option<&str>) -> bool {
    let body = fetch(deployment.prometheus(), "/api/v1/alerts").unwrap_or_default();
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    answer["data"]["alerts"].as_array().into_iter().flatten().any(|found| {
        let labels = &found["labels"];
        let is_there = instance.is_none_or(|instance| labels["instance"] == instance);
        found["state"] == "firing" && labels["alertname"] == alert && is_there
    })
}

#[test]
fn everything_is_looked_at_and_alerts_fire_and_clear() {
    let _turn = alone();
    let settings = [("RESTART_AFTER", "8"), ("SCRAPE_EVERY", "1s"), ("ALERT_AFTER", "0s")];
    let deployment = Deployment::start(&settings);
    let port = deployment.prometheus().port();
    let own = format!("prometheus/127.0.0.1:{port}");
    let all = ["haproxy/haproxy", &own, "tickcast/node-1", "tickcast/node-2", "tickcast/node-3"];
    let all: BTreeSet<_> = all.into_iter().map(str::to_owned).collect();
    until("scraped", PATIENCE, || up(&deployment) == all);
    for (series, count) in [
        ("tickcast_ready == 1", 3),
        ("rate(tickcast_publications_total{result=\"accepted\"}[10s]) > 0", 3),
        ("haproxy_server_status{proxy=\"publish\",state=\"UP\"} == 1", 3),
        ("haproxy_backend_http_responses_total{proxy=\"publish\",code=\"2xx\"} > 0", 1),
    ] {
        until(series, PATIENCE, || query(&deployment, series).len() == count);
    }

    // Every panel of the dashboard has something to show, but for those of nodes without Redis.
    for asked in queries("tickcast", "10s").iter().filter(|asked| !asked.is_special) {
        until(&asked.panel, PATIENCE, || !query(&deployment, &asked.expression).is_empty());
    }

    assert!(!fires(&deployment, "TickcastDown", None));
    deployment.signal("node-3", Signal::KILL);
    until("reported", PATIENCE, || fires(&deployment, "TickcastDown", Some("node-3")));
    assert!(!fires(&deployment, "TickcastDown", Some("node-1")));
    until("cleared", PATIENCE, || !fires(&deployment, "TickcastDown", None));

    assert!(!fires(&deployment, "TickcastBrokerDown", None));
    deployment.signal("redis", Signal::KILL);
    for node in ["node-1", "node-2", "node-3"] {
        until("reported", PATIENCE, || fires(&deployment, "TickcastBrokerDown", Some(node)));
    }
    until("cleared", PATIENCE, || !fires(&deployment, "TickcastBrokerDown", None));
    assert_eq!(up(&deployment), all);
}
