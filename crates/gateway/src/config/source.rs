//! Reads settings from the file, the environment and the flags, and lays them over each other.
//!
//! Every source becomes a list of leaves: one setting, its value and its origin. Unknown names and bad values are
//! collected as problems on the way; what is left is known to fit the structs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::access::KEYS_FILE_BYTES_MAX;
use super::list::{KEYS, LISTS, List};
use super::report::{Origin, Problem};
use super::setting::{Check, Key};
use super::{Config, SECTIONS, keys};

/// Variables of the environment that begin so belong to Tickcast.
pub(super) const ENV_PREFIX: &str = "TICKCAST__";
/// Variables for the client verbs (`TICKCAST__CLIENT__URL`); a node does not read them.
const ENV_CLIENT_PREFIX: &str = "TICKCAST__CLIENT__";
/// Names the file with the keys of machines.
const KEYS_FILE: &str = "access.keys_file";

/// Settings given on the command line: the last and strongest source. Those that a verb only suggests are the weakest.
#[derive(Clone, Default)]
pub struct Flags {
    given: Vec<Flag>,
    suggested: Vec<Flag>,
}

/// Its name, the setting, the value.
pub(super) type Flag = (&'static str, &'static str, String);

/// Shows which flags there are, and not their values: one of them may be a secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.given.iter().chain(&self.suggested).map(|(flag, ..)| flag))
            .finish()
    }
}

impl Flags {
    /// Takes over the value of a flag: `flags.set("--listen", "server.listen", "0.0.0.0:8080")`.
    ///
    /// The value is read like that of an environment variable.
    pub fn set(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.given.push((flag, key, value.into()));
    }

    /// As [`Flags::set`], for a value that every other source overrides: a verb's own default.
    pub fn suggest(&mut self, flag: &'static str, key: &'static str, value: impl Into<String>) {
        self.suggested.push((flag, key, value.into()));
    }

    /// What is suggested, and what was given.
    pub(super) fn into_parts(self) -> (Vec<Flag>, Vec<Flag>) {
        (self.suggested, self.given)
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
    /// The tables of each list, by their number.
    lists: BTreeMap<&'static str, BTreeMap<usize, Table>>,
    /// Settings whose value was refused. They are not missing: each has its own problem.
    refused: BTreeSet<String>,
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
        if let Some(leaves) = self.parse(path, &text) {
            self.add_leaves(leaves);
        }
    }

    /// The leaves of a TOML file; none if it is not one.
    fn parse(&mut self, path: &Path, text: &str) -> Option<Vec<Leaf>> {
        let place = |line| Origin::File { path: path.to_owned(), line };
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map_or(0, |span| line_of(span.start));
            self.problems.push(Problem {
                origin: place(line),
                key: String::new(),
                text: format!("not TOML: {}", error.message()),
                fix: "fix the syntax of this line".to_owned(),
            });
        }
        if !errors.is_empty() {
            return None;
        }
        let mut leaves = Vec::new();
        flatten_table(table.get_ref(), "", &mut |path, at, value| {
            leaves.push(Leaf { path, values: vec![value], origin: place(line_of(at)) });
        });
        Some(leaves)
    }

    /// Joins the keys of `access.keys_file` to those that the other sources have. To be called after them.
    pub(super) fn add_keys_file(&mut self) {
        let Some((Value::String(path), origin)) = self.settings.get(KEYS_FILE) else { return };
        if path.is_empty() {
            return;
        }
        let (path, origin) = (PathBuf::from(path), origin.clone());
        let problem = |text: String, fix: &str| Problem {
            origin,
            key: KEYS_FILE.to_owned(),
            text: format!("`{KEYS_FILE}` = \"{}\" {text}", path.display()),
            fix: fix.to_owned(),
        };
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) => {
                let fix = "name a file that this user may read, with [[access.key]] tables";
                return self.problems.push(problem(format!("cannot be read: {error}"), fix));
            }
        };
        let Some(mut leaves) = self.parse(&path, &text) else { return };
        if leaves.is_empty() {
            // Without any key everybody may publish, which an empty file hardly means.
            let fix = "add one with `tickcast key new`, or remove the setting";
            return self.problems.push(problem("has no keys".to_owned(), fix));
        }
        let known = self.lists.get(KEYS.path).and_then(|tables| tables.last_key_value());
        let first = known.map_or(0, |(number, _)| number + 1);
        leaves.retain_mut(|leaf| match List::split(&leaf.path) {
            Some((list, number, key)) if list.path == KEYS.path => {
                leaf.path = list.place(first + number, key);
                true
            }
            _ => {
                self.problems.push(Problem {
                    origin: leaf.origin.clone(),
                    key: leaf.path.clone(),
                    text: format!("`{}` does not belong into a file of keys", leaf.path),
                    fix: "it may have [[access.key]] tables and nothing else".to_owned(),
                });
                false
            }
        });
        self.join(leaves);
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

    /// Reads flags. Those that are suggested come before every other source, those that were given after it.
    pub(super) fn add_flags(&mut self, flags: Vec<Flag>) {
        for (flag, key, text) in flags {
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

    /// Lays one source over the ones before. Lists are not merged: a source that has any of it replaces it.
    fn add_leaves(&mut self, leaves: Vec<Leaf>) {
        for list in LISTS {
            if leaves.iter().any(|leaf| list.has(&leaf.path)) {
                self.lists.remove(list.path);
                self.settings.retain(|path, _| !list.has(path));
            }
        }
        self.join(leaves);
    }

    fn join(&mut self, leaves: Vec<Leaf>) {
        for leaf in leaves {
            match accept(&leaf) {
                Ok(Some(value)) => self.insert(leaf, value),
                Ok(None) => {}
                Err(problem) => {
                    self.problems.push(problem);
                    self.refused.insert(leaf.path);
                }
            }
        }
    }

    fn insert(&mut self, leaf: Leaf, value: Value) {
        if let Some((list, number, key)) = List::split(&leaf.path) {
            let table = self.lists.entry(list.path).or_default().entry(number).or_default();
            table.insert(key.to_owned(), value.clone());
        }
        self.settings.insert(leaf.path, (value, leaf.origin));
    }

    /// The configuration, where each setting came from, and the problems met on the way.
    pub(super) fn resolve(mut self) -> (Config, BTreeMap<String, Origin>, Vec<Problem>) {
        let mut root = Table::new();
        let mut origins = BTreeMap::new();
        for (path, (value, origin)) in self.settings {
            if List::split(&path).is_none() {
                insert_at(&mut root, &path, value);
            }
            origins.insert(path, origin);
        }
        for list in LISTS {
            let tables = self.lists.remove(list.path).unwrap_or_default();
            let mut usable = Vec::new();
            for (number, table) in tables {
                let is_missing = |key: &str| {
                    let is_refused = self.refused.contains(&list.place(number, key));
                    !is_refused && !table.contains_key(key)
                };
                let missing = missing_keys(list, number, is_missing, &origins);
                // The others keep their numbers, by which the checks name them.
                if list.is_usable(&table) {
                    usable.push(Value::Table(table));
                }
                self.problems.extend(missing);
            }
            insert_at(&mut root, list.path, Value::Array(usable));
        }

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
            let key = match List::split(path) {
                Some((list, _, name)) => list.key(name),
                None => find_key(path),
            };
            let is_secret = key.is_some_and(|key| key.is_secret);
            let shown = leaf.values.first().filter(|_| !is_secret);
            let shown = shown.map(|value| format!(" = {value}")).unwrap_or_default();
            Err(problem(format!("`{path}`{shown} cannot be used"), expected))
        }
    }
}

/// The check of a setting's value, if there is such a setting.
fn check_of(path: &str) -> Option<Check> {
    match List::split(path) {
        Some((list, _, key)) => list.check(key),
        None => find_key(path).map(|key| key.check),
    }
}

fn find_key(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

fn is_section(path: &str) -> bool {
    let inside =
        |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
    LISTS.iter().any(|list| list.path == path)
        || SECTIONS.iter().any(|section| section.name == path || inside(section.name))
}

/// What a table of a list must have and has not.
fn missing_keys(
    list: &List,
    number: usize,
    is_missing: impl Fn(&str) -> bool,
    origins: &BTreeMap<String, Origin>,
) -> Vec<Problem> {
    let prefix = list.place(number, "");
    let known = origins.iter().find(|(path, _)| path.starts_with(&prefix));
    let missing = list.needed.iter().filter(|(key, _)| is_missing(key));
    let problem = |(key, example): &(&str, &str)| Problem {
        origin: known.map_or(Origin::Default, |(_, origin)| origin.clone()),
        key: format!("{prefix}{key}"),
        text: format!("{} {} of `{}` has no `{key}`", list.noun, number + 1, list.path),
        fix: format!("add for example `{example}`"),
    };
    missing.map(problem).collect()
}

/// The known name that was probably meant: the same name in another section, or a name a few letters away.
fn suggestion(path: &str) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let list_keys = List::split(path).map(|(list, number, _)| {
        list.names().map(|key| list.place(number, key)).collect::<Vec<_>>()
    });
    let known = list_keys.unwrap_or_else(|| {
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
        None => "see docs/reference/configuration.md for all keys".to_owned(),
    }
}

/// Reads a file of keys.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One more than allowed, so that a larger file shows.
    File::open(path)?.take(KEYS_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KEYS_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {KEYS_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
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
