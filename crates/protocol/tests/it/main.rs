//! The wire as a client sees it: golden files, properties, and the page that documents it.
//!
//! `testdata` holds every frame of the client protocol as reviewed text, for these tests and for the tests of clients in
//! other languages. After a deliberate change, run with `TICKCAST_BLESS=1` and read the diff.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
mod close;
mod document;
mod errors;
mod frames;
mod golden;
mod property;
mod server;
