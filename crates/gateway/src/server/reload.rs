//! Reads the configuration of a running node again.
//!
//! A new configuration is taken as a whole or not at all. It is in force with one exchange of a pointer: whoever asks for
//! it next has it, and what was made from it (the keys, the filter of the log, the number of connections, the bounds of
//! the workers' fan-out) follows here or within a second in every worker.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::config::{Change, Config, ConfigErrors, Inputs, Problem};
use crate::logging::{self, LogError};
use crate::node::Node;
use crate::systemd;

/// Longest time that reading the files may take: one on a dead network share never answers. The admin listener has twice
/// as long for a request, so that whoever asks through it is told.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reloaded {
    /// Settings whose new value is in force.
    pub changed: Vec<Change>,
    /// Settings that keep their value until the node is started anew.
    pub needs_restart: Vec<Change>,
}

/// Why a reload has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Nobody has said what to read.
    #[error("this node was started with a configuration that cannot be read again")]
    NoInputs,
    /// The configuration has errors.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The filter of the log could not be changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file does not answer.
    #[error("reading the configuration takes longer than {} s: a file that belongs to it does not answer", LOAD_TIMEOUT.as_secs())]
    Hangs,
    /// Reading it panicked, or the node is stopping.
    #[error("reading the configuration came to no end: {0}")]
    Interrupted(#[from] JoinError),
}

/// What a reload reads, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Reloader {
    inputs: OnceLock<Arc<Inputs>>,
    /// Whose turn it is, and a reading under way that has not ended when it should have.
    turn: Mutex<Option<Reading>>,
}

type Loaded = Result<(Config, Vec<Problem>), ConfigErrors>;
type Reading = JoinHandle<Loaded>;

impl Reloader {
    pub(super) fn set_inputs(&self, inputs: Inputs) {
        self.inputs.get_or_init(|| Arc::new(inputs));
    }

    /// Reads the files beside the runtime: they may be on a slow disk.
    ///
    /// A reading that hangs cannot be ended, so it stays in `late`, and the next one begins after it: however often
    /// somebody asks, one thread hangs.
    async fn load(
        &self,
        late: &mut Option<Reading>,
    ) -> Result<(Config, Vec<Problem>), ReloadError> {
        let inputs = self.inputs.get().map(Arc::clone).ok_or(ReloadError::NoInputs)?;
        let read = async {
            if let Some(reading) = late {
                // What it says was true before somebody asked again.
                drop(reading.await);
            }
            let reading = late.insert(tokio::task::spawn_blocking(move || inputs.load()));
            reading.await
        };
        let loaded = timeout(LOAD_TIMEOUT, read).await.map_err(|_elapsed| ReloadError::Hangs)?;
        *late = None;
        Ok(loaded??)
    }
}

/// Reloads the configuration of a node for as long as that is there.
#[derive(Debug, Clone)]
pub struct Reloads(Arc<Node>);

impl Reloads {
    pub(super) fn of(node: &Arc<Node>) -> Self {
        Self(Arc::clone(node))
    }

    /// As [`Server::reload`](super::Server::reload).
    ///
    /// # Errors
    /// As that.
    pub fn reload(&self) -> impl Future<Output = Result<Reloaded, ReloadError>> + use<> {
        let node = Arc::clone(&self.0);
        async move { node.reload().await }
    }
}

impl Node {
    /// As [`Server::reload`](super::Server::reload).
    pub(crate) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let mut late = self.reloader.turn.lock().await;
        let reloading = systemd::Reloading::begin();
        let taken = match self.reloader.load(&mut late).await {
            Ok((config, warnings)) => self.take(config, &warnings),
            Err(error) => Err(error),
        };
        drop(reloading);
        self.metrics.count_reload(taken.is_ok());
        match &taken {
            Ok(reloaded) => log_success(reloaded),
            Err(error) => log_failure(error),
        }
        taken
    }

    /// Goes on with another configuration.
    fn take(&self, mut config: Config, warnings: &[Problem]) -> Result<Reloaded, ReloadError> {
        let changes = self.config().succeeded_by(&mut config);
        // Old values of settings that need a restart are now beside new values of others.
        config.check()?;
        logging::set_filter(&config.log.filter)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let config = Arc::new(config);
        self.live.replace(Arc::clone(&config));
        let had_keys = self.access.current().has_keys();
        self.access.replace(&config);
        if had_keys && config.access.keys.is_empty() {
            tracing::warn!("there are no keys any more: whoever reaches this node may publish");
        }
        self.connections.set_max(config.max_connections());
        let (needs_restart, changed) = changes.into_iter().partition(|change| change.needs_restart);
        Ok(Reloaded { changed, needs_restart })
    }
}

fn log_success(reloaded: &Reloaded) {
    let Reloaded { changed, needs_restart } = reloaded;
    match changed.as_slice() {
        [] => tracing::info!("configuration reloaded; no change is in force"),
        changed => tracing::info!("configuration reloaded; in force: {}", listed(changed)),
    }
    if !needs_restart.is_empty() {
        tracing::warn!("changed, but in force only after a restart: {}", listed(needs_restart));
    }
}

/// One line per problem, as at the start of the program.
fn log_failure(error: &ReloadError) {
    if let ReloadError::Config(errors) = error {
        for problem in errors.problems() {
            tracing::error!("{problem}");
        }
    }
    let reason = match error {
        ReloadError::Config(errors) => match errors.problems().len() {
            1 => "1 error above".to_owned(),
            count => format!("{count} errors above"),
        },
        other => other.to_string(),
    };
    tracing::error!("configuration not reloaded, the old one stays in force: {reason}");
}

fn listed(changes: &[Change]) -> String {
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    changes.join(", ")
}
