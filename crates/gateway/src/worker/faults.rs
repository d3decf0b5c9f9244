//! Panics and delays on request, for the tests of what they lead to. Only in builds with the feature `testing`.
//!
//! `{"type":"panic","at":"flush"}` makes the next flush of the connection panic, and so on for each [`Place`]. A request
//! with the header `x-panic` panics while it is answered. A handshake with the header `x-await-reload` is answered, and
//! its connection joins the worker only after the next reload. `{"type":"hang","seconds":9}` holds the whole worker up.
//!
//! A conformance suite of WebSocket wants its messages back. Where it calls ([`ECHO_AGENT`]), the session answers each
//! message with itself in the place of carrying out a command, and takes any number of fragments. All else of the
//! session is as ever.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::header::USER_AGENT;
use serde::Deserialize;
use tickcast_hub::ConnectionId;
use tickcast_protocol::Opcode;

use super::core::State;
use crate::node::Node;
use crate::transport::websocket::reader::Event;

/// What the `User-Agent` of the Autobahn suite begins with.
const ECHO_AGENT: &str = "AutobahnTestSuite/";

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

/// What connections have asked for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    panics: Vec<(ConnectionId, Place)>,
    /// Those that want their messages back.
    echoes: HashSet<ConnectionId>,
}

impl Faults {
    /// Takes the text of a command; false if it is not for this module.
    pub(super) fn order(&mut self, connection: ConnectionId, text: &str) -> bool {
        match serde_json::from_str::<Order>(text) {
            Ok(Order::Panic { at }) => {
                self.panics.push((connection, at));
                self.strike(connection, Place::Command);
            }
            Ok(Order::Hang { seconds }) => hang(Duration::from_secs(seconds)),
            Err(_) => return false,
        }
        true
    }

    /// Panics if the connection has asked for it.
    pub(super) fn strike(&mut self, connection: ConnectionId, place: Place) {
        if let Some(index) = self.panics.iter().position(|fault| *fault == (connection, place)) {
            self.panics.swap_remove(index);
            strike(place);
        }
    }

    /// The connection wants its messages back.
    pub(super) fn set_echo(&mut self, connection: ConnectionId) {
        self.echoes.insert(connection);
    }

    pub(super) fn is_echo(&self, connection: ConnectionId) -> bool {
        self.echoes.contains(&connection)
    }

    /// The next connection with this number has asked for nothing.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.echoes.remove(&connection);
    }
}

impl State {
    /// Answers a message with itself; false if that was not asked for.
    pub(super) fn echo(&mut self, connection: ConnectionId, message: &Event<'_>) -> bool {
        let (opcode, payload) = match message {
            Event::Text(text) => (Opcode::Text, text.as_bytes()),
            Event::Binary(bytes) => (Opcode::Binary, *bytes),
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => return false,
        };
        let is_echo = self.faults.is_echo(connection);
        if is_echo {
            self.sessions.control(connection, opcode, payload);
        }
        is_echo
    }
}

/// Whether the peer of a handshake wants its messages back.
pub(super) fn asks_for_echo<B>(request: &Request<B>) -> bool {
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with(ECHO_AGENT))
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
