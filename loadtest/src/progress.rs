//! What a person sees while a run goes on: one line on standard error, rewritten on a terminal, rare elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use crate::units::nanos;

/// Between two looks on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// Between two lines in a log.
const IN_LOG: Duration = Duration::from_secs(5);

/// The progress line.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    silent: bool,
    shown: Instant,
    label: String,
}

impl Progress {
    /// Progress on standard error.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            silent: false,
            shown: Instant::now(),
            label: String::new(),
        }
    }

    /// No progress at all, for tests and other programs.
    #[must_use]
    pub fn silent() -> Self {
        Self { silent: true, ..Self::new() }
    }

    /// Puts a label in front of every line from now on.
    pub fn label(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// How long a caller may wait before it offers the next line, in nanoseconds.
    #[must_use]
    pub fn interval_ns(&self) -> u64 {
        nanos(ON_TERMINAL)
    }

    /// Shows a line if it is time for one; otherwise the line is not even made.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let interval = if self.terminal { ON_TERMINAL } else { IN_LOG };
        if self.silent || self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        // Progress that cannot be written is no reason to stop a measurement.
        if self.terminal {
            drop(write!(stderr(), "\r\x1b[2K{}{}", self.label, line()));
        } else {
            drop(writeln!(stderr(), "{}{}", self.label, line()));
        }
    }

    /// Removes the line, so that a report begins on a clean one.
    pub fn clear(&self) {
        if self.terminal && !self.silent {
            drop(write!(stderr(), "\r\x1b[2K"));
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
