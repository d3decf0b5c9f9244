//! Golden files: what is built must be what is written there, byte for byte.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Lines shown of each side of a difference.
const LINES_MAX: usize = 40;

/// A row of a golden file. Its name is how tests in other languages refer to it.
pub(crate) trait Row: Serialize {
    /// Unique in its file.
    fn name(&self) -> &str;
}

/// Compares the rows with a file of `testdata`, or writes the file if `TICKCAST_BLESS` is set.
pub(crate) fn check(file: &str, rows: &[impl Row]) {
    let names: BTreeSet<&str> = rows.iter().map(Row::name).collect();
    assert_eq!(names.len(), rows.len(), "two rows of {file} have one name");
    let path = root().join("testdata").join(file);
    let built = serde_json::to_string_pretty(rows).unwrap() + "\n";
    if std::env::var_os("TICKCAST_BLESS").is_some() {
        fs::write(&path, &built).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == built,
        "testdata/{file} differs; if that is meant, run with TICKCAST_BLESS=1\n{}",
        difference(&golden, &built)
    );
}

/// Compares a page, named by its path in the repository, with what the code says, or writes it if `TICKCAST_BLESS` is
/// set.
pub(crate) fn check_page(name: &str, built: &str) {
    let path = root().join("../..").join(name);
    if std::env::var_os("TICKCAST_BLESS").is_some() {
        fs::write(&path, built).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == built,
        "{name} differs; if that is meant, run with TICKCAST_BLESS=1\n{}",
        difference(&page, built)
    );
}

/// The same for the part of a page between `<!-- section:begin -->` and `<!-- section:end -->`.
pub(crate) fn check_section(name: &str, section: &str, built: &str) {
    let page = fs::read_to_string(root().join("../..").join(name)).unwrap();
    let (begin, end) = (format!("<!-- {section}:begin -->\n"), format!("<!-- {section}:end -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    check_page(name, &[before, &begin, built, &end, after].concat());
}

/// The folder of the crate.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The lines from the first to the last that differ, with a few around them.
fn difference(golden: &str, built: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), built.lines().collect());
    let equal = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(equal).count();
    let rest = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(equal).count();
    let mut text = format!("at line {}:\n", head + 1);
    let mut show = |mark: &str, lines: &[&str]| {
        for line in lines.iter().take(LINES_MAX) {
            text.extend([mark, line, "\n"]);
        }
        if lines.len() > LINES_MAX {
            text.extend([mark, "…\n"]);
        }
    };
    show("  ", &old[head.saturating_sub(CONTEXT)..head]);
    show("- ", &old[head..old.len() - tail]);
    show("+ ", &new[head..new.len() - tail]);
    show("  ", &old[old.len() - tail..][..tail.min(CONTEXT)]);
    text
}

#[test]
fn a_difference_is_shown_in_its_place() {
    assert_eq!(
        difference("a\nb\nc\nd\n", "a\nb\nx\ny\nd\n"),
        "at line 3:\n  a\n  b\n- c\n+ x\n+ y\n  d\n"
    );
    assert_eq!(difference("", "a\n"), "at line 1:\n+ a\n");
    assert_eq!(difference("a\na\n", "a\n"), "at line 2:\n  a\n- a\n");
}
