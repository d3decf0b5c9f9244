//! The hub as a gateway uses it, without sockets and without a broker: every rule of the wire contract that the hub keeps.
//!
//! [`rig`] is a small node: a real [`Hub`](tickcast_hub::Hub) and its workers' fan-outs, a naive [`broker`], and clients
//! behind sockets that take as many bytes as a test likes. [`scenarios`] tell one rule each; [`property`] mixes everything
//! at random. Both are judged by the [`oracle`], which knows only what was published and what each client received.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod broker;
mod frame;
mod oracle;
mod property;
mod rig;
mod rules;
mod scenarios;
mod socket;
