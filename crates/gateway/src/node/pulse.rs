//! Whether the workers are alive: a worker that has not begun a turn for long hangs, and its connections with it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A worker begins a turn every second, also when it has nothing to do. One that has not for this long never will.
const SILENCE_MAX: Duration = Duration::from_secs(30);

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

    /// The worker that has been silent for longest, if that is too long.
    pub(crate) fn silent(&self) -> Option<Silent> {
        let now = self.now();
        let silences = self.beats.iter().enumerate().map(|(worker, beat)| Silent {
            worker,
            seconds: now.saturating_sub(beat.load(Relaxed)),
        });
        let longest = silences.max_by_key(|silent| silent.seconds)?;
        (u64::from(longest.seconds) >= SILENCE_MAX.as_secs()).then_some(longest)
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
}
