//! What repetitions of one measurement have in common: their median, with the smallest and the largest beside it.

use serde::Serialize;

/// Median, smallest and largest of some values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one value; of none, all are 0.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            at(middle)
        } else {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        };
        Self { median, least: at(0), most: at(values.len().saturating_sub(1)) }
    }

    /// `0.71 [0.69-0.87]`, each shown by `show`.
    pub fn shown(self, show: impl Fn(f64) -> String) -> String {
        format!("{} [{}-{}]", show(self.median), show(self.least), show(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_empty_lists() {
        assert_eq!(
            Spread::of(vec![4.0, 1.0, 3.0, 2.0]),
            Spread { median: 2.5, least: 1.0, most: 4.0 }
        );
        assert_eq!(Spread::of(vec![]), Spread { median: 0.0, least: 0.0, most: 0.0 });
    }

    #[test]
    fn a_spread_is_shown_with_both_ends() {
        let spread = Spread::of(vec![1.0, 2.0, 4.0]);
        assert_eq!(spread.shown(|value| format!("{value:.0}")), "2 [1-4]");
    }
}
