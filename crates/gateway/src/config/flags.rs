//! Settings given on the command line, and what a verb says about settings by itself.

use std::fmt;

/// Settings given on the command line: the last and strongest source but for what a verb imposes. What a verb only
/// suggests is the weakest.
#[derive(Clone, Default)]
pub struct Flags {
    pub(super) suggested: Vec<Flag>,
    pub(super) given: Vec<Flag>,
    pub(super) imposed: Vec<Flag>,
}

/// One setting as text, which is read like that of an environment variable.
#[derive(Clone)]
pub(super) struct Flag {
    pub(super) flag: &'static str,
    pub(super) key: &'static str,
    pub(super) value: String,
}

/// Shows which flags there are, and not their values: one of them may be a secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.given, &self.suggested, &self.imposed].into_iter().flatten();
        f.debug_list().entries(all.map(|flag| flag.flag)).finish()
    }
}

impl Flags {
    /// Takes over the value of a flag: `flags.set("--listen", "server.listen", "0.0.0.0:8080")`.
    pub fn set(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.given.push(Flag { flag, key, value: value.into() });
    }

    /// As [`Flags::set`], for a value that every other source overrides: a verb's own default.
    pub fn suggest(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.suggested.push(Flag { flag, key, value: value.into() });
    }

    /// As [`Flags::set`], for a value that overrides every other source because the verb is about it. Whoever has set
    /// another one is warned.
    pub fn impose(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.imposed.push(Flag { flag, key, value: value.into() });
    }
}
