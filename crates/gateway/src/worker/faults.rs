//! Panics and delays on request, for the tests of what they lead to. Only in builds with the feature `testing`.
//!
//! `{"type":"panic","at":"flush"}` makes the next flush of the connection panic, and so on for each [`Place`]. A request
//! with the header `x-panic` panics while it is answered. A handshake with the header `x-await-reload` is answered, and
//! its connection joins the worker only after the next reload. `{"type":"hang","seconds":9}` holds the whole worker up.

use std::time::{Duration, Instant};

use hyper::Request;
use serde::Deserialize;
use tickcast_hub::ConnectionId;

use crate::node::Node;

/// Where in the life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// While the command itself is carried out.
    Command,
    /// Between the write to the socket and the hub's being told of it.
    Flush,
    /// In the look at its age.
    Tick,
    /// While the broker works on a publish command.
    Publish,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Order {
    Panic { at: Place },
    Hang { seconds: u64 },
}

/// The panics that connections have asked for.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(ConnectionId, Place)>);

impl Faults {
    /// Takes the text of a command; false if it is not for this module.
    pub(super) fn order(&mut self, connection: ConnectionId, text: &str) -> bool {
        match serde_json::from_str::<Order>(text) {
            Ok(Order::Panic { at }) => {
                self.0.push((connection, at));
                self.strike(connection, Place::Command);
            }
            Ok(Order::Hang { seconds }) => hang(Duration::from_secs(seconds)),
            Err(_) => return false,
        }
        true
    }

    /// Panics if the connection has asked for it.
    pub(super) fn strike(&mut self, connection: ConnectionId, place: Place) {
        if let Some(index) = self.0.iter().position(|fault| *fault == (connection, place)) {
            self.0.swap_remove(index);
            strike(place);
        }
    }
}

/// The keys at the time of a handshake that is to wait until there are others.
#[derive(Debug)]
pub(super) struct AwaitReload(Option<u64>);

impl AwaitReload {
    pub(super) fn of<B>(request: &Request<B>, node: &Node) -> Self {
        let is_asked = request.headers().contains_key("x-await-reload");
        Self(is_asked.then(|| node.access.generation()))
    }

    pub(super) async fn wait(self, node: &Node) {
        while self.0 == Some(node.access.generation()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Panics if the request asks for it.
pub(super) fn strike_request<B>(request: &Request<B>) {
    if request.headers().contains_key("x-panic") {
        strike("request");
    }
}

/// Does nothing for so long, as a deadlock does for ever.
fn hang(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        std::thread::park_timeout(left);
    }
}

#[expect(clippy::panic, reason = "that is what this module is for")]
fn strike(place: impl std::fmt::Debug) {
    panic!("a test asked for it: {place:?}");
}
