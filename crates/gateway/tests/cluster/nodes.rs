//! Nodes die, hang, or have another idea of the time; and together they are one.

use std::time::{Duration, Instant};

use crate::bounds::HEARD;
use crate::harness::{Cluster, LOAD, Load, Node, alone, beside, command, place};
use crate::process::{PATIENCE, until};
use crate::redis::Redis;

/// Hundreds of clients on three nodes.
const CROWD: Load = Load { clients: 450, topics: 30, interests: 3, per_second: 60 };

fn crowd(redis: &Redis) -> Cluster {
    Cluster::start((0..3).map(|_| Node::start(&redis.url(), &[])).collect(), CROWD)
}

/// Waits until so many clients have come back: how long the median and the slowest were away.
fn until_back(cluster: &Cluster, count: usize) -> (Duration, Duration) {
    let absences = || {
        let notes = cluster.fleet.notes();
        notes.into_iter().flat_map(|notes| notes.absences).collect::<Vec<_>>()
    };
    until("back", PATIENCE, || absences().len() >= count);
    let mut absences = absences();
    absences.sort();
    (absences[absences.len() / 2], absences[absences.len() - 1])
}

#[test]
fn one_of_three_is_killed() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let mut cluster = crowd(&redis);
    cluster.nodes[0].kill();
    let killed = Instant::now();
    // A third of them; some try the dead node once more before it is known to be dead.
    let (median, slowest) = until_back(&cluster, CROWD.clients / 3);
    cluster.world.set_nodes(cluster.nodes[1..].iter().map(|node| node.address).collect());
    println!("away: {median:?} at the median, {slowest:?} at most");
    assert!(median < Duration::from_secs(3) && slowest < Duration::from_secs(10));
    let heard = cluster.fleet.until_heard(killed);
    println!("all reached after {heard:?}");
    println!("publishing meanwhile: {:?}", cluster.publishers.results(killed));
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
    // Those who resumed did so for each of their topics.
    assert_eq!(tally.resumed, (CROWD.clients / 3 * CROWD.interests) as u64);
}

#[test]
fn one_of_three_hangs() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let mut cluster = crowd(&redis);
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
    cluster.nodes[0].stop();
    let stopped = Instant::now();
    cluster.world.set_nodes(all[1..].to_vec());
    let (median, slowest) = until_back(&cluster, CROWD.clients / 3);
    println!("away: {median:?} at the median, {slowest:?} at most, all {:?}", stopped.elapsed());
    until("over", PATIENCE, || stopped.elapsed() > Duration::from_secs(7));
    cluster.nodes[0].go_on();
    let back = Instant::now();
    let ready = cluster.nodes[0].until_ready();
    println!("ready again after {ready:?}");
    cluster.world.set_nodes(all);
    let heard = cluster.fleet.until_heard(back);
    println!("all reached after {heard:?}");
    assert!(heard < HEARD, "{heard:?}");
    assert_eq!(cluster.nodes[0].ended(), None);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

#[test]
fn clients_come_back_on_another_node() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 3, &[]);
    let rounds = 3;
    for round in 1..=rounds {
        cluster.fleet.hang_up();
        until_back(&cluster, round * LOAD.clients);
    }
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
    assert_eq!(tally.resumed, (rounds * LOAD.clients * LOAD.interests) as u64, "{tally:?}");
}

/// Preloads the library that moves the wall clock, and leaves the monotonic one.
fn with_clock(file: &std::path::Path) -> std::process::Command {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|place| format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|library| std::path::Path::new(library).exists())
        .expect("faketime is installed: run scripts/setup");
    let mut command = command(&[]);
    command.env("LD_PRELOAD", library);
    command.env("FAKETIME_TIMESTAMP_FILE", file);
    command.env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// Milliseconds since 1970 that a node has written beside the last value.
fn time(node: &Node, topic: &str) -> i64 {
    node.get(&format!("/v1/topics/{topic}")).json()["time"].as_i64().expect("a time")
}

#[test]
fn the_clock_of_one_jumps_an_hour_ahead_and_an_hour_back() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).expect("room on the disk");
    set("+1h");
    let wrong = Node::run(with_clock(&clock).args(["--redis", &redis.url()]));
    wrong.until_ready();
    let nodes = vec![wrong, Node::start(&redis.url(), &[])];
    let cluster = Cluster::start(nodes, LOAD);
    let hour = 3_600_000;
    for offset in ["+1h", "-1h", "+1h"] {
        set(offset);
        for (node, key) in cluster.nodes.iter().zip(["wrong", "right"]) {
            let answer = node.publish(key, &format!("{key}{offset}"), "1");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let apart = time(&cluster.nodes[0], "wrong") - time(&cluster.nodes[1], "right");
        assert!((apart.abs() - hour).abs() < 60_000, "{apart} ms apart");
        let offsets = || {
            let ends = cluster.world.ends();
            cluster.topics.iter().map(|topic| ends.get(topic).map_or(0, |end| end.offset)).collect()
        };
        let before: Vec<_> = offsets();
        until("published with this time", PATIENCE, || {
            let after = offsets();
            before.iter().zip(after).all(|(before, after)| after >= before + 5)
        });
    }
    cluster.until_level();
    // What both have published is kept, however old it looks, and for as long as it should be.
    for topic in &cluster.topics {
        let path = format!("/v1/topics/{topic}?history=1000");
        let [one, other] = [0, 1].map(|node| cluster.nodes[node].get(&path).json());
        let count = one["publications"].as_array().expect("a history").len() as u64;
        assert!(count >= 15, "{one}");
        assert!(other["publications"].as_array().is_some_and(|all| all.len() as u64 >= count));
        let keys: Vec<String> = redis.ask(&["KEYS", &format!("*:t:{topic}")]);
        let ttl: i64 = redis.ask(&["TTL", &keys[0]]);
        assert!((6 * 86_400..8 * 86_400).contains(&ttl), "{topic} is kept for {ttl} s");
    }
    assert_eq!(cluster.fleet.sum(|notes| notes.ends + notes.downs.len() as u64), 0);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

#[test]
fn a_key_that_two_nodes_get_at_once_is_published_once() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let nodes = [0, 1].map(|_| Node::start(&redis.url(), &[]));
    for round in 1..=50 {
        let (key, payload) = (format!("key-{round}"), round.to_string());
        let answers = std::thread::scope(|scope| {
            nodes
                .each_ref()
                .map(|node| scope.spawn(|| node.publish("t", &key, &payload)))
                .map(|thread| thread.join().expect("an answer"))
        });
        let [one, other] = answers.each_ref().map(|answer| place(&answer.json()));
        assert_eq!((&one, one.offset), (&other, round), "{answers:?}");
        let replays = answers.iter().filter(|answer| {
            answer.head.to_ascii_lowercase().contains("idempotency-replayed: true")
        });
        assert_eq!(replays.count(), 1, "{answers:?}");
        let conflict = nodes[0].publish("t", &key, "\"another\"");
        assert_eq!((conflict.status, conflict.code().as_str()), (409, "idempotency_conflict"));
    }
}

#[test]
fn a_publisher_reads_on_any_node_what_it_has_published_on_another() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let nodes = [0, 1, 2].map(|_| Node::start(&redis.url(), &[]));
    for number in 0..90_usize {
        let (writer, reader) = (&nodes[number % 3], &nodes[(number / 3 + 1) % 3]);
        let answer = writer.publish("t", &number.to_string(), &number.to_string());
        let written = place(&answer.json());
        let read = reader.get("/v1/topics/t").json();
        assert_eq!((place(&read), &read["data"]), (written, &number.into()), "{read}");
    }
}

#[test]
fn what_may_have_been_published_is_said_to_be_unknown_and_published_once() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let node = Node::start(&redis.url(), &[]);
    assert_eq!(place(&node.publish("t", "first", "1").json()).offset, 1);
    redis.stop();
    let start = Instant::now();
    let answer = node.publish("t", "second", "2");
    println!("answered after {:?}", start.elapsed());
    assert!(start.elapsed() < crate::bounds::ANSWERED, "{:?}", start.elapsed());
    assert_eq!((answer.status, answer.code().as_str()), (503, "outcome_unknown"));
    node.until_not_ready(start);
    let answer = node.publish("t", "second", "2");
    assert_eq!(answer.status, 503, "{answer:?}");
    redis.go_on();
    let mut answer = answer;
    until("accepted", PATIENCE, || {
        answer = node.publish("t", "second", "2");
        answer.status == 200
    });
    assert_eq!(place(&answer.json()).offset, 2, "{answer:?}");
    assert_eq!(place(&node.publish("t", "third", "3").json()).offset, 3);
}
