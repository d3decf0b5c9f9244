//! The figures in `docs/explanation/capacity.md` are those that were measured: they follow `docs/performance.md` when it
//! is written anew.

use std::fs;

use crate::page::root;

/// How far a figure may be from what is measured now. A ratio this large would change a plan.
const FACTOR_MAX: f64 = 1.35;

/// What a row of the page begins with, and the row and the column of `performance.md` with its figures.
const FIGURES: &[(&str, &str, usize)] = &[
    ("one delivery, 1,000 subscribers", "| 1 | 1,000 subscribers |", 5),
    ("one delivery, 9,000 subscribers", "| 1 | 9,000 subscribers |", 5),
    ("one update out of a burst", "| 2 | bursts of 20 topics |", 5),
    (
        "one update, 20 topics spread evenly, `flush_interval` 20 ms",
        "| 2 | 20 topics spread, flush 20 ms |",
        5,
    ),
    (
        "one update, 20 topics spread evenly, `flush_interval` 200 ms",
        "| 2 | 20 topics spread, flush 200 ms |",
        5,
    ),
    ("a connection, idle", "| 3 | idle, 2,000 to 18,000, one topic |", 5),
    ("a connection with a topic", "| 3 | idle, 2,000 to 18,000, a topic each |", 5),
    ("a handshake", "| 3 | idle, 2,000 to 18,000, one topic |", 9),
    ("taking a publication", "| single |", 9),
    ("the same in batches of 20 | 1.9 µs | through", "| 20 topics |", 9),
    ("receiving a publication", "| all |", 6),
    ("the same in batches of 20 | 1.9 µs | receiving", "| latest, 1 Hz, batches of 20 |", 6),
    ("a publication in Redis, one by one", "| single |", 6),
    ("the same in batches of 20 topics", "| 20 topics |", 6),
];

/// The first number of a text that is no part of a word; words such as `us per handshake` may come before it.
fn number(text: &str) -> Option<f64> {
    let words = text.split([' ', '[']).map(|word| word.replace(',', ""));
    words.filter_map(|word| word.parse().ok()).next()
}

fn cell(page: &str, row: &str, column: usize) -> String {
    let mut rows = page.lines().filter(|line| line.contains(row));
    let line = rows.next().unwrap_or_else(|| panic!("no row {row}"));
    let cell = line.split('|').nth(column);
    cell.unwrap_or_else(|| panic!("no column {column} in {line}")).trim().to_owned()
}

#[test]
fn the_figures_are_those_that_were_measured() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("a page");
    let (page, measured) = (read("docs/explanation/capacity.md"), read("docs/performance.md"));
    for (figure, row, column) in FIGURES {
        let said = number(&cell(&page, &format!("| {figure}"), 2)).expect("a figure");
        let cell = cell(&measured, row, *column);
        let measured = number(&cell).unwrap_or_else(|| panic!("no figure for {figure} in {cell}"));
        let factor = (said / measured).max(measured / said);
        assert!(factor <= FACTOR_MAX, "{figure}: capacity.md says {said}, measured is {measured}");
    }
}
