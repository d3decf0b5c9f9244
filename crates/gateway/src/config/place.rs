//! Where in a text something stands: its line and its column.

use serde::Serialize;

/// A place in a file, as editors count: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// Longest beginning of a line, in bytes, whose characters are counted; beyond it columns are bytes. All keys may stand
/// in one line, and each counts from its beginning.
const COUNTED_MAX: usize = 4096;

/// The lines of a text. There may be a file of ten thousand keys, so they are looked for once.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// The place of the byte at this position.
    pub(super) fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        let count = if before.len() > COUNTED_MAX { before.len() } else { before.chars().count() };
        Place { line, column: count + 1 }
    }
}

#[test]
fn places_are_counted_as_editors_do() {
    let lines = Lines::of("a\n\n  käse = 1\n");
    let check = |at: usize, line, column| {
        assert_eq!(lines.place(at), Place { line, column }, "{at}");
    };
    check(0, 1, 1);
    check(1, 1, 2);
    check(2, 2, 1);
    check(3, 3, 1);
    check(5, 3, 3);
    check("a\n\n  käse = ".len(), 3, 10);
    check("a\n\n  käse = 1\n".len(), 4, 1);
    check(1000, 4, 1);
    let long = "ä".repeat(COUNTED_MAX);
    let column = |at| Lines::of(&long).place(at).column;
    assert_eq!((column(COUNTED_MAX), column(COUNTED_MAX + 2)), (2049, 4099));
}
