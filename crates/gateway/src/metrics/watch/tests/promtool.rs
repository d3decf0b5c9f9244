//! Prometheus itself reads the rules and the queries. Debian's package `prometheus` has its tool.

use std::path::PathBuf;
use std::process::Command;

use super::{alerts, expressions, linter, root};

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .output()
        .expect("this test needs promtool: Debian has it in the package prometheus");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said.into_owned()
}

/// The files of a folder that end in `.yaml`.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

#[test]
fn the_rules_are_valid() {
    let files = files("deploy/prometheus/rules");
    let mut arguments = vec!["check", "rules", "--lint=all", "--lint-fatal"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    promtool(&arguments);
}

#[test]
pub(super) fn every_query_is_valid() {
    expect_valid(expressions().into_iter().map(|(_, expression)| expression));
}

#[test]
pub(super) fn every_variable_is_valid() {
    expect_valid(linter::selectors_of_variables());
}

/// Each expression as a rule, which is how the tool reads one.
fn expect_valid(expressions: impl IntoIterator<Item = String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    let mut text = "groups:\n- name: queries\n  rules:\n".to_owned();
    for (number, expression) in expressions.into_iter().enumerate() {
        let expression = expression.replace('\'', "''");
        text.extend([&format!("  - {{record: 'query:{number}', expr: '{expression}'}}\n")[..]]);
    }
    std::fs::write(&file, text).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

/// What a test of the tool expects of an alert at a time.
struct Case<'a> {
    seconds: u32,
    alert: &'a str,
    fires: bool,
}

/// The cases of one test, which are written in the order of [`Case`].
fn cases(test: &str) -> impl Iterator<Item = Case<'_>> {
    test.split("- eval_time: ").skip(1).filter_map(|case| {
        let mut lines = case.lines().map(str::trim);
        let seconds = seconds(lines.next().unwrap());
        let alert = lines.next()?.strip_prefix("alertname: ")?;
        let expected = lines.next()?.strip_prefix("exp_alerts:").unwrap();
        Some(Case { seconds, alert, fires: expected.trim() != "[]" })
    })
}

/// A time of the tool, such as `1h30m`.
fn seconds(text: &str) -> u32 {
    let parts = text.split_inclusive(|c: char| c.is_ascii_alphabetic());
    let parts = parts.map(|part| {
        let (number, unit) = part.split_at(part.len() - 1);
        let factor = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => panic!("{text} is not a time"),
        };
        number.parse::<u32>().unwrap() * factor
    });
    parts.sum()
}

/// Whether a test sees an alert fire, and at a later time be quiet.
fn sees_both(test: &str, alert: &str) -> bool {
    let times = |fires: bool| {
        let cases = cases(test).filter(move |case| case.alert == alert && case.fires == fires);
        cases.map(|case| case.seconds)
    };
    times(true).min().is_some_and(|first| times(false).any(|quiet| quiet > first))
}

#[test]
fn an_alert_that_was_quiet_before_has_not_ended() {
    let case = |time: &str, expected: &str| {
        format!("      - eval_time: {time}\n        alertname: A\n        exp_alerts:{expected}\n")
    };
    let (quiet, fires) = (" []", "\n          - exp_labels: {}");
    assert!(sees_both(&(case("9m", fires) + &case("1h30s", quiet)), "A"));
    assert!(!sees_both(&(case("9m", quiet) + &case("10m", fires)), "A"));
    assert!(!sees_both(&(case("10m", fires) + &case("9m", quiet)), "A"), "in order of time");
    assert!(!sees_both(&(case("9m", fires) + &case("10m", quiet)), "B"));
}

/// The tests beside the rules: each alert fires with its words, and ends.
#[test]
fn every_alert_fires_and_ends() {
    let files = files("deploy/prometheus/tests");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    promtool(&arguments);

    let texts: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for alert in alerts() {
        let mut tests = texts.split("\n  - name: ");
        assert!(tests.any(|test| sees_both(test, alert.name)), "no test sees {} end", alert.name);
    }
}
