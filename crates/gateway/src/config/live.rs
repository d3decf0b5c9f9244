//! The configuration of a running node, which a reload replaces as a whole.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

/// The configuration in force. Reading it takes no lock.
#[derive(Debug)]
pub(crate) struct Live(ArcSwap<Config>);

impl Live {
    pub(crate) fn new(config: Config) -> Self {
        Self(ArcSwap::from_pointee(config))
    }

    /// From now on it is this one.
    pub(crate) fn replace(&self, config: Arc<Config>) {
        self.0.store(config);
    }

    /// As it is now.
    pub(crate) fn load(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }
}
