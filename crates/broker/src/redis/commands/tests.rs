//! The scripts and their callers against real servers.

mod fence;
mod history;
mod keys;
mod publishing;
mod reading;
mod trouble;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, PushInfo, PushKind, Value};
use tickcast_protocol::{Position, Publication};
use tokio::sync::mpsc;

use super::*;
use crate::redis::dial::tests::server::Server;
use crate::redis::envelope::{Envelope, NodeMessage};
use crate::{HistoryRequest, PublishError, PublishItem, Published};

type Answer = Result<Published, PublishError>;

/// For what comes at once, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

const RETENTION: Retention = Retention {
    value: true,
    history: 100,
    history_bytes: 1 << 20,
    history_age: Duration::from_secs(300),
};

const NO_HISTORY: Retention = Retention { history: 0, ..RETENTION };

const TTLS: TimesToLive = TimesToLive {
    topic: Duration::from_secs(7 * 24 * 3600),
    unpublished: Duration::from_secs(600),
    idempotency: Duration::from_secs(300),
};

/// Reads and creates.
const ALL: ReadRequest = ReadRequest { create: true, history: HistoryRequest::Newest(usize::MAX) };

/// Reads without a trace.
const LOOK: ReadRequest = ReadRequest { create: false, ..ALL };

/// A server and one node's commands.
struct Rig {
    server: Server,
    commands: Commands,
    /// For what a test does by itself.
    raw: MultiplexedConnection,
}

impl Rig {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let server = Server::start(&[&["--enable-debug-command", "yes"], arguments].concat());
        let raw = connection(&server).await;
        let rig = Self { commands: node("k3f9"), server, raw };
        rig.link(&rig.commands).await;
        rig
    }

    /// Connects a node's commands, as the driver of the link does.
    async fn link(&self, commands: &Commands) {
        let mut connection = connection(&self.server).await;
        Commands::load_scripts(&mut connection).await.unwrap();
        let replication_id = replication_id(&mut connection).await;
        commands.connect(connection, replication_id);
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&self.raw, words).await
    }

    async fn publish(&self, item: PublishItem) -> Published {
        self.commands.publish(vec![item]).await.remove(0).unwrap()
    }

    /// Publishes without history and gives the offsets.
    async fn offsets(&self, items: Vec<PublishItem>) -> Vec<u64> {
        offsets(&self.commands.publish(items).await)
    }

    async fn read(&self, name: &str, request: ReadRequest) -> Option<TopicState> {
        self.commands.read(&topic(name), request).await.unwrap()
    }

    async fn history(&self, name: &str) -> Vec<u64> {
        let state = self.read(name, LOOK).await.unwrap();
        state.history.iter().map(|publication| publication.offset()).collect()
    }

    fn key(&self, name: &str) -> String {
        self.commands.shared.names.topic(&topic(name))
    }

    fn list(&self, name: &str) -> String {
        self.commands.shared.names.history(&topic(name))
    }

    async fn ttl(&self, key: &str) -> i64 {
        self.ask(&["TTL", key]).await
    }

    /// How often each command was called since the last look.
    async fn calls(&self) -> HashMap<String, u64> {
        let text: String = self.ask(&["INFO", "commandstats"]).await;
        let _: () = self.ask(&["CONFIG", "RESETSTAT"]).await;
        text.lines()
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                Some((name.to_owned(), rest.split_once(',')?.0.parse().unwrap()))
            })
            .collect()
    }
}

/// Messages of some channels, in order.
struct Ear {
    messages: mpsc::Receiver<(Vec<u8>, Vec<u8>)>,
    names: Names,
    _connection: MultiplexedConnection,
}

impl Ear {
    /// Listens to topics and to the node's own channel.
    async fn new(rig: &Rig, topics: &[&str]) -> Self {
        let (sender, messages) = mpsc::channel(10_000);
        let config = config().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Message
                && let [Value::BulkString(channel), Value::BulkString(data)] = &push.data[..]
            {
                sender.try_send((channel.clone(), data.clone())).unwrap();
            }
            Ok::<_, redis::aio::SendError>(())
        });
        let mut connection = connect(&rig.server, config).await;
        let names = rig.commands.shared.names.clone();
        let mut channels: Vec<_> = topics.iter().map(|name| names.channel(&topic(name))).collect();
        channels.push(rig.commands.shared.node_channel.clone());
        connection.subscribe(channels).await.unwrap();
        Self { messages, names, _connection: connection }
    }

    async fn message(&mut self) -> (Vec<u8>, Vec<u8>) {
        timeout(SOON, self.messages.recv()).await.unwrap().unwrap()
    }

    /// The next envelope: its topic, its first offset and its payloads.
    async fn hear(&mut self) -> (String, u64, Vec<String>) {
        let (channel, data) = self.message().await;
        let name = self.names.topic_of(&channel).unwrap();
        let publications = publications(&topic(name), &data);
        let payloads = publications
            .iter()
            .map(|publication| String::from_utf8(publication.data().to_vec()).unwrap());
        (name.to_owned(), publications[0].offset(), payloads.collect())
    }

    /// The next message to the node, as `C` for a comparison with its lines, else the number of a probe.
    async fn hear_node(&mut self) -> String {
        let (_, data) = self.message().await;
        match NodeMessage::decode(&data).unwrap() {
            NodeMessage::Probe(number) => number.to_string(),
            NodeMessage::Comparison(comparison) => {
                let lines = comparison.positions().map(|line| {
                    let (name, position) = line.unwrap();
                    format!(" {name}={}", position.offset)
                });
                format!("C{}{}", comparison.batch, lines.collect::<String>())
            }
        }
    }

    fn is_silent(&mut self) -> bool {
        self.messages.try_recv().is_err()
    }
}

fn publications(topic: &Topic, envelope: &[u8]) -> Vec<Arc<Publication>> {
    let envelope = Envelope::decode(envelope).unwrap();
    envelope.publications(topic).map(Result::unwrap).collect()
}

fn node(id: &str) -> Commands {
    Commands::new(Names::new("tickcast"), id, TTLS)
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(SOON))
}

async fn connect(server: &Server, config: AsyncConnectionConfig) -> MultiplexedConnection {
    let client = redis::Client::open(format!("{}/?protocol=resp3", server.url())).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

async fn connection(server: &Server) -> MultiplexedConnection {
    connect(server, config()).await
}

async fn ask<T: FromRedisValue>(connection: &MultiplexedConnection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    timeout(SOON, command.query_async(&mut connection.clone())).await.unwrap().unwrap()
}

async fn replication_id(connection: &mut MultiplexedConnection) -> String {
    let text: String = ask(connection, &["INFO", "replication"]).await;
    let id = text.lines().find_map(|line| line.strip_prefix("master_replid:"));
    id.unwrap().trim().to_owned()
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn item(name: &str, data: &str) -> PublishItem {
    let data = Bytes::copy_from_slice(data.as_bytes());
    PublishItem { topic: topic(name), data, key: None, retention: RETENTION }
}

fn plain(name: &str, data: &str) -> PublishItem {
    PublishItem { retention: NO_HISTORY, ..item(name, data) }
}

fn keyed(name: &str, data: &str, key: &str) -> PublishItem {
    PublishItem { key: Some(key.to_owned()), ..plain(name, data) }
}

fn offsets(answers: &[Answer]) -> Vec<u64> {
    answers.iter().map(|answer| answer.unwrap().position.offset).collect()
}
