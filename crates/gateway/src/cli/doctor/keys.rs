//! Keys: what they may do, who needs none, and who may read their file.
//!
//! A configuration is only taken with hashes, patterns and rights that are well formed, so those are not checked again.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::finding::Finding;
use crate::config::{Config, Right};

/// Permissions of a file for users that are neither its owner nor in its group.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// Looks at the keys of a configuration that was taken.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![judge_keys(config)];
    let file = &config.access.keys_file;
    if !file.as_os_str().is_empty() {
        findings.push(examine_file(file));
    }
    findings.extend([judge_publishing(config), judge_admin(config)]);
    findings
}

/// How many keys have a right.
fn count(config: &Config, right: Right) -> usize {
    config.access.keys.iter().filter(|key| key.rights.has(right)).count()
}

pub(super) fn judge_keys(config: &Config) -> Finding {
    const CHECK: &str = "keys";
    let all = config.access.keys.len();
    if all == 0 {
        return Finding::ok(CHECK, "none");
    }
    let [publish, subscribe, admin] =
        [Right::Publish, Right::Subscribe, Right::Admin].map(|right| count(config, right));
    Finding::ok(
        CHECK,
        format!(
            "{all}, all well formed: {publish} may publish, {subscribe} subscribe to closed topics, {admin} administer"
        ),
    )
}

/// It was read a moment ago.
fn examine_file(path: &Path) -> Finding {
    match std::fs::metadata(path) {
        Ok(metadata) => judge_file(path, metadata.permissions().mode()),
        Err(error) => Finding::fail(
            "keys file",
            format!("{}: {error}", path.display()),
            "name a file that stays where it is in access.keys_file",
        ),
    }
}

pub(super) fn judge_file(path: &Path, mode: u32) -> Finding {
    const CHECK: &str = "keys file";
    let (file, bits) = (path.display(), mode & 0o7777);
    let fix = format!(
        "chmod 640 {file}, with a group of the node's user, or 600 if the file is that user's own"
    );
    if mode & OTHERS_WRITE != 0 {
        let text =
            format!("{file}: every user of this machine may add keys to it (mode {bits:04o})");
        return Finding::warn(CHECK, text, fix);
    }
    if mode & OTHERS_READ != 0 {
        let text = format!(
            "{file}: every user of this machine may read who may do what (mode {bits:04o}); the keys themselves are not in it"
        );
        return Finding::warn(CHECK, text, fix);
    }
    Finding::ok(CHECK, format!("{file}: readable for this user, and not for all (mode {bits:04o})"))
}

pub(super) fn judge_publishing(config: &Config) -> Finding {
    const CHECK: &str = "publishing";
    let listen = config.server.listen;
    let (all, able) = (config.access.keys.len(), count(config, Right::Publish));
    match (all, able) {
        (0, _) if is_loopback(listen) => Finding::ok(
            CHECK,
            format!("without a key, for whoever reaches {listen} on this machine"),
        ),
        (0, _) => Finding::warn(
            CHECK,
            format!(
                "open to everybody who reaches {listen}: there are no keys, and server.insecure is set"
            ),
            "make a key (tickcast key new NAME --publish), or see to it that a firewall or a proxy decides who gets through",
        ),
        (_, 0) => Finding::warn(
            CHECK,
            "no key has the right `publish`: this node takes no publications",
            "make one, if it is to take any: tickcast key new NAME --publish",
        ),
        _ => Finding::ok(CHECK, format!("with a key: {able} of {all} may")),
    }
}

pub(super) fn judge_admin(config: &Config) -> Finding {
    const CHECK: &str = "admin routes";
    let listen = config.server.admin_listen;
    if is_loopback(listen) {
        let text = format!("without a key, for whoever reaches {listen} on this machine");
        return Finding::ok(CHECK, text);
    }
    let (all, able) = (config.access.keys.len(), count(config, Right::Admin));
    match able {
        0 => Finding::warn(
            CHECK,
            format!(
                "{listen} is not a loopback address, and no key has the right `admin`: nobody can drain or reload the node there"
            ),
            "make a key (tickcast key new NAME --admin), or set server.admin_listen to a loopback address",
        ),
        _ => Finding::ok(CHECK, format!("at {listen} with a key: {able} of {all} may")),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
