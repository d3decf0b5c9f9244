//! All clients of a test: connected to any of the nodes, and back on another one when their connection ends.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Interests, Notes, Shared};
use super::session::{Context, Orders, live};
use super::world::World;
use crate::oracle::Place;
use crate::process::{PATIENCE, until};

/// How clients behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Moves to another node before the one that says it goes away has gone; otherwise it is deaf to that.
    pub(crate) moves: bool,
    /// Time for a connection and its handshake.
    pub(crate) connect: Duration,
    /// How often a client pings. One that hears nothing at all for so many times as long goes elsewhere.
    pub(crate) ping: Duration,
    pub(crate) silent_pings: u32,
    /// Bounds of the pause before connecting again for the first time, in milliseconds. With every failure the pause
    /// is chosen anew from a time that doubles, up to `away_max`.
    pub(crate) away: (u64, u64),
    pub(crate) away_max: u64,
    /// How many come in a second at the start, if not all at once.
    pub(crate) arrivals: Option<u32>,
    /// Whether the ages of publications are noted.
    pub(crate) is_timed: bool,
    /// The address that clients come from, if it is not for the kernel to choose.
    pub(crate) from: Option<Ipv4Addr>,
}

impl Manner {
    /// Few clients in a hurry.
    pub(crate) const HASTY: Self = Self {
        moves: false,
        connect: Duration::from_secs(3),
        ping: Duration::from_secs(1),
        silent_pings: 4,
        away: (50, 400),
        away_max: 400,
        arrivals: None,
        is_timed: false,
        from: None,
    };

    /// Thousands of clients that do what the documentation tells them.
    pub(crate) const CROWD: Self = Self {
        moves: true,
        connect: Duration::from_secs(20),
        ping: Duration::from_secs(20),
        silent_pings: 2,
        away: (0, 1_000),
        away_max: 30_000,
        arrivals: Some(2_000),
        is_timed: false,
        from: None,
    };
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Fleet {
    world: Arc<World>,
    clients: Vec<Shared>,
    orders: watch::Sender<Orders>,
    stop: CancellationToken,
    /// Where all of them live.
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Lets them all come, and waits until each has every topic.
    pub(crate) fn start(
        world: &Arc<World>,
        interests: impl IntoIterator<Item = Interests>,
    ) -> Self {
        Self::start_with(world, interests, Manner::HASTY)
    }

    /// The same for clients that behave in this manner.
    pub(crate) fn start_with(
        world: &Arc<World>,
        interests: impl IntoIterator<Item = Interests>,
        manner: Manner,
    ) -> Self {
        let fleet = Self::begin(world, interests, manner);
        fleet.until_acknowledged();
        fleet
    }

    /// Lets them all come, and does not wait for it.
    pub(crate) fn begin(
        world: &Arc<World>,
        interests: impl IntoIterator<Item = Interests>,
        manner: Manner,
    ) -> Self {
        let (sender, orders) = watch::channel(Orders::default());
        let client = |(index, interests)| {
            let mut client = Client::new(format!("client {index}"), interests, Arc::clone(world));
            client.is_timed = manner.is_timed;
            Arc::new(Mutex::new(client))
        };
        let clients: Vec<_> = interests.into_iter().enumerate().map(client).collect();
        let stop = CancellationToken::new();
        let context = Context { world: Arc::clone(world), orders, manner };
        let lives = run(clients.clone(), context, stop.clone());
        let thread = Some(std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(lives);
        }));
        Self { world: Arc::clone(world), clients, orders: sender, stop, thread }
    }

    /// Waits until everybody has every topic: how long that took.
    pub(crate) fn until_acknowledged(&self) -> Duration {
        self.until_all("acknowledged", Client::has_everything)
    }

    fn until_all(&self, what: &str, holds: impl Fn(&Client) -> bool) -> Duration {
        let mut waiting: Vec<_> = self.clients.iter().collect();
        until(what, PATIENCE, || {
            self.expect_good();
            waiting.retain(|client| !holds(&client.lock()));
            waiting.is_empty()
        })
    }

    /// Waits until everybody has been told that the broker is down since `since`: how long that took, for the last one.
    pub(crate) fn until_told_down(&self, since: Instant) -> Duration {
        self.until_all("told that the broker is down", |client| {
            client.notes.downs.last().is_some_and(|when| *when > since)
        });
        self.last(since, |notes| notes.downs.iter().copied().find(|when| *when > since))
    }

    /// The same for a broker that is up again.
    pub(crate) fn until_told_up(&self, since: Instant) -> Duration {
        self.until_all("told that the broker is up", |client| {
            client.notes.ups.last().is_some_and(|when| *when > since)
        });
        self.last(since, |notes| notes.ups.iter().copied().find(|when| *when > since))
    }

    /// Waits until everybody has got a publication since `since`: how long that took.
    pub(crate) fn until_heard(&self, since: Instant) -> Duration {
        self.until_all("reached by a publication", |client| {
            client.notes.heard.is_some_and(|when| when > since)
        });
        since.elapsed()
    }

    /// Waits until everybody has everything up to these places: how long that took.
    pub(crate) fn until_level(&self, ends: &HashMap<String, Place>) -> Duration {
        self.until_all("up to date", |client| client.has_reached(ends))
    }

    /// Who has not got everything up to these places, and why, if there is such a one.
    pub(crate) fn behind(&self, ends: &HashMap<String, Place>) -> Option<String> {
        self.expect_good();
        let clients = self.clients.iter().map(|client| client.lock());
        clients.filter(|client| !client.has_reached(ends)).find_map(|client| client.lags(ends))
    }

    /// A breach, or a client that panics, says what is wrong; what follows from it says nothing.
    fn expect_good(&self) {
        self.world.judge(|judge| {
            let findings = judge.oracle.findings();
            assert!(findings.is_empty(), "{findings:#?}");
        });
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        assert!(is_alive, "a client has panicked: see above");
    }

    /// Waits until everybody has been reset in some topic: how long that took.
    pub(crate) fn until_reset(&self) -> Duration {
        self.until_all("reset", |client| client.notes.resets > 0)
    }

    fn last(&self, since: Instant, when: impl Fn(&Notes) -> Option<Instant>) -> Duration {
        let times = self.notes();
        let last = times.iter().filter_map(when).max();
        last.map_or(Duration::ZERO, |last| last - since)
    }

    /// Everybody hangs up without a word, and comes back.
    pub(crate) fn hang_up(&self) {
        self.orders.send_modify(|orders| orders.hang_ups += 1);
    }

    /// The connections of every second client are reset in the middle of what they do.
    pub(crate) fn cut_half(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// What everybody has gone through.
    pub(crate) fn notes(&self) -> Vec<Notes> {
        self.clients.iter().map(|client| client.lock().notes.clone()).collect()
    }

    /// A number of the notes, over all clients.
    pub(crate) fn sum(&self, number: impl Fn(&Notes) -> u64) -> u64 {
        self.clients.iter().map(|client| number(&client.lock().notes)).sum()
    }

    /// How many follow a topic.
    pub(crate) fn followers(&self, topic: &str) -> u64 {
        self.clients.iter().filter(|client| client.lock().follows(topic)).count() as u64
    }

    /// Waits until everybody is exactly where each topic ended, and leaves.
    pub(crate) fn finish(mut self, ends: &HashMap<String, Place>) {
        let deadline = Instant::now() + PATIENCE;
        for client in &self.clients {
            loop {
                let Some(lag) = client.lock().lags(ends) else { break };
                self.expect_good();
                assert!(Instant::now() < deadline, "{lag}; {:?}", client.lock().notes);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        self.stop.cancel();
        let thread = self.thread.take().expect("it has not finished before");
        thread.join().expect("no client panics");
        self.clients.iter().for_each(|client| client.lock().is_done());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All clients, until they are stopped or one of them panics.
async fn run(clients: Vec<Shared>, context: Context, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        tasks.spawn(live(index, client, context.clone()));
    }
    tokio::select! {
        () = stop.cancelled() => {}
        _panic = tasks.join_next() => {}
    }
}
