//! Starts a node: binds, spawns the workers, accepts. How it ends is in [`drain`].

mod accept;
mod addresses;
mod admission;
mod drain;
mod line;
pub(crate) mod listen;
mod peer;
pub(crate) mod proxy_protocol;
pub(crate) mod refusal;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tickcast_broker::{Broker, Inbound};
use tickcast_hub::{Hub, HubLimits, Inbox};
use tickcast_protocol::Topic;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::accept::Accepted;
pub(crate) use self::admission::{Connections, Place, Places, waiting_max};
pub(crate) use self::listen::BACKLOG;
pub use self::listen::ListenError;
pub(crate) use self::peer::Peer;
pub(crate) use self::reload::Reloader;
pub use self::reload::{ReloadError, Reloaded, Reloads};
use crate::access::Access;
use crate::broker::{BrokerError, Lifetime};
use crate::config::{Config, Inputs, Live};
use crate::demo::Feed;
use crate::metrics::{Metrics, WorkerCell};
use crate::node::keeper::Keeper;
use crate::node::life::{Life, Stage};
use crate::node::pulse::Pulse;
use crate::node::warnings::Warnings;
use crate::node::{Intake, Item, Node, Rules};
use crate::worker::{self, ACCEPTED_MAX};
use crate::{admin, broker, systemd};

/// How often the hub looks at ages. What is too old stays in memory for so long at most, never for a reader.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker thread could not be started.
    #[error(
        "cannot start worker {index}: {source}\n  fix: lower `server.workers`, or allow this user more threads\n  see: docs/reference/configuration.md#server\n  run: ulimit -u"
    )]
    Worker {
        /// Its number.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// The broker cannot be started.
    #[error(
        "{0}\n  fix: change the settings of the broker\n  see: docs/reference/configuration.md#brokerredis\n  run: tickcast doctor"
    )]
    Broker(#[from] BrokerError),
}

/// Makes the broker of a node, handed what it delivers to. Tests put faults round it here.
pub type MakeBroker =
    Box<dyn FnOnce(Arc<dyn Inbound>, Lifetime) -> Result<Arc<dyn Broker>, BrokerError>>;

/// A running node.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    tasks: JoinSet<()>,
    /// Cancelled by whoever does not want to wait for the drain.
    haste: CancellationToken,
    /// Cancelled when all has ended.
    ended: CancellationToken,
    address: SocketAddr,
    admin_address: SocketAddr,
}

impl Server {
    /// Binds the listeners and starts everything, on the broker that the configuration names.
    ///
    /// # Errors
    /// [`StartError`] names the address and the flag, the worker, or what is wrong with the broker's settings. A Redis
    /// that cannot be reached is none: the node is not ready until it can.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let settings = config.clone();
        let make = move |inbound, lifetime| broker::start(&settings, inbound, lifetime);
        Self::start_with(config, Box::new(make), CancellationToken::new()).await
    }

    /// As [`Server::start`], with a broker of the caller's making. `ended` is cancelled when the node has ended.
    ///
    /// # Errors
    /// As [`Server::start`].
    #[expect(clippy::unused_async, reason = "it spawns tasks, so it must run on a runtime")]
    pub async fn start_with(
        config: Config,
        make_broker: MakeBroker,
        ended: CancellationToken,
    ) -> Result<Self, StartError> {
        let public = listen::bind(config.server.listen, listen::PUBLIC)?;
        let admin = listen::bind(config.server.admin_listen, listen::ADMIN)?;
        let (address, admin_address) =
            (local(&public, &config.server.listen), local(&admin, &config.server.admin_listen));

        let count = config.workers();
        let wakes: Vec<Arc<Notify>> = (0..count).map(|_| Arc::default()).collect();
        let inboxes: Vec<Arc<Inbox>> = wakes
            .iter()
            .map(|wake| {
                let wake = Arc::clone(wake);
                Arc::new(Inbox::new(config.hub.inbox_items, move || wake.notify_one()))
            })
            .collect();
        let cells: Vec<Arc<WorkerCell>> = (0..count).map(|_| Arc::default()).collect();
        let (node, keeper) =
            build_node(config, make_broker, &inboxes, (cells.clone(), ended.clone()))?;

        let mut workers = Vec::with_capacity(count);
        let mut senders = Vec::with_capacity(count);
        let parts = wakes.into_iter().zip(inboxes).zip(cells).enumerate();
        for (index, ((wake, inbox), cell)) in parts {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            let setup =
                worker::Setup { index, node: Arc::clone(&node), inbox, wake, cell, accepted };
            let spawned = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || supervise(setup));
            workers.push(spawned.map_err(|source| StartError::Worker { index, source })?);
            senders.push(sender);
        }

        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(sweep_hub(Arc::clone(&node.hub)));
        tasks.spawn(accept::run(public, Arc::clone(&node), senders, node.life.draining().clone()));
        // Health and metrics stay readable while the node drains: this task ends with the others, after the workers.
        tasks.spawn(admin::serve(admin, Arc::clone(&node), CancellationToken::new()));
        if let Some(interval) = systemd::watchdog_interval() {
            tasks.spawn(systemd::feed_watchdog(Arc::clone(&node), interval));
        }
        let haste = CancellationToken::new();
        Ok(Self { node, workers, tasks, haste, ended, address, admin_address })
    }

    /// The address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where the broker is, without a password: `memory` for the one inside the node.
    pub fn broker(&self) -> String {
        broker::place(&self.node.config())
    }

    /// Names what a reload reads. To be said once; without it a reload fails.
    pub fn set_inputs(&self, inputs: Inputs) {
        self.node.reloader.set_inputs(inputs);
    }

    /// Reads the configuration again and goes on with it. If anything is wrong with it, nothing changes.
    ///
    /// What came of it is logged and counted here. Two at the same time come one after the other. It need not be waited
    /// for: dropped before its end, it changes nothing.
    ///
    /// # Errors
    /// [`ReloadError`] says why the old configuration stays in force.
    pub fn reload(&self) -> impl Future<Output = Result<Reloaded, ReloadError>> + use<> {
        self.reloads().reload()
    }

    /// For reloads while [`Server::stop`] is under way.
    pub fn reloads(&self) -> Reloads {
        Reloads::of(&self.node)
    }

    /// Publishes a demo feed until the node stops, through the same door as every publisher.
    pub fn spawn_feed(&mut self, feed: Feed) {
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move {
            let mut due = tokio::time::Instant::now();
            for (delay, updates) in feed {
                due += delay;
                tokio::time::sleep_until(due).await;
                let items = updates.into_iter().filter_map(|(topic, data)| {
                    let topic = Topic::new(&topic).ok()?;
                    Some(Item { topic, data: data.into(), key: None })
                });
                node.publish(items.collect()).await;
            }
        });
    }

    /// Returns when a part of the node has ended that must not end before [`Server::stop`]: it cannot serve any more.
    pub async fn failed(&mut self) {
        tokio::select! {
            () = self.node.failed.cancelled() => {}
            ended = self.tasks.join_next() => tracing::error!(?ended, "a task of the node ended"),
        }
        self.node.failed.cancel();
    }
}

impl Drop for Server {
    /// A server that is dropped without [`Server::stop`] drops its connections and ends its threads all the same, in its
    /// own time.
    fn drop(&mut self) {
        self.node.life.advance(Stage::Ending);
        self.ended.cancel();
    }
}

/// Runs a worker, and says so when it ends although the node does not stop.
fn supervise(setup: worker::Setup) -> io::Result<()> {
    let (node, index) = (Arc::clone(&setup.node), setup.index);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker::run(setup)));
    let result = result.unwrap_or_else(|_panic| Err(io::Error::other("it panicked")));
    if let Err(error) = &result {
        tracing::error!(worker = index, %error, "a worker failed");
    }
    if node.life.stage() < Stage::Draining {
        node.failed.cancel();
    } else if result.is_ok() {
        node.pulse.rest(index);
    }
    result
}

/// The address that was bound: with port 0 the kernel has chosen one.
fn local(listener: &TcpListener, asked: &SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(*asked)
}

fn build_node(
    config: Config,
    make_broker: MakeBroker,
    inboxes: &[Arc<Inbox>],
    (cells, ended): (Vec<Arc<WorkerCell>>, CancellationToken),
) -> Result<(Arc<Node>, Keeper), BrokerError> {
    let (jobs, link_up) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let wake_jobs = Arc::clone(&jobs);
    let connections = Arc::new(Connections::new(config.max_connections()));
    let limits = HubLimits { log_bytes: config.log_memory().bytes() };
    let access = Access::new(&config);
    let live = Arc::new(Live::new(config));
    let hub = Arc::new(Hub::new(
        limits,
        Arc::new(Rules(Arc::clone(&live))),
        inboxes.to_vec(),
        move || wake_jobs.notify_one(),
    ));
    let metrics = Arc::new(Metrics::new(cells, inboxes.to_vec()));
    let intake = Intake::new(Arc::clone(&hub), Arc::clone(&metrics), Arc::clone(&link_up));
    let failed = CancellationToken::new();
    let broker = make_broker(Arc::new(intake), Lifetime { stop: ended, failed: failed.clone() })?;
    let node = Node {
        live,
        reloader: Reloader::default(),
        access,
        hub,
        broker,
        metrics,
        connections,
        http_memory: Arc::default(),
        failed,
        life: Life::default(),
        pulse: Pulse::new(inboxes.len(), Instant::now()),
        warnings: Warnings::default(),
    };
    let keeper = Keeper::new(&node, jobs, link_up);
    Ok((Arc::new(node), keeper))
}

async fn sweep_hub(hub: Arc<Hub>) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        hub.sweep(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
    }
}
