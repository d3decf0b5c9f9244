//! Blocks that show lines of a file: of the source, or of `deploy/`.

use std::fs;
use std::path::PathBuf;

use crate::page::{Block, files, root};

/// What stands for lines that are left out.
const LEFT_OUT: char = '…';

/// The lines of the block stand in one file, one after the other; a line with `…` stands for any lines.
pub(crate) fn check(block: &Block) -> Result<(), String> {
    let (folders, endings): (&[&str], &[&str]) = match block.language.as_str() {
        "rust" => (&["crates", "loadtest"], &["rs"]),
        "haproxy" => (&["deploy"], &["cfg"]),
        "nginx" => (&["deploy"], &["conf"]),
        "ini" => (&["deploy"], &["service", "conf", "ini"]),
        "yaml" => (&["deploy", "docs"], &["yaml", "yml"]),
        other => return Err(format!("nobody knows where {other} would be")),
    };
    let is_meant = |path: &PathBuf| {
        path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
    };
    let candidates = folders.iter().flat_map(|folder| files(&root().join(folder))).filter(is_meant);
    let shown = lines(&block.text);
    let mut texts = candidates.filter_map(|path| fs::read_to_string(path).ok());
    if texts.any(|text| stands_in(&shown, &lines(&text))) {
        return Ok(());
    }
    Err(format!("these lines stand in no {} file of {}", block.language, folders.join(", ")))
}

/// Lines without their margins; empty ones do not count.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

fn stands_in(shown: &[&str], file: &[&str]) -> bool {
    let mut rest = file;
    for part in shown.split(|line| line.contains(LEFT_OUT)) {
        if part.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn excerpts_of_a_file() {
    let file = ["a", "b", "c", "d"];
    assert!(stands_in(&["b", "c"], &file) && stands_in(&["a", "# …", "d"], &file));
    assert!(!stands_in(&["b", "d"], &file) && !stands_in(&["d", "…", "a"], &file));
}
