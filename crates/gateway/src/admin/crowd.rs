//! Who is connected to the admin listener, and who makes room when there are too many.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::{AbortHandle, JoinSet};

/// Connections served at once: a few scrapers and probes need one each, for a moment. Beyond it the oldest of those that
/// have asked for nothing yet makes room; where all have, the kernel's backlog holds new ones until one has ended.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Those that have made room, and have not ended yet.
const LEAVING_MAX: usize = 16;

/// Set once a connection has asked for something.
pub(super) type Asked = Arc<AtomicBool>;

/// The connections. Those that are open at the end go with it.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    all: JoinSet<()>,
    /// Those that may not have asked for anything yet, the oldest first.
    silent: Vec<(AbortHandle, Asked)>,
}

impl Crowd {
    /// Whether one more may come.
    pub(super) fn has_room(&mut self) -> bool {
        self.silent.retain(|(task, asked)| !asked.load(Relaxed) && !task.is_finished());
        let most = if self.silent.is_empty() { 0 } else { LEAVING_MAX };
        self.all.len() < CONNECTIONS_MAX + most
    }

    /// Takes one in, if there is room.
    pub(super) fn enter<F>(&mut self, serve: impl FnOnce(Asked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.all.len() >= CONNECTIONS_MAX && !self.silent.is_empty() {
            self.silent.remove(0).0.abort();
            tracing::debug!(
                "an admin connection that has asked for nothing makes room for another"
            );
        }
        let asked = Asked::default();
        let task = self.all.spawn(serve(Arc::clone(&asked)));
        self.silent.push((task, asked));
    }

    /// Waits until one has ended; none if there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.all.join_next().await.map(drop)
    }
}
