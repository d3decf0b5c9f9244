//! Ten thousand clients, nodes that are killed, drained and replaced under them, and networks and machines that fail both.
//!
//! Needs `redis-server`, `ip` and `nft`, which `scripts/setup` installs; and root, for networks of a test's own (user
//! namespaces will do as well) and for control groups.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "times that were measured are printed")]

#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../cluster/harness.rs"]
#[expect(dead_code, unused_imports, reason = "made for faults of the broker, too")]
mod harness;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
#[expect(dead_code, reason = "made for more kinds of harm")]
mod proxy;
#[path = "../support/redis.rs"]
#[expect(dead_code, reason = "made for faults of Redis")]
mod redis;

mod memory_group;
mod own_network;
mod scene;

mod admission;
mod chaos;
mod crowd;
mod drain;
mod links;
mod machine;
mod memory;
mod network;
mod programs;
