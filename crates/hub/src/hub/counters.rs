//! What the hub counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters and gauges of the hub, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Topics with a log.
    pub topics: usize,
    /// Bytes of publications in all logs.
    pub log_bytes: usize,
    /// Publications that came in.
    pub delivered: u64,
    /// Publications ignored because the log had them already.
    pub duplicates: u64,
    /// Holes found in the stream of a topic.
    pub gaps_found: u64,
    /// Holes filled from the broker's history.
    pub gaps_repaired: u64,
    /// Changes of epoch seen while a topic was live.
    pub resets: u64,
}

#[derive(Debug, Default)]
pub(super) struct AtomicCounters {
    pub(super) delivered: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) gaps_found: AtomicU64,
    pub(super) gaps_repaired: AtomicU64,
    pub(super) resets: AtomicU64,
}

impl AtomicCounters {
    /// The counters; the gauges are the hub's.
    pub(super) fn stats(&self) -> HubStats {
        HubStats {
            topics: 0,
            log_bytes: 0,
            delivered: self.delivered.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            gaps_found: self.gaps_found.load(Relaxed),
            gaps_repaired: self.gaps_repaired.load(Relaxed),
            resets: self.resets.load(Relaxed),
        }
    }
}
