//! Publishing through a real Redis, with a small stand-in for the nodes. It needs two cores, as any such run does.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::child::{self, PROGRAM};

/// The stand-in; it starts with the Python of this machine.
fn node() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/node.py").to_owned()
}

fn run(flags: &[&str]) -> Value {
    let node = node();
    let fixed = ["publish", "--json", "--server", &node, "--topics", "50"];
    let short = ["--duration", "0.3", "--warmup", "0.1", "--connections", "8"];
    let output = child::run(&[&fixed[..], &short, flags].concat());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_benchmark_repeats_the_script_calls_of_the_nodes() {
    let report = run(&["--batch", "4", "--nodes", "3", "--reps", "2"]);
    let pairs = report["comparison"]["pairs"].as_array().expect("repetitions");
    assert_eq!(pairs.len(), 2);
    for side in pairs.iter().flat_map(|pair| [&pair["gateway"], &pair["benchmark"]]) {
        assert!(number(&side["publications"]) > 0.0 && number(&side["redis_ns"]) > 0.0, "{side}");
        assert_eq!(side["nodes_ns"].as_array().map(Vec::len), Some(3));
        // Each call publishes four messages, whoever makes it.
        assert_eq!(side["messages"].as_u64(), side["script_calls"].as_u64().map(|calls| calls * 4));
        assert_eq!(side["failed"], 0);
    }
    assert_eq!(report["comparison"]["refused"], 0);
    assert!(report["receiving"].is_null());
}

#[test]
fn histories_are_filled_first_and_one_topic_may_be_hot() {
    // The stand-in keeps no history: what is seen here is that so many publications come before the window.
    let report = run(&["--hot", "--history", "500", "--reps", "1"]);
    assert!(number(&report["comparison"]["pairs"][0]["gateway"]["publications"]) > 0.0);
}

#[test]
fn receiving_is_measured_at_the_node_of_the_subscribers() {
    let report = run(&["--nodes", "2", "--subscribers", "50", "--rate", "500", "--reps", "2"]);
    let receiving = &report["receiving"];
    assert_eq!(receiving["node"], 1);
    let receptions = receiving["receptions"].as_array().expect("repetitions");
    assert_eq!(receptions.len(), 2);
    for reception in receptions {
        // 0.3 s at 500 per second.
        assert!((number(&reception["received"]) - 150.0).abs() < 2.0, "{reception}");
        assert_eq!(reception["faults"], Value::Array(vec![]));
        assert!(number(&reception["node_ns"]) > 0.0 && reception["broker_ns"].is_null());
        assert!(number(&reception["latency"]["count"]) > 0.0);
    }
}

#[test]
fn nodes_that_cannot_be_started_are_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = script(&folder, "#!/bin/sh\necho no such flag >&2\nexit 3\n");
    let output = child::run(&["publish", "--server", &broken.display().to_string()]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("node 1") && message.contains("no such flag"), "{message}");
}

#[test]
fn nothing_is_left_behind_when_the_program_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    // It says who it is and never becomes ready.
    let pid = folder.path().join("pid");
    let node = script(&folder, &format!("#!/bin/sh\necho $$ >{}\nexec sleep 60\n", pid.display()));
    let mut program = Command::new(PROGRAM)
        .args(["publish", "--server", &node.display().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let node = until(|| fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok());
    let running = format!("/proc/{node}");
    assert!(fs::exists(&running).expect("proc"));
    // Redis was started before the node: both are children of the program.
    let children = format!("/proc/{0}/task/{0}/children", program.id());
    let children = fs::read_to_string(children).expect("its children");
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 2, "{children:?}");
    program.kill().expect("it was running");
    program.wait().expect("it ends");
    for child in children {
        until(|| (!is_running(child)).then_some(()));
    }
}

fn script(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.path().join("node");
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// A process that ended and that nobody asked about yet is a zombie.
fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').expect("a name").1.starts_with(" Z"))
}

/// Waits for something that happens soon.
fn until<T>(mut happened: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(result) = happened() {
            return result;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not happen");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
