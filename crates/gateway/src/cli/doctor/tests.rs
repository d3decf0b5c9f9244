//! What facts mean, and how the report looks.

use std::io::ErrorKind;
use std::time::Duration;

use tickcast_broker::redis::inspect::{
    BufferLimit, Clients, Clock, Facts, Memory, Permission, Persistence, Role, SentinelFacts,
};

use super::finding::{Finding, Level, Report, bytes};
use super::{keys, listeners, machine, redis};
use crate::config::{AccessKey, Config, Flags, Right};
use crate::server::listen::occupant::Occupant;

/// A Redis that is as it should be.
fn good() -> Facts {
    Facts {
        address: "redis.internal:6379".to_owned(),
        peer: "10.0.0.7:6379".to_owned(),
        version: Ok("7.0.15".to_owned()),
        mode: Ok("standalone".to_owned()),
        role: Ok(Role::Master),
        replicas: Ok(1),
        min_replicas_to_write: Ok(1),
        memory: Memory { used: Ok(1 << 20), max: Ok(1 << 30), policy: Ok("noeviction".to_owned()) },
        clients: Clients { connected: Ok(3), max: Ok(10_000) },
        pubsub_buffer: Ok(BufferLimit {
            hard: 32 << 20,
            soft: 8 << 20,
            soft_for: Duration::from_secs(60),
        }),
        persistence: Persistence {
            save: Ok(String::new()),
            append_only: Ok(true),
            last_write_ok: Ok(true),
        },
        round_trip: Duration::from_micros(210),
        clock: Ok(Clock { ahead_micros: -40, uncertainty: Duration::from_micros(105) }),
        permissions: vec![
            Permission { command: "evalsha", refusal: None },
            Permission { command: "client|list", refusal: None },
        ],
        sentinels: Vec::new(),
    }
}

/// The findings that are not good, after a change to a good Redis.
fn complaints(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = good();
    change(&mut facts);
    let mut findings = redis::judge(&facts, "tickcast");
    findings.retain(|finding| finding.level != Level::Ok);
    findings
}

/// A change to a good Redis must lead to exactly this complaint.
fn check(level: Level, check: &str, words: &str, change: impl FnOnce(&mut Facts)) {
    let found = complaints(change);
    let is_it = |finding: &Finding| {
        finding.level == level && finding.check == check && finding.value.contains(words)
    };
    assert!(found.len() == 1 && is_it(&found[0]), "{check}: {found:#?}");
    assert!(found[0].fix.as_ref().is_some_and(|fix| fix.len() > 10), "{found:?}");
}

#[test]
fn a_good_redis_has_no_complaints() {
    assert_eq!(complaints(|_| {}), []);
    let check = |words: &str, change: fn(&mut Facts)| {
        let mut facts = good();
        change(&mut facts);
        let findings = redis::judge(&facts, "tickcast");
        let all_good = findings.iter().all(|finding| finding.level == Level::Ok);
        let has_words = findings.iter().any(|finding| finding.value.contains(words));
        assert!(all_good && has_words, "{words}: {findings:#?}");
    };
    check("redis.internal:6379 (10.0.0.7:6379), 0.21 ms there and back", |_| {});
    check("10 such nodes take 320 MiB of Redis", |_| {});
    check("to the millisecond", |_| {});
    check("700 ms ahead of this machine's", |facts| {
        facts.clock = Ok(Clock { ahead_micros: 700_000, uncertainty: Duration::ZERO });
    });
    check("none: while this server is down", |facts| {
        (facts.replicas, facts.min_replicas_to_write) = (Ok(0), Ok(0));
    });
    check("begin anew, with a reset", |facts| facts.persistence.append_only = Ok(false));
    check("8.0.1", |facts| facts.version = Ok("8.0.1".to_owned()));
}

#[test]
fn what_a_node_cannot_work_with_has_failed() {
    check(Level::Fail, "version", "6.0.20 is older than 6.2", |facts| {
        facts.version = Ok("6.0.20".to_owned());
    });
    check(Level::Fail, "mode", "a Sentinel", |facts| facts.mode = Ok("sentinel".to_owned()));
    check(Level::Fail, "mode", "Cluster", |facts| facts.mode = Ok("cluster".to_owned()));
    check(Level::Fail, "role", "a replica of 10.0.0.8:6379, which it does not reach", |facts| {
        facts.role = Ok(Role::Replica { of: "10.0.0.8:6379".to_owned(), connected: false });
    });
    check(Level::Fail, "replicas", "1, and min-replicas-to-write is 2", |facts| {
        facts.min_replicas_to_write = Ok(2);
    });
    check(Level::Fail, "persistence", "the last write to disk failed", |facts| {
        facts.persistence.last_write_ok = Ok(false);
    });
    check(Level::Fail, "permissions", "refused: evalsha (`NOPERM this", |facts| {
        facts.permissions[0].refusal = Some("NOPERM this user has no permissions".to_owned());
    });
}

#[test]
fn what_may_go_wrong_one_day_is_a_warning() {
    check(Level::Warn, "reachable", "12.00 ms", |facts| {
        facts.round_trip = Duration::from_millis(12);
    });
    check(Level::Warn, "subscriber buffer", "no limit", |facts| {
        facts.pubsub_buffer = Ok(BufferLimit { hard: 0, soft: 0, soft_for: Duration::ZERO });
    });
    check(Level::Warn, "subscriber buffer", "1 MiB behind; 10 such nodes take 10 MiB", |facts| {
        facts.pubsub_buffer = Ok(BufferLimit { hard: 1 << 20, soft: 0, soft_for: Duration::ZERO });
    });
    check(Level::Warn, "memory", "without a limit", |facts| facts.memory.max = Ok(0));
    check(Level::Warn, "memory", "950 MiB of 1 GiB used", |facts| {
        facts.memory.used = Ok(950 << 20);
    });
    for policy in ["allkeys-lru", "volatile-ttl"] {
        check(Level::Warn, "eviction", "topics lose their epochs", |facts| {
            facts.memory.policy = Ok(policy.to_owned());
        });
    }
    check(Level::Warn, "connections", "9,990 of 10,000", |facts| {
        facts.clients.connected = Ok(9990);
    });
    check(Level::Warn, "replicas", "goes on taking publications that are lost", |facts| {
        facts.min_replicas_to_write = Ok(0);
    });
    check(Level::Warn, "clock", "5000 ms behind", |facts| {
        facts.clock = Ok(Clock { ahead_micros: -5_000_000, uncertainty: Duration::from_millis(1) });
    });
    check(Level::Warn, "permissions", "only tickcast_broker_output_buffer_bytes", |facts| {
        facts.permissions[1].refusal = Some("NOPERM".to_owned());
    });
}

#[test]
fn sentinels_must_agree() {
    let sentinel = |number: u16, master: Option<&str>| SentinelFacts {
        address: format!("10.0.0.{number}:26379"),
        master: Ok(master.map(str::to_owned)),
        quorum: Ok("OK 3 usable Sentinels".to_owned()),
    };
    let (one, other) = (Some("10.0.0.7:6379"), Some("10.0.0.8:6379"));
    assert_eq!(complaints(|facts| facts.sentinels = vec![sentinel(1, one), sentinel(2, one)]), []);
    check(Level::Fail, "sentinel", "do not agree", |facts| {
        facts.sentinels = vec![sentinel(1, one), sentinel(2, other), sentinel(3, one)];
    });
    check(Level::Fail, "sentinel", "10.0.0.2:26379: it watches no master", |facts| {
        facts.sentinels = vec![sentinel(1, one), sentinel(2, None)];
    });
    // With Sentinels there will be a failover, whatever number of replicas there is now.
    check(Level::Warn, "replicas", "0, and min-replicas-to-write is 0", |facts| {
        facts.sentinels = vec![sentinel(1, one)];
        (facts.replicas, facts.min_replicas_to_write) = (Ok(0), Ok(0));
    });
}

#[test]
fn a_refusal_names_the_rule_that_allows_it() {
    let found = complaints(|facts| {
        facts.permissions[0].refusal = Some("NOPERM".to_owned());
        facts.permissions.push(Permission { command: "publish", refusal: Some("NO".to_owned()) });
    });
    assert_eq!(found[0].value, "refused: evalsha publish (`NOPERM`)");
    let fix = "ACL SETUSER <user> ~tickcast:* &tickcast:* +evalsha +publish";
    assert_eq!(found[0].fix.as_deref(), Some(fix));
}

#[test]
fn the_machine_is_held_against_the_configuration() {
    let mut config = Config::default();
    let level = |finding: Finding| finding.level;
    assert_eq!(level(machine::judge_open_files(Some(1_048_576), &config)), Level::Ok);
    assert_eq!(level(machine::judge_open_files(None, &config)), Level::Ok);
    assert_eq!(level(machine::judge_open_files(Some(1024), &config)), Level::Warn);
    assert_eq!(level(machine::judge_backlog(4096)), Level::Ok);
    assert_eq!(level(machine::judge_backlog(128)), Level::Warn);
    assert_eq!(level(machine::judge_ports(&(32_768..=60_999), &config)), Level::Ok);
    config.server.admin_listen.set_port(40_000);
    let finding = machine::judge_ports(&(32_768..=60_999), &config);
    assert!(finding.level == Level::Warn && finding.value.contains("port 40000"), "{finding:?}");
}

/// A configuration with a key for each of these rights.
fn with_keys(rights: &[Right]) -> Config {
    let key = |right: &Right| AccessKey {
        rights: [*right].into_iter().collect(),
        ..AccessKey::default()
    };
    let mut config = Config::default();
    config.access.keys = rights.iter().map(key).collect();
    config
}

#[test]
fn who_gets_in_with_a_key_and_without() {
    let check = |config: &Config, judge: fn(&Config) -> Finding, level: Level, words: &str| {
        let finding = judge(config);
        assert!(finding.level == level && finding.value.contains(words), "{words}: {finding:?}");
        assert_eq!(finding.fix.is_some(), level != Level::Ok, "{finding:?}");
    };
    let (publishing, admin) = (keys::judge_publishing, keys::judge_admin);
    let mut none = with_keys(&[]);
    check(&none, keys::judge_keys, Level::Ok, "none");
    check(&none, publishing, Level::Ok, "without a key, for whoever reaches 127.0.0.1:8080");
    check(&none, admin, Level::Ok, "without a key, for whoever reaches 127.0.0.1:8081");
    for address in ["0.0.0.0", "10.0.0.1", "[::]", "[::ffff:10.0.0.1]"] {
        none.server.listen = format!("{address}:80").parse().unwrap();
        none.server.admin_listen = format!("{address}:81").parse().unwrap();
        check(&none, publishing, Level::Warn, &format!("everybody who reaches {address}:80"));
        check(&none, admin, Level::Warn, &format!("{address}:81 is not a loopback address"));
    }

    let mut feeds = with_keys(&[Right::Publish, Right::Publish, Right::Subscribe]);
    let words = "3, all well formed: 2 may publish, 1 subscribe to closed topics, 0 administer";
    check(&feeds, keys::judge_keys, Level::Ok, words);
    feeds.server = none.server.clone();
    check(&feeds, publishing, Level::Ok, "with a key: 2 of 3 may");
    check(&feeds, admin, Level::Warn, "no key has the right `admin`");

    let mut ops = with_keys(&[Right::Admin]);
    check(&ops, publishing, Level::Warn, "no key has the right `publish`");
    ops.server = none.server;
    check(&ops, admin, Level::Ok, "at [::ffff:10.0.0.1]:81 with a key: 1 of 1 may");
}

#[test]
fn a_file_of_keys_is_not_for_everybody() {
    let path = std::path::Path::new("/etc/keys.toml");
    for (mode, level, words) in [
        (0o600, Level::Ok, "(mode 0600)"),
        (
            0o100_640,
            Level::Ok,
            "/etc/keys.toml: readable for this user, and not for all (mode 0640)",
        ),
        (0o660, Level::Ok, "0660"),
        (0o100_644, Level::Warn, "may read who may do what (mode 0644)"),
        (0o604, Level::Warn, "0604"),
        (0o666, Level::Warn, "may add keys to it (mode 0666)"),
        (0o602, Level::Warn, "may add keys"),
    ] {
        let finding = keys::judge_file(path, mode);
        assert!(finding.level == level && finding.value.contains(words), "{mode:o}: {finding:?}");
        let has_fix = finding.fix.is_some_and(|fix| fix.starts_with("chmod 640 /etc/keys.toml"));
        assert_eq!(has_fix, level == Level::Warn, "{mode:o}");
    }
}

#[test]
fn the_report_is_aligned_and_says_what_to_do() {
    let mut report = Report::default();
    report.section("One", vec![Finding::ok("a check", "value")]);
    let mut flags = Flags::default();
    flags.impose("dev", "drain.rate", "5");
    let env = [("TICKCAST__DRAIN__RATE".to_owned(), "7".to_owned())];
    let (_, mut warnings) = Config::load(None, env.into_iter(), flags).unwrap();
    warnings.retain(|warning| warning.key == "drain.rate");
    let warning = warnings.remove(0);
    report.section("Two", super::settings(&[warning]));
    report.section("Three", vec![Finding::fail("b", "bad\x1b[2J", "do\nthat")]);
    let expected = "\
One
  ok    a check   value

Two
  ok    settings  valid
  warn  settings  env TICKCAST__DRAIN__RATE: `drain.rate` = 7 has no effect: `dev` makes it 5
                  -> use `tickcast serve` to have it as it is set

Three
  FAIL  b         bad\\u{1b}[2J
                  -> do that

1 check has failed; 1 warning.
";
    assert_eq!(report.text(false), expected);
    assert!(report.text(true).contains("\x1b[1;31mFAIL\x1b[0m  b "));
    assert!(report.has_failed());

    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["findings"][2]["level"], "warn");
    assert_eq!(json["findings"][2]["section"], "Two");
    assert_eq!(json["findings"][2]["fix"], "use `tickcast serve` to have it as it is set");
    assert_eq!(json["findings"][0]["fix"], serde_json::Value::Null);
}

#[test]
fn bytes_for_people() {
    let check = |count, expected: &str| assert_eq!(bytes(count), expected);
    check(0, "0 bytes");
    check(1023, "1023 bytes");
    check(32 << 20, "32 MiB");
    check(1_500_000, "1.4 MiB");
    check(3 << 30, "3 GiB");
}

#[test]
fn an_address_that_is_taken_is_nothing_to_start_a_node_on() {
    let address = "127.0.0.1:8080".parse().unwrap();
    let judge = |bound: Result<(), ErrorKind>, name: Option<&str>| {
        let occupant = name.map(|name| Occupant { pid: 77, name: name.to_owned() });
        let bound = bound.map_err(std::io::Error::from);
        listeners::judge("listen", address, "--listen", bound, occupant.as_ref())
    };
    let level = |bound, name| judge(bound, name).level;
    assert_eq!(level(Ok(()), None), Level::Ok);
    assert_eq!(level(Err(ErrorKind::AddrInUse), Some("nginx")), Level::Fail);
    assert_eq!(level(Err(ErrorKind::AddrInUse), Some("tickcast")), Level::Ok, "the node itself");
    assert_eq!(level(Err(ErrorKind::AddrInUse), None), Level::Warn);
    assert_eq!(level(Err(ErrorKind::AddrNotAvailable), None), Level::Fail);
    assert_eq!(level(Err(ErrorKind::PermissionDenied), None), Level::Fail);
    let finding = judge(Err(ErrorKind::AddrInUse), Some("nginx"));
    assert_eq!(finding.value, "127.0.0.1:8080 is in use by nginx, process 77");
    assert!(finding.fix.is_some_and(|fix| fix.contains("--listen")));
}
