//! Why Redis did not do what it was asked, and what the operator can do about it.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::ServerError;

use crate::redis::link::Refusal;

/// Of an error text of Redis; more is cut off.
const TEXT_BYTES_MAX: usize = 200;

/// The same kind of refusal is written to the log again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Kinds that are told apart in that time; others are not written.
const KINDS_MAX: usize = 16;

/// Advice for whatever the user of Redis may not do.
const RIGHTS: &str = "give the user of the URL the rights in the manual";

impl Refusal {
    /// The refusal behind an error text. Scripts of Redis 6 put the place in the script before the error, those of Redis 7
    /// after it.
    pub(crate) fn from_text(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default().trim();
        let line = line
            .split_once(", on @user_script:")
            .and_then(|(error, _)| error.rsplit_once(" script: "))
            .map_or(line, |(error, _)| error);
        // Only the place of an error in a script has this form, and the error itself follows it.
        let line = line.rsplit_once("user_script:").map_or(line, |(_, rest)| {
            let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
            rest.strip_prefix(':').unwrap_or(rest)
        });
        let line = line.trim().trim_start_matches('-');
        let end = line.floor_char_boundary(TEXT_BYTES_MAX);
        match code(line) {
            "READONLY" => Self::Moved,
            _ => Self::Refused(line[..end].to_owned()),
        }
    }

    /// What to do about it, where that is known.
    pub(super) fn advice(&self) -> &'static str {
        let text = match self {
            Self::Lost => return "see the messages about the connection",
            Self::Moved => return "the node looks for the new master",
            Self::Refused(text) => text.as_str(),
        };
        // So Redis 7 and Valkey say what is NOPERM elsewhere.
        if text.contains("user executing the script") || text.contains("ACL failure in script") {
            return RIGHTS;
        }
        match code(text) {
            "OOM" => "raise maxmemory, or shorten retention and topic_ttl",
            "NOREPLICAS" => "start the replicas, or lower min-replicas-to-write",
            "MISCONF" => "Redis cannot save to its disk: see its log",
            "LOADING" => "Redis reads its data after a start; it will answer when that is done",
            "BUSY" => "a script of somebody else blocks Redis: SCRIPT KILL ends it",
            "MASTERDOWN" => "this replica has lost its master",
            "NOPERM" | "NOAUTH" | "WRONGPASS" => RIGHTS,
            "WRONGTYPE" => "something else writes to keys under this prefix: choose another one",
            _ => "see the log of Redis",
        }
    }
}

impl From<&ServerError> for Refusal {
    fn from(error: &ServerError) -> Self {
        Self::from_text(&format!("{} {}", error.code(), error.details().unwrap_or_default()))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the connection is lost"),
            Self::Moved => f.write_str("this Redis is not the master any more"),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

/// The first word of an error: its kind.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Writes refusals to the log, but not each of thousands.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// What was written of each kind, and when.
    written: Mutex<HashMap<String, Instant>>,
}

impl Complaints {
    /// Writes it unless one of its kind was written not long ago.
    pub(super) fn note(&self, doing: &str, refusal: &Refusal) {
        let text = refusal.to_string();
        let now = Instant::now();
        let mut written = self.written.lock();
        let is_old = |at: Instant| now.saturating_duration_since(at) >= LOG_INTERVAL;
        if written.get(code(&text)).is_some_and(|at| !is_old(*at)) {
            return;
        }
        if written.len() >= KINDS_MAX {
            written.retain(|_, at| !is_old(*at));
        }
        if written.len() < KINDS_MAX {
            written.insert(code(&text).to_owned(), now);
            drop(written);
            tracing::warn!(error = text, advice = refusal.advice(), "Redis refuses to {doing}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_of_every_version() {
        let refused = |text: &str| Refusal::Refused(text.to_owned());
        let oom = refused("OOM command not allowed when used memory > 'maxmemory'.");
        let table = [
            ("READONLY You can't write against a read only replica.", Refusal::Moved),
            ("-READONLY You can't write against a read only replica.", Refusal::Moved),
            ("@user_script: 42: -READONLY You can't write", Refusal::Moved),
            ("OOM command not allowed when used memory > 'maxmemory'.", oom.clone()),
            (
                "@user_script: 7: @user_script: 7: -OOM command not allowed when used memory > 'maxmemory'.\r\n",
                oom,
            ),
            (
                "user_script:3: attempt to index a nil value",
                refused("attempt to index a nil value"),
            ),
            ("NOPERM no permission\nsecond line", refused("NOPERM no permission")),
            (
                "READONLY You can't write against a read only replica. script: 8b73, on @user_script:58.",
                Refusal::Moved,
            ),
            (
                "NOREPLICAS Not enough good replicas to write. script: 8b73, on @user_script:58.",
                refused("NOREPLICAS Not enough good replicas to write."),
            ),
            (
                "ERR ACL failure in script: User node has no permissions to run the 'publish' command",
                refused(
                    "ERR ACL failure in script: User node has no permissions to run the 'publish' command",
                ),
            ),
            ("", refused("")),
        ];
        for (text, refusal) in table {
            assert_eq!(Refusal::from_text(text), refusal, "{text}");
        }
        let long = "\u{20ac}".repeat(1000);
        assert_eq!(Refusal::from_text(&long), refused(&"\u{20ac}".repeat(66)));
    }

    #[test]
    fn complaints_are_throttled_by_kind() {
        let complaints = Complaints::default();
        let written = || {
            let mut kinds: Vec<_> = complaints.written.lock().clone().into_iter().collect();
            kinds.sort();
            kinds
        };
        complaints.note("publish", &Refusal::from_text("OOM first"));
        let first = written();
        complaints.note("publish", &Refusal::from_text("OOM second"));
        assert_eq!(written(), first);
        complaints.note("publish", &Refusal::from_text("BUSY"));
        complaints.note("publish", &Refusal::from_text("OOM third"));
        assert_eq!(written().len(), 2);
        assert_eq!(written()[1], first[0], "they do not take turns");
        (0..100).for_each(|kind| complaints.note("publish", &Refusal::Refused(kind.to_string())));
        assert_eq!(written().len(), KINDS_MAX);
    }
}
