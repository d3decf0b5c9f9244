//! `tickcast key`, and the program with the keys that it makes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::{WRONG, bearer};
use crate::harness::{Raw, Socket};
use crate::program::{Program, command};

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `key hash` on this input.
fn hash(input: &str) -> Output {
    let mut command = command(&["key", "hash"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// Makes a key and appends its table to a file; the key.
fn make(arguments: &[&str], file: &Path) -> String {
    let output = run(&[&["key", "new"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let table = text(&output.stdout);
    let mut keys = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    keys.write_all(table.as_bytes()).unwrap();
    let said = text(&output.stderr);
    let key = said.lines().map(str::trim).find(|line| line.starts_with("tck_")).expect("a key");
    assert!(!table.contains(key) && table.starts_with("[[access.key]]\n"), "{table}");
    let hashed = text(&hash(&format!("{key}\n")).stdout);
    assert!(table.contains(&format!("hash = \"{}\"\n", hashed.trim_end())), "{table}\n{hashed}");
    key.to_owned()
}

#[test]
fn keys_are_made_one_unlike_the_other() {
    let json = |arguments: &[&str]| -> Value {
        let output = run(&[&["key", "new", "--json"], arguments].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = json(&["feed", "--publish", "--admin", "--rate", "5", "--topics", "a.*", "b"]);
    assert_eq!(first["name"], "feed");
    assert_eq!(first["rights"], json!(["publish", "admin"]));
    assert_eq!(first["topics"], json!(["a.*", "b"]));
    assert_eq!(first["rate"], 5);
    let second = json(&["view", "--subscribe"]);
    assert_eq!((&second["topics"], &second["rate"]), (&json!(["*"]), &json!(0)));
    assert_ne!(first["key"], second["key"]);
    let hashed = hash(second["key"].as_str().unwrap());
    assert_eq!(text(&hashed.stdout).trim_end(), second["hash"].as_str().unwrap());
}

#[test]
fn mistakes_are_told_without_the_text() {
    let check = |arguments: &[&str], expected: &str| {
        let output = run(&[&["key", "new"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    };
    check(&["feed"], "without rights");
    check(&["feed", "--admin", "--rate", "5"], "give --publish too");
    check(&["a b", "--publish"], "expected 1 to 64 of the characters");
    check(&["feed", "--publish", "--topics", "a*b"], "not allowed in a topic name");
    check(&["feed", "--publish", "--rate", "1000001"], "1000001");
    for input in ["hunter2", "", "tck_hunter2", &"x".repeat(2000)] {
        let output = hash(input);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        assert!(!text(&output.stderr).contains("hunter2"), "{output:?}");
    }
}

/// What the program writes at its most talkative, while keys come in by every way and are right and wrong.
#[tokio::test]
async fn no_log_line_has_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let feed = make(&["feed", "--publish", "--topics", "a", "--rate", "1"], &file);
    let view = make(&["view", "--subscribe"], &file);
    let mut program = Program::serve(&[
        ("access.keys_file", file.to_str().unwrap()),
        ("topics.subscribe", "closed"),
        ("log.filter", "trace"),
    ]);
    for (key, status) in [(&feed, 200), (&feed, 429), (&view, 403), (&WRONG.to_owned(), 401)] {
        let mut raw = Raw::connect(program.address).await;
        assert_eq!(raw.post("/v1/topics/a", &bearer(key), "1").await.status, status);
    }
    let header = format!("Bearer {view}");
    let protocol = format!("tickcast.v1, bearer.{view}");
    for (name, value) in [("authorization", &header), ("sec-websocket-protocol", &protocol)] {
        let mut socket = Socket::open_with(program.address, "/v1/ws", &[(name, value)]).await;
        socket.subscribe(json!(["a"])).await;
        assert_eq!(socket.update().await.data, "1");
        for key in [&feed, &view, WRONG] {
            socket.ask(json!({"type": "auth", "token": key})).await;
        }
    }
    let target = format!("/v1/ws?token={view}");
    assert_eq!(Raw::connect(program.address).await.get(&target, "").await.status, 400);
    let admin = Raw::connect(program.admin).await.get("/admin/nowhere", &bearer(WRONG)).await;
    assert_eq!(admin.status, 401);
    program.terminate();
    assert!(program.wait().success());
    let log = program.log();
    assert!(log.contains("\"feed\"") && log.contains("not allowed"), "the names are there: {log}");
    for secret in [&feed, &view, WRONG] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&secret[4..])).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
}
