//! How busy the worker threads are, as the kernel counts it: nothing is measured on the threads themselves.

use std::fs;

/// Nanoseconds that a thread has spent on a processor, and ready to run but waiting for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) running: u64,
    pub(super) waiting: u64,
}

impl Times {
    /// Those of the thread of this process with this number; zero if there is none.
    pub(super) fn of(thread: i32) -> Self {
        let task = format!("/proc/self/task/{thread}");
        let precise = fs::read_to_string(format!("{task}/schedstat")).ok();
        let times = precise.as_deref().and_then(precise_times).or_else(|| {
            // A kernel without scheduler statistics has the time in clock ticks.
            coarse_times(&fs::read_to_string(format!("{task}/stat")).ok()?)
        });
        times.unwrap_or_default()
    }
}

/// Reads `schedstat`: nanoseconds running, nanoseconds waiting, time slices.
fn precise_times(text: &str) -> Option<Times> {
    let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
    Some(Times { running: numbers.next()?, waiting: numbers.next()? })
}

/// Reads `stat`: 14th and 15th are the clock ticks in user mode and in the kernel. The second, the name in brackets, may
/// hold anything.
fn coarse_times(text: &str) -> Option<Times> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut numbers =
        rest.split_ascii_whitespace().skip(11).map_while(|number| number.parse().ok());
    let (user, system): (u64, u64) = (numbers.next()?, numbers.next()?);
    let ticks = user + system;
    Some(Times {
        running: ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()),
        waiting: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_understood() {
        let times = |running, waiting| Some(Times { running, waiting });
        assert_eq!(precise_times("59158 135712 1\n"), times(59158, 135_712));
        assert_eq!(precise_times(""), None);
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 90 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(coarse_times(stat), times(42 * tick, 0));
        assert_eq!(coarse_times("7 (a) S 1"), None);
    }

    #[test]
    fn work_shows() {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let before = Times::of(thread);
        let (started, mut rounds) = (std::time::Instant::now(), 0_u64);
        while Times::of(thread).running <= before.running {
            rounds += 1;
            assert!(started.elapsed().as_secs() < 20, "{rounds} rounds took no time");
        }
        assert_eq!(Times::of(-1), Times::default());
    }
}
