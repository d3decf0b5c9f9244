//! One epoll set, one monotonic clock, one precise timer: what the generator's single thread runs on.
//!
//! `epoll_wait` rounds its timeout up to whole milliseconds, which would make every planned send late; a timerfd in the
//! same set wakes within some tens of microseconds instead, without burning the core in a loop.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::error::LoadError;
use crate::units::{SECOND_NS, nanos};

const TIMER: Token = Token(usize::MAX);
/// Sockets handled between two looks at the schedule. A read costs about a microsecond, so a send is late by less than
/// a millisecond because of them.
const EVENTS_PER_TURN: usize = 256;

/// Nanoseconds since the generator started: the only clock that latencies are measured with.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        nanos(self.0.elapsed())
    }
}

/// A socket that something can be done with.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// What it was registered with.
    pub token: usize,
    /// It can be written to.
    pub writable: bool,
    /// The other side has ended, so the end is to be read as well: there is no further event for it.
    pub ended: bool,
}

/// The epoll set with its timer.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    armed_for: Option<u64>,
    /// The clock of everything that runs on this reactor.
    pub clock: Clock,
}

impl Reactor {
    /// A set with nothing in it but the timer.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new() -> Result<Self, LoadError> {
        let create = || -> io::Result<Self> {
            let poll = Poll::new()?;
            let timer = timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?;
            poll.registry().register(
                &mut SourceFd(&timer.as_raw_fd()),
                TIMER,
                Interest::READABLE,
            )?;
            let events = Events::with_capacity(EVENTS_PER_TURN);
            Ok(Self { poll, events, timer, armed_for: None, clock: Clock::start() })
        };
        create().map_err(LoadError::system("creating the event loop", "raise the open files limit"))
    }

    /// Where sockets are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits until a socket is ready or the clock reads `deadline`, and returns what is ready. Returns at once when the
    /// deadline has passed.
    ///
    /// # Errors
    /// If the epoll set fails, which no server can cause.
    pub fn wait(&mut self, deadline: u64) -> Result<impl Iterator<Item = Ready>, LoadError> {
        self.wait_for_events(deadline)
            .map_err(LoadError::system("waiting for events", "report this as a bug"))?;
        Ok(self.events.iter().filter(|event| event.token() != TIMER).map(|event| Ready {
            token: event.token().0,
            writable: event.is_writable(),
            ended: event.is_read_closed(),
        }))
    }

    /// Waits until the clock reads `deadline`. What sockets report meanwhile is forgotten, so none may be in use.
    ///
    /// # Errors
    /// As [`Reactor::wait`].
    pub fn idle(&mut self, deadline: u64) -> Result<(), LoadError> {
        while self.clock.now() < deadline {
            self.wait(deadline)?.for_each(drop);
        }
        Ok(())
    }

    fn wait_for_events(&mut self, deadline: u64) -> io::Result<()> {
        let left = deadline.saturating_sub(self.clock.now());
        let timeout = if left == 0 { Some(Duration::ZERO) } else { None };
        if left > 0 && self.armed_for != Some(deadline) {
            self.arm(left)?;
            self.armed_for = Some(deadline);
        }
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// Lets the timer expire once, `left` nanoseconds from now.
    fn arm(&mut self, left: u64) -> io::Result<()> {
        let part = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: part(left / SECOND_NS), tv_nsec: part(left % SECOND_NS) };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_ends_a_wait_and_can_be_used_again() {
        let mut reactor = Reactor::new().expect("event loop");
        for _ in 0..3 {
            let deadline = reactor.clock.now() + 3_000_000;
            while reactor.clock.now() < deadline {
                assert_eq!(reactor.wait(deadline).expect("wait").count(), 0);
            }
        }
        let deadline = reactor.clock.now() + 3_000_000;
        reactor.idle(deadline).expect("idle");
        assert!(reactor.clock.now() >= deadline);
        let passed = reactor.clock.now().saturating_sub(1);
        assert_eq!(reactor.wait(passed).expect("no wait").count(), 0);
    }
}
