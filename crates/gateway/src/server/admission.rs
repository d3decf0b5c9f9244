//! Who is let in: how many at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Open connections of the public listener against their bound.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    max: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    pub(super) fn try_acquire(&self) -> bool {
        let is_free = self.open.fetch_add(1, Relaxed) < self.max();
        if !is_free {
            self.release();
        }
        is_free
    }

    /// Counts a connection that is known to be allowed: one that changes from HTTP to WebSocket.
    pub(crate) fn acquire(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(crate) fn release(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Open connections now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Changes the bound. Nobody who is in is sent away.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// The bound.
    pub(crate) fn max(&self) -> usize {
        self.max.load(Relaxed)
    }
}
