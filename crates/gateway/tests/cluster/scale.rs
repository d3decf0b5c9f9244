//! A hundred thousand topics on one node, whose connections to Redis are cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bounds::REPAIRED;
use crate::harness::{Fleet, Interests, Node, Sent, World, alone, publish_batch};
use crate::process::{PATIENCE, until};
use crate::proxy::Proxy;
use crate::redis::Redis;

const CLIENTS: usize = 50;
const TOPICS_OF_A_CLIENT: usize = 2_000;

/// Every so many topics one is published to while the node is cut off.
const PUBLISHED_EVERY: usize = 500;

/// A build for tests on a machine with other work takes longer than is promised.
const ALLOWANCE: u32 = 3;

/// How often the connections are cut.
const CUTS: usize = 3;

/// A connection that lasted this long is not taken for a bad one, after which a node would wait before it connects.
const STABLE: Duration = Duration::from_secs(6);

fn topic(index: usize) -> String {
    format!("wide.{index}")
}

/// Publishes to some topics, each with its own payload, in one batch.
fn publish(world: &World, node: &Node, topics: &[String], round: usize) {
    let items = topics.iter().enumerate().map(|(index, topic)| {
        let (number, payload) = (round as u64, format!(r#"{{"round":{round},"topic":{index}}}"#));
        world.sends(topic, &payload, Sent { publisher: 0, number });
        (topic.clone(), payload)
    });
    publish_batch(world, node, &format!("round-{round}"), &items.collect::<Vec<_>>());
}

#[test]
fn a_hundred_thousand_topics_are_cut_off() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.address(), 1);
    let settings = [("limits.subscriptions_per_connection", "2000")];
    let (node, other) = (Node::start(&proxy.url(), &settings), Node::start(&redis.url(), &[]));
    let world = Arc::new(World::default());
    world.set_nodes(vec![node.address]);
    let start = Instant::now();
    let fleet = Fleet::start(
        &world,
        (0..CLIENTS).map(|client| {
            let first = client * TOPICS_OF_A_CLIENT;
            Interests {
                topics: (first..first + TOPICS_OF_A_CLIENT).map(topic).collect(),
                mode: "all",
            }
        }),
    );
    println!("subscribed after {:?}", start.elapsed());
    let topics: Vec<_> =
        (0..CLIENTS * TOPICS_OF_A_CLIENT).step_by(PUBLISHED_EVERY).map(topic).collect();
    publish(&world, &other, &topics, 1);
    fleet.until_level(&world.ends());

    let mut times = Vec::new();
    for round in 2..2 + CUTS {
        let made = Instant::now();
        until("stable", PATIENCE, || made.elapsed() > STABLE);
        let connections = proxy.connections();
        let start = Instant::now();
        proxy.reset_all();
        publish(&world, &other, &topics, round);
        fleet.until_level(&world.ends());
        let repaired = start.elapsed();
        until("made anew", PATIENCE, || proxy.connections() >= connections + 2);
        node.until_ready();
        println!("all topics up to date after {repaired:?}, ready after {:?}", start.elapsed());
        times.push(repaired);
    }
    times.sort();
    println!("up to date after {:?} at the median, {:?} at most", times[CUTS / 2], times[CUTS - 1]);
    assert!(times[CUTS / 2] < ALLOWANCE * REPAIRED, "{times:?}");
    assert_eq!(fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    fleet.finish(&world.ends());
    let tally = world.verdict();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}
