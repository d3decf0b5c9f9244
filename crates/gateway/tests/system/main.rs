//! The program as a whole: real input, clients that are not ours, and many clients that come and go.
//!
//! Slow, and in need of packages: `tests/clients/setup.sh` installs them. Every test is judged by the log
//! [`oracle`], which knows only what publishers were told and what each client received.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../support/oracle.rs"]
#[expect(dead_code, reason = "made for clients that move to another node, too")]
mod oracle;
#[path = "../support/packages.rs"]
mod packages;
#[path = "../support/program.rs"]
mod program;

mod foreign;
mod http;
mod market;
mod replay;
mod stress;
