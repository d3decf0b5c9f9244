//! Whether a node is ready, for whom, and if not, why.

use hyper::StatusCode;
use serde::Serialize;

use super::{Answer, json};
use crate::node::Node;
use crate::node::pulse::Silent;

/// What the asker wants to send here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Publications: they must arrive.
    Publish,
    /// Subscribers: they are welcome while only the broker is down, because they keep what they have and are told. If a
    /// broker's outage made every node refuse them, it would end with all clients coming back at once.
    Subscribe,
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    status: &'static str,
    /// Ready, but something is missing.
    degraded: bool,
    draining: bool,
    broker: &'static str,
    /// What is missing, in stable words.
    reasons: Vec<&'static str>,
}

impl Report {
    pub(super) fn is_ready(&self) -> bool {
        self.status == READY
    }
}

const READY: &str = "ready";

/// Whether the node is ready now. The rule is the node's; this says why.
pub(super) fn report(node: &Node, purpose: Purpose) -> Report {
    let is_ready = match purpose {
        Purpose::Publish => node.is_ready(),
        Purpose::Subscribe => node.is_ready_for_subscribe(),
    };
    let (draining, is_broker_up) = (node.is_leaving(), node.metrics.is_broker_up());
    let mut reasons = Vec::new();
    if draining {
        reasons.push("draining");
    }
    if node.pulse.hangs() {
        reasons.push("worker_hangs");
    }
    if node.connections.is_out_of_files() {
        reasons.push("open_files");
    }
    if !is_broker_up {
        reasons.push("broker_down");
    }
    Report {
        status: if is_ready { READY } else { "not_ready" },
        degraded: is_ready && !reasons.is_empty(),
        draining,
        broker: if is_broker_up { "up" } else { "down" },
        reasons,
    }
}

/// The answer of `/livez`: does starting the node again promise anything? A broker that is down is no reason to.
pub(super) fn alive(node: &Node) -> Answer {
    let Some(Silent { worker, seconds }) = node.pulse.silent() else {
        return json(StatusCode::OK, br#"{"status":"ok"}"#.to_vec());
    };
    let body = format!(r#"{{"status":"hanging","worker":{worker},"silent_seconds":{seconds}}}"#);
    json(StatusCode::SERVICE_UNAVAILABLE, body.into_bytes())
}
