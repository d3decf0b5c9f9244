//! What the user may do with names of the prefix. Each command is really sent: older servers have no dry run.

use redis::Cmd;
use redis::aio::MultiplexedConnection;
use tracing::debug;

use super::readings::ask;
use super::{Permission, Reading, Unreadable};
use crate::redis::names::Names;

/// The name of a node that never is one.
const NODE: &str = "doctor";
const OTHER_NODE: &str = "doctor-list";

/// If a key cannot be removed, it goes away by itself.
const LIFE_MS: u64 = 1000;

/// No script has this digest, so the answer to an allowed EVALSHA is that the script is not there.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// Tries what a node needs. The error is that of a lost connection.
pub(super) async fn read(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    client_id: Option<u64>,
) -> Result<Vec<Permission>, String> {
    let names = Names::new(prefix);
    let mut permissions = Vec::new();
    for (command, request) in harmless(&names, client_id) {
        let refusal = refusal(ask(connection, &request).await?);
        permissions.push(Permission { command, refusal });
    }
    let may_remove = permissions
        .iter()
        .any(|permission| permission.command == "del" && permission.refusal.is_none());
    for (command, request) in writing(&names) {
        let refusal = if may_remove {
            refusal(ask(connection, &request).await?)
        } else {
            Some("not tried, as `del` is refused and the key would stay".to_owned())
        };
        permissions.push(Permission { command, refusal });
    }
    if may_remove {
        let remove = command("DEL", &[&names.node_topic(NODE), &names.node_topic(OTHER_NODE)]);
        if let Err(reason) = ask(connection, &remove).await? {
            debug!(%reason, "the keys of the inspection go away by themselves");
        }
    }
    Ok(permissions)
}

/// A refusal by permission. That a server has no room, no replica or no script is for other facts to say.
fn refusal<T>(answer: Reading<T>) -> Option<String> {
    let Unreadable(text) = answer.err()?;
    let lower = text.to_ascii_lowercase();
    (lower.starts_with("noperm") || lower.starts_with("noauth") || lower.contains("unknown"))
        .then_some(text)
}

/// Commands that change nothing, as the keys do not exist and nobody is subscribed.
fn harmless(names: &Names, client_id: Option<u64>) -> Vec<(&'static str, Cmd)> {
    let (key, channel) = (names.node_topic(NODE), names.node_channel(NODE));
    let (key, channel) = (key.as_str(), channel.as_str());
    let own_id = client_id.unwrap_or_default().to_string();
    vec![
        ("subscribe", command("SUBSCRIBE", &[channel])),
        ("publish", command("PUBLISH", &[channel, "0"])),
        ("unsubscribe", command("UNSUBSCRIBE", &[channel])),
        ("evalsha", command("EVALSHA", &[NO_SCRIPT, "1", key])),
        ("script|load", command("SCRIPT", &["LOAD", "return 0"])),
        ("eval", command("EVAL", &["return 0", "1", key])),
        ("info", command("INFO", &["replication"])),
        ("time", command("TIME", &[])),
        ("client|list", command("CLIENT", &["LIST", "ID", &own_id])),
        ("hget", command("HGET", &[key, "e"])),
        ("hkeys", command("HKEYS", &[key])),
        ("hdel", command("HDEL", &[key, "e"])),
        ("get", command("GET", &[key])),
        ("lrange", command("LRANGE", &[key, "0", "0"])),
        ("lindex", command("LINDEX", &[key, "0"])),
        ("lpop", command("LPOP", &[key])),
        ("ltrim", command("LTRIM", &[key, "0", "0"])),
        ("expire", command("EXPIRE", &[key, "1"])),
        ("ttl", command("TTL", &[key])),
        ("del", command("DEL", &[key])),
    ]
}

/// Commands that make a key, which lives for a moment.
fn writing(names: &Names) -> Vec<(&'static str, Cmd)> {
    let (key, other) = (names.node_topic(NODE), names.node_topic(OTHER_NODE));
    let life = LIFE_MS.to_string();
    vec![
        ("hset", command("HSET", &[&key, "e", "0"])),
        ("rpush", command("RPUSH", &[&other, "0"])),
        ("set", command("SET", &[&key, "0", "PX", &life])),
    ]
}

fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}
