//! The metrics of a node: name, kind, meaning, labels, and how each is read.
//!
//! One row, one metric; one module per section. The exposition and `docs/reference/metrics.md` are both made from it. A row reads every series it can
//! ever have on this node, also those that are still zero. Rows about a kind of broker that the node does not have read
//! none, and are left out.

mod access;
mod broker;
mod connections;
mod delivery;
mod hub;
mod node;
mod publishing;
mod subscriptions;
mod workers;

use prometheus::proto::MetricType;

use super::exposition::Series;
use super::snapshot::Snapshot;

/// One metric.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) read: Read,
}

/// Reads the series of a row.
type Read = fn(&Snapshot<'_>, &mut Series);

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::COUNTER, help, labels, read }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::GAUGE, help, labels, read }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: Read,
) -> Row {
    Row { name, kind: MetricType::HISTOGRAM, help, labels, read }
}

/// The one transport of live data in this version.
const WEBSOCKET: &str = "websocket";

/// All metrics: the headings of the reference page, and what stands under each.
pub(super) const SECTIONS: &[(&str, &[Row])] = &[
    ("Node", node::NODE),
    ("Workers", workers::WORKERS),
    ("Connections", connections::CONNECTIONS),
    ("Subscriptions", subscriptions::SUBSCRIPTIONS),
    ("HTTP and publishing", publishing::PUBLISHING),
    ("Access", access::ACCESS),
    ("Broker", broker::BROKER),
    ("Broker inside the node", broker::MEMORY_BROKER),
    ("Redis", broker::REDIS),
    ("Hub", hub::HUB),
    ("Delivery", delivery::DELIVERY),
];
