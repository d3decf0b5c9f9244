//! The Autobahn suite for WebSocket servers: all its cases but those of compression, which a node declines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::{Process, until};
use crate::program::Program;
use crate::turn;

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, large messages, and the rest.
const GROUPS: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];

/// Cases in these groups.
const CASES: usize = 301;

/// Long enough for a busy machine; the suite that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Its largest message.
const MESSAGE: &str = "16MiB";

/// What the suite says of one case.
#[derive(Debug, Deserialize)]
struct Case {
    behavior: String,
    #[serde(rename = "behaviorClose")]
    close: String,
}

impl Case {
    /// Bad text in the middle of a message may be found at its end: that is what these cases are about.
    fn is_good(&self, id: &str) -> bool {
        let is_good = match self.behavior.as_str() {
            "OK" | "INFORMATIONAL" => true,
            "NON-STRICT" => id.starts_with("6.4."),
            _ => false,
        };
        is_good && matches!(self.close.as_str(), "OK" | "INFORMATIONAL")
    }
}

/// Where `scripts/autobahn` has put the suite.
fn installed() -> PathBuf {
    let pins = include_str!("requirements.txt");
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/autobahn"));
    let stamp = fs::read_to_string(folder.join("stamp")).unwrap_or_default();
    assert!(stamp == pins, "the Autobahn suite is not installed: run scripts/autobahn");
    folder
}

/// Runs the suite, and reads its report.
fn run(folder: &Path, url: &str) -> BTreeMap<String, Case> {
    let report = folder.join("report");
    fs::create_dir_all(&report).expect("a folder for the report");
    let index = report.join("index.json");
    // One that is left of an earlier run says nothing about this one; there may be none.
    drop(fs::remove_file(&index));
    let spec = json!({
        "outdir": report,
        "servers": [{"agent": "tickcast", "url": url}],
        "cases": GROUPS,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec_file = folder.join("spec.json");
    fs::write(&spec_file, spec.to_string()).expect("room for the specification");
    let mut command = Command::new(folder.join("wstest"));
    command.args(["--mode", "fuzzingclient", "--spec"]).arg(&spec_file);
    let mut suite = Process::start("wstest", &mut command);
    let mut status = None;
    until("the end of the suite", PATIENCE, || {
        status = suite.ended();
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{}", suite.log());
    let index = fs::read(&index).unwrap_or_else(|error| panic!("{error}: {}", suite.log()));
    let mut agents: BTreeMap<String, BTreeMap<String, Case>> =
        serde_json::from_slice(&index).expect("a report by agent and case");
    agents.remove("tickcast").expect("a report on this agent")
}

/// How many cases have which verdict, and which are not as they should be: a line for programs.
fn summary(cases: &BTreeMap<String, Case>) -> Value {
    let count = |verdict: &str| cases.values().filter(|case| case.behavior == verdict).count();
    let bad: BTreeMap<_, _> = cases.iter().filter(|(id, case)| !case.is_good(id)).collect();
    let bad: BTreeMap<_, _> =
        bad.into_iter().map(|(id, case)| (id, json!([case.behavior, case.close]))).collect();
    let lenient: Vec<_> =
        cases.iter().filter(|(_, case)| case.behavior == "NON-STRICT").map(|(id, _)| id).collect();
    json!({
        "cases": cases.len(),
        "ok": count("OK"),
        "informational": count("INFORMATIONAL"),
        "non_strict": lenient,
        "failed": bad,
    })
}

#[test]
fn every_case_of_the_suite_passes() {
    let _turn = turn();
    let folder = installed();
    let settings = [("limits.payload_bytes", MESSAGE), ("limits.batch_bytes", MESSAGE)];
    let program = Program::serve(&settings);
    let cases = run(&folder, &format!("ws://{}/v1/ws", program.address));
    let summary = summary(&cases);
    println!("autobahn {summary}");
    fs::write(folder.join("summary.json"), format!("{summary}\n")).expect("room for the summary");
    assert_eq!(cases.len(), CASES, "{summary}");
    assert_eq!(summary["failed"], json!({}), "the report is in target/autobahn/report");
}
