//! The tables of a budget run: for the terminal, and for a section of a Markdown file.

use super::summary::{Outcome, Repetition};
use crate::proc::Machine;
use crate::section::{self, markdown};
use crate::units::figure;

/// The name of the section in the file.
pub(super) const NAME: &str = "bench";
const HEADS: [&str; 9] =
    ["row", "measure", "unit", "bare loop", "gateway", "ratio", "gate", "verdict", "beside it"];

/// The summary as aligned columns.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    section::aligned(&HEADS, outcomes.iter().map(cells))
}

/// One line of the summary.
fn cells(outcome: &Outcome) -> Vec<String> {
    let scenario = &outcome.scenario;
    let times = |value: f64| format!("{value:.2}");
    vec![
        scenario.row.to_string(),
        scenario.name.to_owned(),
        scenario.unit.to_owned(),
        outcome.spread(|repetition| repetition.floor.value).shown(figure),
        outcome.spread(|repetition| repetition.gateway.value).shown(figure),
        outcome.spread(Repetition::ratio).shown(times) + "x",
        outcome.gate(),
        outcome.verdict().to_owned(),
        format!(
            "{} {}, {}x",
            scenario.second_unit,
            outcome.spread(|repetition| repetition.gateway.second).shown(figure),
            outcome.spread(Repetition::second_ratio).shown(times)
        ),
    ]
}

/// The text of the section.
pub(super) fn section(
    outcomes: &[Outcome],
    machine: &Machine,
    command: &str,
    quick: bool,
) -> String {
    let repetitions = outcomes.first().map_or(0, |outcome| outcome.repetitions.len());
    let quick = if quick {
        "**Quick run: few repetitions and short windows, a smoke test and no evidence.**\n\n"
    } else {
        ""
    };
    let summary = markdown(&HEADS, outcomes.iter().map(cells));
    let notes: String = outcomes
        .iter()
        .map(|outcome| &outcome.scenario)
        .filter(|scenario| !scenario.out_of_reach.is_empty())
        .map(|scenario| {
            format!("\n*{}* is out of reach: {}.\n", scenario.name, scenario.out_of_reach)
        })
        .collect();
    let raw_heads = [
        "row",
        "measure",
        "repetition",
        "bare loop",
        "gateway",
        "ratio",
        "bare loop, beside it",
        "gateway, beside it",
        "remarks",
    ];
    let raw = markdown(&raw_heads, outcomes.iter().flat_map(raw_rows));
    format!(
        "{quick}Measured {} with `{command}` on {}, {} cores, kernel {}.\n\
         Server and generator on a core each; a fresh server for every run; the bare loop and the gateway in turn.\n\
         Medians of {repetitions} repetitions [smallest-largest]; a ratio is gateway over bare loop within one repetition.\n\n\
         {summary}{notes}\nAll repetitions:\n\n{raw}",
        section::now(),
        machine.cpu,
        machine.cores,
        machine.kernel,
    )
}

/// The raw values of a scenario.
fn raw_rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let row = |(number, repetition): (usize, &Repetition)| {
        let (floor, gateway) = (&repetition.floor, &repetition.gateway);
        let remarks = [("bare loop: ", floor.remarks()), ("gateway: ", gateway.remarks())]
            .map(|(who, what)| if what.is_empty() { what } else { format!("{who}{what}") });
        let scenario = &outcome.scenario;
        vec![
            scenario.row.to_string(),
            format!("{}, {}", scenario.name, scenario.unit),
            (number + 1).to_string(),
            format!("{:.3}", floor.value),
            format!("{:.3}", gateway.value),
            format!("{:.3}", repetition.ratio()),
            format!("{} {}", figure(floor.second), scenario.second_unit),
            format!("{} {}", figure(gateway.second), scenario.second_unit),
            remarks.join(" ").trim().to_owned(),
        ]
    };
    outcome.repetitions.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::outcome;
    use super::*;

    fn machine() -> Machine {
        Machine { cpu: "A CPU".to_owned(), cores: 2, kernel: "6.1".to_owned() }
    }

    #[test]
    fn the_table_is_aligned_and_judged() {
        let text = table(&[outcome(0, &[(10.0, 8.0)]), outcome(2, &[(7.0, 1.4)])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("verdict").expect("a verdict");
        assert!(lines[1][column..].starts_with("met") && lines[2][column..].starts_with("MISSED"));
        assert!(lines[2].contains("0.20 [0.20-0.20]x"), "{text}");
    }

    #[test]
    fn the_section_holds_machine_command_medians_and_raw_values() {
        let outcomes = [outcome(0, &[(10.0, 8.0), (12.0, 9.0)])];
        let text = section(&outcomes, &machine(), "tickcast-load bench", false);
        for part in [
            "A CPU, 2 cores, kernel 6.1",
            "`tickcast-load bench`",
            "| 2 | 12.000 | 9.000 | 0.750 |",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("Quick run"));
        assert!(section(&outcomes, &machine(), "", true).contains("no evidence"));
    }
}
