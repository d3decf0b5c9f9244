//! What reads the bytes of strangers, under inputs that nobody thought of.
//!
//! The checks are those of the fuzz targets (`fuzz/checks`), run in three ways: on the committed corpus, on damaged inputs of
//! it with a seed, and by libFuzzer for as long as `TICKCAST_FUZZ_SECONDS` says.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../../fuzz/checks/commands.rs"]
mod commands;
#[path = "../../../../fuzz/checks/cursors.rs"]
mod cursors;
#[path = "../../../../fuzz/checks/envelope.rs"]
mod envelope;
#[path = "../../../../fuzz/checks/frames.rs"]
mod frames;
#[path = "../../../../fuzz/checks/http.rs"]
mod http;
#[path = "../../../../fuzz/checks/json.rs"]
mod json;
#[path = "../../../../fuzz/checks/proxy.rs"]
mod proxy;

mod damage;
mod seeds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Panics if something is wrong with what is made of the input.
type Check = fn(&[u8]);

/// Each target of `fuzz/fuzz_targets` with its check.
const TARGETS: [(&str, Check); 6] = [
    ("commands", commands::check),
    ("cursors", cursors::check),
    ("envelope", envelope::check),
    ("frames", frames::check),
    ("http", http::check),
    ("proxy", proxy::check),
];

/// Seconds for each target, unless the environment says more.
const SECONDS: &str = "10";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The committed inputs of a target, by the name of their file.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(root().join("fuzz/corpus").join(target)).unwrap();
    let inputs = files.map(|file| {
        let file = file.unwrap();
        (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
    });
    inputs.collect()
}

#[test]
fn every_target_is_listed() {
    let files = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
}

/// The corpus begins with the golden texts. After a change of them, run with `TICKCAST_BLESS=1`.
#[test]
fn the_corpus_holds_the_golden_texts() {
    for (target, name, input) in seeds::all() {
        let path = root().join("fuzz/corpus").join(target).join(&name);
        if std::env::var_os("TICKCAST_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &input).unwrap();
        }
        let is_there = fs::read(&path).is_ok_and(|file| file == input);
        assert!(is_there, "{} is out of date; run with TICKCAST_BLESS=1", path.display());
    }
}

/// What was found once stays found: each failing input is put into the corpus under the name of what was wrong.
#[test]
fn the_corpus_passes() {
    for (target, check) in TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 10, "{target} has a small corpus");
        for (name, input) in inputs {
            let passed = std::panic::catch_unwind(|| check(&input));
            assert!(passed.is_ok(), "fuzz/corpus/{target}/{name}");
        }
    }
}

#[test]
fn libfuzzer_finds_nothing() {
    let seconds =
        std::env::var("TICKCAST_FUZZ_SECONDS").unwrap_or_else(|_unset| SECONDS.to_owned());
    let run = Command::new(root().join("scripts/fuzz")).arg(seconds).output().unwrap();
    let said = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(run.status.success(), "{}", said.concat());
    for (target, _) in TARGETS {
        assert!(said[0].contains(&format!("fuzz: {target}: nothing in ")), "{}", said.concat());
    }
    print!("{}", said[0]);
}
