//! Observations in buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets of request and handshake durations, in microseconds: 0.5 ms to 10 s, with the 250 ms that
/// most targets name and the 1 s within which a publisher has its answer.
pub(super) const DURATION_BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// As [`DURATION_BUCKETS_US`] for what a broker next door does: 0.1 ms to the 1 s at which a publisher is not kept any
/// longer.
pub(super) const BROKER_BUCKETS_US: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

/// Upper bounds of the buckets of a connection's age at its end, in seconds: 1 s to 1 day.
pub(super) const AGE_BUCKETS_S: [u64; 9] = [1, 10, 60, 300, 900, 3_600, 14_400, 43_200, 86_400];

/// Upper bounds of the buckets of payload sizes, in bytes: up to the default bound of a payload and one beyond.
pub(super) const SIZE_BUCKETS: [u64; 7] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144];

/// Observations in buckets, counted in a small whole unit and shown in the base unit.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: &'static [u64],
    /// Small units in one base unit.
    unit: f64,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Buckets {
    pub(super) fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, unit, counts, sum: AtomicU64::default() }
    }

    /// Counts a value, in the small unit.
    pub(super) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Upper bounds in the base unit.
    pub(super) fn bounds(&self) -> impl Iterator<Item = f64> {
        self.bounds.iter().map(|bound| *bound as f64 / self.unit)
    }

    /// The count of each bucket, the last for more.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// The sum in the base unit.
    pub(super) fn sum(&self) -> f64 {
        self.sum.load(Relaxed) as f64 / self.unit
    }
}
