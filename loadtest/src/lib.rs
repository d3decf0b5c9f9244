//! Load tester of Tickcast and its peers, with the bare loop as the yardstick.
//!
//! A black box: it talks the public wire and looks at the server's process, nothing else. Five commands: `floor` is the
//! bare loop as a server, `fanout` and `idle` measure any server, `publish` measures nodes that share a Redis beside
//! `redis-benchmark`, `bench` runs them all and checks the budgets of the design. Linux only, since CPU time and memory
//! come from `/proc`.
//!
//! Reading order: [`wire`] and [`http`] are the bytes, [`floor`] the yardstick; [`plan`] and [`payload`] say what is
//! sent when, [`receivers`] and [`publisher`] do it on one [`reactor`], [`account`] and [`latency`] keep the books;
//! [`fanout`], [`idle`], [`publish`] and [`mod@bench`] are the runs; [`report`] and [`assertion`] judge them for people
//! and scripts; [`child`] starts and ends what is measured.
//!
//! What it refuses to do: to be a client library, to follow redirects, to speak TLS, to tell latencies of a closed loop.

#![forbid(unsafe_code)]

pub mod account;
pub mod assertion;
pub mod bench;
pub mod child;
pub mod cli;
pub mod connection;
pub mod error;
pub mod fanout;
pub mod floor;
pub mod http;
pub mod idle;
pub mod latency;
pub mod payload;
pub mod plan;
pub mod proc;
pub mod progress;
pub mod publish;
pub mod publisher;
pub mod reactor;
pub mod receivers;
pub mod report;
pub mod section;
pub mod spread;
pub mod target;
pub mod units;
pub mod wire;
