//! Whether the workers are alive: a worker that has not begun a turn for long hangs, and its connections with it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A worker begins a turn every second, also when it has nothing to do. One that has not for this long never will.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One that has not for this long gets nobody new. Several times the longest turn on a machine that others keep busy, and
/// short enough that those who come in the meantime, and wait in vain, are few.
const READY_SILENCE_MAX: Duration = Duration::from_secs(5);

/// A worker that has ended well.
const AT_REST: u32 = u32::MAX;

/// When each worker has begun a turn last. Each writes its own number, once a second.
#[derive(Debug)]
pub(crate) struct Pulse {
    started: Instant,
    /// Seconds since the start.
    beats: Box<[AtomicU32]>,
}

/// A worker that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(crate) worker: usize,
    pub(crate) seconds: u32,
}

impl Silent {
    fn is_as_long_as(self, bound: Duration) -> bool {
        u64::from(self.seconds) >= bound.as_secs()
    }
}

impl Pulse {
    pub(crate) fn new(workers: usize, started: Instant) -> Self {
        Self { started, beats: (0..workers).map(|_| AtomicU32::new(0)).collect() }
    }

    /// The worker has begun a turn.
    pub(crate) fn beat(&self, worker: usize) {
        self.set(worker, self.now());
    }

    /// The worker has ended and is not missed.
    pub(crate) fn rest(&self, worker: usize) {
        self.set(worker, AT_REST);
    }

    /// The worker that has been silent for longest, if that is so long that it will not come back.
    pub(crate) fn silent(&self) -> Option<Silent> {
        self.longest().filter(|longest| longest.is_as_long_as(SILENCE_MAX))
    }

    /// Whether a worker has been silent for so long that nobody new may be sent to it.
    pub(crate) fn hangs(&self) -> bool {
        self.longest().is_some_and(|longest| longest.is_as_long_as(READY_SILENCE_MAX))
    }

    /// Whether this worker has been silent for so long.
    pub(crate) fn is_silent(&self, worker: usize) -> bool {
        let beat = self.beats.get(worker).map_or(AT_REST, |beat| beat.load(Relaxed));
        u64::from(self.now().saturating_sub(beat)) >= READY_SILENCE_MAX.as_secs()
    }

    /// How long the worker has been silent that has been so for longest, in seconds.
    pub(crate) fn silence(&self) -> u32 {
        self.longest().map_or(0, |longest| longest.seconds)
    }

    /// Workers of the node.
    pub(crate) fn workers(&self) -> usize {
        self.beats.len()
    }

    fn longest(&self) -> Option<Silent> {
        let now = self.now();
        let silences = self.beats.iter().enumerate().map(|(worker, beat)| Silent {
            worker,
            seconds: now.saturating_sub(beat.load(Relaxed)),
        });
        silences.max_by_key(|silent| silent.seconds)
    }

    fn set(&self, worker: usize, second: u32) {
        if let Some(beat) = self.beats.get(worker) {
            beat.store(second, Relaxed);
        }
    }

    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(AT_REST - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_too_long_is_found() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let pulse = Pulse::new(3, ago(29));
        assert_eq!(pulse.silent(), None);
        let pulse = Pulse::new(3, ago(40));
        pulse.beat(0);
        pulse.rest(2);
        assert_eq!(pulse.silent(), Some(Silent { worker: 1, seconds: 40 }));
        pulse.beat(1);
        assert_eq!(pulse.silent(), None);
        assert_eq!(Pulse::new(0, ago(40)).silent(), None);
    }

    #[test]
    fn who_is_busy_for_a_moment_does_not_hang() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        for (seconds, hangs) in [(0, false), (4, false), (5, true), (40, true)] {
            let pulse = Pulse::new(2, ago(seconds));
            pulse.beat(0);
            assert_eq!((u64::from(pulse.silence()), pulse.hangs()), (seconds, hangs));
            assert_eq!((pulse.is_silent(0), pulse.is_silent(1)), (false, hangs));
            pulse.rest(1);
            assert_eq!((pulse.silence(), pulse.hangs()), (0, false), "who has ended is not missed");
            assert!(!pulse.is_silent(1));
        }
        assert_eq!((Pulse::new(0, ago(40)).silence(), Pulse::new(0, ago(40)).hangs()), (0, false));
    }
}
