//! What systemd is told, if it has started the program with `Type=notify`. Otherwise nothing here does anything.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::node::Node;

/// The program serves. `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The program reads its configuration again, until this is dropped: whatever comes of it, the reload is over then.
#[derive(Debug)]
pub(crate) struct Reloading(());

impl Reloading {
    pub(crate) fn begin() -> Self {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "there is no clock to tell systemd of a reload"),
        }
        Self(())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        notify(&[NotifyState::Ready]);
    }
}

/// The program has begun to stop.
pub(crate) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// How often systemd wants to hear that the program is alive: at half the time after which it gives it up.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled()?;
    (!limit.is_zero()).then(|| (limit / 2).max(Duration::from_millis(1)))
}

/// Says that the node is alive for as long as it is: systemd starts a program again that hangs.
pub(crate) async fn feed_watchdog(node: Arc<Node>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        match node.pulse.silent() {
            None => notify(&[NotifyState::Watchdog]),
            Some(silent) => {
                tracing::error!(worker = silent.worker, seconds = silent.seconds, "a worker hangs");
            }
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
