//! What the facts about a Redis mean for a cluster of nodes.

use std::time::Duration;

use tickcast_broker::redis::inspect::{
    BufferLimit, Clients, Clock, Facts, Memory, Permission, Persistence, Reading, Role,
    SentinelFacts,
};

use super::finding::{Finding, Level, bytes};
use crate::cli::client::thousands;

/// The oldest version whose RESP3 and scripts do what a node needs.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Every publication waits for the way to Redis and back; inside one data centre it is well below this.
const ROUND_TRIP_LONG: Duration = Duration::from_millis(5);

/// A difference that people would see in what is shown as the age of a publication.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);

/// Less than this is full after a hiccup of a second under load.
const BUFFER_SMALL: u64 = 8 << 20;

/// For the sum of what nodes that do not keep up may cost Redis.
const FLEET: u64 = 10;

/// Connections of one node: one for commands, one for subscriptions.
const CONNECTIONS_PER_NODE: u64 = 2;

/// Only the metric of the output buffer needs it.
const OPTIONAL_COMMAND: &str = "client|list";

/// All findings about a Redis that was reached.
pub(super) fn judge(facts: &Facts, prefix: &str) -> Vec<Finding> {
    let mut findings = vec![
        judge_round_trip(facts),
        reading("version", &facts.version, |version| judge_version(version)),
        reading("mode", &facts.mode, |mode| judge_mode(mode)),
        reading("role", &facts.role, judge_role),
    ];
    findings.extend(judge_permissions(&facts.permissions, prefix));
    findings.push(reading("subscriber buffer", &facts.pubsub_buffer, judge_buffer));
    findings.extend(judge_memory(&facts.memory));
    findings.push(judge_clients(&facts.clients));
    findings.push(judge_replicas(facts));
    findings.push(judge_persistence(&facts.persistence));
    findings.push(reading("clock", &facts.clock, judge_clock));
    findings.extend(judge_sentinels(&facts.sentinels));
    findings
}

/// Managed services answer only some questions: what cannot be read is worth knowing and nothing to repair.
fn reading<T>(
    check: &'static str,
    value: &Reading<T>,
    judge: impl FnOnce(&T) -> Finding,
) -> Finding {
    match value {
        Ok(value) => judge(value),
        Err(error) => unknown(check, error),
    }
}

fn unknown(check: &'static str, error: &impl std::fmt::Display) -> Finding {
    let fix = "look at it where this Redis is managed, or allow `config|get` and `info`";
    Finding::warn(check, format!("not known: {error}"), fix)
}

fn judge_round_trip(facts: &Facts) -> Finding {
    let took = facts.round_trip;
    let place = match facts.peer == facts.address {
        true => facts.address.clone(),
        false => format!("{} ({})", facts.address, facts.peer),
    };
    let value = format!("{place}, {:.2} ms there and back", took.as_secs_f64() * 1e3);
    if took > ROUND_TRIP_LONG {
        let fix = "run nodes near their Redis: every publication waits that long";
        return Finding::warn("reachable", value, fix);
    }
    Finding::ok("reachable", value)
}

fn judge_version(version: &str) -> Finding {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let number = parts.next().flatten().zip(parts.next().flatten());
    let (major, minor) = VERSION_MIN;
    match number {
        Some(number) if number >= VERSION_MIN => Finding::ok("version", version),
        Some(_) => Finding::fail(
            "version",
            format!("{version} is older than {major}.{minor}"),
            format!("use Redis {major}.{minor} or later, or Valkey"),
        ),
        None => Finding::warn(
            "version",
            format!("{version} is not a version that can be compared"),
            format!("make sure that it does what Redis {major}.{minor} does"),
        ),
    }
}

fn judge_mode(mode: &str) -> Finding {
    match mode {
        "standalone" => Finding::ok("mode", mode),
        "sentinel" => Finding::fail(
            "mode",
            "this is a Sentinel",
            "write redis+sentinel://host:26379/master, and nodes ask it where the master is",
        ),
        "cluster" => Finding::fail(
            "mode",
            "Redis Cluster is not supported by this version",
            "use one Redis, alone or behind Sentinels",
        ),
        other => Finding::warn("mode", other, "a Redis of mode `standalone` is what nodes know"),
    }
}

fn judge_role(role: &Role) -> Finding {
    match role {
        Role::Master => Finding::ok("role", "master"),
        Role::Replica { of, connected } => {
            let hears = if *connected { "" } else { ", which it does not reach" };
            Finding::fail(
                "role",
                format!("a replica of {of}{hears}: it takes no publications"),
                "name the master, or its Sentinels with redis+sentinel://",
            )
        }
    }
}

fn judge_permissions(permissions: &[Permission], prefix: &str) -> Vec<Finding> {
    let refused = |is_optional: bool| {
        let refused = permissions.iter().filter(move |permission| {
            permission.refusal.is_some() && (permission.command == OPTIONAL_COMMAND) == is_optional
        });
        refused.map(|permission| permission.command).collect::<Vec<_>>()
    };
    let mut findings = Vec::new();
    for (level, refused, what) in [
        (Level::Fail, refused(false), ""),
        (Level::Warn, refused(true), "; only tickcast_broker_output_buffer_bytes misses it"),
    ] {
        if let Some(first) = refused.first() {
            let reason = permissions.iter().find(|permission| permission.command == *first);
            let reason = reason.and_then(|permission| permission.refusal.as_deref());
            let value =
                format!("refused: {}{what} (`{}`)", refused.join(" "), reason.unwrap_or_default());
            let commands = refused.iter().map(|command| format!(" +{command}")).collect::<String>();
            let fix = format!("ACL SETUSER <user> ~{prefix}:* &{prefix}:*{commands}");
            findings.push(Finding::new(level, "permissions", value, fix));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("permissions", "all that a node needs"));
    }
    findings
}

fn judge_buffer(limit: &BufferLimit) -> Finding {
    const CHECK: &str = "subscriber buffer";
    let fix = "CONFIG SET client-output-buffer-limit \"pubsub 32mb 8mb 60\", and in redis.conf";
    if limit.hard == 0 {
        let value = "no limit: a node that does not keep up takes Redis' memory without end";
        return Finding::warn(CHECK, value, fix);
    }
    let soft = match limit.soft {
        0 => String::new(),
        soft => format!(", {} for {} s", bytes(soft), limit.soft_for.as_secs()),
    };
    let value = format!(
        "a node may fall {} behind{soft}; {FLEET} such nodes take {} of Redis",
        bytes(limit.hard),
        bytes(limit.hard.saturating_mul(FLEET))
    );
    if limit.hard < BUFFER_SMALL {
        return Finding::warn(CHECK, format!("{value}: a short hiccup breaks the link"), fix);
    }
    Finding::ok(CHECK, value)
}

fn judge_memory(memory: &Memory) -> [Finding; 2] {
    [judge_memory_limit(memory), reading("eviction", &memory.policy, |policy| judge_policy(policy))]
}

fn judge_memory_limit(memory: &Memory) -> Finding {
    const CHECK: &str = "memory";
    let (used, max) = match (&memory.used, &memory.max) {
        (Ok(used), Ok(max)) => (*used, *max),
        (Err(error), _) | (_, Err(error)) => return unknown(CHECK, error),
    };
    if max == 0 {
        return Finding::warn(
            CHECK,
            format!(
                "{} used, without a limit: the kernel kills Redis when it takes too much",
                bytes(used)
            ),
            "CONFIG SET maxmemory to about three quarters of the machine, and in redis.conf",
        );
    }
    let value = format!("{} of {} used", bytes(used), bytes(max));
    if used > max / 10 * 9 {
        let fix =
            "raise maxmemory, or keep less: topics.history, topics.history_bytes, broker.topic_ttl";
        return Finding::warn(
            CHECK,
            format!("{value}: publications are refused at the limit"),
            fix,
        );
    }
    Finding::ok(CHECK, value)
}

fn judge_policy(policy: &str) -> Finding {
    if policy == "noeviction" {
        return Finding::ok("eviction", policy);
    }
    // All keys of a node have a time to live, so `volatile-*` takes them as well.
    Finding::warn(
        "eviction",
        format!(
            "{policy}: at the limit topics lose their epochs, and their subscribers get a reset"
        ),
        "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
    )
}

fn judge_clients(clients: &Clients) -> Finding {
    const CHECK: &str = "connections";
    let (connected, max) = match (&clients.connected, &clients.max) {
        (Ok(connected), Ok(max)) => (*connected, *max),
        (Err(error), _) | (_, Err(error)) => return unknown(CHECK, error),
    };
    let value = format!("{} of {}", thousands(connected), thousands(max));
    if max.saturating_sub(connected) < FLEET * CONNECTIONS_PER_NODE {
        let fix = format!("raise maxclients: each node takes {CONNECTIONS_PER_NODE} connections");
        return Finding::warn(CHECK, value, fix);
    }
    Finding::ok(CHECK, value)
}

fn judge_replicas(facts: &Facts) -> Finding {
    const CHECK: &str = "replicas";
    let (replicas, needed) = match (&facts.replicas, &facts.min_replicas_to_write) {
        (Ok(replicas), Ok(needed)) => (*replicas, *needed),
        (Err(error), _) | (_, Err(error)) => return unknown(CHECK, error),
    };
    let has_failover = replicas > 0 || !facts.sentinels.is_empty();
    match (replicas, needed) {
        _ if replicas < needed => Finding::fail(
            CHECK,
            format!("{replicas}, and min-replicas-to-write is {needed}: it takes no publications"),
            "bring a replica back, or lower min-replicas-to-write",
        ),
        (_, 0) if has_failover => Finding::warn(
            CHECK,
            format!(
                "{replicas}, and min-replicas-to-write is 0: a master that was cut off goes on taking publications that are lost"
            ),
            "CONFIG SET min-replicas-to-write 1, CONFIG SET min-replicas-max-lag 10, on every server",
        ),
        (0, _) => Finding::ok(CHECK, "none: while this server is down, nothing is published"),
        _ => Finding::ok(CHECK, format!("{replicas}, of which a write needs {needed}")),
    }
}

fn judge_persistence(persistence: &Persistence) -> Finding {
    const CHECK: &str = "persistence";
    if persistence.last_write_ok == Ok(false) {
        return Finding::fail(
            CHECK,
            "the last write to disk failed: Redis may refuse publications until one succeeds",
            "look at its log and its disk; stop-writes-on-bgsave-error no takes publications all the same",
        );
    }
    match (&persistence.save, &persistence.append_only) {
        (_, Ok(true)) => Finding::ok(CHECK, "append-only file: topics survive a restart"),
        (Ok(save), Ok(false)) if save.is_empty() => {
            Finding::ok(CHECK, "none: after a restart all topics begin anew, with a reset")
        }
        (Ok(_), Ok(false)) => Finding::ok(
            CHECK,
            "snapshots: after a crash topics go on from the last one, with a reset",
        ),
        (Err(error), _) | (_, Err(error)) => unknown(CHECK, error),
    }
}

fn judge_clock(clock: &Clock) -> Finding {
    let difference = Duration::from_micros(clock.ahead_micros.unsigned_abs());
    // What may be the way there and not the clock is not counted.
    let certain = difference.saturating_sub(clock.uncertainty);
    if certain < Duration::from_millis(1) {
        return Finding::ok("clock", "that of this machine, to the millisecond");
    }
    let direction = if clock.ahead_micros < 0 { "behind" } else { "ahead of" };
    let value = format!("{} ms {direction} this machine's", difference.as_millis());
    if certain > CLOCK_DIFFERENCE_MAX {
        return Finding::warn(
            "clock",
            format!("{value}: only ages and latencies that are shown are wrong"),
            "run an NTP client, such as chrony, on both machines",
        );
    }
    Finding::ok("clock", value)
}

/// Each Sentinel by itself, and whether they agree.
pub(super) fn judge_sentinels(sentinels: &[SentinelFacts]) -> Vec<Finding> {
    const CHECK: &str = "sentinel";
    let masters: Vec<&String> =
        sentinels.iter().filter_map(|sentinel| sentinel.master.as_ref().ok()?.as_ref()).collect();
    let mut findings = Vec::new();
    for SentinelFacts { address, master, quorum } in sentinels {
        findings.push(match (master, quorum) {
            (Err(error), _) => Finding::warn(
                CHECK,
                format!("{address}: {error}"),
                "start it, or take it out of the URL",
            ),
            (Ok(None), _) => Finding::fail(
                CHECK,
                format!("{address}: it watches no master of this name"),
                "name the master as `sentinel monitor <name> …` does",
            ),
            (Ok(Some(master)), Err(error)) => Finding::warn(
                CHECK,
                format!("{address}: {master}, but it could not be replaced: {error}"),
                "start enough Sentinels for a majority, and for the quorum",
            ),
            (Ok(Some(master)), Ok(_)) => Finding::ok(CHECK, format!("{address}: {master}")),
        });
    }
    if masters.windows(2).any(|pair| pair[0] != pair[1]) {
        findings.push(Finding::fail(
            CHECK,
            "they do not agree on who the master is",
            "wait until a failover is over; if it lasts: SENTINEL RESET <name>, one Sentinel after the other",
        ));
    }
    findings
}
