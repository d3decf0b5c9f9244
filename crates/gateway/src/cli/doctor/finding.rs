//! What was found, and how it is shown: to a person in aligned lines, to a program as JSON.

use serde::Serialize;

use crate::cli::client::printable;

/// How good a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not one day, or not as well as it could.
    Warn,
    /// A node does not work with it.
    Fail,
}

impl Level {
    /// As wide as each other.
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok  ",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    /// As colors of a terminal.
    fn color(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "1;31",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What, in a few stable words.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was found.
    pub(super) value: String,
    /// What to do about it; none where all is well.
    pub(super) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, value: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, value: value.into(), fix: None }
    }

    pub(super) fn new(
        level: Level,
        check: &'static str,
        value: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, level, value: value.into(), fix: Some(fix.into()) }
    }

    pub(super) fn warn(
        check: &'static str,
        value: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Level::Warn, check, value, fix)
    }

    pub(super) fn fail(
        check: &'static str,
        value: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Level::Fail, check, value, fix)
    }
}

/// Everything that was found, by sections.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<(&'static str, Vec<Finding>)>);

/// The report for programs.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    /// Nothing has failed.
    ok: bool,
    findings: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    section: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    pub(super) fn section(&mut self, title: &'static str, findings: Vec<Finding>) {
        self.0.push((title, findings));
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().flat_map(|(_, findings)| findings)
    }

    fn count(&self, level: Level) -> usize {
        self.findings().filter(|finding| finding.level == level).count()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.count(Level::Fail) > 0
    }

    /// One line per check; what to do stands below it.
    pub(super) fn text(&self, has_colors: bool) -> String {
        let paint = |code: &str, text: &str| match has_colors {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let width = self.findings().map(|finding| finding.check.len()).max().unwrap_or_default();
        // Below the values, so that the eye can run down the left side alone.
        let indent = " ".repeat("  FAIL  ".len() + width + 2);
        let mut lines = Vec::new();
        for (title, findings) in &self.0 {
            lines.push(paint("1", title));
            for Finding { check, level, value, fix } in findings {
                let word = paint(level.color(), level.word());
                lines.push(format!("  {word}  {check:width$}  {}", printable(value)));
                if let Some(fix) = fix {
                    lines.push(format!("{indent}{} {}", paint("2", "->"), printable(fix)));
                }
            }
            lines.push(String::new());
        }
        lines.push(self.summary());
        lines.join("\n") + "\n"
    }

    fn summary(&self) -> String {
        let count = |count, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {more}"),
        };
        match (self.count(Level::Fail), self.count(Level::Warn)) {
            (0, 0) => "All is well.".to_owned(),
            (0, warnings) => {
                format!("Nothing has failed; {}.", count(warnings, "warning", "warnings"))
            }
            (failures, warnings) => format!(
                "{}; {}.",
                count(failures, "check has failed", "checks have failed"),
                count(warnings, "warning", "warnings")
            ),
        }
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let entries = self.0.iter().flat_map(|(section, findings)| {
            findings.iter().map(|finding| Entry { section, finding })
        });
        let document = Document {
            version: env!("CARGO_PKG_VERSION"),
            ok: !self.has_failed(),
            findings: entries.collect(),
        };
        // Texts and truth values always serialize; the exit code says it without them too.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) if count.is_multiple_of(*size) => format!("{} {unit}", count / size),
        Some((unit, size)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} bytes"),
    }
}
