//! What is answered when Redis cannot or will not.

use std::process::Command;

use super::*;

const UNAVAILABLE: Answer = Err(PublishError::Unavailable);
const UNKNOWN: Answer = Err(PublishError::OutcomeUnknown);

fn refused_with(outcome: Result<(), Refusal>, code: &str) {
    match outcome {
        Err(Refusal::Refused(text)) if text.starts_with(code) => {}
        other => panic!("{other:?}, not {code}"),
    }
}

impl Rig {
    async fn one(&self, name: &str) -> Answer {
        self.commands.publish(vec![item(name, "1")]).await.remove(0)
    }

    /// The chunks of a large batch are refused as one item is.
    async fn many(&self, name: &str) -> Vec<Answer> {
        let mut answers = self.commands.publish(vec![item(name, "1"); 130]).await;
        answers.dedup();
        answers
    }

    async fn signal(&self, signal: &str) {
        let text: String = self.ask(&["INFO", "server"]).await;
        let process = text.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
        let status = Command::new("kill").args([signal, process.trim()]).status().unwrap();
        assert!(status.success());
    }
}

#[tokio::test]
async fn without_a_connection_everything_is_refused_at_once() {
    let rig = Rig::new().await;
    rig.commands.disconnect();
    assert_eq!(rig.one("a").await, UNAVAILABLE);
    assert!(rig.commands.read(&topic("a"), ALL).await.is_err());
    assert_eq!(rig.commands.compare(1, &[topic("a")]).await, Err(Refusal::Lost));
    assert_eq!(rig.commands.probe(1).await, Err(Refusal::Lost));
    rig.link(&rig.commands).await;
    assert!(rig.one("a").await.is_ok());
    assert_eq!(rig.commands.publish(Vec::new()).await, []);
}

#[tokio::test]
async fn a_replica_has_moved() {
    let master = Server::start(&[]);
    let rig = Rig::new().await;
    rig.offsets(vec![item("a", "1")]).await;
    let _: () = rig.ask(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]).await;
    assert_eq!(rig.one("a").await, UNAVAILABLE);
    assert_eq!(rig.many("b").await, [UNAVAILABLE]);
    assert_eq!(rig.commands.probe(1).await, Err(Refusal::Moved));
    assert_eq!(rig.commands.compare(1, &[topic("z")]).await, Err(Refusal::Moved));
}

#[tokio::test]
async fn a_full_redis_refuses_writes_and_is_still_read() {
    let rig = Rig::new().await;
    let before = rig.publish(item("a", "1")).await;
    let _: () = rig.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut ear = Ear::new(&rig, &["a", "b"]).await;
    assert_eq!(rig.one("a").await, UNAVAILABLE);
    assert_eq!(rig.one("b").await, UNAVAILABLE);
    assert_eq!(rig.many("b").await, [UNAVAILABLE]);
    refused_with(rig.commands.probe(1).await, "OOM");
    rig.commands.compare(1, &[topic("a"), topic("b")]).await.unwrap();
    assert_eq!(ear.hear_node().await, "C1 a=1", "what cannot be created is left out");
    assert_eq!(rig.read("a", ALL).await.unwrap().position, before.position);
    assert_eq!(rig.history("a").await, [1]);
    assert!(rig.commands.read(&topic("b"), ALL).await.is_err());
    assert!(ear.is_silent());
    let _: () = rig.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(rig.one("a").await.unwrap().position.offset, 2);
    assert_eq!(rig.one("b").await.unwrap().position.offset, 1);
}

#[tokio::test]
async fn a_redis_without_its_replicas_refuses_writes_and_is_still_read() {
    let rig = Rig::new().await;
    let before = rig.publish(item("a", "1")).await;
    let _: () = rig.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_eq!(rig.one("a").await, UNAVAILABLE);
    refused_with(rig.commands.probe(1).await, "NOREPLICAS");
    assert_eq!(rig.read("a", ALL).await.unwrap().position, before.position);
}

#[tokio::test]
async fn a_busy_redis_refuses_and_recovers() {
    let rig = Rig::with(&["--busy-reply-threshold", "1"]).await;
    rig.publish(item("a", "1")).await;
    let blocker = connection(&rig.server).await;
    let looping = tokio::spawn(async move {
        let mut command = redis::cmd("EVAL");
        command.arg("while true do end").arg(0);
        command.query_async::<()>(&mut blocker.clone()).await.is_err()
    });
    let deadline = std::time::Instant::now() + SOON;
    while !matches!(rig.commands.probe(1).await, Err(Refusal::Refused(text)) if text.starts_with("BUSY"))
    {
        assert!(std::time::Instant::now() < deadline, "it never gets busy");
    }
    assert_eq!(rig.one("a").await, UNAVAILABLE);
    assert_eq!(rig.many("a").await, [UNAVAILABLE]);
    let _: () = rig.ask(&["SCRIPT", "KILL"]).await;
    assert!(looping.await.unwrap());
    assert_eq!(rig.one("a").await.unwrap().position.offset, 2);
}

#[tokio::test]
async fn missing_permissions_are_refusals_with_a_reason() {
    let rig = Rig::new().await;
    let mut limited = connection(&rig.server).await;
    let _: () = rig
        .ask(&[
            "ACL",
            "SETUSER",
            "node",
            "on",
            "nopass",
            "~tickcast:*",
            "resetchannels",
            "&tickcast:*",
            "+@all",
            "-publish",
        ])
        .await;
    let _: () = ask(&limited, &["AUTH", "node", "x"]).await;
    let id = replication_id(&mut limited).await;
    let commands = node("m7q2");
    commands.connect(limited, id);
    let refusal = commands.probe(1).await.unwrap_err();
    assert!(refusal.advice().contains("rights"), "{refusal:?}");
    assert_eq!(commands.publish(vec![plain("a", "1")]).await, [UNKNOWN], "its offset is taken");
    let _: () = rig.ask(&["ACL", "SETUSER", "node", "+publish", "-hset"]).await;
    assert_eq!(commands.publish(vec![plain("a", "1")]).await, [UNAVAILABLE]);
    let _: () = rig.ask(&["ACL", "SETUSER", "node", "+hset"]).await;
    assert_eq!(offsets(&commands.publish(vec![plain("a", "1")]).await), [2]);
}

#[tokio::test]
async fn a_refused_chunk_hides_no_other() {
    let rig = Rig::new().await;
    let names = &rig.commands.shared.names;
    let (key, channel) = (rig.key("a"), names.channel(&topic("a")));
    let rights = ["~", &key].concat();
    let _: () = rig
        .ask(&["ACL", "SETUSER", "node", "on", "nopass", &rights, "resetchannels", "+@all"])
        .await;
    let _: () = rig.ask(&["ACL", "SETUSER", "node", &["&", &channel].concat()]).await;
    let mut limited = connection(&rig.server).await;
    let _: () = ask(&limited, &["AUTH", "node", "x"]).await;
    let commands = node("m7q2");
    let id = replication_id(&mut limited).await;
    commands.connect(limited, id);
    let items = [vec![plain("a", "1"); 64], vec![plain("b", "1"); 64]].concat();
    let answers = commands.publish(items).await;
    assert_eq!(offsets(&answers[..64]), (1..=64).collect::<Vec<_>>());
    assert!(answers[64..].iter().all(|answer| *answer == UNAVAILABLE));
}

#[tokio::test]
async fn forgotten_scripts_come_back() {
    let rig = Rig::new().await;
    let flush = async || rig.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    flush().await;
    assert_eq!(rig.one("a").await.unwrap().position.offset, 1);
    flush().await;
    let expected: Vec<_> = (2..132).collect();
    assert_eq!(rig.offsets(vec![item("a", "1"); 130]).await, expected);
    flush().await;
    assert_eq!(rig.read("a", ALL).await.unwrap().position.offset, 131);
    flush().await;
    rig.commands.compare(1, &[topic("a")]).await.unwrap();
    flush().await;
    rig.commands.probe(1).await.unwrap();
}

#[tokio::test]
async fn a_silent_redis_is_answered_for_within_a_second() {
    let rig = Rig::new().await;
    rig.publish(item("a", "1")).await;
    rig.signal("-STOP").await;
    let began = std::time::Instant::now();
    let (one, many, read, probe) = tokio::join!(
        rig.one("a"),
        rig.many("b"),
        async { rig.commands.read(&topic("a"), ALL).await.is_err() },
        rig.commands.probe(1)
    );
    // On a busy machine a little more than the promise.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((one, many, read, probe), (UNKNOWN, vec![UNKNOWN], true, Err(Refusal::Lost)));
    assert!(rig.commands.in_flight_bytes() > 100, "they wait in the buffers still");
    rig.commands.disconnect();
    assert_eq!(rig.commands.in_flight_bytes(), 0);
}

#[tokio::test]
async fn a_broken_connection_leaves_the_outcome_unknown() {
    let mut rig = Rig::new().await;
    rig.publish(item("a", "1")).await;
    rig.signal("-STOP").await;
    let commands = rig.commands.clone();
    let waiting = tokio::spawn(async move { commands.publish(vec![item("a", "2")]).await });
    while rig.commands.in_flight_bytes() == 0 {
        tokio::task::yield_now().await;
    }
    rig.server.kill();
    assert_eq!(waiting.await.unwrap(), [UNKNOWN]);
    assert_eq!(rig.one("a").await, UNKNOWN, "until the driver notices");
    assert_eq!(rig.commands.in_flight_bytes(), 0);
}

#[tokio::test]
async fn at_the_bound_of_bytes_in_flight_nothing_more_is_sent() {
    let rig = Rig::new().await;
    rig.publish(item("a", "1")).await;
    let _: () = rig.ask(&["CLIENT", "PAUSE", "100000", "ALL"]).await;
    let large = "7".repeat(8 << 20);
    let item = || vec![PublishItem { retention: NO_HISTORY, ..item("a", &large) }];
    let answers = futures(&rig, 12, item).await;
    let unknown = answers.iter().filter(|answer| **answer == UNKNOWN).count();
    let unavailable = answers.iter().filter(|answer| **answer == UNAVAILABLE).count();
    assert_eq!((unknown, unavailable), (7, 5), "each has a little more than 8 MiB");
    assert!(rig.commands.in_flight_bytes() > 7 * (8 << 20));
    assert!(rig.commands.in_flight_bytes() <= IN_FLIGHT_BYTES_MAX);
}

/// Publishes so many requests at once.
async fn futures(rig: &Rig, count: usize, items: impl Fn() -> Vec<PublishItem>) -> Vec<Answer> {
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (commands, items) = (rig.commands.clone(), items());
            tokio::spawn(async move { commands.publish(items).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    answers
}
