//! `--assert 'p99<50ms,missing=0'`: conditions on a fan-out report, for scripts and CI.

use std::fmt;
use std::str::FromStr;

use crate::fanout::FanoutReport;
use crate::units::figure;

/// What can be asserted. Latencies take a unit (`us`, `ms`, `s`), shares are in percent, the rest are plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    P50,
    P90,
    P99,
    P999,
    Max,
    LagP99,
    Missing,
    Duplicate,
    OutOfOrder,
    Received,
    Refused,
    Lost,
    Gaps,
    ServerCpu,
    GeneratorCpu,
    PerDelivery,
}

const MEASURES: [(&str, Measure); 16] = [
    ("p50", Measure::P50),
    ("p90", Measure::P90),
    ("p99", Measure::P99),
    ("p99.9", Measure::P999),
    ("max", Measure::Max),
    ("lag_p99", Measure::LagP99),
    ("missing", Measure::Missing),
    ("duplicate", Measure::Duplicate),
    ("out_of_order", Measure::OutOfOrder),
    ("received", Measure::Received),
    ("refused", Measure::Refused),
    ("lost", Measure::Lost),
    ("gaps", Measure::Gaps),
    ("server_cpu", Measure::ServerCpu),
    ("generator_cpu", Measure::GeneratorCpu),
    ("cpu_per_delivery", Measure::PerDelivery),
];

/// Longer operators first: `<=` must not be read as `<`.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Below),
    (">", Operator::Above),
    ("=", Operator::Equal),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    text: String,
    measure: Measure,
    operator: Operator,
    /// Nanoseconds for times, percent for shares.
    limit: f64,
}

/// All conditions of one `--assert`.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertions(Vec<Condition>);

/// Text that is not a condition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the condition {0:?}: write NAME OPERATOR VALUE, for example p99<50ms or missing=0; names: {names}; operators: < <= = >= >", names = names())]
pub struct AssertionError(String);

fn names() -> String {
    MEASURES.map(|(name, _)| name).join(" ")
}

impl FromStr for Assertions {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|part| condition(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, AssertionError> {
    let unreadable = || AssertionError(text.to_owned());
    let (name, operator, value) = OPERATORS
        .iter()
        .find_map(|(sign, operator)| {
            text.split_once(sign).map(|(name, value)| (name.trim(), *operator, value.trim()))
        })
        .ok_or_else(unreadable)?;
    let measure = MEASURES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, measure)| *measure)
        .ok_or_else(unreadable)?;
    let limit = limit(measure, value).ok_or_else(unreadable)?;
    Ok(Condition { text: text.to_owned(), measure, operator, limit })
}

/// Reads a value with the unit that its measure takes.
fn limit(measure: Measure, value: &str) -> Option<f64> {
    let number = |text: &str, factor: f64| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(|number| number * factor)
    };
    match measure {
        Measure::P50
        | Measure::P90
        | Measure::P99
        | Measure::P999
        | Measure::Max
        | Measure::LagP99
        | Measure::PerDelivery => [("us", 1e3), ("ms", 1e6), ("s", 1e9)]
            .iter()
            .find_map(|(unit, factor)| number(value.strip_suffix(unit)?, *factor)),
        Measure::ServerCpu | Measure::GeneratorCpu => number(value.trim_end_matches('%'), 1.0),
        _ => number(value, 1.0),
    }
}

impl Measure {
    /// The measured value; `None` if the run did not measure it.
    fn of(self, report: &FanoutReport) -> Option<f64> {
        let latency = &report.latency;
        let timed = |nanos: u64| (latency.count > 0).then_some(nanos as f64);
        let number = |number: u64| Some(number as f64);
        match self {
            Self::P50 => timed(latency.p50_ns),
            Self::P90 => timed(latency.p90_ns),
            Self::P99 => timed(latency.p99_ns),
            Self::P999 => timed(latency.p999_ns),
            Self::Max => timed(latency.max_ns),
            Self::LagP99 => number(report.published.lag.p99_ns),
            Self::Missing => number(report.deliveries.missing),
            Self::Duplicate => number(report.deliveries.duplicate),
            Self::OutOfOrder => number(report.deliveries.out_of_order),
            Self::Received => number(report.deliveries.received),
            Self::Refused => number(report.published.refused),
            Self::Lost => number(report.notices.closed),
            Self::Gaps => number(report.notices.gaps),
            Self::ServerCpu => report.server.as_ref().map(|server| server.cpu_share * 100.0),
            Self::GeneratorCpu => Some(report.generator.cpu_share * 100.0),
            Self::PerDelivery => report.server.as_ref().map(|server| server.cpu_per_delivery_ns),
        }
    }
}

impl Operator {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            // Both sides come from whole numbers wherever `=` makes sense.
            Self::Equal => (value - limit).abs() < f64::EPSILON,
            Self::AtLeast => value >= limit,
            Self::Above => value > limit,
        }
    }
}

impl Assertions {
    /// The conditions that a run does not meet, each with the value found. A value that was not measured meets nothing.
    #[must_use]
    pub fn failures(&self, report: &FanoutReport) -> Vec<String> {
        self.failures_of(|measure| measure.of(report))
    }

    fn failures_of(&self, value: impl Fn(Measure) -> Option<f64>) -> Vec<String> {
        let failure = |condition: &Condition| match value(condition.measure) {
            Some(value) if condition.operator.holds(value, condition.limit) => None,
            Some(value) => Some(format!("{condition} failed: it was {}", condition.shown(value))),
            None => Some(format!("{condition} failed: it was not measured")),
        };
        self.0.iter().filter_map(failure).collect()
    }
}

impl Condition {
    /// A value in the unit that people gave the limit in.
    fn shown(&self, value: f64) -> String {
        match self.measure {
            Measure::PerDelivery => format!("{} us", figure(value / 1e3)),
            Measure::P50
            | Measure::P90
            | Measure::P99
            | Measure::P999
            | Measure::Max
            | Measure::LagP99 => format!("{} ms", figure(value / 1e6)),
            _ => figure(value),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(text: &str, value: Option<f64>) -> Vec<String> {
        text.parse::<Assertions>().expect("conditions").failures_of(|_| value)
    }

    #[test]
    fn conditions_are_judged_in_their_own_unit() {
        assert!(failures("p99<50ms, max <= 0.2s", Some(20e6)).is_empty());
        assert_eq!(failures("p99<50ms", Some(50e6)), ["p99<50ms failed: it was 50 ms"]);
        assert_eq!(failures("cpu_per_delivery<8us", Some(9e3)).len(), 1);
        assert_eq!(failures("missing=0", Some(3.0)), ["missing=0 failed: it was 3.0"]);
        assert_eq!(failures("received>=4,server_cpu<70%", Some(4.0)).len(), 0);
    }

    #[test]
    fn what_was_not_measured_meets_nothing() {
        assert_eq!(failures("p99<50ms", None), ["p99<50ms failed: it was not measured"]);
    }

    #[test]
    fn unreadable_conditions_are_named_with_what_would_be_right() {
        for wrong in
            ["", "p99", "p98<1ms", "p99<50", "p99<ms", "missing=x", "missing=NaN", "p99<1ms,"]
        {
            let error = wrong.parse::<Assertions>().expect_err("refused").to_string();
            assert!(error.contains("p99<50ms") && error.contains("out_of_order"), "{error}");
        }
    }
}
