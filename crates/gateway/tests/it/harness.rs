//! A node in this process, and two clients: [`Socket`] is somebody else's WebSocket client, [`Raw`] sends any bytes.

mod raw;
mod socket;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tickcast::config::Config;
use tickcast::server::Server;
use tickcast_broker::testing::FaultyBroker;
use tickcast_broker::{Broker, Inbound, MemoryBroker, MemoryLimits};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use raw::{Answer, Frame, Opcode, Raw, frame};
pub(crate) use socket::{Socket, Update};

use crate::exposition;

/// Long enough for a busy machine; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often something that has no event of its own is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits for `event`, but not for ever.
pub(crate) async fn within<F: Future>(what: &str, event: F) -> F::Output {
    timeout(PATIENCE, event).await.unwrap_or_else(|_elapsed| panic!("no {what} in time"))
}

/// Looks until `holds`.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    within(what, async {
        while !holds().await {
            sleep(GLANCE).await;
        }
    })
    .await;
}

/// A node on free ports. It stops when it is dropped.
pub(crate) struct Node {
    server: Server,
    stop: CancellationToken,
    pub(crate) address: SocketAddr,
}

impl Node {
    /// A node as it is without any configuration.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A node with some settings changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(change, |inbound| Arc::new(MemoryBroker::new(MemoryLimits::default(), inbound)))
            .await
    }

    /// A node whose broker fails on command.
    pub(crate) async fn with_faults(change: impl FnOnce(&mut Config)) -> (Self, Arc<FaultyBroker>) {
        let slot = Arc::new(OnceLock::new());
        let made = Arc::clone(&slot);
        let node = Self::on(change, move |inbound| {
            let broker = Arc::new(FaultyBroker::new(inbound, |inbound| {
                Arc::new(MemoryBroker::new(MemoryLimits::default(), inbound))
            }));
            made.set(Arc::clone(&broker)).expect("one broker");
            broker
        });
        let node = node.await;
        (node, Arc::clone(slot.get().expect("the node has made it")))
    }

    /// A node on a broker of the test's making.
    pub(crate) async fn on(
        change: impl FnOnce(&mut Config),
        make: impl FnOnce(Arc<dyn Inbound>) -> Arc<dyn Broker> + 'static,
    ) -> Self {
        let mut config = Config::default();
        let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        (config.server.listen, config.server.admin_listen) = (free_port, free_port);
        // More than one, also on a machine with one core.
        config.server.workers = 2;
        change(&mut config);
        config.check().expect("the settings go together");
        let stop = CancellationToken::new();
        let server =
            Server::start_with(config, Box::new(|inbound, _| Ok(make(inbound))), stop.clone())
                .await;
        let server = server.expect("a free port");
        let address = server.address();
        Self { server, stop, address }
    }

    /// A WebSocket connection.
    pub(crate) async fn connect(&self) -> Socket {
        Socket::open(self.address, "/v1/ws").await
    }

    /// A WebSocket connection that subscribes in its URL.
    pub(crate) async fn connect_to(&self, query: &str) -> Socket {
        Socket::open(self.address, &format!("/v1/ws?{query}")).await
    }

    /// A connection to the public listener.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// Publishes one payload; it must be accepted. Answers with `topic`, `epoch` and `offset`.
    pub(crate) async fn publish(&self, topic: &str, payload: &str) -> Value {
        let answer = self.post(&format!("/v1/topics/{topic}"), "", payload).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Publishes the numbers of a range, one after the other, in one connection.
    pub(crate) async fn publish_numbers(
        &self,
        topic: &str,
        numbers: std::ops::RangeInclusive<u64>,
    ) {
        let mut raw = self.raw().await;
        for number in numbers {
            let answer = raw.post(&format!("/v1/topics/{topic}"), "", &number.to_string()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    /// One request in a connection of its own. `headers` are whole lines.
    pub(crate) async fn post(&self, target: &str, headers: &str, body: &str) -> Answer {
        self.raw().await.post(target, headers, body).await
    }

    /// One request in a connection of its own. `headers` are whole lines.
    pub(crate) async fn get(&self, target: &str, headers: &str) -> Answer {
        self.raw().await.get(target, headers).await
    }

    /// The address of the admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.server.admin_address()
    }

    /// One request to the admin listener.
    pub(crate) async fn admin(&self, target: &str) -> Answer {
        Raw::connect(self.server.admin_address()).await.get(target, "").await
    }

    /// One number of the metrics now.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let exposition = self.admin("/metrics").await.text();
        exposition::value(&exposition, series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// Waits until a number of the metrics is as wanted: workers publish theirs after each turn.
    pub(crate) async fn until_metric(&self, series: &str, is_wanted: impl Fn(f64) -> bool + Copy) {
        until(series, || async move { is_wanted(self.metric(series).await) }).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
