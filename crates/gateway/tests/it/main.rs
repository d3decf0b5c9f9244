//! A node as its users meet it: over real sockets, one subject per module.
//!
//! Most tests start a node in this process ([`harness`]), some the program itself. Nothing sleeps: a test waits for the
//! event it is about, with a deadline that only a broken node reaches. The slow tests are in `tests/system`.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/port.rs"]
mod port;
#[expect(dead_code, reason = "made for processes that are ended in many ways")]
#[path = "../support/process.rs"]
mod process;
#[path = "../support/program.rs"]
mod program;
#[expect(dead_code, reason = "also says which queries only nodes without Redis can answer")]
#[path = "../support/queries.rs"]
mod queries;
#[expect(dead_code, reason = "made for servers that end and come back")]
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/resident.rs"]
mod resident;

mod harness;

mod access;
mod addresses;
mod admission;
mod broker;
mod configuration;
mod doctor;
mod drain;
mod encrypted;
mod faults;
mod flapping;
mod http;
mod metrics;
mod operator;
#[cfg(feature = "testing")]
mod panics;
mod peers;
mod protocol;
mod reload;
mod shutdown;
mod simulation;
mod slow_clients;
mod supply;
mod verdicts;
mod watched;
mod websocket;
