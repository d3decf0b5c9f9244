//! Nodes on one Redis, clients and publishers on all of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::Interests;
use super::fleet::Fleet;
use super::ledger::Sent;
use super::node::Node;
use super::publisher::{Publishers, place};
use super::world::World;
use crate::oracle::Tally;
use crate::process::{PATIENCE, until};

/// The publisher of each topic's last publication, beside the numbered ones.
const LAST: usize = usize::MAX;

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

impl Cluster {
    /// Clients and publishers on nodes that are ready.
    pub(crate) fn start(nodes: Vec<Node>, load: Load) -> Self {
        let world = Arc::new(World::default());
        world.set_nodes(nodes.iter().map(|node| node.address).collect());
        let topics: Vec<_> = (0..load.topics).map(|index| format!("ticker.{index}")).collect();
        let interests = (0..load.clients).map(|client| {
            let chosen = (0..load.interests).map(|place| {
                let index = client + place * load.topics / load.interests;
                topics[index % load.topics].clone()
            });
            // Every fourth one only wants the newest.
            Interests {
                topics: chosen.collect(),
                mode: if client % 4 == 3 { "latest" } else { "all" },
            }
        });
        let fleet = Fleet::start(&world, interests);
        let publishers = Publishers::start(&world, &topics, load.per_second);
        let cluster = Self { nodes, world, topics, fleet, publishers };
        cluster.fleet.until_heard(std::time::Instant::now());
        cluster
    }

    /// The same with `count` nodes of the same kind.
    pub(crate) fn on(redis: &str, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start((0..count).map(|_| Node::start(redis, settings)).collect(), LOAD)
    }

    /// The publishers have their answers, each topic ends with one more publication, every client gets there, and the
    /// verdict is that all is well.
    pub(crate) fn finish(self) -> Tally {
        let Self { nodes, world, topics, fleet, publishers } = self;
        publishers.stop();
        let mut ends = HashMap::new();
        for topic in &topics {
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
        fleet.finish(&ends);
        let tally = world.verdict();
        println!("{tally:?}");
        tally
    }
}
