//! The life of a node: it serves, leaves, drains, and ends. Every step is taken once and never back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Who has asked where the node is within this time follows it, and will ask again.
const FOLLOWED_FOR: Duration = Duration::from_secs(1);

/// Where a node is in its life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It serves.
    Serving,
    /// It says that it is not ready and serves all the same, until load balancers have noticed.
    Leaving,
    /// It takes no new connections, and tells its clients to go, each at a time of its own.
    Draining,
    /// No more waiting: every client is told to go now, and its connection closed.
    Hurrying,
    /// Whatever is still open is dropped.
    Ending,
}

impl Stage {
    const ALL: [Self; 5] =
        [Self::Serving, Self::Leaving, Self::Draining, Self::Hurrying, Self::Ending];

    /// The word for people and their programs. That a drain is being hurried is no stage to them.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Draining | Self::Hurrying | Self::Ending => "draining",
        }
    }
}

/// The stage of a node, and what must know of its steps.
///
/// Reading the stage costs one relaxed load; who has to wait for a step holds a token.
#[derive(Debug)]
pub(crate) struct Life {
    stage: AtomicU8,
    /// When the node started: by the clock that only goes forward, and, for people, in milliseconds since 1970.
    begun: Instant,
    started: u64,
    /// When this part of its life began, in milliseconds after that.
    since: AtomicU64,
    asked: CancellationToken,
    draining: CancellationToken,
    hurrying: CancellationToken,
    ending: CancellationToken,
    spread: OnceLock<Duration>,
    tally: Tally,
    /// When somebody asked last, in milliseconds since the start; zero if nobody has.
    asked_at: AtomicU64,
    looked: Notify,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(Stage::Serving as u8),
            begun: Instant::now(),
            started: now(),
            since: AtomicU64::new(0),
            asked: CancellationToken::new(),
            draining: CancellationToken::new(),
            hurrying: CancellationToken::new(),
            ending: CancellationToken::new(),
            spread: OnceLock::new(),
            tally: Tally::default(),
            asked_at: AtomicU64::new(0),
            looked: Notify::new(),
        }
    }
}

impl Life {
    pub(crate) fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Relaxed))]
    }

    /// When the node started, in milliseconds since 1970.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// When the part of the node's life began that [`Stage::as_str`] names, in milliseconds since 1970.
    pub(crate) fn since(&self) -> u64 {
        self.started + self.since.load(Relaxed)
    }

    /// In milliseconds.
    fn age(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long a node that leaves is there after the time that it has for that; zero before. It is counted from the
    /// last part of its life, so the delay before the drain is not in it.
    pub(crate) fn overdue(&self, time: Duration) -> Duration {
        if self.stage() == Stage::Serving {
            return Duration::ZERO;
        }
        Duration::from_millis(self.age().saturating_sub(self.since.load(Relaxed)))
            .saturating_sub(time)
    }

    /// Goes on to a stage, and through all before it. A stage that is behind stays behind.
    pub(crate) fn advance(&self, stage: Stage) {
        let before = Stage::ALL[usize::from(self.stage.fetch_max(stage as u8, Relaxed))];
        if stage > before && stage.as_str() != before.as_str() {
            self.since.store(self.age(), Relaxed);
        }
        let steps = [
            (Stage::Draining, &self.draining),
            (Stage::Hurrying, &self.hurrying),
            (Stage::Ending, &self.ending),
        ];
        for (_, token) in steps.into_iter().filter(|(step, _)| *step <= stage) {
            token.cancel();
        }
    }

    /// Begins the drain: clients go over this much time.
    pub(crate) fn drain(&self, spread: Duration) {
        self.spread.get_or_init(|| spread);
        self.advance(Stage::Draining);
    }

    /// Over how much time the clients of a node that drains go away. Zero if nobody has said.
    pub(crate) fn spread(&self) -> Duration {
        self.spread.get().copied().unwrap_or_default()
    }

    /// Asks for the end of the node: from now on it is not ready. False if it was to end already.
    pub(crate) fn ask_to_end(&self) -> bool {
        let is_first = self.stage() < Stage::Leaving;
        self.advance(Stage::Leaving);
        self.asked.cancel();
        is_first
    }

    /// Somebody asks where the node is in its life.
    pub(crate) fn note_look(&self) {
        self.asked_at.store(self.age().max(1), Relaxed);
        self.looked.notify_waiters();
    }

    /// Whether somebody asks again and again where the node is.
    pub(crate) fn is_followed(&self) -> bool {
        match self.asked_at.load(Relaxed) {
            0 => false,
            at => u128::from(self.age().saturating_sub(at)) <= FOLLOWED_FOR.as_millis(),
        }
    }

    /// Returns when somebody asks next.
    pub(crate) fn next_look(&self) -> impl Future<Output = ()> {
        self.looked.notified()
    }

    /// Cancelled when somebody has asked for the end of the node.
    pub(crate) fn asked(&self) -> &CancellationToken {
        &self.asked
    }

    /// Cancelled when the node drains, or is beyond that.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when there is no more waiting.
    pub(crate) fn hurrying(&self) -> &CancellationToken {
        &self.hurrying
    }

    /// Cancelled when everything is to be dropped.
    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// How the WebSocket connections of a node that drained have ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By the client, after it was told to go.
    pub(crate) followed: AtomicU64,
    /// With 1012, because they did not follow.
    pub(crate) closed: AtomicU64,
    /// Dropped at the end of the time.
    pub(crate) cut: AtomicU64,
    /// In another way: the network, a client that broke the protocol, and so on.
    pub(crate) lost: AtomicU64,
}

/// A [`Tally`] as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Departed {
    pub(crate) followed: u64,
    pub(crate) closed: u64,
    pub(crate) lost: u64,
    pub(crate) cut: u64,
}

impl Tally {
    pub(crate) fn read(&self) -> Departed {
        let [followed, closed, lost, cut] =
            [&self.followed, &self.closed, &self.lost, &self.cut].map(|count| count.load(Relaxed));
        Departed { followed, closed, lost, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_can_be_late() {
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let life = Life { begun, ..Life::default() };
        assert_eq!(life.overdue(Duration::from_secs(1)), Duration::ZERO, "it serves");
        life.stage.store(Stage::Draining as u8, Relaxed);
        assert_eq!(life.overdue(Duration::from_secs(60)), Duration::ZERO);
        let late = life.overdue(Duration::from_secs(1));
        assert!((9..60).contains(&late.as_secs()), "{late:?}");
    }

    #[test]
    fn who_asks_now_follows_the_node() {
        let life = Life::default();
        assert!(!life.is_followed());
        life.note_look();
        assert!(life.is_followed());
        let begun = Instant::now().checked_sub(FOLLOWED_FOR * 3).unwrap();
        let life = Life { begun, asked_at: AtomicU64::new(1), ..Life::default() };
        assert!(!life.is_followed(), "that was long ago");
    }

    #[test]
    fn only_the_first_who_asks_begins_the_end() {
        let life = Life::default();
        assert!(life.ask_to_end());
        assert!(!life.ask_to_end());
        assert_eq!(life.stage(), Stage::Leaving);
    }

    #[test]
    fn a_life_goes_one_way() {
        let life = Life::default();
        assert_eq!(life.stage(), Stage::Serving);
        life.advance(Stage::Leaving);
        assert!(!life.draining().is_cancelled());
        life.advance(Stage::Hurrying);
        assert!(life.draining().is_cancelled() && life.hurrying().is_cancelled());
        assert!(!life.ending().is_cancelled());
        life.advance(Stage::Leaving);
        assert_eq!(life.stage(), Stage::Hurrying);
        for stage in Stage::ALL {
            assert_eq!(Stage::ALL[stage as usize], stage);
        }
    }
}
