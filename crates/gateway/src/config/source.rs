//! Reads settings from the file, the environment and the flags, and lays them over each other.
//!
//! Every source becomes a list of leaves: one setting, its value and its origin. Unknown names and bad values are
//! collected as problems on the way; what is left is known to fit the structs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::report::{Origin, Problem};
use super::setting::{Check, Key};
use super::{Config, MATCH, SECTIONS, keys};

/// Variables of the environment that begin so belong to Tickcast.
const ENV_PREFIX: &str = "TICKCAST__";
/// Variables for the client verbs (`TICKCAST__CLIENT__URL`); a node does not read them.
const ENV_CLIENT_PREFIX: &str = "TICKCAST__CLIENT__";
/// The path of a pattern is this, its number from 0, `]`.
const PATTERN_PATH: &str = "topics.pattern[";

/// Settings given on the command line: the last and strongest source.
#[derive(Clone, Default)]
pub struct Flags(Vec<(&'static str, &'static str, String)>);

/// Shows which flags there are, and not their values: one of them may be a secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(flag, ..)| flag)).finish()
    }
}

impl Flags {
    /// Takes over the value of a flag: `flags.set("--listen", "server.listen", "0.0.0.0:8080")`.
    ///
    /// The value is read like that of an environment variable.
    pub fn set(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.0.push((flag, key, value.into()));
    }
}

/// One setting as a source has it.
struct Leaf {
    path: String,
    /// What it may mean, best guess first. Only text that is not a file's leaves room for guessing.
    values: Vec<Value>,
    origin: Origin,
}

/// All sources read so far.
#[derive(Default)]
pub(super) struct Sources {
    settings: BTreeMap<String, (Value, Origin)>,
    patterns: BTreeMap<usize, Table>,
    problems: Vec<Problem>,
}

impl Sources {
    /// Reads a TOML file. If it cannot be read or parsed, that is the only problem reported for it.
    pub(super) fn add_file(&mut self, path: &Path) {
        let place = |line| Origin::File { path: path.to_owned(), line };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let (key, text) = (String::new(), format!("cannot be read: {error}"));
                let fix = "name an existing file with --config".to_owned();
                self.problems.push(Problem { origin: place(0), key, text, fix });
                return;
            }
        };
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let line = error.span().map_or(0, |span| line_of(span.start));
            self.problems.push(Problem {
                origin: place(line),
                key: String::new(),
                text: format!("not TOML: {}", error.message()),
                fix: "fix the syntax of this line".to_owned(),
            });
        }
        if errors.is_empty() {
            let mut leaves = Vec::new();
            flatten_table(table.get_ref(), "", &mut |path, at, value| {
                leaves.push(Leaf { path, values: vec![value], origin: place(line_of(at)) });
            });
            self.add_leaves(leaves);
        }
    }

    /// Reads the variables that begin with `TICKCAST__`.
    pub(super) fn add_env(&mut self, env: impl Iterator<Item = (String, String)>) {
        let ours =
            |name: &str| name.starts_with(ENV_PREFIX) && !name.starts_with(ENV_CLIENT_PREFIX);
        let mut variables: Vec<_> = env.filter(|(name, _)| ours(name)).collect();
        // Errors come in the same order every time.
        variables.sort();
        for (name, text) in variables {
            let path = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            self.add_text(&path, &text, &Origin::Env(name));
        }
    }

    /// Reads the flags.
    pub(super) fn add_flags(&mut self, flags: Flags) {
        for (flag, key, text) in flags.0 {
            self.add_text(key, &text, &Origin::Flag(flag));
        }
    }

    /// A setting given as text: TOML where it is TOML, else the text itself, else a list with commas.
    fn add_text(&mut self, path: &str, text: &str, origin: &Origin) {
        let raw = Value::String(text.to_owned());
        let list = text.split(',').map(|item| Value::String(item.trim().to_owned())).collect();
        let mut leaves = Vec::new();
        match DeValue::parse(text) {
            Ok(value) => flatten(&value, path, &mut |path, _, value| {
                let values = vec![value, raw.clone()];
                leaves.push(Leaf { path, values, origin: origin.clone() });
            }),
            Err(_) => leaves.push(Leaf {
                path: path.to_owned(),
                values: vec![raw, Value::Array(list)],
                origin: origin.clone(),
            }),
        }
        self.add_leaves(leaves);
    }

    /// Lays one source over the ones before. Patterns are not merged: a source that has any replaces them all.
    fn add_leaves(&mut self, leaves: Vec<Leaf>) {
        if leaves.iter().any(|leaf| leaf.path.starts_with(PATTERN_PATH)) {
            self.patterns.clear();
            self.settings.retain(|path, _| !path.starts_with(PATTERN_PATH));
        }
        for leaf in leaves {
            match accept(&leaf) {
                Ok(Some(value)) => self.insert(leaf, value),
                Ok(None) => {}
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    fn insert(&mut self, leaf: Leaf, value: Value) {
        if let Some((number, key)) = split_pattern(&leaf.path) {
            let pattern = self.patterns.entry(number).or_default();
            pattern.insert(key.to_owned(), value.clone());
        }
        self.settings.insert(leaf.path, (value, leaf.origin));
    }

    /// The configuration, where each setting came from, and the problems met on the way.
    pub(super) fn resolve(mut self) -> (Config, BTreeMap<String, Origin>, Vec<Problem>) {
        let mut root = Table::new();
        let mut origins = BTreeMap::new();
        for (path, (value, origin)) in self.settings {
            if split_pattern(&path).is_none() {
                insert_at(&mut root, &path, value);
            }
            origins.insert(path, origin);
        }
        for number in self.patterns.keys() {
            if !origins.contains_key(&format!("{PATTERN_PATH}{number}].{MATCH}")) {
                self.problems.push(missing_match(*number, &origins));
            }
        }
        let patterns = self.patterns.into_values().filter(|pattern| pattern.contains_key(MATCH));
        let patterns = Value::Array(patterns.map(Value::Table).collect());
        insert_at(&mut root, "topics.pattern", patterns);

        let config = root.try_into().unwrap_or_else(|error| {
            // Every leaf was checked, so only a mistake in this module leads here.
            let text = error.to_string();
            self.problems.push(Problem::new("", text, "please report this as a bug"));
            Config::default()
        });
        (config, origins, self.problems)
    }
}

/// Walks a table down to its leaves: `(path, position in the text, value)`.
fn flatten_table(table: &DeTable<'_>, path: &str, leaf: &mut dyn FnMut(String, usize, Value)) {
    for (key, value) in table {
        let separator = if path.is_empty() { "" } else { "." };
        let key_path = format!("{path}{separator}{}", key.get_ref());
        let at = key.span().start;
        flatten(value, &key_path, &mut |path, inner, value| {
            // A value directly under this key is found at the key; deeper ones know their own place.
            let place = if path == key_path { at } else { inner };
            leaf(path, place, value);
        });
    }
}

fn flatten(value: &Spanned<DeValue<'_>>, path: &str, leaf: &mut dyn FnMut(String, usize, Value)) {
    match value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => flatten_table(table, path, leaf),
        DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
            for (number, item) in array.iter().enumerate() {
                flatten(item, &format!("{path}[{number}]"), leaf);
            }
        }
        _ => {
            let deserializer = serde::de::IntoDeserializer::into_deserializer(value.clone());
            // A value that TOML can write and `Value` cannot hold is an integer beyond 64 bits.
            let plain = serde::Deserialize::deserialize(deserializer).unwrap_or_else(
                |_: toml::de::Error| Value::String("a number too large".to_owned()),
            );
            leaf(path.to_owned(), value.span().start, plain);
        }
    }
}

/// The value that a leaf sets; `None` for an empty section.
fn accept(leaf: &Leaf) -> Result<Option<Value>, Problem> {
    let problem = |text: String, fix: String| Problem {
        origin: leaf.origin.clone(),
        key: leaf.path.clone(),
        text,
        fix,
    };
    let path = &leaf.path;
    let Some(check) = check_of(path) else {
        if !is_section(path) {
            return Err(problem(format!("unknown key `{path}`"), suggestion(path)));
        }
        return match leaf.values.first() {
            Some(Value::Table(table)) if table.is_empty() => Ok(None),
            _ => Err(problem(
                format!("`{path}` is a section, not a setting"),
                format!("set `{path}.…`"),
            )),
        };
    };
    match leaf.values.iter().find(|value| check(value).is_ok()) {
        Some(value) => Ok(Some(value.clone())),
        None => {
            let expected = leaf.values.first().and_then(|value| check(value).err());
            let expected = format!("expected {}", expected.unwrap_or_default());
            let is_secret = find_key(path).is_some_and(|key| key.is_secret);
            let shown = leaf.values.first().filter(|_| !is_secret);
            let shown = shown.map(|value| format!(" = {value}")).unwrap_or_default();
            Err(problem(format!("`{path}`{shown} cannot be used"), expected))
        }
    }
}

/// The check of a setting's value, if there is such a setting.
fn check_of(path: &str) -> Option<Check> {
    match split_pattern(path) {
        Some((_, MATCH)) => Some(super::setting::check_kind::<String>),
        Some((_, key)) => find_key(&format!("topics.{key}")).map(|key| key.check),
        None => find_key(path).map(|key| key.check),
    }
}

fn find_key(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

fn is_section(path: &str) -> bool {
    let inside =
        |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
    path == "topics.pattern"
        || SECTIONS.iter().any(|section| section.name == path || inside(section.name))
}

/// Splits `topics.pattern[2].mode` into 2 and `mode`.
fn split_pattern(path: &str) -> Option<(usize, &str)> {
    let (number, key) = path.strip_prefix(PATTERN_PATH)?.split_once("].")?;
    Some((number.parse().ok()?, key))
}

fn missing_match(number: usize, origins: &BTreeMap<String, Origin>) -> Problem {
    let prefix = format!("{PATTERN_PATH}{number}].");
    let known = origins.iter().find(|(path, _)| path.starts_with(&prefix));
    Problem {
        origin: known.map_or(Origin::Default, |(_, origin)| origin.clone()),
        key: format!("{prefix}{MATCH}"),
        text: format!("pattern {} of `topics.pattern` has no `{MATCH}`", number + 1),
        fix: format!("add for example `{MATCH} = \"stocks.*\"`"),
    }
}

/// The known name that was probably meant: the same name in another section, or a name a few letters away.
fn suggestion(path: &str) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let pattern_keys = split_pattern(path).map(|(number, _)| {
        let name = |key: &str| format!("{PATTERN_PATH}{number}].{key}");
        let keys = super::TopicOptions::SECTION.keys.iter().map(move |key| name(&last(key.name)));
        keys.chain([name(MATCH)]).collect::<Vec<_>>()
    });
    let known = pattern_keys.unwrap_or_else(|| {
        let sections = SECTIONS.iter().map(|section| section.name.to_owned());
        keys().map(|key| key.name.to_owned()).chain(sections).collect()
    });
    let distance = |name: &String| match last(name) == last(path) {
        true => 0,
        false => strsim::damerau_levenshtein(name, path),
    };
    // A third of the letters may differ; beyond that the guess would be noise.
    let nearest = known.iter().min_by_key(|name| distance(name));
    match nearest.filter(|name| distance(name) <= path.len().div_ceil(3)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "see docs/config.md for all keys".to_owned(),
    }
}

/// Sets `a.b.c`, making the tables on the way.
fn insert_at(root: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            root.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let table = root.entry(first.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = table {
                insert_at(table, rest, value);
            }
        }
    }
}
