//! Latencies: recorded in an HDR histogram, shown as percentiles and as one line of blocks.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::units::{count, figure, ms, to_u64};

/// Longest latency told apart, in nanoseconds: ten minutes. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant digits kept: a value is off by 0.1 % at most, for about 300 KiB.
const DIGITS: u8 = 3;
/// Cells of the line of blocks.
const CELLS: u32 = 24;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Latencies in nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Option<Histogram<u64>>);

impl Default for Latencies {
    fn default() -> Self {
        // The bounds are constants, so this always succeeds; if not, nothing is recorded rather than a panic.
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).ok())
    }
}

impl Latencies {
    /// Records one latency in nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(nanos.max(1));
        }
    }

    /// The numbers that a report shows.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let at = |quantile: f64| {
            let value =
                self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile));
            if self.count() == 0 { 0 } else { value }
        };
        LatencySummary {
            count: self.count(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
            picture: self.picture(),
        }
    }

    fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The distribution between its smallest value and p99.9 on a logarithmic scale: `0.5 ms ▁▂▅█▇▅▃▂▁▁ 16 ms`.
    /// Empty when nothing was recorded.
    fn picture(&self) -> String {
        let Some(histogram) = self.0.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return String::new();
        };
        let low = histogram.min().max(1) as f64;
        let high = (histogram.value_at_quantile(0.999) as f64).max(low * 1.01);
        let border = |cell: u32| low * (high / low).powf(f64::from(cell) / f64::from(CELLS));
        let counts: Vec<u64> = (0..CELLS)
            .map(|cell| {
                let above = to_u64(border(cell)) + u64::from(cell > 0);
                histogram.count_between(above, to_u64(border(cell + 1)))
            })
            .collect();
        let line: String = blocks(&counts);
        format!("{} ms {line} {} ms", figure(low / 1e6), figure(high / 1e6))
    }
}

/// One block per count, the tallest for the largest; only a zero is blank.
fn blocks(counts: &[u64]) -> String {
    let largest = counts.iter().copied().max().unwrap_or(0).max(1);
    let steps = count(BLOCKS.len()) - 1;
    counts
        .iter()
        .map(|value| {
            let height = u128::from(*value) * u128::from(steps);
            BLOCKS[usize::try_from(height.div_ceil(u128::from(largest))).unwrap_or(0)]
        })
        .collect()
}

/// Percentiles of some latencies, in nanoseconds; all 0 when nothing was recorded.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LatencySummary {
    /// How many were recorded.
    pub count: u64,
    /// Half were at most this.
    pub p50_ns: u64,
    /// 90 % were at most this.
    pub p90_ns: u64,
    /// 99 % were at most this.
    pub p99_ns: u64,
    /// 99.9 % were at most this.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The distribution as a line of blocks.
    pub picture: String,
}

impl LatencySummary {
    /// `p50 1.4  p90 2.6  p99 7.9  p99.9 21  max 63 ms`.
    #[must_use]
    pub fn line(&self) -> String {
        let [p50, p90, p99, p999, max] =
            [self.p50_ns, self.p90_ns, self.p99_ns, self.p999_ns, self.max_ns]
                .map(|nanos| figure(ms(nanos)));
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_values() {
        let mut latencies = Latencies::default();
        for millisecond in 1..=1000 {
            latencies.record(millisecond * 1_000_000);
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        let near = |value: u64, expected: f64| (ms(value) - expected).abs() < expected * 0.002;
        assert!(near(summary.p50_ns, 500.0) && near(summary.p99_ns, 990.0));
        assert!(near(summary.max_ns, 1000.0));
        assert_eq!(summary.line(), "p50 500  p90 900  p99 990  p99.9 999  max 1,000 ms");
    }

    #[test]
    fn nothing_recorded_is_all_zero_and_no_picture() {
        let summary = Latencies::default().summary();
        assert_eq!((summary.count, summary.max_ns, summary.picture.as_str()), (0, 0, ""));
    }

    #[test]
    fn blocks_grow_with_the_counts_and_hide_nothing() {
        assert_eq!(blocks(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(blocks(&[0, 0]), "  ");
        assert_eq!(blocks(&[]), "");
    }

    #[test]
    fn the_picture_spans_the_recorded_range() {
        let mut latencies = Latencies::default();
        for _ in 0..10 {
            latencies.record(500_000);
            latencies.record(16_000_000);
        }
        let picture = latencies.summary().picture;
        assert!(picture.starts_with("0.50 ms ") && picture.ends_with(" 16 ms"), "{picture}");
        assert_eq!(picture.matches('█').count(), 2, "{picture}");
    }

    #[test]
    fn extreme_values_saturate() {
        let mut latencies = Latencies::default();
        latencies.record(0);
        latencies.record(u64::MAX);
        assert_eq!(latencies.summary().count, 2);
    }
}
