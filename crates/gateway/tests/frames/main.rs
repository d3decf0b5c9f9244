//! Frames as strangers send them: a conformance suite that is not ours, and floods.
//!
//! Needs the Autobahn suite, which `scripts/autobahn` installs. The program is built with the feature `testing`: then a
//! session answers the suite's messages with themselves in the place of carrying out commands. Everything below that is
//! what serves clients: handshake, frame reader, bounds, replies, flush, and the end of a connection.

#![forbid(unsafe_code)]
#![cfg(feature = "testing")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what was counted and measured is printed")]

#[path = "../support/process.rs"]
#[expect(dead_code, reason = "made for processes that are ended in many ways")]
mod process;
#[path = "../support/program.rs"]
#[expect(dead_code, reason = "made for programs that end by themselves")]
mod program;
#[path = "../support/resident.rs"]
mod resident;

mod autobahn;
mod client;
mod floods;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of these tests at a time: they measure, and the suite has deadlines of its own.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
