//! Prometheus itself reads the rules and the queries. Debian's package `prometheus` has its tool.

use std::path::PathBuf;
use std::process::Command;

use super::{alerts, expressions, root};

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

/// Each expression as a rule, which is how the tool reads one.
#[test]
fn every_query_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    let mut text = "groups:\n- name: queries\n  rules:\n".to_owned();
    for (number, (_, expression)) in expressions().iter().enumerate() {
        let expression = expression.replace('\'', "''");
        text.extend([&format!("  - {{record: 'query:{number}', expr: '{expression}'}}\n")[..]]);
    }
    std::fs::write(&file, text).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
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
        let head = format!("alertname: {}\n", alert.name);
        let cases: Vec<_> = texts.split(&head).skip(1).collect();
        let is_quiet = |case: &&&str| case.trim_start().starts_with("exp_alerts: []");
        let quiet = cases.iter().filter(is_quiet).count();
        assert!(quiet > 0, "no test sees {} end", alert.name);
        assert!(cases.len() > quiet, "no test sees {} fire", alert.name);
    }
}
