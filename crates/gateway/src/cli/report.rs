//! Problems of a configuration for people: each with its place, what to do and where to read on.

use super::client::printable;
use crate::config::{Inputs, Level, Problem};

/// One paragraph per problem, then how many there are.
pub fn report(problems: &[Problem]) -> String {
    let mut text: String = problems.iter().map(paragraph).collect();
    let count = |level| problems.iter().filter(|problem| problem.level == level).count();
    text.push_str(&summary(count(Level::Error), count(Level::Warning)));
    text
}

fn paragraph(problem: &Problem) -> String {
    let Problem { level, origin, text, fix, page, .. } = problem;
    let lines = [&format!("{origin}: {}: {text}", level.as_str()), fix, page];
    // What stands in a file or a variable may hold anything, also what a terminal would obey.
    let [first, fix, page] = lines.map(|line| printable(line));
    format!("{first}\n  fix: {fix}\n  see: {page}\n\n")
}

fn summary(errors: usize, warnings: usize) -> String {
    let count = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    format!("{}, {} in the configuration\n", count(errors, "error"), count(warnings, "warning"))
}

/// The command that checks these inputs again. It tells no secret.
pub fn check_command(inputs: &Inputs) -> String {
    let words = ["tickcast".to_owned(), "check".to_owned()].into_iter().chain(inputs.arguments());
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@[]".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
