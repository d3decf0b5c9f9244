//! A section of a Markdown file that this program owns: the text between two marker comments.
//!
//! What people write around it stays as it is, and a file may hold several sections, each with its own name.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::LoadError;

/// Puts the text into the section of that name: in place of the old text, at the end of a file that has no such
/// section, or into a new file.
///
/// # Errors
/// If the file cannot be read or written.
pub fn write(path: &Path, name: &str, text: &str) -> Result<(), LoadError> {
    let replace = || -> io::Result<()> {
        let old = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => "# Performance\n\n".to_owned(),
            result => result?,
        };
        fs::write(path, with_section(&old, name, text))
    };
    replace().map_err(LoadError::system(
        format!("writing the tables to {}", path.display()),
        "give a writable file with --out; its folder must exist",
    ))
}

fn with_section(old: &str, name: &str, text: &str) -> String {
    let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- {name}:{edge} -->\n"));
    let section = format!("{begin}{text}{end}");
    if let Some((before, rest)) = old.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{section}{after}");
    }
    let gap = if old.is_empty() || old.ends_with("\n\n") { "" } else { "\n" };
    format!("{old}{gap}{section}")
}

/// A table with these heads.
#[must_use]
pub fn markdown(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    std::iter::once(head).chain(rows.map(|row| format!("| {} |\n", row.join(" | ")))).collect()
}

/// The same table as aligned columns, for a terminal.
#[must_use]
pub fn aligned(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let padded = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(padded).collect()
}

/// The time of day as a document states it: `2026-11-24 14:55 UTC`.
#[must_use]
pub fn now() -> String {
    utc(SystemTime::now())
}

fn utc(time: SystemTime) -> String {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, minutes) = (since_1970 / 86_400, since_1970 % 86_400 / 60);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month and day from the days since 1970, by counting years of 365.2425 days that begin in March, so that the
/// leap day is the last one (Howard Hinnant's `civil_from_days`, for dates from 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_the_old_section_is_replaced() {
        let section = |text: &str| format!("<!-- bench:begin -->\n{text}<!-- bench:end -->\n");
        let old = format!("# Title\n\ntext\n\n{}\nmore\n", section("old\n"));
        let new = with_section(&old, "bench", "new\n");
        assert_eq!(new, format!("# Title\n\ntext\n\n{}\nmore\n", section("new\n")));
        let first = with_section("# Title\n", "bench", "new\n");
        assert_eq!(first, format!("# Title\n\n{}", section("new\n")));
        assert_eq!(with_section(&section("old\n"), "bench", "new\n"), section("new\n"));
    }

    #[test]
    fn sections_do_not_touch_each_other() {
        let both = with_section(&with_section("", "bench", "one\n"), "redis", "two\n");
        let changed = with_section(&both, "bench", "three\n");
        assert!(changed.contains("<!-- bench:begin -->\nthree\n<!-- bench:end -->"), "{changed}");
        assert!(changed.contains("<!-- redis:begin -->\ntwo\n<!-- redis:end -->"), "{changed}");
    }

    #[test]
    fn a_missing_file_is_made_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("performance.md");
        write(&path, "bench", "text\n").expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text, "# Performance\n\n<!-- bench:begin -->\ntext\n<!-- bench:end -->\n");
        let error = write(&folder.path().join("no/file.md"), "bench", "")
            .expect_err("no folder")
            .to_string();
        assert!(error.contains("no/file.md") && error.contains("--out"), "{error}");
    }

    #[test]
    fn tables_have_one_line_per_row() {
        let rows =
            || [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), String::new()]];
        let table = markdown(&["name", "n"], rows().into_iter());
        assert_eq!(table, "| name | n |\n|---|---|\n| a | 1 |\n| long |  |\n");
        let columns = aligned(&["name", "n"], rows().into_iter());
        assert_eq!(columns, "name  n\na     1\nlong\n");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_795_525_552), "2026-11-24 13:05 UTC");
    }
}
