//! `tickcast doctor` against servers that are as they should be, and servers that are not.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::port::Port;
use crate::program::{Program, command};
use crate::redis::Redis;

const PASSWORD: &str = "hunter2";

/// A server without complaints.
const GOOD: [&str; 1] = ["maxmemory 256mb"];

/// Runs it and gives the exit code and what it printed.
fn doctor(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command(&[&["doctor"], arguments].concat());
    // Whatever else runs on this machine, unless a test says another address.
    for listener in ["LISTEN", "ADMIN_LISTEN"] {
        command.env(format!("TICKCAST__SERVER__{listener}"), "127.0.0.1:0");
    }
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &error)
}

/// Runs it and gives the exit code, and each finding of a section as `level check: value -> fix`.
fn findings_of(section: &str, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let (code, text) = doctor(&[&["--json"], arguments].concat());
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["ok"], code == Some(0), "{text}");
    let all = report["findings"].as_array().expect("a list");
    let ours = all.iter().filter(|finding| finding["section"] == section);
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let line = |finding: &Value| {
        let [level, check, value, fix] =
            ["level", "check", "value", "fix"].map(|key| word(finding, key));
        format!("{level} {check}: {value} -> {fix}")
    };
    (code, ours.map(line).collect())
}

/// As [`findings_of`], of the Redis at a URL.
fn findings(url: &str) -> (Option<i32>, Vec<String>) {
    findings_of("Broker", &["--redis", url])
}

/// The findings that are not good.
fn complaints(url: &str) -> (Option<i32>, Vec<String>) {
    let (code, mut lines) = findings(url);
    lines.retain(|line| !line.starts_with("ok "));
    (code, lines)
}

fn expect(lines: &[String], beginning: &str) {
    assert!(lines.iter().any(|line| line.starts_with(beginning)), "{beginning}: {lines:#?}");
}

#[test]
fn a_good_redis_is_well_and_left_as_it_was() {
    let redis = Redis::start(&GOOD);
    let (code, lines) = findings(&redis.url());
    assert_eq!(code, Some(0), "{lines:#?}");
    for check in [
        "reachable",
        "version",
        "mode",
        "role",
        "permissions",
        "subscriber buffer",
        "memory",
        "eviction",
        "connections",
        "replicas",
        "persistence",
        "clock",
    ] {
        expect(&lines, &format!("ok {check}: "));
    }
    assert_eq!(lines.len(), 12, "{lines:#?}");
    assert_eq!(redis.ask::<usize>(&["DBSIZE"]), 0);

    let (code, text) = doctor(&["--redis", &redis.url()]);
    assert_eq!(code, Some(0));
    assert!(text.contains("\n  ok    version            7."), "{text}");
    assert!(!text.contains('\x1b'), "nobody looks at it: {text}");
}

#[test]
fn a_redis_that_is_not_there_has_failed() {
    let (code, lines) = complaints("redis://127.0.0.1:1");
    assert_eq!(code, Some(1));
    expect(&lines, "fail reachable: 127.0.0.1:1: nothing listens there -> ");
}

#[test]
fn a_wrong_configuration_has_failed_without_a_password() {
    let url = format!("redis://:{PASSWORD}@localhost:99999");
    let (code, text) = doctor(&["--redis", &url, "--workers", "9999"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("`server.workers` = 9999") && text.contains("`99999`"), "{text}");
    assert!(text.contains("2 checks have failed") && !text.contains(PASSWORD), "{text}");
    assert_eq!(doctor(&["--redis"]).0, Some(2));
}

#[test]
fn addresses_that_are_taken_are_named_with_who_has_them() {
    let free = Port::free();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("bound").to_string();
    let addresses = |listen: &str, admin: &str| {
        let (code, mut lines) =
            findings_of("This machine", &["--listen", listen, "--admin-listen", admin]);
        lines.retain(|line| line.contains("listen:"));
        (code, lines)
    };
    let (code, lines) = addresses(&free.address.to_string(), &taken);
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
    expect(&lines, &format!("ok listen: {} is free", free.address));
    let process = std::process::id();
    expect(&lines, &format!("fail admin listen: {taken} is in use by "));
    assert!(lines[1].contains(&format!(", process {process} -> ")), "{lines:#?}");

    // A node of these settings runs already: that is what it looks like on its machine.
    let program = Program::serve(&[]);
    let (listen, admin) = (program.address.to_string(), program.admin.to_string());
    let (code, lines) = addresses(&listen, &admin);
    assert_eq!(code, Some(0), "{lines:#?}");
    let process = program.pid().as_raw_nonzero();
    expect(&lines, &format!("ok listen: {listen} is in use by tickcast, process {process}: "));
    expect(&lines, &format!("ok admin listen: {admin} is in use by tickcast, process {process}: "));
}

#[test]
fn keys_are_looked_at_and_nobody_is_let_in_by_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let [keys, config] = ["keys.toml", "tickcast.toml"].map(|name| folder.path().join(name));
    let hash = tickcast::config::KeyHash::of("tck_x");
    let table = format!("[[access.key]]\nname = 'feed'\nhash = '{hash}'\nrights = ['publish']\n");
    std::fs::write(&keys, &table).expect("a file");
    std::fs::write(&config, format!("[access]\nkeys_file = '{}'\n", keys.display()))
        .expect("a file");
    let allow = |mode| {
        std::fs::set_permissions(&keys, Permissions::from_mode(mode)).expect("a file of ours");
    };
    let config = config.to_str().expect("a plain path");
    let ports = [Port::free(), Port::free()];
    let [listen, admin] = ports.each_ref().map(|port| format!("0.0.0.0:{}", port.address.port()));
    let public = ["--listen", &listen, "--admin-listen", &admin];

    allow(0o600);
    let (code, lines) = findings_of("Keys", &["--config", config]);
    assert_eq!(code, Some(0), "{lines:#?}");
    expect(&lines, "ok keys: 1, all well formed: 1 may publish, 0 subscribe");
    expect(&lines, &format!("ok keys file: {}: readable", keys.display()));
    expect(&lines, "ok publishing: with a key: 1 of 1 may");
    expect(&lines, "ok admin routes: without a key, for whoever reaches 127.0.0.1:0");
    assert_eq!(lines.len(), 4, "{lines:#?}");

    allow(0o644);
    let (code, lines) = findings_of("Keys", &[&["--config", config], &public[..]].concat());
    assert_eq!(code, Some(0), "{lines:#?}");
    expect(&lines, &format!("warn keys file: {}: every user", keys.display()));
    expect(&lines, "ok publishing: with a key: 1 of 1 may");
    expect(&lines, &format!("warn admin routes: {admin} is not a loopback address"));

    let (code, lines) = findings_of("Keys", &[&public[..], &["--insecure"]].concat());
    assert_eq!(code, Some(0), "{lines:#?}");
    expect(&lines, "ok keys: none");
    expect(&lines, &format!("warn publishing: open to everybody who reaches {listen}"));
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn keys_that_a_node_would_not_take_have_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, config) = (folder.path().join("keys.toml"), folder.path().join("tickcast.toml"));
    std::fs::write(&config, format!("[access]\nkeys_file = '{}'\n", keys.display()))
        .expect("a file");
    let complain = || {
        let arguments = ["--config", config.to_str().expect("a plain path")];
        let (code, lines) = findings_of("Configuration", &arguments);
        assert_eq!((code, lines.len()), (Some(1), 1), "{lines:#?}");
        lines.concat()
    };
    assert!(complain().contains("cannot be read: No such file"), "{}", complain());
    let hash = tickcast::config::KeyHash::of("tck_x").to_string();
    let write = |hash: &str, rights: &str, topic: &str| {
        let rest = format!("hash = '{hash}'\nrights = [{rights}]\ntopics = ['{topic}']\n");
        std::fs::write(&keys, format!("[[access.key]]\nname = 'feed'\n{rest}")).expect("a file");
    };
    write(&hash[..70], "'publish'", "a");
    assert!(complain().contains("`access.key[0].hash` cannot be used"), "{}", complain());
    write(&hash, "", "a");
    assert!(complain().contains("a list of at least one of"), "{}", complain());
    write(&hash, "'publish'", "a*b");
    assert!(complain().contains("\"a*b\", which matches no topic"), "{}", complain());
}

#[test]
fn settings_that_lose_publications_are_warned_of() {
    let redis = Redis::start(&[
        "maxmemory 256mb",
        "maxmemory-policy allkeys-lru",
        "client-output-buffer-limit pubsub 0 0 0",
    ]);
    let _replica = redis.start_replica(&[]);
    let (code, lines) = complaints(&redis.url());
    assert_eq!(code, Some(0), "{lines:#?}");
    expect(&lines, "warn eviction: allkeys-lru: ");
    expect(&lines, "warn subscriber buffer: no limit");
    expect(&lines, "warn replicas: 1, and min-replicas-to-write is 0: ");
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn a_replica_and_a_master_without_one_have_failed() {
    let master = Redis::start(&[GOOD[0], "min-replicas-to-write 1"]);
    let (code, lines) = complaints(&master.url());
    assert_eq!(code, Some(1));
    expect(&lines, "fail replicas: 0, and min-replicas-to-write is 1: ");

    let replica = master.start_replica(&GOOD);
    assert_eq!(complaints(&master.url()), (Some(0), Vec::new()));
    let (code, lines) = complaints(&replica.url());
    assert_eq!(code, Some(1));
    expect(&lines, &format!("fail role: a replica of {}: ", master.address()));
}

#[test]
fn a_user_without_permissions_is_told_what_is_missing() {
    let redis = Redis::start(&GOOD);
    let rule = ["ACL", "SETUSER", "app", "on", ">hunter2", "~tickcast:*", "&tickcast:*"];
    redis.tell(&[&rule[..], &["+@all", "-evalsha", "-config", "-client|list"]].concat());
    let url = format!("redis://app:{PASSWORD}@{}", redis.address());
    let (code, lines) = complaints(&url);
    assert_eq!(code, Some(1), "{lines:#?}");
    expect(&lines, "fail permissions: refused: evalsha (`NOPERM");
    expect(&lines, "warn permissions: refused: client|list; only tickcast_broker_output_buffer");
    expect(&lines, "warn subscriber buffer: not known: NOPERM");
    assert!(lines.iter().any(|line| line.contains("&tickcast:* +evalsha")), "{lines:#?}");
    assert!(!lines.concat().contains(PASSWORD), "{lines:#?}");
}
