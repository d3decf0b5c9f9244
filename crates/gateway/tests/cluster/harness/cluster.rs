//! Nodes on one Redis, clients and publishers on all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Interests;
use super::fleet::{Fleet, Manner};
use super::ledger::Sent;
use super::node::Node;
use super::publisher::{Publishers, place};
use super::world::World;
use crate::oracle::Tally;
use crate::process::{PATIENCE, until};

/// Publishers beside the numbered ones: of bursts, and of each topic's last publication.
const BURST: usize = usize::MAX - 1;
const LAST: usize = usize::MAX;

/// Items of one burst.
const BURST_ITEMS_MAX: u64 = 1_000;

/// A cluster under load.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) world: Arc<World>,
    pub(crate) topics: Vec<String>,
    pub(crate) fleet: Fleet,
    pub(crate) publishers: Publishers,
}

/// How much goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) topics: usize,
    /// Topics of one client.
    pub(crate) interests: usize,
    /// Requests of all publishers together.
    pub(crate) per_second: u32,
}

/// Enough for every topic to be heard of several times a second, and little enough for a busy machine.
pub(crate) const LOAD: Load = Load { clients: 60, topics: 12, interests: 3, per_second: 60 };

impl Load {
    /// Their names.
    pub(crate) fn topics(&self) -> Vec<String> {
        (0..self.topics).map(|index| format!("ticker.{index}")).collect()
    }

    /// What each client wants of these topics.
    pub(crate) fn interests(&self, topics: &[String]) -> Vec<Interests> {
        let interests = |client: usize| {
            let chosen = (0..self.interests).map(|place| {
                // Clients go to nodes in turn, so the shift gives each node some of each topic.
                let shift = client / 6 + place * topics.len() / self.interests;
                let index = client + shift;
                topics[index % topics.len()].clone()
            });
            // Every fourth one only wants the newest.
            let mode = if client % 4 == 3 { "latest" } else { "all" };
            Interests { topics: chosen.collect(), mode }
        };
        (0..self.clients).map(interests).collect()
    }
}

impl Cluster {
    /// Clients and publishers on nodes that are ready.
    pub(crate) fn start(nodes: Vec<Node>, load: Load) -> Self {
        Self::start_with(nodes, load, Manner::HASTY)
    }

    /// The same for clients that behave in this manner.
    pub(crate) fn start_with(nodes: Vec<Node>, load: Load, manner: Manner) -> Self {
        let world = Arc::new(World::default());
        world.set_nodes(nodes.iter().map(|node| node.address).collect());
        let topics = load.topics();
        let interests = load.interests(&topics);
        let fleet = Fleet::start_with(&world, interests, manner);
        let publishers = Publishers::start(&world, &topics, load.per_second);
        let cluster = Self { nodes, world, topics, fleet, publishers };
        cluster.fleet.until_heard(Instant::now());
        cluster
    }

    /// The same with `count` nodes of the same kind.
    pub(crate) fn on(redis: &str, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start((0..count).map(|_| Node::start(redis, settings)).collect(), LOAD)
    }

    /// Waits until all nodes are ready.
    pub(crate) fn until_ready(&self) {
        for node in &self.nodes {
            node.until_ready();
        }
    }

    /// Waits until everybody has what was published until now: how long that took.
    pub(crate) fn until_level(&self) -> Duration {
        self.fleet.until_level(&self.world.ends())
    }

    /// Publishes many large payloads at a node, as one batch.
    pub(crate) fn burst(&self, node: &Node, number: u64, count: usize, bytes: usize) {
        let padding = "x".repeat(bytes);
        let items = (0..count).map(|index| {
            let topic = &self.topics[index % self.topics.len()];
            let payload = format!(r#"{{"burst":{number},"item":{index},"padding":"{padding}"}}"#);
            let number = number * BURST_ITEMS_MAX + index as u64;
            self.world.sends(topic, &payload, Sent { publisher: BURST, number });
            (topic.clone(), payload)
        });
        let items: Vec<_> = items.collect();
        publish_batch(&self.world, node, &format!("burst-{number}"), &items);
    }

    /// The publishers have their answers, each topic ends with one more publication, every client gets there, and the
    /// verdict is that all is well.
    pub(crate) fn finish(self) -> Tally {
        let Self { nodes, world, topics, fleet, publishers } = self;
        finish(&world, &nodes, &topics, publishers, vec![fleet])
    }
}

/// Ends what goes on between nodes, publishers and clients, and gives the verdict.
pub(crate) fn finish(
    world: &World,
    nodes: &[Node],
    topics: &[String],
    publishers: Publishers,
    fleets: Vec<Fleet>,
) -> Tally {
    publishers.stop();
    let mut ends = HashMap::new();
    for topic in topics {
        let payload = format!(r#"{{"last":"{topic}"}}"#);
        world.sends(topic, &payload, Sent { publisher: LAST, number: 0 });
        until("accepted", PATIENCE, || {
            let node = nodes.iter().find(|node| node.address == world.node(0));
            let node = node.expect("one of the nodes that there are");
            let answer = node.publish(topic, &format!("last-{topic}"), &payload);
            if answer.status == 200 {
                let place = place(&answer.json());
                world.published(topic, &place, &payload);
                ends.insert(topic.clone(), place);
            }
            answer.status == 200
        });
    }
    for fleet in fleets {
        fleet.finish(&ends);
    }
    let tally = world.verdict();
    println!("{tally:?}");
    tally
}

/// Publishes topics and payloads as one batch that must be accepted.
pub(crate) fn publish_batch(world: &World, node: &Node, key: &str, items: &[(String, String)]) {
    let lines = items
        .iter()
        .map(|(topic, payload)| format!("{{\"topic\":\"{topic}\",\"data\":{payload}}}\n"));
    let answer = node.post("/v1/publish", key, &lines.collect::<String>());
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let results = body["results"].as_array().expect("results");
    assert_eq!(results.len(), items.len());
    for (result, (topic, payload)) in results.iter().zip(items) {
        world.published(topic, &place(result), payload);
    }
}
