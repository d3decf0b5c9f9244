//! Which broker a node has: the one inside it, or the Redis that all nodes share.

use std::sync::Arc;
use std::time::Duration;

use tickcast_broker::redis::{AddressError, RedisBroker, RedisOptions, RedisUrl, StartError};
use tickcast_broker::{Broker, Inbound, MemoryBroker, MemoryLimits};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How often the memory broker looks at ages, in a sixteenth of its shards each time. What is too old stays in memory
/// for 32 seconds at most, never for a reader.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How long a topic lives in Redis that was subscribed or read and never published. Nodes with subscribers renew it.
const UNPUBLISHED_TTL: Duration = Duration::from_secs(600);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL of Redis cannot be used.
    #[error("broker.redis.url cannot be used: {0}")]
    Address(#[from] AddressError),
    /// A certificate cannot be used, or a thread not started.
    #[error("the link to Redis cannot be started: {0}")]
    Start(#[from] StartError),
}

/// The tokens of a node that its broker must know.
#[derive(Debug, Clone)]
pub struct Lifetime {
    /// Cancelled when the node has ended.
    pub stop: CancellationToken,
    /// Cancelled by whatever has ended and must not: the node is good for nothing any more.
    pub failed: CancellationToken,
}

/// Starts the broker that the configuration asks for. Its housekeeping runs on the runtime that it is called from.
///
/// # Errors
/// When the configuration cannot be used. A Redis that cannot be reached is no error: the broker tries again for ever.
pub(crate) fn start(
    config: &Config,
    inbound: Arc<dyn Inbound>,
    lifetime: Lifetime,
) -> Result<Arc<dyn Broker>, BrokerError> {
    match config.broker.redis.address()? {
        None => Ok(memory(config, inbound, lifetime.stop)),
        Some(url) => Ok(redis(config, url, inbound, lifetime)?),
    }
}

/// The broker in words for people: where it is, without a password.
pub(crate) fn place(config: &Config) -> String {
    let url = config.broker.redis.address().ok().flatten();
    url.map_or_else(|| "memory".to_owned(), |url| url.to_string())
}

fn memory(config: &Config, inbound: Arc<dyn Inbound>, stop: CancellationToken) -> Arc<dyn Broker> {
    let (shared, memory) = (&config.broker, &config.broker.memory);
    let limits = MemoryLimits {
        topics_max: memory.topics_max,
        bytes_max: config.broker_memory().bytes(),
        idempotency_ttl: shared.idempotency_ttl,
        idempotency_keys_max: memory.idempotency_keys_max,
        topic_ttl: shared.topic_ttl,
        ..MemoryLimits::default()
    };
    let broker = Arc::new(MemoryBroker::new(limits, inbound));
    let swept = Arc::clone(&broker);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            swept.sweep();
        }
    });
    broker
}

fn redis(
    config: &Config,
    url: RedisUrl,
    inbound: Arc<dyn Inbound>,
    lifetime: Lifetime,
) -> Result<Arc<dyn Broker>, StartError> {
    let options = RedisOptions {
        url,
        tls: config.broker.redis.tls(),
        prefix: config.broker.redis.prefix.clone(),
        topic_ttl: config.broker.topic_ttl,
        unpublished_ttl: UNPUBLISHED_TTL,
        idempotency_ttl: config.broker.idempotency_ttl,
    };
    let broker = RedisBroker::start(options, inbound)?;
    let watched = Arc::clone(&broker);
    tokio::spawn(async move {
        if lifetime.stop.run_until_cancelled(watched.ended()).await.is_some() {
            tracing::error!("the link to Redis has ended");
            lifetime.failed.cancel();
        }
    });
    Ok(broker)
}
