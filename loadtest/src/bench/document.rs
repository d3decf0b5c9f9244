//! The tables of a budget run: for the terminal, and for a Markdown file between two marker comments.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::summary::{Outcome, Repetition};
use crate::error::LoadError;
use crate::proc::Machine;
use crate::units::figure;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
const HEADS: [&str; 9] =
    ["row", "measure", "unit", "bare loop", "gateway", "ratio", "gate", "verdict", "beside it"];

/// The summary as aligned columns.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(outcomes.iter().map(cells));
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let line = |row: &[String; HEADS.len()]| {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// One line of the summary.
fn cells(outcome: &Outcome) -> [String; HEADS.len()] {
    let scenario = &outcome.scenario;
    let times = |value: f64| format!("{value:.2}");
    [
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

/// The Markdown section, markers included.
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
    let summary = markdown(&HEADS, outcomes.iter().map(|outcome| cells(outcome).to_vec()));
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
        "{BEGIN}\n{quick}Measured {} with `{command}` on {}, {} cores, kernel {}.\n\
         Server and generator on a core each; a fresh server for every run; the bare loop and the gateway in turn.\n\
         Medians of {repetitions} repetitions [smallest-largest]; a ratio is gateway over bare loop within one repetition.\n\n\
         {summary}{notes}\nAll repetitions:\n\n{raw}{END}\n",
        utc(SystemTime::now()),
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

fn markdown(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    std::iter::once(head).chain(rows.map(|row| format!("| {} |\n", row.join(" | ")))).collect()
}

/// Puts the section into the file: in place of the old one, at the end if there is none, or as a new file.
pub(super) fn write(path: &Path, section: &str) -> Result<(), LoadError> {
    let replace = || -> io::Result<()> {
        let old = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => "# Performance\n\n".to_owned(),
            result => result?,
        };
        fs::write(path, with_section(&old, section))
    };
    replace().map_err(LoadError::system(
        format!("writing the tables to {}", path.display()),
        "give a writable file with --out; its folder must exist",
    ))
}

fn with_section(old: &str, section: &str) -> String {
    if let Some((before, rest)) = old.split_once(BEGIN)
        && let Some((_, after)) = rest.split_once(END)
    {
        return format!("{before}{section}{}", after.strip_prefix('\n').unwrap_or(after));
    }
    let gap = if old.is_empty() || old.ends_with("\n\n") { "" } else { "\n" };
    format!("{old}{gap}{section}")
}

/// `2026-11-24 14:55 UTC`.
fn utc(time: SystemTime) -> String {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, minutes) = (since_1970 / 86_400, since_1970 % 86_400 / 60);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month and day from the days since 1970, by counting years of 365.2425 days that begin in March, so that the
/// leap day is the last one (Howard Hinnant's `civil_from_days`, for dates from 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::outcome;
    use super::*;
    use std::time::Duration;

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
            BEGIN,
            END,
            "A CPU, 2 cores, kernel 6.1",
            "`tickcast-load bench`",
            "| 2 | 12.000 | 9.000 | 0.750 |",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("Quick run"));
        assert!(section(&outcomes, &machine(), "", true).contains("no evidence"));
    }

    #[test]
    fn only_the_old_section_is_replaced() {
        let new = format!("{BEGIN}\nnew\n{END}\n");
        let old = format!("# Title\n\ntext\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        assert_eq!(with_section(&old, &new), format!("# Title\n\ntext\n\n{new}\nmore\n"));
        assert_eq!(with_section("# Title\n", &new), format!("# Title\n\n{new}"));
        assert_eq!(with_section(&with_section("", &new), &new), new);
    }

    #[test]
    fn a_missing_file_is_made_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("performance.md");
        write(&path, "section\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "# Performance\n\nsection\n");
        let error =
            write(&folder.path().join("no/file.md"), "").expect_err("no folder").to_string();
        assert!(error.contains("no/file.md") && error.contains("--out"), "{error}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_795_525_552), "2026-11-24 13:05 UTC");
    }
}
