//! All clients of a test: connected to any of the nodes, and back on another one when their connection ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::client::{Client, Interests, Notes, Shared};
use super::world::World;
use crate::oracle::Place;
use crate::process::{PATIENCE, until};

/// The same choices every time.
const SEED: u64 = 20_261_125;

/// Time for a connection and its handshake.
const CONNECT: Duration = Duration::from_secs(3);

/// Pause before connecting again, in milliseconds.
const AWAY: std::ops::Range<u64> = 50..400;

/// Pause before asking again for a topic that could not be had.
const AGAIN: Duration = Duration::from_millis(200);

/// How often a client pings. One that hears nothing at all for so many times as long goes elsewhere.
const PING: Duration = Duration::from_secs(1);
const SILENT_PINGS: u32 = 4;

/// All clients.
#[derive(Debug)]
pub(crate) struct Fleet {
    world: Arc<World>,
    clients: Vec<Shared>,
    hang_ups: watch::Sender<u64>,
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
        let (hang_ups, orders) = watch::channel(0);
        let client = |(index, interests)| {
            let client = Client::new(format!("client {index}"), interests, Arc::clone(world));
            Arc::new(Mutex::new(client))
        };
        let clients: Vec<_> = interests.into_iter().enumerate().map(client).collect();
        let stop = CancellationToken::new();
        let lives = run(clients.clone(), Arc::clone(world), orders, stop.clone());
        let thread = Some(std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(lives);
        }));
        let fleet = Self { world: Arc::clone(world), clients, hang_ups, stop, thread };
        fleet.until_all("acknowledged", Client::has_everything);
        fleet
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
        self.hang_ups.send_modify(|count| *count += 1);
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
async fn run(
    clients: Vec<Shared>,
    world: Arc<World>,
    orders: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        tasks.spawn(live(index, client, Arc::clone(&world), orders.clone()));
    }
    tokio::select! {
        () = stop.cancelled() => {}
        _panic = tasks.join_next() => {}
    }
}

/// One client, for as long as its task lives.
async fn live(index: usize, client: Shared, world: Arc<World>, mut orders: watch::Receiver<u64>) {
    let mut random = StdRng::seed_from_u64(SEED ^ index as u64);
    let mut choice = index;
    loop {
        if let Some(mut stream) = connect(&world, choice).await {
            client.lock().connects();
            let by_itself = session(&client, &mut stream, &mut orders).await;
            client.lock().disconnects(by_itself);
        }
        choice = random.random_range(0..usize::MAX);
        sleep(Duration::from_millis(random.random_range(AWAY))).await;
    }
}

async fn connect(world: &World, choice: usize) -> Option<WebSocketStream<TcpStream>> {
    let address = world.node(choice);
    let connecting = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let builder = ClientBuilder::new().uri(&format!("ws://{address}/v1/ws")).expect("a URI");
        Some(builder.connect_on(stream).await.ok()?.0)
    };
    timeout(CONNECT, connecting).await.ok().flatten()
}

/// One connection, to its end. `true` if the client ends it on command.
async fn session(
    client: &Shared,
    stream: &mut WebSocketStream<TcpStream>,
    orders: &mut watch::Receiver<u64>,
) -> bool {
    let (mut pings, mut again) = (interval(PING), interval(AGAIN));
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = 0;
    loop {
        let command = client.lock().next_command();
        if let Some(command) = command
            && stream.send(Message::text(command)).await.is_err()
        {
            return false;
        }
        let has_later = client.lock().has_later();
        tokio::select! {
            message = stream.next() => {
                let Some(Ok(message)) = message else { return false };
                silent = 0;
                if message.is_close() {
                    return false;
                }
                if let Some(text) = message.as_text() {
                    client.lock().receives(text);
                }
            }
            _ = pings.tick() => {
                silent += 1;
                let ping = Message::text(r#"{"type":"ping"}"#);
                if silent > SILENT_PINGS || stream.send(ping).await.is_err() {
                    return false;
                }
            }
            _ = again.tick(), if has_later => client.lock().asks_again(),
            changed = orders.changed() => return changed.is_ok(),
        }
    }
}
