//! The end of a node: first it is not ready, then it takes nobody in and sends its clients away, then it is gone.
//!
//! What the steps mean is in [`life`](crate::node::life); each part of the node follows them by itself. Here is the
//! clock: when each step is taken, so that the whole fits into `drain.timeout` whatever the clients do.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::config::Drain;
use crate::node::life::{Departed, Stage};
use crate::systemd;

/// So long before the end of the time every client that is still there is closed, whatever it was promised.
const LAST_CALL: Duration = Duration::from_secs(1);

/// So long before the end of the time everything is dropped: what takes up to then takes no longer.
const ENDING_TIME: Duration = Duration::from_millis(200);

/// Of the time, so much is kept for the last client to be told, to go, to be closed if it does not, and to hang up.
const FAREWELL_RESERVE: Duration = Duration::from_secs(8);

/// Who follows the drain by way of the admin listener has so long to ask once more, and hears how it ended. `tickcast
/// drain --wait` asks four times a second.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Time to write the answer to that.
const LAST_ANSWER: Duration = Duration::from_millis(50);

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
        tracing::info!(connections, spread = %Seconds(spread), "draining");
        self.node.life.drain(spread);
        let failed = self.join(&clock).await;
        self.sum_up(connections, &clock, failed.is_some());
        self.answer_once_more(&clock).await;
        self.tasks.shutdown().await;
        self.ended.cancel();
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
        let Departed { followed, closed, lost, cut } = self.node.life.tally().read();
        // What counts as open still belongs to a worker that has not ended.
        let cut = cut + self.node.connections.open() as u64;
        let elapsed = Seconds(clock.begun.elapsed());
        tracing::info!(connections, followed, closed, lost, cut, %elapsed, in_time, "stopped");
    }

    /// Leaves the admin listener open until whoever follows the drain has asked how it ended. Nobody is waited for who
    /// does not, nor beyond the time that the drain has.
    async fn answer_once_more(&self, clock: &Clock) {
        let life = &self.node.life;
        let bound = LAST_LOOK.min(clock.left());
        if life.is_followed() && timeout(bound, life.next_look()).await.is_ok() {
            sleep(LAST_ANSWER.min(clock.left())).await;
        }
    }
}

/// A time as people read it: in seconds, to a tenth.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}s", self.0.as_secs_f64())
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

    #[test]
    fn times_are_for_people() {
        let check = |nanoseconds, expected: &str| {
            assert_eq!(Seconds(Duration::from_nanos(nanoseconds)).to_string(), expected);
        };
        check(0, "0.0s");
        check(9_004_856_904, "9.0s");
        check(44_960_000_000, "45.0s");
    }
}
