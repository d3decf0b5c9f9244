//! Who runs beside whom: a test that measures times has the machine to itself.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that measures times.
pub(crate) type Alone = RwLockWriteGuard<'static, ()>;

/// Held by a test that does not mind others.
pub(crate) type Beside = RwLockReadGuard<'static, ()>;

/// Waits until no other test of the cluster runs. A test that failed is no reason not to run the next.
pub(crate) fn alone() -> Alone {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test runs that measures times.
pub(crate) fn beside() -> Beside {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
