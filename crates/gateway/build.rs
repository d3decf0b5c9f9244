//! Tells the program which revision of its source and which compiler made it.
//!
//! The revision is `TICKCAST_REVISION`, where it is set; else the one of the Git work tree, in release builds only: a
//! development build would be made anew after each commit to say so.

#![forbid(unsafe_code)]

use std::env::var;
use std::path::Path;
use std::process::Command;

const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-env-changed=TICKCAST_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
    let revision = var("TICKCAST_REVISION").ok().filter(|revision| is_plain(revision));
    let revision = revision.or_else(git_revision).unwrap_or_else(|| UNKNOWN.to_owned());
    println!("cargo::rustc-env=TICKCAST_REVISION={revision}");
    let rustc = output(&var("RUSTC").unwrap_or_default(), &["--version"]);
    let version = rustc.as_deref().and_then(|text| text.split(' ').nth(1)).unwrap_or(UNKNOWN);
    println!("cargo::rustc-env=TICKCAST_RUSTC={version}");
}

fn git_revision() -> Option<String> {
    // A new commit is a new line in this log.
    let log = Path::new("../../.git/logs/HEAD");
    if var("PROFILE").is_ok_and(|profile| profile != "release") || !log.exists() {
        return None;
    }
    println!("cargo::rerun-if-changed={}", log.display());
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Whether a text may stand in a label as it is.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
}
