//! What is wrong with a configuration, said so that it can be fixed: where, which value, what is expected, what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use toml::Value;

use super::place::Place;
use super::reference;
use super::source::{Settings, is_secret};

/// Where a value came from. The order is that of the sources, and in a file that of its lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    Default,
    /// A file.
    File {
        /// As it was named.
        #[serde(rename = "file", serialize_with = "serialize_path")]
        path: PathBuf,
        /// Where in it; none for the file as a whole.
        #[serde(flatten)]
        place: Option<Place>,
    },
    /// An environment variable.
    #[serde(rename = "environment")]
    Env {
        /// Its name.
        variable: String,
    },
    /// A flag.
    Flag {
        /// As it is written.
        flag: &'static str,
    },
}

/// As it is shown: a path need not be text.
fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Origin {
    /// Its rank among the sources: the higher one wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Env { .. } => 2,
            Self::Flag { .. } => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, place: None } => write!(f, "{}", path.display()),
            Self::File { path, place: Some(Place { line, column }) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Env { variable } => write!(f, "env {variable}"),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A node does not start with it.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

impl Level {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, or hardly meant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// The place to change.
    pub origin: Origin,
    /// The setting, empty if it is about none in particular.
    #[serde(rename = "setting")]
    pub key: String,
    /// What the setting has there. None if it has nothing, or nothing that may be shown.
    pub value: Option<Value>,
    /// What is wrong, with the value.
    #[serde(rename = "message")]
    pub text: String,
    /// What was probably meant: the name of a setting or variable, or a value.
    pub suggestion: Option<String>,
    /// What to do about it.
    pub fix: String,
    /// The page that knows more.
    pub page: String,
}

impl Problem {
    /// What keeps a node from starting. Its place is found later, see [`Problem::at`].
    pub(super) fn error(key: impl Into<String>, text: String, fix: impl Into<String>) -> Self {
        let (key, fix) = (key.into(), fix.into());
        let page = reference::page_of(&key);
        let (level, origin) = (Level::Error, Origin::Default);
        Self { level, origin, key, value: None, text, suggestion: None, fix, page }
    }

    /// What is hardly meant.
    pub(super) fn warning(key: impl Into<String>, text: String, fix: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(key, text, fix) }
    }

    /// The same problem with its place.
    pub(super) fn from(self, origin: &Origin) -> Self {
        Self { origin: origin.clone(), ..self }
    }

    /// The same problem at the place where its setting was set.
    pub(super) fn at(mut self, settings: &Settings) -> Self {
        if let Some((value, origin)) = settings.get(&self.key) {
            self.origin = origin.clone();
            self.value = Some(value.clone()).filter(|_| !is_secret(&self.key));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where nothing was set, what is said is about the node as it is.
        if !self.key.is_empty() || self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        write!(f, "{}; {}", self.text, self.fix)
    }
}

/// Everything that is wrong with a configuration: one line per error, then the number of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigErrors {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl ConfigErrors {
    /// The warnings among the problems, if none of them is an error.
    pub(super) fn sift(problems: Vec<Problem>) -> Result<Vec<Problem>, Self> {
        let is_error = |problem: &Problem| problem.level == Level::Error;
        let (errors, warnings): (Vec<_>, Vec<_>) = problems.into_iter().partition(is_error);
        if errors.is_empty() { Ok(warnings) } else { Err(Self { errors, warnings }) }
    }

    /// The errors, in the order of the sources.
    pub fn problems(&self) -> &[Problem] {
        &self.errors
    }

    /// The errors and what else was noticed, in the order of the places.
    pub fn into_all(self) -> Vec<Problem> {
        let mut all = self.errors;
        all.extend(self.warnings);
        all.sort_by(|one, other| one.origin.cmp(&other.origin));
        all
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.errors {
            writeln!(f, "{problem}")?;
        }
        match self.errors.len() {
            1 => f.write_str("1 error in the configuration"),
            count => write!(f, "{count} errors in the configuration"),
        }
    }
}

impl std::error::Error for ConfigErrors {}
