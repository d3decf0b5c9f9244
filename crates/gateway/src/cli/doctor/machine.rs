//! What this machine allows a node.

use std::ops::RangeInclusive;

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::cli::client::thousands;
use crate::config::Config;
use crate::server::BACKLOG;

/// Fewer files than this are what a system gives when nobody has asked for more.
const OPEN_FILES_FEW: u64 = 16_384;

/// Looks at the machine that this runs on.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let open_files = getrlimit(Resource::Nofile).maximum;
    let mut findings = vec![judge_open_files(open_files, config)];
    findings.extend(read_number("/proc/sys/net/core/somaxconn").map(judge_backlog));
    let ports = read("/proc/sys/net/ipv4/ip_local_port_range");
    findings
        .extend(ports.and_then(|text| port_range(&text)).map(|range| judge_ports(&range, config)));
    findings
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn read_number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}

/// A node raises its limit as far as it may, so the hard one counts. None is no limit.
pub(super) fn judge_open_files(hard_limit: Option<u64>, config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let room = thousands(config.max_connections() as u64);
    match hard_limit {
        Some(limit) if limit < OPEN_FILES_FEW => Finding::warn(
            CHECK,
            format!("the hard limit is {}: room for {room} connections", thousands(limit)),
            "raise it: LimitNOFILE=1048576 in a systemd unit, --ulimit nofile=1048576 in Docker",
        ),
        Some(limit) => {
            Finding::ok(CHECK, format!("{}: room for {room} connections", thousands(limit)))
        }
        None => Finding::ok(CHECK, format!("no limit: room for {room} connections")),
    }
}

pub(super) fn judge_backlog(somaxconn: u64) -> Finding {
    const CHECK: &str = "accept queue";
    if somaxconn >= u64::from(BACKLOG) {
        return Finding::ok(CHECK, format!("{} connections", thousands(somaxconn)));
    }
    Finding::warn(
        CHECK,
        format!(
            "net.core.somaxconn is {}: when a node is lost, all its clients come to the others at once",
            thousands(somaxconn)
        ),
        format!("sysctl -w net.core.somaxconn={BACKLOG}"),
    )
}

/// The ports that the kernel gives to outgoing connections: a listener's port among them may be taken when the node
/// starts again, and a proxy on this machine can open only so many connections to one node.
pub(super) fn judge_ports(range: &RangeInclusive<u16>, config: &Config) -> Finding {
    const CHECK: &str = "local ports";
    let listeners = [config.server.listen.port(), config.server.admin_listen.port()];
    let inside = listeners.iter().find(|port| range.contains(port));
    let (first, last) = (range.start(), range.end());
    let count = thousands(range.len() as u64);
    match inside {
        Some(port) => Finding::warn(
            CHECK,
            format!(
                "{first} to {last}: port {port} of this node is one that any outgoing connection may take"
            ),
            format!("listen below {first}, or: sysctl -w net.ipv4.ip_local_reserved_ports={port}"),
        ),
        None => Finding::ok(
            CHECK,
            format!(
                "{first} to {last}: a proxy on this machine can open {count} connections to a node"
            ),
        ),
    }
}
