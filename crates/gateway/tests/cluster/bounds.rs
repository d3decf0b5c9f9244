//! What is promised in seconds.

use std::time::Duration;

/// Clients are told that the broker is down.
pub(crate) const TOLD: Duration = Duration::from_secs(3);

/// A node whose publications would not arrive says that it is not ready.
pub(crate) const NOT_READY: Duration = Duration::from_secs(4);

/// A publication is answered: within a second, and a moment for a busy machine.
pub(crate) const ANSWERED: Duration = Duration::from_millis(1_300);

/// Everybody gets publications again after the broker is back. The longest pause between two attempts is 2 s.
pub(crate) const HEARD: Duration = Duration::from_secs(4);

/// Everybody gets publications again after a replica was promoted.
pub(crate) const PROMOTED: Duration = Duration::from_secs(2);

/// Everybody is up to date again after connections to Redis were cut, at the 99th percentile and on a machine of its own.
pub(crate) const REPAIRED: Duration = Duration::from_secs(1);
