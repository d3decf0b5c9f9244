//! What an operator does to a node, and asks about it: `/admin/*`.

use hyper::StatusCode;
use serde::Serialize;

use super::door::Operator;
use super::{Answer, json, with_body};
use crate::access::Key;
use crate::api::json_body;
use crate::node::Node;
use crate::node::life::Departed;
use crate::server::ReloadError;

/// The answer of `GET /admin/status` and of `POST /admin/drain`.
#[derive(Debug, Serialize)]
struct Status {
    /// `serving`, `leaving` (not ready, but serving still) or `draining`.
    life: &'static str,
    connections: Connections,
    /// How WebSocket connections have ended since the node drains.
    departed: Departed,
    /// When this part of its life began, in milliseconds since 1970.
    since: u64,
    /// When the node started.
    started: u64,
    version: &'static str,
}

/// Open connections of the public listener.
#[derive(Debug, Serialize)]
struct Connections {
    http: u64,
    websocket: u64,
}

/// Where the node is in its life.
pub(super) fn status(node: &Node) -> Answer {
    with_status(node, StatusCode::OK)
}

/// Begins the end of the node, as SIGTERM does. Asked again, it goes on as it does.
pub(super) fn drain(node: &Node, operator: &Operator) -> Answer {
    let Operator { client, key } = operator;
    let key = key.as_deref().map(Key::name);
    let is_first = node.life.ask_to_end();
    tracing::info!(%client, key, is_first, "an operator has asked for the end of the node");
    with_status(node, StatusCode::ACCEPTED)
}

/// Reads the configuration again, as SIGHUP does.
pub(super) async fn reload(node: &Node) -> Answer {
    match node.reload().await {
        // Names of settings always serialize.
        Ok(reloaded) => json(StatusCode::OK, serde_json::to_vec(&reloaded).unwrap_or_default()),
        Err(error) => not_reloaded(&error),
    }
}

fn with_status(node: &Node, code: StatusCode) -> Answer {
    // Who begins a drain may follow it, and it may be over before he asks for the first time.
    node.life.note_look();
    let (http, websocket) = node.open_connections();
    let status = Status {
        life: node.life.stage().as_str(),
        connections: Connections { http, websocket },
        departed: node.life.tally().read(),
        since: node.life.since(),
        started: node.life.started(),
        version: env!("CARGO_PKG_VERSION"),
    };
    // Words and numbers always serialize.
    json(code, serde_json::to_vec(&status).unwrap_or_default())
}

/// A problem document, with everything that is wrong with the configuration.
#[derive(Debug, Serialize)]
struct NotReloaded {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    hint: &'static str,
    errors: Vec<String>,
}

fn not_reloaded(error: &ReloadError) -> Answer {
    let errors = match error {
        ReloadError::Config(errors) => {
            errors.problems().iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        other => vec![other.to_string()],
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let document = NotReloaded {
        r#type: "urn:tickcast:error:bad_configuration",
        title: "The configuration is wrong",
        status: status.as_u16(),
        code: "bad_configuration",
        detail: format!("errors: {}; the old configuration stays in force", errors.len()),
        hint: "Mend what `errors` names, and reload again. `tickcast check` finds them before a node reads it.",
        errors,
    };
    let body = serde_json::to_vec(&document).unwrap_or_default();
    with_body(status, "application/problem+json", json_body(body))
}
