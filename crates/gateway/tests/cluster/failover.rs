//! Another Redis takes over, in the ways in which that goes wrong.

use std::time::{Duration, Instant};

use crate::bounds::{HEARD, PROMOTED};
use crate::harness::{Cluster, LOAD, Node, alone};
use crate::process::{PATIENCE, until};
use crate::proxy::{Direction, Flow, Proxy, Way};
use crate::redis::{Redis, Sentinels};

/// After so long without a sign of life, Sentinels take a master for dead.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// A master that takes nothing which no replica has.
const REPLICATED: [&str; 2] = ["min-replicas-to-write 1", "min-replicas-max-lag 2"];

/// Every topic of every client.
const SUBSCRIPTIONS: u64 = (LOAD.clients * LOAD.interests) as u64;

/// Waits until a replica was promoted after `start`, and Sentinels say so.
fn until_promoted<'a>(sentinels: &Sentinels, replicas: &[&'a Redis], start: Instant) -> &'a Redis {
    let mut promoted = None;
    until("promoted", PATIENCE, || {
        promoted = replicas.iter().find(|replica| replica.is_master()).copied();
        promoted.is_some()
    });
    println!("promoted after {:?}", start.elapsed());
    let promoted = promoted.expect("just found");
    assert_ne!(sentinels.master(), None);
    promoted
}

#[test]
fn the_master_is_killed_and_a_replica_takes_over() {
    let _turn = alone();
    let mut master = Redis::start(&[]);
    let replica = master.start_replica(&[]);
    let sentinels = Sentinels::start(3, 2, DOWN_AFTER, &master);
    let cluster = Cluster::on(&sentinels.url(), 2, &[]);
    let start = Instant::now();
    master.kill();
    until_promoted(&sentinels, &[&replica], start);
    let promoted = Instant::now();
    let heard = cluster.fleet.until_heard(promoted);
    println!("all reached {heard:?} after the promotion");
    println!("publishing meanwhile: {:?}", cluster.publishers.results(start));
    assert!(heard < PROMOTED, "{heard:?}");
    cluster.until_ready();
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}

#[test]
fn the_old_master_hangs_and_comes_back_as_a_second_one() {
    let _turn = alone();
    let master = Redis::start(&REPLICATED);
    let replicas = [0, 1].map(|_| master.start_replica(&REPLICATED));
    let sentinels = Sentinels::start(3, 2, DOWN_AFTER, &master);
    let cluster = Cluster::on(&sentinels.url(), 2, &[]);
    let start = Instant::now();
    master.stop();
    let promoted = until_promoted(&sentinels, &replicas.each_ref(), start);
    // It needs a replica of its own before it takes anything.
    let heard = cluster.fleet.until_heard(Instant::now());
    println!("all reached {heard:?} after the promotion; {} replicas", promoted.replicas());
    let back = Instant::now();
    master.go_on();
    assert!(master.is_master(), "nobody has told it");
    until("told that it is none", PATIENCE, || !master.is_master());
    println!("two masters for {:?}", back.elapsed());
    let results = cluster.publishers.results(back);
    println!("publishing meanwhile: {results:?}");
    // Nobody who is behind the new master notices that the old one is back.
    assert_eq!(results.keys().collect::<Vec<_>>(), ["ok"]);
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}

#[test]
fn another_master_is_named_while_the_old_one_is_well() {
    let _turn = alone();
    let master = Redis::start(&[]);
    let replica = master.start_replica(&[]);
    let sentinels = Sentinels::start(3, 2, DOWN_AFTER, &master);
    let cluster = Cluster::on(&sentinels.url(), 2, &[]);
    let start = Instant::now();
    sentinels.fail_over();
    until_promoted(&sentinels, &[&replica], start);
    let promoted = Instant::now();
    // What the old master still takes reaches clients too: only a reset says that they are with the new one.
    let reset = cluster.fleet.until_reset();
    println!("all with the new master {:?} after the promotion", promoted.elapsed());
    assert!(promoted.elapsed() < PROMOTED, "{reset:?}");
    println!("publishing meanwhile: {:?}", cluster.publishers.results(start));
    cluster.until_ready();
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}

#[test]
fn a_replica_that_lags_behind_takes_over_while_the_old_master_goes_on() {
    let _turn = alone();
    let master = Redis::start(&[]);
    let replication = Proxy::start(master.address(), 1);
    let replica = Redis::start(&[&format!("replicaof 127.0.0.1 {}", replication.address().port())]);
    until("in step", PATIENCE, || master.replicas() == 1);
    let ways = [2, 3].map(|seed| Proxy::start(master.address(), seed));
    let nodes = ways.iter().map(|way| Node::start(&way.url(), &[])).collect();
    let cluster = Cluster::start(nodes, LOAD);

    replication.set(Direction::ToClient, Way { flow: Flow::Held, ..Way::default() });
    // The replica misses what comes now.
    cluster.fleet.until_heard(Instant::now());
    cluster.fleet.until_heard(Instant::now());
    replica.tell(&["REPLICAOF", "NO", "ONE"]);
    let start = Instant::now();
    ways[0].lead_to(replica.address());
    ways[0].reset_all();
    // The nodes have different masters, and both take publications.
    cluster.fleet.until_heard(start);
    cluster.fleet.until_heard(Instant::now());
    ways[1].lead_to(replica.address());
    ways[1].reset_all();
    let heard = cluster.fleet.until_heard(Instant::now());
    println!("all reached {heard:?} after the second node has moved");
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (SUBSCRIPTIONS, 0), "one for each: {tally:?}");
}

#[test]
fn the_master_refuses_connections_for_a_while() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.address(), 1);
    let cluster = Cluster::on(&proxy.url(), 2, &[]);
    let start = Instant::now();
    proxy.refuse();
    proxy.reset_all();
    cluster.fleet.until_told_down(start);
    until("over", PATIENCE, || start.elapsed() > Duration::from_secs(10));
    let back = Instant::now();
    proxy.accept();
    let heard = cluster.fleet.until_heard(back);
    println!("all reached after {heard:?}");
    assert!(heard < HEARD, "{heard:?}");
    cluster.until_ready();
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}

#[test]
fn the_name_leads_to_another_server() {
    let _turn = alone();
    let mut old = Redis::start(&[]);
    let name = Proxy::start(old.address(), 1);
    let cluster = Cluster::on(&name.url(), 2, &[]);
    let new = Redis::start(&[]);
    let start = Instant::now();
    name.lead_to(new.address());
    old.kill();
    let heard = cluster.fleet.until_heard(start);
    println!("all reached after {heard:?}");
    assert!(heard < HEARD, "{heard:?}");
    assert!(new.ask::<u64>(&["DBSIZE"]) > 0);
    let tally = cluster.finish();
    assert!(tally.resets >= SUBSCRIPTIONS, "{tally:?}");
}
