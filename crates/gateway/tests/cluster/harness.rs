//! A cluster under load, and the judge of it.

mod client;
mod cluster;
mod fleet;
mod http;
mod ledger;
mod node;
mod publisher;
mod turn;
mod world;

pub(crate) use client::Interests;
pub(crate) use cluster::{Cluster, LOAD, Load, publish_batch};
pub(crate) use fleet::Fleet;
pub(crate) use ledger::Sent;
pub(crate) use node::{Node, command};
pub(crate) use publisher::place;
pub(crate) use turn::{alone, beside};
pub(crate) use world::World;
