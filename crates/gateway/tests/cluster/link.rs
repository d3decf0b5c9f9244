//! The way between a node and Redis fails: it is cut, silent, slow, narrow, or damages what passes.

use std::time::{Duration, Instant};

use crate::bounds::{ANSWERED, HEARD, NOT_READY, TOLD};
use crate::harness::{Cluster, Node, alone, beside};
use crate::process::{PATIENCE, until};
use crate::proxy::{Damage, Direction, Flow, Harm, Proxy, Way};
use crate::redis::Redis;

/// Publishers connect to a node when they first choose it.
const PUBLISHERS: f64 = 3.0;

/// Threads of a pool come and go: each scrape is done on one. A leak would be one for each of twenty connections.
const POOL: f64 = 4.0;

/// A cluster whose nodes reach Redis through one proxy.
fn proxied(nodes: usize) -> (Redis, Proxy, Cluster) {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.address(), 11);
    let cluster = Cluster::on(&proxy.url(), nodes, &[]);
    (redis, proxy, cluster)
}

/// The clients have kept their connections, and nobody has missed anything.
fn expect_nothing_missed(cluster: Cluster) {
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

/// Bytes vanish in these directions, and come through again.
fn black_hole(directions: &[Direction]) {
    let (_redis, proxy, cluster) = proxied(2);
    let start = Instant::now();
    let lost = Way { flow: Flow::Lost, ..Way::default() };
    directions.iter().for_each(|direction| proxy.set(*direction, lost));
    let told = cluster.fleet.until_told_down(start);
    let not_ready = cluster.nodes.iter().map(|node| node.until_not_ready(start)).max();
    let not_ready = not_ready.expect("nodes");
    println!("told down after {told:?}, not ready after {not_ready:?}");
    assert!(told < TOLD, "{told:?}");
    assert!(not_ready < NOT_READY, "{not_ready:?}");
    let back = Instant::now();
    proxy.clear();
    let heard = cluster.fleet.until_heard(back);
    let slowest = cluster.publishers.slowest(start);
    println!("publishing meanwhile: {:?}, at most {slowest:?}", cluster.publishers.results(start));
    println!("all reached after {heard:?}");
    assert!(slowest < ANSWERED, "{slowest:?}");
    assert!(heard < HEARD, "{heard:?}");
    expect_nothing_missed(cluster);
}

#[test]
fn a_black_hole_towards_redis() {
    let _turn = alone();
    black_hole(&[Direction::ToServer]);
}

#[test]
fn a_black_hole_towards_the_node() {
    let _turn = alone();
    black_hole(&[Direction::ToClient]);
}

#[test]
fn a_black_hole_both_ways() {
    let _turn = alone();
    black_hole(&[Direction::ToServer, Direction::ToClient]);
}

#[test]
fn subscribers_are_killed_again_and_again() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let (start, mut killed) = (Instant::now(), 0);
    for kill in 1..=20 {
        killed += redis.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        until("over", PATIENCE, || start.elapsed() > kill * Duration::from_millis(500));
    }
    println!("{killed} connections were killed");
    assert!(killed > 10, "{killed}");
    expect_nothing_missed(cluster);
}

#[test]
fn what_was_missed_and_is_kept_nowhere_is_named() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[("topics.history", "0")]);
    for _ in 0..5 {
        redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        cluster.fleet.until_heard(Instant::now());
    }
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert!(tally.gaps > 0, "{tally:?}");
    assert_eq!(tally.resets, 0, "{tally:?}");
}

#[test]
fn connections_are_cut_again_and_again() {
    let _turn = alone();
    let (_redis, proxy, cluster) = proxied(2);
    let footprint = |node: &Node| (node.open_files(), node.metric("process_threads"));
    let before: Vec<_> = cluster.nodes.iter().map(footprint).collect();
    let connections = proxy.connections();
    for _ in 0..10 {
        let start = Instant::now();
        proxy.refuse();
        proxy.reset_all();
        until("over", PATIENCE, || start.elapsed() > Duration::from_secs(1));
        proxy.accept();
        until("over", PATIENCE, || start.elapsed() > Duration::from_secs(2));
    }
    let made = proxy.connections() - connections;
    println!("{made} connections were made in 20 s");
    // Two of each node in each round; a few may have been cut while they were being made.
    assert!((10..=80).contains(&made), "{made}");
    let heard = cluster.fleet.until_heard(Instant::now());
    println!("all reached after {heard:?}");
    for (node, before) in cluster.nodes.iter().zip(before) {
        node.until_ready();
        let (files, threads) = footprint(node);
        // A publisher may have come to this node since.
        assert!(files <= before.0 + PUBLISHERS, "{before:?} files and threads, then {files}");
        assert!(threads <= before.1 + POOL, "{before:?} files and threads, then {threads} threads");
    }
    expect_nothing_missed(cluster);
}

#[test]
fn late_and_unsteady() {
    let _turn = beside();
    let (_redis, proxy, cluster) = proxied(2);
    let [latency, jitter] = [100, 80].map(Duration::from_millis);
    let start = Instant::now();
    proxy.set_both(Way { latency, jitter, ..Way::default() });
    until("over", PATIENCE, || start.elapsed() > Duration::from_secs(6));
    let (results, slowest) = (cluster.publishers.results(start), cluster.publishers.slowest(start));
    println!("publishing meanwhile: {results:?}, at most {slowest:?}");
    assert_eq!(results.keys().collect::<Vec<_>>(), ["ok"]);
    assert!(slowest < ANSWERED, "{slowest:?}");
    assert_eq!(cluster.fleet.sum(|notes| notes.downs.len() as u64), 0, "it is slow, not down");
    expect_nothing_missed(cluster);
}

/// Both connections are damaged in a direction, and made anew.
fn damage(direction: Direction, harm: Harm) {
    let (_redis, proxy, mut cluster) = proxied(1);
    let connections = proxy.connections();
    let damage = Some(Damage { after: 0, what: harm });
    proxy.set(direction, Way { damage, ..Way::default() });
    // Connections that are made meanwhile are damaged too, so it goes on.
    until("made anew", PATIENCE, || proxy.connections() >= connections + 4);
    let back = Instant::now();
    proxy.clear();
    let heard = cluster.fleet.until_heard(back);
    println!("{harm:?} {direction:?}: all reached after {heard:?}");
    assert!(heard < HEARD, "{heard:?}");
    assert_eq!(cluster.nodes[0].ended(), None);
    assert!(!cluster.nodes[0].log().contains("panicked"), "{}", cluster.nodes[0].log());
    expect_nothing_missed(cluster);
}

#[test]
fn garbage_from_redis() {
    let _turn = beside();
    damage(Direction::ToClient, Harm::Insert(b"\0garbage\r\n"));
}

#[test]
fn garbage_to_redis() {
    let _turn = beside();
    damage(Direction::ToServer, Harm::Insert(b"*99999999999\r\n"));
}

#[test]
fn cut_in_the_middle_of_an_answer() {
    let _turn = beside();
    damage(Direction::ToClient, Harm::Cut);
}

#[test]
fn one_byte_at_a_time() {
    let _turn = beside();
    let (_redis, proxy, cluster) = proxied(1);
    let start = Instant::now();
    proxy.set_both(Way { bytes_per_write: Some(1), ..Way::default() });
    until("over", PATIENCE, || start.elapsed() > Duration::from_secs(3));
    let results = cluster.publishers.results(start);
    assert_eq!(results.keys().collect::<Vec<_>>(), ["ok"]);
    // New connections too.
    proxy.reset_all();
    cluster.fleet.until_heard(Instant::now());
    expect_nothing_missed(cluster);
}

#[test]
fn half_closed() {
    let _turn = beside();
    let (_redis, proxy, cluster) = proxied(1);
    for direction in [Direction::ToClient, Direction::ToServer] {
        let start = Instant::now();
        proxy.half_close(direction);
        let heard = cluster.fleet.until_heard(start);
        println!("{direction:?}: all reached after {heard:?}");
        assert!(heard < HEARD, "{heard:?}");
    }
    expect_nothing_missed(cluster);
}
