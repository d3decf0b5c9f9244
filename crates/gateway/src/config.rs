//! The configuration of a node: every setting, its default, its bounds and what it is for.
//!
//! `main` loads it before any port is bound, and hands the finished value down; nothing reads files, flags or the
//! environment after that but a reload, which takes the same [`Inputs`] again.
//! Later sources win: defaults, the file, `TICKCAST__SECTION__KEY` variables, flags.
//! An unknown key, a wrong type and a value out of bounds are errors, and all of them are reported together.
//! Nothing here touches the network.

pub(crate) mod access;
mod budget;
mod check;
mod effective;
mod environment;
mod file;
mod flags;
mod list;
mod live;
mod network;
mod place;
mod redis;
mod reference;
mod reload;
mod report;
mod sample;
mod schema;
mod secret;
mod setting;
mod source;
mod suggest;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tickcast_protocol::Mode;
use toml::{Table, Value};

pub use access::{AccessKey, KeyHash, KeyName, Right, Rights, SubscribeRule};
pub(crate) use check::is_origin;
pub use effective::{Effective, Loaded, effective_file};
pub use environment::misnamed_of_clients;
pub use flags::Flags;
pub(crate) use live::Live;
pub use network::{Network, NetworkError, ProxyProtocol};
pub use place::Place;
pub use reference::reference_markdown;
pub use reload::{Change, Inputs};
pub use report::{ConfigErrors, Level, Origin, Problem};
pub use sample::reference_file;
pub use schema::schema;
pub use secret::Secret;
pub use setting::{Form, Key, LogFormat, Setting, Size};

use crate::memory;
use setting::{Compare as _, Section, section};

/// The configuration of one node, complete and checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Listeners, threads and the number of connections.
    pub server: Server,
    /// Bounds on HTTP requests.
    pub http: Http,
    /// Bounds on what clients and publishers may send.
    pub limits: Limits,
    /// Liveness and buffers of WebSocket connections.
    pub websocket: Websocket,
    /// Cross-origin HTTP requests of browsers.
    pub cors: Cors,
    /// Who may connect.
    pub access: Access,
    /// How a node stops.
    pub drain: Drain,
    /// The node's registry and fan-out.
    pub hub: Hub,
    /// What carries publications between nodes and keeps what topics retain.
    pub broker: Broker,
    /// The log.
    pub log: Log,
    /// How topics behave, by default and by name pattern.
    pub topics: Topics,
}

section! {
    /// Listeners, threads and the number of connections.
    "server" Server

    /// Address of the public listener: HTTP API and WebSocket.
    /// An address that is not loopback needs keys (`[[access.key]]`), or `server.insecure`: without keys everybody may publish.
    listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), needs restart;

    /// Address of the admin listener: metrics and health, for everybody who reaches it, and the routes under `/admin/`.
    /// On an address that is not loopback those need a key with the right `admin`. 64 connections are served at once;
    /// for one more the oldest that has asked for nothing yet is closed, or, if all have, it waits.
    admin_listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)), needs restart;

    /// Worker threads. Each owns its connections; 0 means one per core.
    workers: usize = 0, in 0..=1024, needs restart;

    /// Open connections on the public listener; 0 means as many as the limit on open files leaves room for, and no more than one for each 32 KiB of the memory that the process may use, by its control group or else by the machine: a quarter of the memory at 8 KiB each, most of it the kernel's.
    /// One more is answered with 503 `too_many_connections` and closed. An idle one takes about 160 bytes of the node's memory on a shared topic, below 1 KiB with a topic of its own.
    max_connections: usize = 0, in 0..=10_000_000;

    /// Connections per second that are let in, each with its handshake and its subscriptions; 0 means 2,000 per worker.
    /// When many come at once they wait their turn in the order in which they came, so that the clients which are already there notice nothing.
    /// Those that begin with `POST` go ahead, a quarter of the rate beside it.
    accept_rate: usize = 0, in 0..=1_000_000;

    /// Whether a proxy in front begins each connection to `server.listen` with the header of the PROXY protocol, version 2, that says whose it is: `off` or `required`.
    /// With `required`, connections from addresses that are not in `server.trusted_proxies` are closed, and so are those without a good header within 2 s.
    proxy_protocol: ProxyProtocol = ProxyProtocol::Off;

    /// Addresses and networks of the proxies in front, such as `["10.0.0.0/8", "::1"]`: they alone are believed about who their clients are.
    /// Without the PROXY protocol they say it with `X-Forwarded-For`; the last address in it that is not in this list is the client's.
    trusted_proxies: Vec<Network> = Vec::new();

    /// Allows `server.listen` on an address that is not loopback without keys, although anyone who can reach it may publish.
    /// Set it when a firewall or a proxy in front decides who gets through.
    insecure: bool = false;
}

section! {
    /// Bounds on HTTP requests. WebSocket connections leave them behind after the handshake.
    "http" Http

    /// Time for a request's header to arrive; also how long a kept-alive connection may be idle.
    /// At the bound the connection is closed.
    header_timeout: Duration = Duration::from_secs(10), in Duration::from_millis(100)..=Duration::from_secs(600);

    /// Time for a request's body to arrive. At the bound the answer is 408 `request_timeout`.
    body_timeout: Duration = Duration::from_secs(10), in Duration::from_millis(100)..=Duration::from_secs(600);

    /// Time for a client to take an answer of more than 4 KiB. At the bound the connection is cut.
    answer_timeout: Duration = Duration::from_secs(60), in Duration::from_millis(100)..=Duration::from_secs(3600);

    /// Size of a request's header. A larger one is answered with 431. HTTP needs at least 8 KiB to be useful.
    header_bytes: Size = Size::kib(16), in Size::kib(8)..=Size::mib(1);

    /// Memory for bodies of requests that come slowly, and as much for answers that clients do not take: at least 1 MiB, 0 means a sixteenth of the memory that the process may use, and 64 MiB at most.
    /// At the bound the answer is 503 `unavailable`. A body that comes in one piece and an answer of up to 4 KiB do not count, and one that is alone may be larger.
    memory: Size = Size::new(0), in Size::new(0)..=Size::mib(1 << 20);

    /// Length of a request's path with its query, at most `http.header_bytes`. A longer one is answered with 414 `uri_too_long`.
    uri_bytes: Size = Size::kib(8), in Size::kib(1)..=Size::kib(63);
}

section! {
    /// Bounds on what clients and publishers may send.
    "limits" Limits

    /// Size of one payload. A larger one is refused with 413 `payload_too_large`.
    payload_bytes: Size = Size::kib(64), in Size::new(1)..=Size::mib(16);

    /// Items in one batch of `POST /v1/publish`. A larger batch is refused as a whole with 413 `batch_too_large`.
    batch_items: usize = 1000, in 1..=100_000;

    /// Size of one batch body, at least `limits.payload_bytes`. A larger one is refused with 413 `batch_too_large`.
    batch_bytes: Size = Size::mib(1), in Size::kib(1)..=Size::mib(64);

    /// Topics that one connection may hold. Topics beyond it come back as `too_many_subscriptions`.
    subscriptions_per_connection: usize = 100, in 1..=2_000;

    /// Commands that one WebSocket connection may send per second; four seconds' worth may come at once, 0 means no limit.
    /// Beyond it a command is answered with `rate_limited` and not carried out; a connection that has more than four seconds' worth refused in one second is closed with 1008.
    /// Publications do not count: they have the `rate` of their key.
    commands_per_second: usize = 50, in 0..=1_000_000;

    /// Open connections of one client address, for IPv6 of one /64 network; 0 means any number, and costs nothing.
    /// One more is answered with 429 `too_many_from_address`. Set it where clients come directly, or through proxies that say whose they are (`server.trusted_proxies`);
    /// many people may share one address. Behind proxies that say it with `X-Forwarded-For` WebSockets are counted, not requests. What was open before it was set is not counted.
    connections_per_address: usize = 0, in 0..=1_000_000;
}

section! {
    /// Liveness and buffers of WebSocket connections.
    "websocket" Websocket

    /// A ping is sent after that much silence, none while there was traffic. Keep it below the idle timeout of
    /// every proxy in front (often 60 s). A ping unanswered for as long again closes the connection with 4009.
    ping_interval: Duration = Duration::from_secs(25), in Duration::from_secs(1)..=Duration::from_secs(300);

    /// A connection with data waiting that takes nothing for that long is closed with 4008.
    stall_timeout: Duration = Duration::from_secs(30), in Duration::from_secs(1)..=Duration::from_secs(600);

    /// Time from the first byte of a message or frame to its last. A connection that takes longer is closed with 1008.
    message_timeout: Duration = Duration::from_secs(30), in Duration::from_secs(1)..=Duration::from_secs(600);

    /// Kernel send buffer of a connection (`SO_SNDBUF`; the kernel doubles the number for its own bookkeeping).
    /// It bounds the memory that a client that stopped reading can pin: the system's default allows megabytes.
    send_buffer_bytes: Size = Size::kib(64), in Size::kib(4)..=Size::mib(16);

    /// Bytes not yet sent at which a socket stops taking more (`TCP_NOTSENT_LOWAT`), at most `websocket.send_buffer_bytes`.
    /// Smaller means that a slow client sees fresher values; larger means fewer wake-ups.
    unsent_bytes: Size = Size::kib(16), in Size::kib(1)..=Size::mib(16);

    /// Time after which sent but unacknowledged data closes a connection (`TCP_USER_TIMEOUT`): it finds dead peers.
    user_timeout: Duration = Duration::from_secs(20), in Duration::from_secs(1)..=Duration::from_secs(600);

    /// Age at which a connection is asked to connect anew, a tenth more or less, so that load evens out over the nodes after a deploy. 0 means never.
    /// Clients that follow `goaway` miss nothing; others are closed with 1012. However many are that old, at most `drain.rate` are asked per second.
    max_age: Duration = Duration::ZERO, in Duration::ZERO..=Duration::from_secs(7 * 86_400);

    /// Allows clients to publish over WebSocket. Otherwise `publish` is answered with `forbidden`.
    /// With keys it has no meaning: then the key decides.
    publish: bool = false;
}

section! {
    /// Cross-origin HTTP requests of browsers.
    "cors" Cors

    /// Origins whose pages may read and publish over HTTP, such as `https://example.com`; `*` is any.
    /// Empty: pages of other origins may not. WebSocket connections do not follow this, see `access.origins`.
    origins: Vec<String> = Vec::new();
}

section! {
    /// Who may connect, and what for. Without keys everybody may publish; with keys publishing needs one with the right for the topic.
    "access" Access

    /// Origins whose pages may open WebSocket connections, such as `https://example.com`.
    /// Empty, or `*`: any. A request without an `Origin` header does not come from a page and is always taken.
    origins: Vec<String> = Vec::new();

    /// A TOML file with more `[[access.key]]` tables and nothing else, for keys that are kept apart from the other settings. It is read again with each reload.
    /// At least one key must be in it. Relative to the folder in which the node was started.
    keys_file: PathBuf = PathBuf::new();

    sections

    /// The keys, those of the file too.
    #[serde(rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<AccessKey>,
}

section! {
    /// How a node stops when it is told to (SIGTERM, `tickcast drain`) so that no client that resumes misses anything.
    /// A second signal ends the waiting.
    "drain" Drain

    /// First the node says that it is not ready and goes on serving for this long, so that load balancers stop sending clients here.
    /// Longer than their health checks need to notice, and at most `drain.timeout`; `dev` has 0 unless it is set.
    delay: Duration = Duration::from_secs(5), in Duration::ZERO..=Duration::from_secs(600);

    /// Then clients are sent to other nodes, at most that many per second, so that those are not overrun.
    /// The rate rises if the time until `timeout` would not be enough.
    rate: usize = 1000, in 1..=1_000_000;

    /// Time for all of it; `dev` has 2 s unless it is set. Whatever is still open after it is cut. Keep it below what ends the process from outside (`TimeoutStopSec`, `terminationGracePeriodSeconds`).
    timeout: Duration = Duration::from_secs(45), in Duration::ZERO..=Duration::from_secs(3600);
}

section! {
    /// The node's registry and fan-out.
    "hub" Hub

    /// Memory for the recent publications of all topics of this node, from which slow and resuming clients catch up: at least 1 MiB.
    /// 0 means a quarter of the memory that the process may use, by its control group or else by the machine, and 256 MiB at most.
    /// At the bound a topic that grows gives up its own oldest publications; who still needed those gets a `gap`.
    log_memory: Size = Size::new(0), in Size::new(0)..=Size::mib(1 << 20), needs restart;

    /// Publications handed to a worker and not yet taken, per worker.
    /// At the bound the topic is marked, and the worker takes the topic's whole log again when it has caught up.
    inbox_items: usize = 16_384, in 64..=16_777_216, needs restart;
}

section! {
    /// What carries publications between nodes and keeps what topics retain: a Redis that all nodes share, or the node itself.
    "broker" Broker

    /// How long a topic without publications is kept. At least `topics.history_age` and `broker.idempotency_ttl`.
    /// A client that resumes after that gets a `reset`.
    topic_ttl: Duration = Duration::from_secs(7 * 86_400), in Duration::from_secs(60)..=Duration::from_secs(365 * 86_400), needs restart;

    /// How long the answer to an idempotency key is remembered. A repeat after that is a new publication.
    idempotency_ttl: Duration = Duration::from_secs(300), in Duration::from_secs(1)..=Duration::from_secs(86_400), needs restart;

    sections

    /// The broker inside the node.
    memory: MemoryBroker,

    /// The Redis of all nodes.
    redis: RedisBroker,
}

section! {
    /// The Redis that carries publications between nodes and keeps what topics retain. All nodes of a cluster have the same one and the same `prefix`.
    "broker.redis" RedisBroker

    /// Where Redis is: `redis://[[user]:password@]host[:6379][/db]`, `rediss://…` for TLS, `unix:///path`, or `redis+sentinel://host[:26379],…/master` for the master that Sentinels name.
    /// Empty: the broker is inside the node, for one node alone. A password in it is never shown; as a flag it is seen by every user of the machine, so better put it into `url_file` or the environment.
    url: Secret = Secret::default(), needs restart;

    /// A file whose only text is the URL, read once at the start. For secrets that are mounted as files; instead of `url`.
    url_file: PathBuf = PathBuf::new(), needs restart;

    /// What the names of all keys and channels begin with. Clusters that share a Redis need different ones.
    prefix: String = String::from("tickcast"), needs restart;

    /// PEM file with the certificates of the authorities that are trusted with `rediss://`. Empty: those of the system.
    ca_file: PathBuf = PathBuf::new(), needs restart;

    /// PEM file with the node's own certificate and its chain, for a Redis that asks for one; together with `key_file`.
    certificate_file: PathBuf = PathBuf::new(), needs restart;

    /// PEM file with the private key of `certificate_file`.
    key_file: PathBuf = PathBuf::new(), needs restart;
}

section! {
    /// The broker inside the node, for one node alone: used while `broker.redis` has no URL. Its state is lost with the process.
    "broker.memory" MemoryBroker

    /// Topics that exist at once. At the bound a publication to a new topic is refused with 503 `broker_full`.
    /// Half of them at most are topics that have subscribers but no publication yet; another one of those is `unavailable`. They are forgotten ten minutes after their last subscriber.
    topics_max: usize = 1_000_000, in 1..=100_000_000, needs restart;

    /// Memory for values and history: at least 1 MiB. 0 means half of the memory that the process may use, and 1 GiB at most.
    /// At the bound a publication pushes out its own topic's history, oldest first; when that is not enough, it is refused with 503 `broker_full`.
    memory: Size = Size::new(0), in Size::new(0)..=Size::mib(1 << 20), needs restart;

    /// Idempotency keys remembered at once. At the bound a publication with a new key is refused with 503 `broker_full`:
    /// forgetting a key early would break the promise made for it.
    idempotency_keys_max: usize = 1_000_000, in 1..=100_000_000, needs restart;
}

section! {
    /// The log, on standard error.
    "log" Log

    /// `compact`: one readable line per event. `json`: one JSON object per event.
    format: LogFormat = LogFormat::Compact, needs restart;

    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module such as `info,tickcast=debug`.
    filter: String = String::from("info");
}

section! {
    /// How topics behave: these are the defaults; a `[[topics.pattern]]` overrides them by name.
    #[derive(Copy)]
    "topics" TopicOptions

    /// Mode of subscriptions that name none. `all`: every publication. `latest`: only the newest, conflated for slow clients.
    mode: Mode = Mode::All;

    /// Keeps the last value, so that a new subscriber and a plain `GET` get it at once.
    retain_value: bool = true;

    /// Who may subscribe to and read topics. `open`: everybody. `closed`: whoever has a key with the right `subscribe` for them.
    subscribe: SubscribeRule = SubscribeRule::Open;

    /// Publications kept per topic for resuming and slow clients. At the bound the oldest goes; 0 keeps none.
    history: usize = 1000, in 0..=1_000_000;

    /// Bytes of history per topic. At the bound the oldest publication goes.
    history_bytes: Size = Size::mib(1), in Size::new(0)..=Size::mib(1024);

    /// Age of history. Older publications go.
    history_age: Duration = Duration::from_secs(300), in Duration::ZERO..=Duration::from_secs(86_400);

    /// How long a worker may wait to gather more publications into one write. 0 sends at once;
    /// a few milliseconds cost latency and save CPU when many topics update one after another.
    flush_interval: Duration = Duration::ZERO, in Duration::ZERO..=Duration::from_secs(1);
}

/// The options of all topics. In the file, the defaults stand in `[topics]` itself and the patterns in `[[topics.pattern]]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topics {
    /// Options of topics that no pattern matches.
    pub defaults: TopicOptions,
    /// In the order of the file; the first match wins.
    pub patterns: Vec<TopicPattern>,
}

/// Options for the topics of one name or prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPattern {
    /// An exact topic name, or a prefix followed by `*`.
    pub matches: String,
    /// The options, complete: whatever the pattern leaves open is taken from the defaults.
    pub options: TopicOptions,
}

impl TopicPattern {
    /// Does this pattern speak about the topic?
    pub fn matches(&self, topic: &str) -> bool {
        access::pattern_matches(&self.matches, topic)
    }
}

impl Topics {
    /// The options of a topic: those of the first pattern that matches, else the defaults.
    pub fn for_topic(&self, topic: &str) -> TopicOptions {
        let pattern = self.patterns.iter().find(|pattern| pattern.matches(topic));
        pattern.map_or(self.defaults, |pattern| pattern.options)
    }

    /// Whether any topic is closed.
    pub(crate) fn has_closed(&self) -> bool {
        self.first_closed().is_some()
    }

    /// The setting that closes topics, if one does.
    fn first_closed(&self) -> Option<String> {
        let is_closed = |options: &TopicOptions| options.subscribe == SubscribeRule::Closed;
        let pattern = self.patterns.iter().position(|pattern| is_closed(&pattern.options));
        match pattern {
            _ if is_closed(&self.defaults) => Some("topics.subscribe".to_owned()),
            number => number.map(|number| format!("topics.pattern[{number}].subscribe")),
        }
    }
}

/// In TOML the name of the array of patterns, and of a pattern's own name.
const PATTERN: &str = "pattern";
const MATCH: &str = "match";

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut defaults = Table::deserialize(deserializer)?;
        let patterns = match defaults.remove(PATTERN) {
            Some(list) => list.try_into::<Vec<Table>>().map_err(D::Error::custom)?,
            None => Vec::new(),
        };
        let options = |table: Table| table.try_into::<TopicOptions>().map_err(D::Error::custom);
        let patterns = patterns.into_iter().map(|mut overrides| {
            let Some(Value::String(matches)) = overrides.remove(MATCH) else {
                return Err(D::Error::missing_field(MATCH));
            };
            let mut table = defaults.clone();
            table.extend(overrides);
            Ok(TopicPattern { matches, options: options(table)? })
        });
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()?, defaults: options(defaults)? })
    }
}

impl Serialize for Topics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let table = |options: &TopicOptions| Table::try_from(options).map_err(S::Error::custom);
        let mut topics = table(&self.defaults)?;
        let patterns = self.patterns.iter().map(|pattern| {
            let mut pattern_table = table(&pattern.options)?;
            pattern_table.insert(MATCH.to_owned(), Value::String(pattern.matches.clone()));
            Ok(Value::Table(pattern_table))
        });
        let patterns = patterns.collect::<Result<Vec<_>, S::Error>>()?;
        if !patterns.is_empty() {
            topics.insert(PATTERN.to_owned(), Value::Array(patterns));
        }
        topics.serialize(serializer)
    }
}

/// Every section in reading order.
const SECTIONS: &[Section] = &[
    Server::SECTION,
    Http::SECTION,
    Limits::SECTION,
    Websocket::SECTION,
    Cors::SECTION,
    Access::SECTION,
    Drain::SECTION,
    Hub::SECTION,
    Broker::SECTION,
    RedisBroker::SECTION,
    MemoryBroker::SECTION,
    Log::SECTION,
    TopicOptions::SECTION,
];

/// Every setting in reading order.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

impl Config {
    /// Puts the configuration together from all sources and checks it.
    ///
    /// `env` is the whole environment: only names that begin with `TICKCAST_` are looked at.
    ///
    /// # Errors
    /// Everything that is wrong, in every source, at once.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<(Self, Vec<Problem>), ConfigErrors> {
        Loaded::load(file, env, flags).map(|loaded| (loaded.config, loaded.warnings))
    }

    /// What a node that runs with this configuration makes of another one: the changes, in reading order, and in `after`
    /// the old values of the settings that need a restart.
    pub(crate) fn succeeded_by(&self, after: &mut Self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.server.changes(&mut after.server, &mut changes);
        self.http.changes(&mut after.http, &mut changes);
        self.limits.changes(&mut after.limits, &mut changes);
        self.websocket.changes(&mut after.websocket, &mut changes);
        self.cors.changes(&mut after.cors, &mut changes);
        self.access.changes(&mut after.access, &mut changes);
        self.drain.changes(&mut after.drain, &mut changes);
        self.hub.changes(&mut after.hub, &mut changes);
        self.broker.changes(&mut after.broker, &mut changes);
        self.log.changes(&mut after.log, &mut changes);
        self.topics.defaults.changes(&mut after.topics.defaults, &mut changes);
        if self.topics.patterns != after.topics.patterns {
            changes.push(Change::of_list("topics.pattern", String::new()));
        }
        changes
    }

    /// Checks what the settings must be to each other and to this machine. [`Config::load`] does this as well.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn check(&self) -> Result<Vec<Problem>, ConfigErrors> {
        ConfigErrors::sift(check::check(self, check::open_files_max()).0)
    }

    /// Open connections on the public listener at most: never more than the limit on open files leaves room for.
    pub fn max_connections(&self) -> usize {
        let fitting = check::connections_that_fit(check::open_files_max());
        match self.server.max_connections {
            0 => fitting.min(budget::connections(memory::allowed())),
            count => count.min(fitting),
        }
    }

    /// Worker threads: one per core unless a number is set.
    pub fn workers(&self) -> usize {
        match self.server.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count,
        }
    }

    /// Bytes of slow bodies, and of answers that are not taken.
    pub(crate) fn http_memory(&self) -> usize {
        budget::HTTP.resolve(self.http.memory).bytes()
    }

    /// Memory for the logs of all topics.
    pub fn log_memory(&self) -> Size {
        budget::LOGS.resolve(self.hub.log_memory)
    }

    /// Memory for what the broker inside the node keeps.
    pub fn broker_memory(&self) -> Size {
        budget::BROKER.resolve(self.broker.memory.memory)
    }

    /// The options of a topic: those of the first pattern that matches, else the defaults.
    pub fn for_topic(&self, topic: &str) -> TopicOptions {
        self.topics.for_topic(topic)
    }
}
