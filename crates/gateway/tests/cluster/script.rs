//! The same script on one node and on three leads to the same topics.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::harness::{Fleet, Interests, Node, Sent, World, beside, publish_batch};
use crate::redis::Redis;

const SEED: u64 = 20_261_127;
const STEPS: u64 = 600;
const TOPICS: usize = 7;
const CLIENTS: usize = 20;

/// Each topic as it can be read at the end: offsets and payloads.
type Logs = BTreeMap<String, Vec<(u64, String)>>;

/// Runs the script: single publications, batches, repeats, and clients that hang up.
fn run(count: usize) -> Logs {
    let redis = Redis::start(&[]);
    let nodes: Vec<_> = (0..count).map(|_| Node::start(&redis.url(), &[])).collect();
    let world = std::sync::Arc::new(World::default());
    world.set_nodes(nodes.iter().map(|node| node.address).collect());
    let topics: Vec<_> = (0..TOPICS).map(|topic| format!("script.{topic}")).collect();
    let interests = (0..CLIENTS).map(|_| Interests { topics: topics.clone(), mode: "all" });
    let fleet = Fleet::start(&world, interests);
    let mut random = StdRng::seed_from_u64(SEED);
    let mut step = 0;
    while step < STEPS {
        // The same numbers are drawn whatever the number of nodes.
        let (node, size): (usize, usize) = (random.random_range(0..6), random.random_range(1..5));
        let (is_repeated, hangs_up) = (random.random_bool(0.1), random.random_bool(0.02));
        let items: Vec<_> = (0..size)
            .map(|_| {
                step += 1;
                let topic = topics[random.random_range(0..TOPICS)].clone();
                let payload = format!(r#"{{"step":{step}}}"#);
                world.sends(&topic, &payload, Sent { publisher: 0, number: step });
                (topic, payload)
            })
            .collect();
        for repeat in 0..=usize::from(is_repeated) {
            let node = &nodes[(node + repeat) % count];
            publish_batch(&world, node, &format!("step-{step}"), &items);
        }
        if hangs_up {
            fleet.hang_up();
        }
    }
    fleet.finish(&world.ends());
    let tally = world.verdict();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
    let logs = nodes.iter().map(|node| topics.iter().map(|topic| log(node, topic)).collect());
    let mut logs: Vec<Logs> = logs.collect();
    let first = logs.swap_remove(0);
    logs.iter().for_each(|other| assert_eq!(&first, other, "all nodes agree"));
    first
}

/// One topic with its offsets and payloads.
fn log(node: &Node, topic: &str) -> (String, Vec<(u64, String)>) {
    let answer = node.get(&format!("/v1/topics/{topic}?history=1000")).json();
    let publication = |publication: &Value| {
        (publication["offset"].as_u64().expect("an offset"), publication["data"].to_string())
    };
    let publications = answer["publications"].as_array().expect("a history");
    (topic.to_owned(), publications.iter().map(publication).collect())
}

#[test]
fn three_nodes_are_as_one() {
    let _turn = beside();
    let (one, three) = (run(1), run(3));
    assert_eq!(one, three);
    let publications: usize = one.values().map(Vec::len).sum();
    assert!(publications as u64 >= STEPS, "{publications}");
}
