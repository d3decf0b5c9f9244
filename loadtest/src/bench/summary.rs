//! From single readings to medians, ratios and verdicts.

use super::scenario::{Gate, Scenario};
use crate::fanout::FanoutReport;
use crate::idle::IdleReport;
use crate::spread::Spread;
use crate::units::{figure, ms, ratio, thousands, us};

/// What one run against one server found.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// In the scenario's unit.
    pub(super) value: f64,
    /// In the scenario's second unit.
    pub(super) second: f64,
    /// Broken promises: deliveries missing, twice or out of order, connections lost, publications refused.
    pub(super) faults: Vec<String>,
    /// Why the second value may not mean much.
    pub(super) doubts: Vec<String>,
}

impl Reading {
    pub(super) fn of_fanout(report: &FanoutReport) -> Self {
        let totals = &report.deliveries;
        let nanos = report.server.as_ref().map_or(0.0, |server| server.cpu_per_delivery_ns);
        Self {
            value: nanos / 1e3,
            second: ms(report.latency.p99_ns),
            faults: faults(&[
                ("missing", totals.missing),
                ("duplicate", totals.duplicate),
                ("out of order", totals.out_of_order),
                ("refused", report.published.refused),
                ("unanswered", report.published.unanswered),
                ("never sent", report.published.planned.saturating_sub(report.published.sent)),
                ("connections lost", report.notices.closed),
            ]),
            doubts: report.generator.doubts.clone(),
        }
    }

    pub(super) fn of_idle(report: &IdleReport) -> Self {
        let unsettled = "resident memory never settled".to_owned();
        Self {
            value: report.bytes_per_connection,
            second: us(report.cpu_per_connection_ns),
            faults: faults(&[("connections lost", report.lost)]),
            doubts: if report.settled { vec![] } else { vec![unsettled] },
        }
    }

    /// Faults and doubts as one phrase; empty if there are none.
    pub(super) fn remarks(&self) -> String {
        [self.faults.as_slice(), self.doubts.as_slice()].concat().join(", ")
    }
}

fn faults(counted: &[(&str, u64)]) -> Vec<String> {
    counted
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| format!("{name} {}", thousands(*number)))
        .collect()
}

/// The two runs that are compared with each other.
#[derive(Debug, Clone)]
pub(super) struct Repetition {
    pub(super) floor: Reading,
    pub(super) gateway: Reading,
}

impl Repetition {
    pub(super) fn ratio(&self) -> f64 {
        ratio(self.gateway.value, self.floor.value)
    }

    pub(super) fn second_ratio(&self) -> f64 {
        ratio(self.gateway.second, self.floor.second)
    }
}

/// All repetitions of a scenario, of which there is at least one.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) scenario: Scenario,
    pub(super) repetitions: Vec<Repetition>,
}

impl Outcome {
    /// The spread of a value over the repetitions.
    pub(super) fn spread(&self, value: impl Fn(&Repetition) -> f64) -> Spread {
        Spread::of(self.repetitions.iter().map(value).collect())
    }

    /// The median that the gate is about.
    fn judged(&self) -> (f64, f64) {
        match self.scenario.gate {
            Gate::Ratio(most) => (self.spread(Repetition::ratio).median, most),
            Gate::Absolute(most) => {
                (self.spread(|repetition| repetition.gateway.value).median, most)
            }
        }
    }

    /// Whether the gate holds. A median that is not above 0 was not measured and holds nothing, except for memory,
    /// where a slope may well be nothing.
    pub(super) fn holds(&self) -> bool {
        let (median, most) = self.judged();
        let measured = median > 0.0 || matches!(self.scenario.gate, Gate::Absolute(_));
        measured && median <= most
    }

    pub(super) fn verdict(&self) -> &'static str {
        match (self.holds(), self.scenario.out_of_reach) {
            (true, _) => "met",
            (false, "") => "MISSED",
            (false, _) => "out of reach",
        }
    }

    pub(super) fn gate(&self) -> String {
        match self.scenario.gate {
            Gate::Ratio(most) => format!("{most:.2}x"),
            Gate::Absolute(most) => figure(most),
        }
    }

    /// The missed gate and the gateway's faults.
    pub(super) fn failures(&self) -> Vec<String> {
        let Scenario { row, name, unit, .. } = &self.scenario;
        let mut failures = Vec::new();
        if !self.holds() && self.scenario.out_of_reach.is_empty() {
            let (median, _) = self.judged();
            let shown = if let Gate::Ratio(_) = self.scenario.gate {
                format!("{median:.2}x the bare loop")
            } else {
                format!("{} {unit}", figure(median))
            };
            failures.push(format!("row {row}, {name}: {shown}, the gate is {}", self.gate()));
        }
        for (number, repetition) in self.repetitions.iter().enumerate() {
            if !repetition.gateway.faults.is_empty() {
                let faults = repetition.gateway.faults.join(", ");
                failures.push(format!("row {row}, {name}, repetition {}: {faults}", number + 1));
            }
        }
        failures
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::scenario;
    use super::*;

    /// An outcome of the scenario at that place, with one repetition per pair of floor and gateway.
    pub(in super::super) fn outcome(place: usize, pairs: &[(f64, f64)]) -> Outcome {
        let reading = |value| Reading { value, second: value, ..Reading::default() };
        let repetition = |(floor, gateway): &(f64, f64)| Repetition {
            floor: reading(*floor),
            gateway: reading(*gateway),
        };
        Outcome {
            scenario: scenario::all(false).swap_remove(place),
            repetitions: pairs.iter().map(repetition).collect(),
        }
    }

    #[test]
    fn the_median_of_ratios_is_not_the_ratio_of_medians() {
        let outcome = outcome(0, &[(10.0, 5.0), (1.0, 1.1), (100.0, 120.0)]);
        let spread = outcome.spread(Repetition::ratio);
        assert_eq!(spread.shown(|value| format!("{value:.2}")), "1.10 [0.50-1.20]");
        assert!(outcome.holds() && outcome.failures().is_empty());
    }

    #[test]
    fn a_gate_out_of_reach_is_shown_and_fails_nothing() {
        let spread = outcome(3, &[(1.0, 0.5)]);
        assert_eq!(spread.verdict(), "out of reach");
        assert!(spread.failures().is_empty());
    }

    #[test]
    fn missed_gates_and_faults_are_failures() {
        let slow = outcome(0, &[(1.0, 1.3)]);
        assert_eq!(
            slow.failures(),
            ["row 1, 1,000 subscribers: 1.30x the bare loop, the gate is 1.15x"]
        );
        let mut lossy = outcome(0, &[(1.0, 1.0)]);
        lossy.repetitions[0].gateway.faults = faults(&[("missing", 3), ("duplicate", 0)]);
        assert_eq!(lossy.failures(), ["row 1, 1,000 subscribers, repetition 1: missing 3"]);
    }

    #[test]
    fn memory_is_gated_by_itself_and_may_be_nothing() {
        assert!(outcome(5, &[(50.0, -20.0)]).holds());
        assert!(!outcome(5, &[(5000.0, 1025.0)]).holds());
        assert!(!outcome(0, &[(0.0, 0.0)]).holds());
    }
}
