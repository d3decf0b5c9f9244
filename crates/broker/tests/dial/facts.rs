//! What is found out about servers that can be reached.

use std::time::Duration;

use tickcast_broker::redis::TlsFiles;
use tickcast_broker::redis::inspect::{
    BufferLimit, Facts, InspectError, Permission, Role, inspect,
};

use crate::support::certificates::Certificates;
use crate::support::sentinels::{Group, wait_for};
use crate::support::server::Server;

async fn look(url: &str) -> Result<Facts, InspectError> {
    inspect(&url.parse().unwrap(), &TlsFiles::default(), "tickcast").await
}

fn refused(facts: &Facts) -> Vec<&'static str> {
    let refused = facts.permissions.iter().filter(|permission| permission.refusal.is_some());
    refused.map(|permission| permission.command).collect()
}

#[tokio::test]
async fn of_a_server_of_its_own() {
    let server = Server::start(&[
        "--unixsocket",
        "{dir}/redis.sock",
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxclients",
        "77",
        "--client-output-buffer-limit",
        "pubsub 64mb 16mb 30",
        "--appendonly",
        "yes",
        "--save",
        "900 1",
    ]);
    let facts = look(&server.url()).await.unwrap();
    assert_eq!(facts.address, format!("127.0.0.1:{}", server.port));
    assert_eq!((facts.mode.as_deref(), facts.role), (Ok("standalone"), Ok(Role::Master)));
    assert!(facts.version.unwrap().contains('.'));
    assert_eq!((facts.replicas, facts.min_replicas_to_write), (Ok(0), Ok(0)));
    assert!(facts.memory.used.unwrap() > 0);
    assert_eq!(facts.memory.max, Ok(64 << 20));
    assert_eq!(facts.memory.policy.as_deref(), Ok("allkeys-lru"));
    assert_eq!((facts.clients.connected, facts.clients.max), (Ok(1), Ok(77)));
    let limit = BufferLimit { hard: 64 << 20, soft: 16 << 20, soft_for: Duration::from_secs(30) };
    assert_eq!(facts.pubsub_buffer, Ok(limit));
    assert_eq!(facts.persistence.save.as_deref(), Ok("900 1"));
    assert_eq!(
        (facts.persistence.append_only, facts.persistence.last_write_ok),
        (Ok(true), Ok(true))
    );
    assert!(facts.round_trip > Duration::ZERO);
    let clock = facts.clock.unwrap();
    assert_eq!(clock.uncertainty, facts.round_trip / 2);
    let allowed_micros = clock.uncertainty.as_micros() + 1_000;
    assert!(u128::from(clock.ahead_micros.unsigned_abs()) <= allowed_micros, "{clock:?}");
    assert!(facts.permissions.len() > 15 && facts.permissions.iter().all(|p| p.refusal.is_none()));
    assert!(facts.sentinels.is_empty());
    // Nothing stays.
    assert_eq!(server.command(&["DBSIZE"]), redis::Value::Int(0));

    let path = server.path("redis.sock");
    let by_socket = look(&format!("unix://{}", path.display())).await.unwrap();
    assert_eq!(by_socket.address, path.display().to_string());
}

#[tokio::test]
async fn of_a_replica_and_its_master() {
    let master = Server::start(&["--min-replicas-to-write", "1"]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let connected = || {
        let info: String =
            redis::from_redis_value(replica.command(&["INFO", "replication"])).unwrap();
        info.contains("master_link_status:up")
    };
    wait_for(connected).await;
    let facts = look(&replica.url()).await.unwrap();
    let of = format!("127.0.0.1:{}", master.port);
    assert_eq!(facts.role, Ok(Role::Replica { of, connected: true }));
    // A replica takes no writes, but that is not for want of a permission.
    assert_eq!(refused(&facts), Vec::<&str>::new());
    let facts = look(&master.url()).await.unwrap();
    assert_eq!((facts.replicas, facts.min_replicas_to_write), (Ok(1), Ok(1)));
}

#[tokio::test]
async fn of_a_server_that_forbids_most() {
    let server = Server::start(&[
        "--user",
        "app",
        "on",
        ">pass",
        "~other:*",
        "resetchannels",
        "&other:*",
        "+@all",
        "-config",
        "-time",
        "-del",
        "--rename-command",
        "CLIENT",
        "",
    ]);
    let at = |prefix: &'static str| {
        let url = format!("redis://app:pass@127.0.0.1:{}", server.port).parse().unwrap();
        async move { inspect(&url, &TlsFiles::default(), prefix).await.unwrap() }
    };
    let facts = at("other").await;
    for unreadable in [
        facts.min_replicas_to_write.as_ref().unwrap_err(),
        facts.pubsub_buffer.as_ref().unwrap_err(),
        facts.persistence.save.as_ref().unwrap_err(),
        facts.clock.as_ref().unwrap_err(),
    ] {
        assert!(unreadable.to_string().starts_with("NOPERM "), "{unreadable}");
    }
    assert!(facts.clients.connected.is_ok() && facts.memory.max.is_ok());
    assert_eq!(refused(&facts), ["time", "client|list", "del", "hset", "rpush", "set"]);

    let facts = at("tickcast").await;
    let refused = refused(&facts);
    for command in ["subscribe", "publish", "evalsha", "eval", "hget"] {
        assert!(refused.contains(&command), "{command}: {refused:?}");
    }
    let info = Permission { command: "info", refusal: None };
    assert!(facts.permissions.contains(&info));
}

#[tokio::test]
async fn of_a_server_behind_tls() {
    let certificates = Certificates::make();
    let [certificate, key, ca] =
        ["server.crt", "server.key", "ca.crt"].map(|f| certificates.text(f));
    let server = Server::start(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{}", server.port).parse().unwrap();
    let tls = TlsFiles { ca: Some(certificates.path("ca.crt")), ..TlsFiles::default() };
    let facts = inspect(&url, &tls, "tickcast").await.unwrap();
    assert_eq!(facts.role, Ok(Role::Master));
    let wrong = TlsFiles { ca: Some(certificates.path("missing")), ..TlsFiles::default() };
    let error = inspect(&url, &wrong, "tickcast").await.unwrap_err().to_string();
    assert!(error.starts_with("`broker.redis.ca_file`: cannot read /"), "{error}");
}

#[tokio::test]
async fn of_sentinels_of_which_one_is_gone() {
    let mut group = Group::start().await;
    let url = group.url();
    group.sentinels[2].kill();
    let facts = look(&url).await.unwrap();
    let master = format!("127.0.0.1:{}", group.master.port);
    assert_eq!((facts.address.as_str(), facts.role), (master.as_str(), Ok(Role::Master)));
    assert_eq!(facts.sentinels.len(), 3);
    for (said, sentinel) in facts.sentinels.iter().zip(&group.sentinels) {
        assert_eq!(said.address, format!("127.0.0.1:{}", sentinel.port));
    }
    for said in &facts.sentinels[..2] {
        assert_eq!(said.master, Ok(Some(master.clone())));
        assert!(said.quorum.as_ref().is_ok_and(|text| text.starts_with("OK ")), "{said:?}");
    }
    let gone = facts.sentinels[2].master.as_ref().unwrap_err().to_string();
    assert!(gone.contains("nothing listens there"), "{gone}");

    group.replica.kill();
    group.master.kill();
    let error = look(&url).await.unwrap_err();
    assert!(error.to_string().contains("nothing listens there"), "{error}");
    assert_eq!(error.sentinels.len(), 3);
}
