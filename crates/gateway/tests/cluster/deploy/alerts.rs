//! What Prometheus sees of the cluster, with the rules of `deploy/` and its own clock turned forward: it looks every second
//! and does not wait before it complains.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::deployment::{Deployment, fetch};
use super::receiver::Receiver;
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

/// Waits until an alert fires, for one node or for any.
fn until_fired(deployment: &Deployment, alert: &str, instance: Option<&str>) {
    let fired = until(alert, PATIENCE, || fires(deployment, alert, instance));
    println!("{alert} fires after {fired:?}");
}

/// Waits until an alert fires for nobody.
fn until_cleared(deployment: &Deployment, alert: &str) {
    let cleared = until(alert, PATIENCE, || !fires(deployment, alert, None));
    println!("{alert} is over after {cleared:?}");
}

/// What the tables of the dashboard and the alerts take for granted, the load balancer exports.
fn expect_metrics_of_the_balancer(deployment: &Deployment) {
    let exported = deployment.balancer_metrics().expect("it is there");
    let text = include_str!("../../../src/metrics/watch/balancer.txt");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (name, kind) = (words.next().expect("a name"), words.next().expect("a kind"));
        assert!(exported.contains(&format!("# TYPE {name} {kind}\n")), "{line}");
        let head = format!("{name}{{");
        let series: Vec<_> = exported
            .lines()
            .filter_map(|line| line.strip_prefix(&head)?.split('}').next())
            .collect();
        for word in words {
            let (label, values) = word.split_once('=').expect("a label and its values");
            for value in values.split('|') {
                let known = format!("{label}=\"{}", value.trim_end_matches('*'));
                assert!(series.iter().any(|labels| labels.contains(&known)), "{line}: {value}");
            }
        }
        let labels = line.matches('=').count();
        assert!(series.iter().all(|series| series.matches('=').count() == labels), "{line}");
    }
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
    for asked in queries("tickcast|haproxy", "10s").iter().filter(|asked| !asked.is_of_memory()) {
        until(&asked.panel, PATIENCE, || !query(&deployment, &asked.expression).is_empty());
    }
    expect_metrics_of_the_balancer(&deployment);

    let receiver = Receiver::start();
    deployment.send_alerts_to(receiver.address);
    assert!(!fires(&deployment, "TickcastDown", None));
    deployment.signal("node-3", Signal::KILL);
    until_fired(&deployment, "TickcastDown", Some("node-3"));
    assert!(!fires(&deployment, "TickcastDown", Some("node-1")));
    until_cleared(&deployment, "TickcastDown");
    until("sent", PATIENCE, || receiver.has("TickcastDown"));

    // What follows from Redis: at the nodes, and at the load balancer, which has nobody to publish to.
    let consequences = ["TickcastBrokerDown", "TickcastNoneReady", "TickcastBalancerNoServers"];
    // A node that has just started does not have Redis yet, and that counts at once here.
    consequences.iter().for_each(|alert| until_cleared(&deployment, alert));
    deployment.signal("redis", Signal::KILL);
    for node in ["node-1", "node-2", "node-3"] {
        until_fired(&deployment, "TickcastBrokerDown", Some(node));
    }
    consequences.iter().for_each(|alert| until_fired(&deployment, alert, None));
    consequences.iter().for_each(|alert| until_cleared(&deployment, alert));

    deployment.signal("haproxy", Signal::KILL);
    until_fired(&deployment, "TickcastBalancerDown", Some("haproxy"));
    until_cleared(&deployment, "TickcastBalancerDown");

    let good = deployment.read("keys.toml");
    let keys = deployment.folder.join("keys.toml");
    std::fs::write(&keys, "this is no key").expect("room on the disk");
    deployment.signal("node-1", Signal::HUP);
    until_fired(&deployment, "TickcastConfigReloadFailed", Some("node-1"));
    std::fs::write(&keys, good).expect("room on the disk");
    deployment.signal("node-1", Signal::HUP);
    until_cleared(&deployment, "TickcastConfigReloadFailed");
    assert_eq!(up(&deployment), all);
}
