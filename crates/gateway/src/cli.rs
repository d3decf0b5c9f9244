//! The command line: every verb and flag, and the verbs that are clients of a gateway.
//!
//! `main` parses a [`Cli`] and runs the node for [`Command::Dev`] and [`Command::Serve`]; the client verbs run here and
//! use nothing but the public HTTP and WebSocket interface, as any other client would.
//! Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.

mod check;
mod client;
mod completions;
mod config;
mod doctor;
mod drain;
mod health;
mod key;
mod publish;
#[cfg(test)]
mod reference;
mod report;
mod subscribe;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tickcast_protocol::{Mode, Position, Rate, Topic};

pub use check::CheckArgs;
pub use client::{GatewayUrl, GatewayUrlError};
pub use completions::{CompletionShell, CompletionsArgs};
pub use config::ConfigArgs;
pub use key::KeyArgs;
pub use report::{check_command, report};

use crate::config::{Flags, Inputs, Secret, misnamed_of_clients};

/// Exit code: the command line or the configuration is wrong.
pub const USAGE: u8 = 2;

/// Everything that was said on the command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "tickcast",
    version,
    about = "A pub/sub gateway for live tickers.",
    long_about = "A pub/sub gateway for live tickers.\n\nWithout a command it runs `dev`: a node on this machine with a live demo feed.",
    after_help = "Environment: TICKCAST__SECTION__KEY sets any setting (see docs/reference/configuration.md), NO_COLOR turns colors off."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The verb; without one it is `dev`.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or_else(|| Command::Dev(DevArgs::default()))
    }
}

/// The verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a node for trying things out: open to this machine, with a live demo feed
    Dev(DevArgs),
    /// Run a node
    Serve(NodeArgs),
    /// Publish: one payload, or one per line of standard input
    Pub(PublishArgs),
    /// Subscribe to topics and print what arrives
    Sub(SubscribeArgs),
    /// Say everything that is wrong with a configuration, before a node reads it
    Check(CheckArgs),
    /// Show the configuration in force and where each value came from, or all there is to set
    Config(ConfigArgs),
    /// Look for what is wrong with this machine, the configuration and Redis
    Doctor(DoctorArgs),
    /// Ask a node whether it is ready, through its admin listener
    Health(HealthArgs),
    /// Have a node send its clients to other nodes and end, through its admin listener
    Drain(DrainArgs),
    /// Make keys, which machines publish, subscribe and administer with
    Key(KeyArgs),
    /// Print a script that completes command lines in a shell
    Completions(CompletionsArgs),
}

/// Flags of a node. Each stands above the same setting in the environment and in the file.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address of the public listener [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Address of the admin listener [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// The Redis that all nodes share, such as `redis://127.0.0.1:6379` [default: none, the broker is inside the node]
    #[arg(long, value_name = "URL")]
    pub redis: Option<Secret>,

    /// Worker threads; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Open connections at most; 0 is as many as the limit on open files allows [default: 0]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,

    /// Listen on addresses that are not loopback, although anyone who reaches them may publish
    #[arg(long)]
    pub insecure: bool,

    /// `compact` or `json` [default: compact]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// What is logged, such as `debug` or `info,tickcast=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

impl NodeArgs {
    /// What a node that is started with these flags reads.
    pub fn inputs(&self) -> Inputs {
        Inputs::new(self.config.as_deref(), environment(), self.flags())
    }

    /// The settings that were given.
    pub fn flags(&self) -> Flags {
        let given = [
            ("--listen", "server.listen", self.listen.map(|address| address.to_string())),
            (
                "--admin-listen",
                "server.admin_listen",
                self.admin_listen.map(|address| address.to_string()),
            ),
            ("--redis", "broker.redis.url", self.redis.as_ref().map(|url| url.reveal().to_owned())),
            ("--workers", "server.workers", self.workers.map(|count| count.to_string())),
            (
                "--max-connections",
                "server.max_connections",
                self.max_connections.map(|count| count.to_string()),
            ),
            ("--insecure", "server.insecure", self.insecure.then(|| "true".to_owned())),
            ("--log-format", "log.format", self.log_format.clone()),
            ("--log-filter", "log.filter", self.log_filter.clone()),
        ];
        let mut flags = Flags::default();
        for (flag, key, value) in given {
            if let Some(value) = value {
                flags.set(flag, key, value);
            }
        }
        flags
    }
}

/// Flags of `dev`.
#[derive(Debug, Clone, Default, Args)]
pub struct DevArgs {
    /// The flags of any node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Seed of the demo feed: equal seeds give equal feeds
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Run without the demo feed
    #[arg(long)]
    pub no_feed: bool,
}

impl DevArgs {
    /// What a node that is started with these flags reads.
    pub fn inputs(&self) -> Inputs {
        Inputs::new(self.node.config.as_deref(), environment(), self.flags())
    }

    /// The settings that were given, and what `dev` opens: pages of any origin, publishing over WebSocket. Its end is a
    /// matter of seconds: no load balancer has to notice it first.
    pub fn flags(&self) -> Flags {
        let mut flags = self.node.flags();
        flags.impose("dev", "cors.origins", r#"["*"]"#);
        flags.impose("dev", "websocket.publish", "true");
        flags.suggest("dev", "drain.delay", "0s");
        flags.suggest("dev", "drain.timeout", "2s");
        flags
    }
}

/// How something is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast doctor --config /etc/tickcast.toml
  tickcast doctor --redis redis://127.0.0.1:6379 --json

It takes the flags of `serve` and looks at what a node started with them would find: the machine, the settings, the
keys and who needs none, and Redis. Nothing is changed anywhere.
The exit code is 0 if nothing has failed, warnings or not, and 1 otherwise.")]
pub struct DoctorArgs {
    /// The flags of the node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Print one JSON object instead of lines for people
    #[arg(long)]
    pub json: bool,
}

/// Flags of the verbs that talk to the admin listener of a node.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The admin listener of the node
    #[arg(
        long,
        env = "TICKCAST__CLIENT__ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub admin_url: GatewayUrl,

    /// A key with the right `admin`, for a listener that is not on a loopback address. As a flag it is seen by every user of this machine, so better put it into the environment
    #[arg(long, env = "TICKCAST__CLIENT__KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<Secret>,

    /// Certificates to trust instead of those of the system, for an https or wss address (PEM)
    #[arg(long, env = "TICKCAST__CLIENT__CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// What a node may be healthy for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// A publication made now would arrive.
    Publish,
    /// New subscribers are welcome: also while the broker is down.
    Subscribe,
    /// It runs: starting it again would not help.
    Live,
}

/// Flags of `health`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast health
  tickcast health --for subscribe --admin-url http://10.0.0.7:8081

The exit code is 0 if the node is healthy and 1 if it is not or does not answer; one line says why.")]
pub struct HealthArgs {
    /// Which node.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Healthy for what
    #[arg(long = "for", value_enum, default_value_t = Purpose::Publish, value_name = "WHAT")]
    pub purpose: Purpose,
}

/// Flags of `drain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast drain
  tickcast drain --wait --admin-url http://10.0.0.7:8081

It does what SIGTERM does: the node says that it is not ready, sends its clients to other nodes, and ends within
`drain.timeout`. Clients that resume miss nothing.")]
pub struct DrainArgs {
    /// Which node.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Wait until the node has ended
    #[arg(long)]
    pub wait: bool,
}

/// Flags of every client verb.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The gateway to talk to; https and wss for one behind TLS
    #[arg(
        long,
        env = "TICKCAST__CLIENT__URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: GatewayUrl,

    /// The key to present, for a gateway that asks for one. As a flag it is seen by every user of this machine, so better put it into the environment
    #[arg(long, env = "TICKCAST__CLIENT__KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<Secret>,

    /// Certificates to trust instead of those of the system, for an https or wss address (PEM)
    #[arg(long, env = "TICKCAST__CLIENT__CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Flags of `pub`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast pub stocks.AAPL '{\"px\":189.31}'
  some-feed | tickcast pub stocks.AAPL
  tickcast pub --file ticks.ndjson --rate 500     # lines of {\"topic\":…,\"data\":…}

Every publication carries an idempotency key, so a retry after a lost answer never publishes twice.
Publications of one topic keep their order; those of different topics may overtake each other.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PublishArgs {
    /// Where to publish.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The topic; left out with --file and --demo
    #[arg(value_parser = topic, required_unless_present_any = ["file", "demo"], conflicts_with_all = ["file", "demo"])]
    pub topic: Option<Topic>,

    /// The payload; without it every line of standard input is one
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub payload: Option<String>,

    /// Publish the lines of a file, each {"topic":…,"data":…}; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Publish the live demo feed of `tickcast dev`, without end
    #[arg(long, conflicts_with_all = ["file", "rate"])]
    pub demo: bool,

    /// Publish payloads as JSON strings instead of reading them as JSON
    #[arg(long, conflicts_with_all = ["file", "demo"])]
    pub string: bool,

    /// Publications per second at most; lateness is caught up
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "payload")]
    pub rate: Option<f64>,

    /// Idempotency key of a single payload [default: random]
    #[arg(long, value_name = "KEY", requires = "payload")]
    pub idempotency_key: Option<String>,

    /// Requests in flight at once, each with publications of its own topics
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub in_flight: u16,

    /// Print the result of each publication as JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `sub`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast sub stocks.AAPL nba.LAL-BOS.score
  tickcast sub stocks.AAPL --mode latest --max-rate 2 --latency
  tickcast sub stocks.AAPL --since k3f9:1042 --json
  tickcast sub stocks.AAPL --url wss://localhost:8443 --ca tls.crt

It reconnects by itself and resumes where it was; a node that goes away is left without missing anything.
Gaps, resets and the like are told on standard error.")]
pub struct SubscribeArgs {
    /// Where to subscribe.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The topics
    #[arg(value_parser = topic, required = true, value_name = "TOPIC")]
    pub topics: Vec<Topic>,

    /// Every publication, or only the newest
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,

    /// Updates per second and topic at most; implies `--mode latest`
    #[arg(long, value_name = "HZ", value_parser = rate)]
    pub max_rate: Option<f64>,

    /// Resume one topic after this position
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position)]
    pub since: Option<Position>,

    /// Show the age of each publication, and percentiles at the end
    #[arg(long)]
    pub latency: bool,

    /// Print each message of the gateway as it is, one per line
    #[arg(long)]
    pub json: bool,

    /// End after that many publications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

impl SubscribeArgs {
    /// What no single flag can know: how flags go together.
    fn check(&self) -> Result<(), String> {
        if self.since.is_some() && self.topics.len() > 1 {
            return Err("--since resumes one topic; give exactly one".to_owned());
        }
        if self.max_rate.is_some() && self.mode == Some(ModeArg::All) {
            return Err("--max-rate skips values, so it needs --mode latest".to_owned());
        }
        Ok(())
    }
}

/// A mode on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Every publication.
    All,
    /// Only the newest, whenever the connection and the rate allow.
    Latest,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::All => Self::All,
            ModeArg::Latest => Self::Latest,
        }
    }
}

fn topic(text: &str) -> Result<Topic, String> {
    // Patterns of keys and settings have them.
    let hint = if text.contains('*') { "; a topic has no wildcards: name each one" } else { "" };
    Topic::new(text).map_err(|error| format!("{error}{hint}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let hz = positive(text)?;
    Rate::from_hz(hz).map(|_| hz).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn position(text: &str) -> Result<Position, String> {
    let parts = text.split_once(':').and_then(|(epoch, offset)| {
        Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
    });
    parts.ok_or_else(|| "expected an epoch, a colon and an offset, such as k3f9:1042".to_owned())
}

/// The environment. Bytes that are not text have U+FFFD in their place, by which the configuration knows them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Warns of variables that look like those of the client verbs and are not read.
fn warn_of_misnamed_variables() {
    let names: Vec<String> = environment().map(|(name, _)| name).collect();
    for (name, meant) in misnamed_of_clients(names.iter().map(String::as_str)) {
        let warning = format!("`{name}` is ignored; did you mean `{meant}`?");
        // A closed standard error is no reason not to do what was asked for.
        drop(writeln!(std::io::stderr(), "tickcast: {warning}"));
    }
}

/// One JSON value, on standard output.
fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(std::io::stdout(), "{text}")
}

/// May a stream show colors? Only a terminal may, and not with `NO_COLOR` set to anything.
pub fn colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Why a client verb did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line is wrong in a way that only shows when it is run: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl DoctorArgs {
    /// Runs `tickcast doctor`.
    pub fn run(&self) -> ExitCode {
        doctor::run(self).unwrap_or_else(|failure| finish(Err(failure)))
    }
}

impl HealthArgs {
    /// Runs `tickcast health`.
    pub fn run(&self) -> ExitCode {
        warn_of_misnamed_variables();
        finish(health::run(self))
    }
}

impl DrainArgs {
    /// Runs `tickcast drain`.
    pub fn run(&self) -> ExitCode {
        warn_of_misnamed_variables();
        finish(drain::run(self))
    }
}

impl PublishArgs {
    /// Runs `tickcast pub`.
    pub fn run(self) -> ExitCode {
        warn_of_misnamed_variables();
        finish(publish::run(self))
    }
}

impl SubscribeArgs {
    /// Runs `tickcast sub`.
    pub fn run(self) -> ExitCode {
        warn_of_misnamed_variables();
        finish(self.check().map_err(Failure::Usage).and_then(|()| subscribe::run(self)))
    }
}

/// Turns the outcome of a client verb into a message and an exit code.
fn finish(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    // If standard error is gone there is nobody left to tell; the exit code still says it.
    drop(writeln!(std::io::stderr(), "tickcast: {failure}"));
    match failure {
        Failure::Usage(_) => ExitCode::from(USAGE),
        Failure::Failed(_) => ExitCode::FAILURE,
    }
}

/// A runtime on the calling thread: a client needs no more.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))
}
