//! A cluster under load, and the judge of it.

#[path = "harness/client.rs"]
mod client;
#[path = "harness/cluster.rs"]
mod cluster;
#[path = "harness/fleet.rs"]
mod fleet;
#[path = "harness/http.rs"]
pub(crate) mod http;
#[path = "harness/ledger.rs"]
mod ledger;
#[path = "harness/node.rs"]
mod node;
#[path = "harness/publisher.rs"]
mod publisher;
#[path = "harness/session.rs"]
mod session;
#[path = "harness/turn.rs"]
mod turn;
#[path = "harness/world.rs"]
mod world;

pub(crate) use client::{Interests, Notes};
pub(crate) use cluster::{Cluster, LOAD, Load, finish, publish_batch};
pub(crate) use fleet::{Fleet, Manner};
pub(crate) use ledger::Sent;
pub(crate) use node::{Node, command};
pub(crate) use publisher::{Publishers, place};
pub(crate) use turn::{alone, beside};
pub(crate) use world::World;
