//! The broker of many nodes: Redis carries publications between them and keeps what topics retain.
//!
//! Two connections per node. [`commands`] publishes and reads; the subscriber connection only subscribes, and what it
//! pushes goes straight to [`Inbound`]. What Redis pub/sub may lose is found by comparing positions,
//! which travel on the subscriber connection among the publications.

mod address;
mod commands;
mod dial;
mod driver;
mod envelope;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod link;
mod names;
mod receiver;
mod scripts;
mod sentinel;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tickcast_protocol::{Epoch, Topic};
use tokio::sync::{mpsc, oneshot, watch};

use self::commands::{Commands, TimesToLive};
use self::dial::Dialer;
use self::driver::{Driver, Parts, Request};
use self::names::Names;
use self::receiver::Receiver;
use crate::{
    BoxFuture, Broker, BrokerStats, Inbound, LinkStats, PublishError, PublishItem, Published,
    ReadError, ReadRequest, TopicState, Unavailable,
};

pub use self::address::{AddressError, RedisUrl};
pub use self::dial::TlsError;

/// Look-ups of names, and readings of certificates, that may hang at once.
const LOOKUPS_MAX: usize = 4;

/// How a node reaches its Redis, and how long things live there.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where Redis is.
    pub url: RedisUrl,
    /// Certificates for `rediss://`.
    pub tls: TlsFiles,
    /// What every key and channel begins with.
    pub prefix: String,
    /// How long a topic lives after its last publication or, with subscribers, the last comparison.
    pub topic_ttl: Duration,
    /// The same for a topic that was only read, never published.
    pub unpublished_ttl: Duration,
    /// How long an idempotency key is kept.
    pub idempotency_ttl: Duration,
}

/// PEM files for TLS. Without a `ca`, the system's certificates are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate, with its chain; only together with `key`.
    pub certificate: Option<PathBuf>,
    /// The client's private key.
    pub key: Option<PathBuf>,
}

/// Why the broker cannot even begin. A Redis that cannot be reached is no reason: it is tried for ever.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The thread of the link cannot be started.
    #[error("cannot start the thread of the Redis link: {0}")]
    Thread(#[from] io::Error),
}

/// The broker of many nodes. Its link is down until it says otherwise through [`Inbound::link_changed`].
#[derive(Debug)]
pub struct RedisBroker {
    parts: Arc<Parts>,
    requests: mpsc::Sender<Request>,
    ended: watch::Receiver<()>,
}

impl RedisBroker {
    /// Starts the link on a thread of its own. It ends when the broker is dropped.
    ///
    /// # Errors
    /// [`StartError`]; that Redis cannot be reached is none.
    pub fn start(
        options: RedisOptions,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Arc<Self>, StartError> {
        let node = Epoch::new(rand::random::<u64>() >> 24).to_string();
        let times = TimesToLive {
            topic: options.topic_ttl,
            unpublished: options.unpublished_ttl,
            idempotency: options.idempotency_ttl,
        };
        let RedisOptions { url, tls, prefix, .. } = options;
        let names = Names::new(&prefix);
        let node_channel = names.node_channel(&node);
        let (requests, asked) = mpsc::channel(driver::QUEUE);
        let (inputs, reported) = mpsc::channel(driver::QUEUE);
        let (ending, ended) = watch::channel(());
        let dialer = Arc::new(Dialer::new(url, tls)?);
        let receiver = Receiver::new(
            names.clone(),
            node_channel.clone(),
            Arc::clone(&inbound),
            inputs.clone(),
        );
        let parts = Arc::new(Parts {
            commands: Commands::new(names.clone(), &node, times),
            names,
            dialer,
            receiver: Arc::new(receiver),
            inbound,
            node_channel,
            stats: Mutex::default(),
            master: Mutex::default(),
            inputs,
        });
        // Names are looked up on blocking threads, which may hang longer than a dial lasts.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(LOOKUPS_MAX)
            .enable_all()
            .build()?;
        let link = Arc::clone(&parts);
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            runtime.block_on(async {
                let sentinels = driver::watch_sentinels(Arc::clone(&link));
                tokio::select! {
                    () = Driver::new(link, asked, reported).run() => {}
                    () = sentinels => {}
                }
            });
            drop(ending);
        })?;
        Ok(Arc::new(Self { parts, requests, ended }))
    }

    /// Returns when the thread of the link has ended, which it does not while the broker is in use unless it fails.
    pub async fn ended(&self) {
        // Nothing is ever sent, so this is the end of the sender.
        drop(self.ended.clone().changed().await);
    }
}

impl Broker for RedisBroker {
    fn publish(
        &self,
        items: Vec<PublishItem>,
    ) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(self.parts.commands.publish(items))
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        request: ReadRequest,
    ) -> BoxFuture<'a, Result<Option<TopicState>, ReadError>> {
        Box::pin(self.parts.commands.read(topic, request))
    }

    fn subscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let (done, settled) = oneshot::channel();
            let request = Request::Subscribe { topics, done };
            let sent = self.requests.send(request).await;
            if sent.is_ok() && settled.await == Ok(true) { Ok(()) } else { Err(Unavailable) }
        })
    }

    fn unsubscribe(&self, topics: Vec<Topic>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Without a link there is nothing to give back.
            drop(self.requests.send(Request::Unsubscribe { topics }).await);
        })
    }

    fn stats(&self) -> BrokerStats {
        let link = LinkStats {
            in_flight_bytes: self.parts.commands.in_flight_bytes(),
            in_flight_max_bytes: commands::IN_FLIGHT_BYTES_MAX,
            ..*self.parts.stats.lock()
        };
        BrokerStats { subscriptions: link.wanted, link: Some(link), ..BrokerStats::default() }
    }
}
