//! All subscribers of a run: opens them in bounded waves, reads them, and books every frame.
//!
//! One thread, one read buffer, no allocation per frame. [`Receivers::open`] brings connections up, afterwards the owner
//! calls [`Receivers::ready`] for every readable socket and [`Receivers::come_back`] when [`Receivers::next_due`] says so.
//! What frames mean is decided by the [`Judge`]; how clients move and come back is in `returns`.

mod judge;
mod returns;

use std::collections::HashMap;
use std::time::Duration;

use mio::{Interest, Registry, Token};
use serde::Serialize;

use crate::connection::{Connection, ConnectionError};
use crate::error::LoadError;
use crate::latency::{Latencies, LatencySummary};
use crate::plan::TopicPlan;
use crate::progress::Progress;
use crate::reactor::{Clock, Reactor, Ready};
use crate::target::Targets;
use crate::units::{count, nanos, ratio, seconds, thousands};
pub use judge::{Judge, Notices};
use returns::Returns;

/// Longest wait for one handshake with its acknowledgement. The gateway settles a subscription within 1 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Read buffer shared by all connections. Larger than what arrives between two turns, so one read empties a socket.
const SCRATCH_BYTES: usize = 256 << 10;

/// How the connections of a run are made.
#[derive(Debug, Clone)]
pub struct ConnectionPlan {
    /// The servers. Each connection has its own, in turn, and takes the next one when it comes back.
    pub targets: Targets,
    /// Who subscribes to what.
    pub topics: TopicPlan,
    /// Mode of all subscriptions; the server's default without one.
    pub mode: Option<String>,
    /// Updates per second and subscription, at most.
    pub max_rate: Option<f64>,
    /// Connections that there will be in the end.
    pub connections: usize,
    /// Handshakes in flight at any time, at least 1.
    pub in_flight: usize,
    /// Percent of the connections that never read after their acknowledgement, 0 to 100.
    pub slow_percent: usize,
}

impl ConnectionPlan {
    /// Whether a connection is one of those that never read; they are spread evenly over all.
    #[must_use]
    pub fn is_slow(&self, connection: usize) -> bool {
        connection % 100 * self.slow_percent % 100 < self.slow_percent
    }

    /// The number of connections that never read.
    #[must_use]
    pub fn slow(&self) -> usize {
        (0..self.connections).filter(|connection| self.is_slow(*connection)).count()
    }
}

/// How a wave of connections came up.
#[derive(Debug, Clone, Serialize)]
pub struct Ramp {
    /// Connections opened by it.
    pub opened: u64,
    /// From the first connect to the last acknowledgement, in nanoseconds.
    pub elapsed_ns: u64,
    /// Connections per second.
    pub per_second: f64,
    /// From connect to acknowledgement, of each.
    pub handshake: LatencySummary,
}

/// The subscribers.
#[derive(Debug)]
pub struct Receivers {
    plan: ConnectionPlan,
    registry: Registry,
    clock: Clock,
    /// By connection number; `None` once closed.
    connections: Vec<Option<Connection>>,
    /// Handshakes in flight: when each began. Bounded by the plan.
    pending: HashMap<usize, u64>,
    handshakes: Latencies,
    scratch: Vec<u8>,
    /// Clients that are on their way elsewhere.
    returns: Returns,
    /// From the end of a connection to the acknowledgement of the one that has resumed.
    pub away: Latencies,
    /// The books.
    pub judge: Judge,
}

impl Receivers {
    /// No connection yet.
    ///
    /// # Errors
    /// If the event loop cannot be shared.
    pub fn new(plan: ConnectionPlan, reactor: &Reactor) -> Result<Self, LoadError> {
        let registry = reactor
            .registry()
            .try_clone()
            .map_err(LoadError::system("sharing the event loop", "raise the open files limit"))?;
        Ok(Self {
            registry,
            clock: reactor.clock,
            connections: Vec::with_capacity(plan.connections),
            pending: HashMap::with_capacity(plan.in_flight),
            handshakes: Latencies::default(),
            scratch: vec![0; SCRATCH_BYTES],
            returns: Returns::default(),
            away: Latencies::default(),
            judge: Judge::new(&plan),
            plan,
        })
    }

    /// Opens connections until there are `upto`, never more handshakes at once than the plan says, and returns when
    /// all of them are acknowledged.
    ///
    /// # Errors
    /// If one handshake fails or takes longer than 20 s: fewer connections would measure something else.
    pub fn open(
        &mut self,
        upto: usize,
        reactor: &mut Reactor,
        progress: &mut Progress,
    ) -> Result<Ramp, LoadError> {
        let (first, started) = (self.connections.len(), self.clock.now());
        self.handshakes = Latencies::default();
        while self.connections.len() < upto || !self.pending.is_empty() {
            while self.connections.len() < upto && self.pending.len() < self.plan.in_flight.max(1) {
                self.connect()?;
            }
            self.turn(reactor, reactor.clock.now() + progress.interval_ns())?;
            self.check_handshakes()?;
            progress.show(|| {
                let open = self.connections.len() - self.pending.len();
                format!("connecting  {}/{}", thousands(count(open)), thousands(count(upto)))
            });
        }
        let opened = count(self.connections.len() - first);
        let elapsed_ns = self.clock.now() - started;
        Ok(Ramp {
            opened,
            elapsed_ns,
            per_second: ratio(opened as f64, seconds(elapsed_ns)),
            handshake: self.handshakes.summary(),
        })
    }

    /// Serves the connections until `deadline`, which is a reading of the reactor's clock.
    ///
    /// # Errors
    /// As [`Receivers::ready`].
    pub fn idle_until(&mut self, deadline: u64, reactor: &mut Reactor) -> Result<(), LoadError> {
        while self.clock.now() < deadline {
            self.turn(reactor, deadline)?;
        }
        Ok(())
    }

    fn turn(&mut self, reactor: &mut Reactor, deadline: u64) -> Result<(), LoadError> {
        for ready in reactor.wait(deadline.min(self.next_due()))? {
            self.ready(ready)?;
        }
        self.come_back()
    }

    /// Handles a socket that is ready: goes on with its handshake, or reads and books its frames.
    ///
    /// # Errors
    /// If a handshake fails. A connection that ends later is counted, not fatal: its missing deliveries show.
    pub fn ready(&mut self, ready: Ready) -> Result<(), LoadError> {
        let Ready { token: number, ended, .. } = ready;
        if let Some(client) = number.checked_sub(self.plan.connections) {
            return self.successor_ready(client, ended);
        }
        let Some(Some(connection)) = self.connections.get_mut(number) else { return Ok(()) };
        let waits_for_ack = self.pending.contains_key(&number);
        let mut result = Ok(());
        if waits_for_ack {
            let target = self.plan.targets.at(number);
            result = connection.upgrade(target, &path(&self.plan, number), number);
        }
        let mut reaction = judge::Reaction::default();
        let judge = &mut self.judge;
        let result = result.and_then(|()| {
            connection.read((number, ended), &mut self.scratch, self.clock, |frame, now| {
                judge.book(number, frame, now, &mut reaction);
            })
        });
        if let Some(pong) = reaction.pong {
            connection.try_send(&pong);
        }
        if let Some(milliseconds) = reaction.leave_in_ms {
            self.leave(number, milliseconds);
        }
        match result {
            Ok(()) if reaction.acknowledged => self.acknowledged(number),
            Ok(()) => self.refusal(number, reaction.refused),
            Err(error) => self.ended(number, &error, reaction.refused, reaction.close),
        }
    }

    fn connect(&mut self) -> Result<(), LoadError> {
        let number = self.connections.len();
        let target = self.plan.targets.at(number);
        let stream = target.connect(number, self.plan.is_slow(number))?;
        let mut connection = Connection::new(stream);
        self.registry
            .register(
                connection.stream_mut(),
                Token(number),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(LoadError::system(format!("watching client {number}"), "free some memory"))?;
        self.connections.push(Some(connection));
        self.pending.insert(number, self.clock.now());
        Ok(())
    }

    fn acknowledged(&mut self, number: usize) -> Result<(), LoadError> {
        if let Some(started) = self.pending.remove(&number) {
            self.handshakes.record(self.clock.now() - started);
        }
        if self.plan.is_slow(number)
            && let Some(Some(connection)) = self.connections.get_mut(number)
        {
            // From here on nobody reads this socket.
            self.registry.deregister(connection.stream_mut()).map_err(LoadError::system(
                format!("letting client {number} go deaf"),
                "report this as a bug",
            ))?;
        }
        Ok(())
    }

    fn refusal(&self, number: usize, refused: Option<String>) -> Result<(), LoadError> {
        match refused {
            Some(problem) if self.pending.contains_key(&number) => {
                Err(self.handshake_failed(number, problem))
            }
            _ => Ok(()),
        }
    }

    fn ended(
        &mut self,
        number: usize,
        error: &ConnectionError,
        refused: Option<String>,
        close: Option<u16>,
    ) -> Result<(), LoadError> {
        if self.pending.contains_key(&number) {
            return Err(self.handshake_failed(number, refused.unwrap_or_else(|| error.to_string())));
        }
        self.connections[number] = None;
        self.judge.closed(number, error);
        self.lost(number, close);
        Ok(())
    }

    fn handshake_failed(&self, number: usize, problem: String) -> LoadError {
        LoadError::Server {
            place: format!(
                "handshake of client {number} of {} with {}",
                self.plan.connections,
                self.plan.targets.at(number).address
            ),
            problem,
            fix: "check that --url is the public listener of a running server, then its log and its limits",
        }
    }

    fn check_handshakes(&self) -> Result<(), LoadError> {
        let first = self.pending.iter().filter(|(number, _)| **number < self.plan.connections);
        let oldest = first.map(|(_, since)| *since).min().unwrap_or(u64::MAX);
        if self.clock.now().saturating_sub(oldest) <= nanos(HANDSHAKE_TIMEOUT) {
            return Ok(());
        }
        Err(LoadError::Timeout {
            waited_for: format!(
                "a handshake ({} of {} connections are up)",
                self.connections.len() - self.pending.len(),
                self.plan.connections
            ),
            limit: HANDSHAKE_TIMEOUT,
            fix: "lower --in-flight, or check the server's limits on connections and open files",
        })
    }
}

/// Path and query that subscribe a connection by URL.
fn path(plan: &ConnectionPlan, number: usize) -> String {
    let names: Vec<String> =
        plan.topics.topics_of(count(number)).map(|topic| plan.topics.name(topic)).collect();
    let mode = plan.mode.as_ref().map(|mode| format!("&mode={mode}")).unwrap_or_default();
    let max_rate = plan.max_rate.map(|rate| format!("&max_rate={rate}")).unwrap_or_default();
    format!("/v1/ws?topics={}{mode}{max_rate}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(topics: TopicPlan, slow_percent: usize) -> ConnectionPlan {
        ConnectionPlan {
            targets: Targets::resolve("http://127.0.0.1:1", None).expect("an address"),
            topics,
            mode: None,
            max_rate: None,
            connections: 1000,
            in_flight: 1,
            slow_percent,
        }
    }

    #[test]
    fn slow_clients_are_the_asked_share_and_spread_out() {
        for (slow_percent, expected) in [(0, 0), (1, 10), (20, 200), (33, 330), (100, 1000)] {
            let plan = plan(TopicPlan::new("load", 1, 1), slow_percent);
            assert_eq!(plan.slow(), expected, "{slow_percent} %");
        }
    }

    #[test]
    fn connections_subscribe_by_url() {
        let mut plan = plan(TopicPlan::new("load", 4, 2), 0);
        assert_eq!(path(&plan, 1), "/v1/ws?topics=load.2,load.3");
        (plan.mode, plan.max_rate) = (Some("latest".to_owned()), Some(0.5));
        assert_eq!(path(&plan, 0), "/v1/ws?topics=load.0,load.1&mode=latest&max_rate=0.5");
    }
}
