//! Lists of tables: `[[topics.pattern]]` and `[[access.key]]`. Their leaves have paths such as `access.key[2].name`.

use toml::Table;

use super::setting::{Check, Key, Section, check_kind};
use super::{AccessKey, MATCH, TopicOptions};

/// A list of tables.
#[derive(Debug)]
pub(super) struct List {
    /// Where it is in the file.
    pub(super) path: &'static str,
    /// What one of its tables is called.
    pub(super) noun: &'static str,
    /// The keys of a table.
    pub(super) section: &'static Section,
    /// Keys that every table must have, and how each may be written.
    pub(super) needed: &'static [(&'static str, &'static str)],
}

/// The patterns of topics.
const PATTERNS: List = List {
    path: "topics.pattern",
    noun: "pattern",
    section: &TopicOptions::SECTION,
    needed: &[(MATCH, "match = \"stocks.*\"")],
};

/// The keys of machines.
pub(super) const KEYS: List = List {
    path: "access.key",
    noun: "key",
    section: &AccessKey::SECTION,
    needed: &[
        ("name", "name = \"feed\""),
        ("hash", "hash = \"sha256:…\", as `tickcast key new` prints it"),
        ("rights", "rights = [\"publish\"]"),
    ],
};

/// All of them.
pub(super) const LISTS: [&List; 2] = [&PATTERNS, &KEYS];

impl List {
    /// Splits `topics.pattern[2].mode` into its list, 2 and `mode`.
    pub(super) fn split(path: &str) -> Option<(&'static Self, usize, &str)> {
        LISTS.into_iter().find_map(|list| {
            let (number, key) = list.inside(path)?.split_once("].")?;
            Some((list, number.parse().ok()?, key))
        })
    }

    /// Splits `topics.pattern[2]`, the path of a table with nothing in it, into its list and 2.
    pub(super) fn empty_table(path: &str) -> Option<(&'static Self, usize)> {
        LISTS.into_iter().find_map(|list| {
            let number = list.inside(path)?.strip_suffix(']')?;
            Some((list, number.parse().ok()?))
        })
    }

    /// Whether the path lies in a table of the list.
    pub(super) fn has(&self, path: &str) -> bool {
        self.inside(path).is_some()
    }

    fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.path)?.strip_prefix('[')
    }

    /// The path of a key in a table.
    pub(super) fn place(&self, number: usize, key: &str) -> String {
        format!("{}[{number}].{key}", self.path)
    }

    fn has_match(&self) -> bool {
        self.path == PATTERNS.path
    }

    /// Whether a table can be used at all. What else it needs has a default that nothing is done with.
    pub(super) fn is_usable(&self, table: &Table) -> bool {
        !self.has_match() || table.contains_key(MATCH)
    }

    /// The names of the keys of a table.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.section.keys.iter().map(last_name).chain(self.has_match().then_some(MATCH))
    }

    /// The setting behind a key of a table; none for the `match` of a pattern, which is no setting.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.section.keys.iter().find(|key| last_name(key) == name)
    }

    /// The check of a key's value, if there is such a key.
    pub(super) fn check(&self, name: &str) -> Option<Check> {
        match name {
            MATCH if self.has_match() => Some(check_kind::<String>),
            _ => self.key(name).map(|key| key.check),
        }
    }
}

/// `mode` of `topics.mode`.
pub(super) fn last_name(key: &Key) -> &'static str {
    key.name.rsplit('.').next().unwrap_or_default()
}
