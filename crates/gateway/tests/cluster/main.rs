//! Several nodes as processes, real Redis servers, and everything that can go wrong between them.
//!
//! Needs `redis-server`, `faketime`, and what [`deploy`] names: `scripts/setup` installs them. Every fault is judged by
//! the log oracle: what was answered 200 must arrive at every subscriber, once and in order, or be named.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "times that were measured are printed")]

#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/packages.rs"]
mod packages;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/queries.rs"]
mod queries;
#[path = "../support/redis.rs"]
mod redis;

mod bounds;
#[expect(dead_code, unused_imports, reason = "made for crowds, too")]
mod harness;

mod broker;
mod deploy;
mod failover;
mod link;
mod nodes;
mod pressure;
mod rig;
mod scale;
mod script;
