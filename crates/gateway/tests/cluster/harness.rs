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
pub(crate) use cluster::{Cluster, LOAD, Load};
pub(crate) use fleet::Fleet;
pub(crate) use http::{Answer, Http};
pub(crate) use node::{Node, command};
pub(crate) use publisher::{Publishers, place};
pub(crate) use turn::{alone, beside};
pub(crate) use world::World;
