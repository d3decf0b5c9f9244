//! Why a run could not be done. Every message says what, where, which value, and how to fix it.
//!
//! A run that *was* done and disappoints (a missed gate, a failed assertion) is not an error: it is a report and the
//! exit code 1. Errors here end with the exit code 2.

use std::io;
use std::time::Duration;

/// The reason that a command gave up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A flag, or a combination of flags, that makes no sense.
    #[error("{flag} = {value}: {problem}; {fix}")]
    Usage {
        /// The flag as typed, with its dashes.
        flag: &'static str,
        /// The value that was refused.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do instead.
        fix: String,
    },
    /// The operating system refused something.
    #[error("{action}: {source}; {fix}")]
    System {
        /// What was being done, and to what.
        action: String,
        /// The system's own words.
        source: io::Error,
        /// What usually helps.
        fix: &'static str,
    },
    /// The server said something that the public wire does not allow, or closed where it should not.
    #[error("{place}: {problem}; {fix}")]
    Server {
        /// Which connection or request.
        place: String,
        /// What came instead of what was expected.
        problem: String,
        /// What usually helps.
        fix: &'static str,
    },
    /// A bounded wait ran out.
    #[error("{waited_for} did not happen within {:.1} s; {fix}", limit.as_secs_f64())]
    Timeout {
        /// What was waited for, with how far it got.
        waited_for: String,
        /// The bound.
        limit: Duration,
        /// What usually helps.
        fix: &'static str,
    },
}

impl LoadError {
    /// Wraps an operating system error, for use with `map_err`.
    pub fn system(
        action: impl Into<String>,
        fix: &'static str,
    ) -> impl FnOnce(io::Error) -> LoadError {
        let action = action.into();
        move |source| LoadError::System { action, source, fix }
    }
}

/// Refuses the value of a flag outside its bounds, both of which are allowed, and says what would be right.
///
/// # Errors
/// If the value is out of bounds, or not a number.
pub fn within<T>(flag: &'static str, value: T, least: T, most: T) -> Result<(), LoadError>
where
    T: PartialOrd + std::fmt::Display + Copy,
{
    if value >= least && value <= most {
        return Ok(());
    }
    Err(LoadError::Usage {
        flag,
        value: value.to_string(),
        problem: "out of bounds",
        fix: format!("choose a value from {least} to {most}"),
    })
}
