//! Tickcast: a horizontally scalable pub/sub gateway for live tickers.
//!
//! Read in this order: [`server`] starts a node; `worker` owns connections; `router` and `api` take requests;
//! `node` joins the hub and the broker. The binary in `main.rs` adds the command line.

pub mod broker;
pub mod config;
pub mod server;

pub mod cli;
pub mod demo;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod logging;
pub mod rlimit;
pub mod systemd;

mod access;
mod admin;
mod api;
mod memory;
mod metrics;
mod node;
mod router;
mod transport;
mod worker;
