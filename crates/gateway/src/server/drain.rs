//! The end of a node: first it is not ready, then it takes nobody in and sends its clients away, then it is gone.
//!
//! What the steps mean is in [`life`](crate::node::life); each part of the node follows them by itself. Here is the
//! clock: when each step is taken, so that the whole fits into `drain.timeout` whatever the clients do.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::config::Drain;
use crate::node::life::Stage;
use crate::systemd;

/// So long before the end of the time every client that is still there is closed, whatever it was promised.
const LAST_CALL: Duration = Duration::from_secs(1);

/// So long before the end of the time everything is dropped: what takes up to then takes no longer.
const ENDING_TIME: Duration = Duration::from_millis(200);

/// Of the time, so much is kept for the last client to be told, to go, to be closed if it does not, and to hang up.
const FAREWELL_RESERVE: Duration = Duration::from_secs(8);

/// Over how much time clients are sent away: as slowly as asked for, if the time allows it.
fn spread(connections: usize, rate: usize, left: Duration) -> Duration {
    let wanted = Duration::from_secs_f64(connections as f64 / rate.max(1) as f64);
    wanted.min(left.saturating_sub(FAREWELL_RESERVE))
}

/// When the steps of a drain are taken.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    end: Instant,
}

impl Clock {
    fn start(options: &Drain) -> Self {
        let begun = Instant::now();
        Self { begun, end: begun + options.timeout }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn before_the_end(&self, time: Duration) -> Instant {
        self.end.checked_sub(time).unwrap_or(self.begun)
    }
}

impl Server {
    /// Cancel it while [`Server::stop`] is under way, and every client is told to go and closed at once.
    pub fn haste(&self) -> CancellationToken {
        self.haste.clone()
    }

    /// Returns when an operator has asked for the end of the node through its admin listener.
    pub fn asked_to_end(&self) -> impl Future<Output = ()> + use<> {
        self.node.life.asked().clone().cancelled_owned()
    }

    /// Drains the node, and ends it within `drain.timeout`.
    ///
    /// For `drain.delay` it only says that it is not ready. Then it accepts nobody, tells its clients to go, spread over
    /// time, and closes those that do not; requests that have begun are answered. It returns as soon as everything has
    /// ended. What has not by then is cut. The answer is whether no part of the node failed.
    pub async fn stop(mut self) -> bool {
        let options = self.node.config().drain.clone();
        let clock = Clock::start(&options);
        self.node.life.advance(Stage::Leaving);
        systemd::stopping("draining: clients are sent to other nodes");
        self.leave(options.delay.min(options.timeout)).await;

        let connections = self.node.connections.open();
        let spread = spread(connections, options.rate, clock.left());
        tracing::info!(connections, ?spread, "draining");
        self.node.life.drain(spread);
        let failed = self.join(&clock).await;
        self.tasks.shutdown().await;
        self.ended.cancel();
        self.sum_up(connections, &clock, failed.is_some());
        // What did not end in time is cut, as announced; only a part that failed is a failure.
        failed.unwrap_or(0) == 0
    }

    /// Waits until load balancers have noticed that the node is not ready. A node that has failed is good for nobody.
    async fn leave(&mut self, delay: Duration) {
        let haste = self.haste.clone();
        tokio::select! {
            () = sleep(delay) => {}
            () = haste.cancelled() => {}
            () = self.failed() => {}
        }
    }

    /// Waits for the workers, and hurries them when it is time: how many of them have failed, if all have ended.
    async fn join(&mut self, clock: &Clock) -> Option<usize> {
        let workers = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(move || {
            let ended = workers.into_iter().map(JoinHandle::join);
            ended.filter(|ended| !matches!(ended, Ok(Ok(())))).count()
        });
        let mut joined = pin!(joined);
        tokio::select! {
            // A panic here would be one of the joining thread, which has nothing that could.
            failed = joined.as_mut() => return failed.ok(),
            () = self.haste.cancelled() => {}
            () = sleep_until(clock.before_the_end(LAST_CALL)) => {}
        }
        self.node.life.advance(Stage::Hurrying);
        tokio::select! {
            failed = joined.as_mut() => return failed.ok(),
            () = sleep_until(clock.before_the_end(ENDING_TIME)) => {}
        }
        self.node.life.advance(Stage::Ending);
        timeout(ENDING_TIME, joined).await.ok()?.ok()
    }

    fn sum_up(&self, connections: usize, clock: &Clock, in_time: bool) {
        let tally = self.node.life.tally();
        let [followed, closed, lost, cut] =
            [&tally.followed, &tally.closed, &tally.lost, &tally.cut]
                .map(|count| count.load(Relaxed));
        // What counts as open still belongs to a worker that has not ended.
        let cut = cut + self.node.connections.open() as u64;
        let elapsed = clock.begun.elapsed();
        tracing::info!(connections, followed, closed, lost, cut, ?elapsed, in_time, "stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_go_as_slowly_as_the_time_allows() {
        let check = |connections: usize, rate: usize, left: u64, expected: u64| {
            let spread = spread(connections, rate, Duration::from_secs(left));
            assert_eq!(spread, Duration::from_secs(expected), "{connections} {rate} {left}");
        };
        check(10_000, 1000, 40, 10);
        check(100_000, 1000, 40, 32);
        check(0, 1000, 40, 0);
        check(1000, 1, 5, 0);
    }
}
