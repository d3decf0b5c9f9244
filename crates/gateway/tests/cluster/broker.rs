//! Redis itself fails: it is gone, it hangs, it is full, it is busy, or it has forgotten.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::bounds::{ANSWERED, HEARD, NOT_READY, TOLD};
use crate::harness::{Cluster, LOAD, Node, alone, place};
use crate::process::{PATIENCE, until};
use crate::proxy::Proxy;
use crate::redis::{Memory, Redis};

/// Every topic of every client.
const SUBSCRIPTIONS: u64 = (LOAD.clients * LOAD.interests) as u64;

/// What a node may grow by while its broker is away.
const GROWTH_MAX_BYTES: f64 = 32.0 * 1024.0 * 1024.0;

/// Everybody is told that the broker is down since `start`, within bounds; says how long it took.
fn expect_down(cluster: &Cluster, start: Instant) {
    let told = cluster.fleet.until_told_down(start);
    let not_ready = cluster.nodes.iter().map(|node| node.until_not_ready(start)).max();
    let not_ready = not_ready.expect("nodes");
    println!("told down after {told:?}, not ready after {not_ready:?}");
    assert!(told < TOLD, "told down after {told:?}");
    assert!(not_ready < NOT_READY, "not ready after {not_ready:?}");
    for node in &cluster.nodes {
        let (status, report) = node.readiness_for_subscribers();
        assert_eq!((status, &report["degraded"]), (200, &true.into()), "{report}");
        assert_eq!(node.get("/healthz").status, 200);
        assert_eq!(node.admin("/livez").status, 200);
    }
}

/// What cannot be read is said to be so, soon.
fn expect_unreadable(cluster: &Cluster) {
    for node in &cluster.nodes {
        let asked = Instant::now();
        let read = node.get(&format!("/v1/topics/{}", cluster.topics[0]));
        assert_eq!((read.status, read.code().as_str()), (503, "broker_unavailable"));
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
    }
}

/// Everybody gets publications again since `start`; says how long it took.
fn expect_up(cluster: &Cluster, start: Instant) {
    let told = cluster.fleet.until_told_up(start);
    let heard = cluster.fleet.until_heard(start);
    cluster.until_ready();
    println!("told up after {told:?}, all reached after {heard:?}");
    assert!(heard < HEARD, "all reached after {heard:?}");
}

/// No client has lost its connection.
fn expect_no_ends(cluster: &Cluster) {
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
}

/// Everything that was tried from `since` on was answered soon, and nothing was accepted.
fn expect_refusals(cluster: &Cluster, since: Instant) {
    let (results, slowest) = (cluster.publishers.results(since), cluster.publishers.slowest(since));
    println!("publishing meanwhile: {results:?}, at most {slowest:?}");
    assert!(!results.contains_key("ok") && !results.is_empty(), "{results:?}");
    assert!(!results.contains_key("lost"), "{results:?}");
    assert!(slowest < ANSWERED, "{slowest:?}");
}

#[test]
fn killed_and_back_empty() {
    let _turn = alone();
    let mut redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let start = Instant::now();
    redis.kill();
    let killed = Instant::now();
    expect_down(&cluster, start);
    expect_refusals(&cluster, killed);
    expect_unreadable(&cluster);
    let back = Instant::now();
    redis.start_again(Memory::Lost);
    expect_up(&cluster, back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
    assert_eq!(tally.gaps, 0, "{tally:?}");
}

#[test]
fn killed_and_back_from_an_older_file() {
    let _turn = alone();
    let mut redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    redis.tell(&["SAVE"]);
    // What comes now is not in the file: offsets will be given a second time.
    cluster.fleet.until_heard(Instant::now());
    cluster.fleet.until_heard(Instant::now());
    redis.kill();
    let back = Instant::now();
    redis.start_again(Memory::Saved);
    cluster.fleet.until_heard(back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}

/// Redis hangs for so long, and goes on as if nothing had been.
fn hangs(time: Duration) {
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let before: Vec<_> = cluster.nodes.iter().map(Node::resident_bytes).collect();
    let start = Instant::now();
    redis.stop();
    let stopped = Instant::now();
    expect_down(&cluster, start);
    expect_unreadable(&cluster);
    let mut slowest = Duration::ZERO;
    until("over", PATIENCE, || {
        let asked = Instant::now();
        assert_eq!(cluster.nodes[0].get("/healthz").status, 200);
        slowest = slowest.max(asked.elapsed());
        stopped.elapsed() >= time
    });
    println!("other requests meanwhile: at most {slowest:?}");
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    expect_refusals(&cluster, stopped);
    for (node, before) in cluster.nodes.iter().zip(before) {
        let growth = node.resident_bytes() - before;
        assert!(growth < GROWTH_MAX_BYTES, "{growth} bytes more");
    }
    let back = Instant::now();
    redis.go_on();
    expect_up(&cluster, back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "it has forgotten nothing");
}

#[test]
fn hangs_for_a_moment() {
    let _turn = alone();
    hangs(Duration::from_secs(4));
}

#[test]
fn hangs_for_long() {
    let _turn = alone();
    hangs(Duration::from_secs(12));
}

#[test]
fn full() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let start = Instant::now();
    redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = Instant::now();
    expect_down(&cluster, start);
    expect_refusals(&cluster, full);
    let results = cluster.publishers.results(full);
    assert_eq!(results.keys().collect::<Vec<_>>(), ["broker_unavailable"], "it was refused");
    let back = Instant::now();
    redis.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    expect_up(&cluster, back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

#[test]
fn evicts_what_it_knows_of_a_topic() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let evicted = &cluster.topics[0];
    let keys: Vec<String> = redis.ask(&["KEYS", &format!("*:t:{evicted}")]);
    assert_eq!(keys.len(), 1, "{keys:?}");
    // Right after the eviction there is no value.
    let epoch = |node: &Node| {
        let answer = node.get(&format!("/v1/topics/{evicted}"));
        (answer.status == 200).then(|| place(&answer.json()).epoch)
    };
    let before = epoch(&cluster.nodes[0]);
    redis.tell(&["DEL", &keys[0]]);
    let time = until("in another epoch", PATIENCE, || {
        epoch(&cluster.nodes[1]).is_some_and(|epoch| Some(epoch) != before)
    });
    println!("a new epoch after {time:?}");
    expect_no_ends(&cluster);
    // Those who follow that topic, and nobody else.
    let followers = cluster.fleet.followers(&cluster.topics[0]);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (followers, 0), "{tally:?}");
}

#[test]
fn busy_with_a_script() {
    let _turn = alone();
    let redis = Redis::start(&["busy-reply-threshold 50"]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let start = Instant::now();
    let mut script = TcpStream::connect(redis.address()).expect("it listens");
    script.write_all(b"EVAL \"while true do end\" 0\r\n").expect("an open connection");
    until("busy", PATIENCE, || redis.try_ask::<u64>(&["DBSIZE"]).is_err());
    let busy = Instant::now();
    expect_down(&cluster, start);
    expect_refusals(&cluster, busy);
    let back = Instant::now();
    redis.tell(&["SCRIPT", "KILL"]);
    expect_up(&cluster, back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

#[test]
fn takes_no_more_connections() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.address(), 1);
    let cluster = Cluster::on(&proxy.url(), 1, &[]);
    let start = Instant::now();
    proxy.refuse();
    proxy.reset_all();
    redis.tell(&["CONFIG", "SET", "maxclients", "10"]);
    let mut taken = Vec::new();
    until("full", PATIENCE, || {
        taken.push(TcpStream::connect(redis.address()).expect("the kernel takes it"));
        redis.try_ask::<String>(&["PING"]).is_err()
    });
    proxy.accept();
    expect_down(&cluster, start);
    let says_why = |log: &str| log.contains("maxclients");
    until("told why", PATIENCE, || says_why(&cluster.nodes[0].log()));
    let back = Instant::now();
    drop(taken);
    expect_up(&cluster, back);
    expect_no_ends(&cluster);
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}
