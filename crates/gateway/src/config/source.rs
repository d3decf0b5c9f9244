//! Reads settings from the file, the environment and the flags, and lays them over each other.
//!
//! Every source becomes a list of leaves: one setting, its value and its origin. Unknown names and bad values are
//! collected as problems on the way; what is left is known to fit the structs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::file::{self, SETTINGS_BYTES_MAX};
use super::flags::Flag;
use super::list::{KEYS, LISTS, List, last_name};
use super::place::Lines;
use super::report::{Origin, Problem};
use super::setting::{Check, Key, Section};
use super::{Config, SECTIONS, environment, keys, suggest};

/// What the sources set, by the path of the setting, and where.
pub(super) type Settings = BTreeMap<String, (Value, Origin)>;

/// Stands in the text of a variable for bytes that are none.
const NOT_TEXT: char = char::REPLACEMENT_CHARACTER;
/// Names the file with the keys of machines.
const KEYS_FILE: &str = "access.keys_file";

/// One setting as a source has it.
struct Leaf {
    path: String,
    /// What it may mean, best guess first. Only text that is not a file's leaves room for guessing.
    values: Vec<Value>,
    /// Where the value stands.
    origin: Origin,
    /// Where its name stands.
    name: Origin,
}

/// All sources read so far.
#[derive(Default)]
pub(super) struct Sources {
    settings: Settings,
    /// The tables of each list, by their number.
    lists: BTreeMap<&'static str, BTreeMap<usize, Table>>,
    /// Settings whose value was refused. They are not missing: each has its own problem.
    refused: BTreeSet<String>,
    /// Where tables of lists stand that have nothing in them, or nothing good.
    empty: BTreeMap<(&'static str, usize), Origin>,
    problems: Vec<Problem>,
}

impl Sources {
    /// Reads a TOML file. If it cannot be read or parsed, that is the only problem reported for it.
    pub(super) fn add_file(&mut self, path: &Path) {
        match file::read(path, SETTINGS_BYTES_MAX) {
            Ok(text) => {
                if let Some(leaves) = self.parse(path, &text) {
                    self.add_leaves(leaves);
                }
            }
            Err(error) => {
                let fix = "name an existing file with --config";
                let problem = Problem::error("", format!("cannot be read: {error}"), fix);
                let origin = Origin::File { path: path.to_owned(), place: None };
                self.problems.push(problem.from(&origin));
            }
        }
    }

    /// The leaves of a TOML file; none if it is not one.
    fn parse(&mut self, path: &Path, text: &str) -> Option<Vec<Leaf>> {
        let lines = Lines::of(text);
        let origin = |at: Option<usize>| Origin::File {
            path: path.to_owned(),
            place: at.map(|at| lines.place(at)),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let text = format!("not TOML: {}", error.message());
            let problem = Problem::error("", text, "fix the syntax of this line");
            self.problems.push(problem.from(&origin(error.span().map(|span| span.start))));
        }
        if !errors.is_empty() {
            return None;
        }
        let mut leaves = Vec::new();
        flatten_table(table.get_ref(), "", &mut |path, places, value| {
            let [name, at] = places.map(|at| origin(Some(at)));
            leaves.push(Leaf { path, values: vec![value], origin: at, name });
        });
        Some(leaves)
    }

    /// Joins the keys of `access.keys_file` to those that the other sources have. To be called after them.
    pub(super) fn add_keys_file(&mut self) {
        let Some((value, origin)) = self.settings.get(KEYS_FILE).cloned() else { return };
        let Some(path) = value.as_str().filter(|path| !path.is_empty()) else { return };
        let problem = |text: String, fix: &str| {
            let problem = Problem::error(KEYS_FILE, format!("`{KEYS_FILE}` = {value} {text}"), fix);
            Problem { value: Some(value.clone()), ..problem.from(&origin) }
        };
        let path = Path::new(path);
        let text = match file::read(path, SETTINGS_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                let fix = "name a file that this user may read, with [[access.key]] tables";
                let problem = problem(format!("cannot be read: {error}"), fix);
                return self.problems.push(problem);
            }
        };
        let Some(mut leaves) = self.parse(path, &text) else { return };
        if leaves.is_empty() {
            // Without any key everybody may publish, which an empty file hardly means.
            let fix = "add one with `tickcast key new`, or remove the setting";
            let problem = problem("has no keys".to_owned(), fix);
            return self.problems.push(problem);
        }
        let known = self.lists.get(KEYS.path).and_then(|tables| tables.last_key_value());
        let first = known.map_or(0, |(number, _)| number + 1);
        let moved = |path: &str| {
            let (list, number, key) = List::split(path)
                .or_else(|| List::empty_table(path).map(|(list, number)| (list, number, "")))?;
            let place = list.place(first + number, key);
            (list.path == KEYS.path).then(|| place.trim_end_matches('.').to_owned())
        };
        leaves.retain_mut(|leaf| match moved(&leaf.path) {
            Some(path) => {
                leaf.path = path;
                true
            }
            None => {
                let text = format!("`{}` does not belong into a file of keys", leaf.path);
                let fix = "it may have [[access.key]] tables and nothing else";
                self.problems.push(Problem::error(&leaf.path, text, fix).from(&leaf.name));
                false
            }
        });
        self.join(leaves);
    }

    /// Reads the variables that begin with `TICKCAST__`, and warns of those that were probably meant to.
    pub(super) fn add_env(&mut self, env: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<_> = env.filter(|(name, _)| environment::is_ours(name)).collect();
        // Errors come in the same order every time.
        variables.sort();
        for (name, text) in variables {
            let origin = Origin::Env { variable: name.clone() };
            match environment::setting(&name) {
                Some(path) if text.contains(NOT_TEXT) => {
                    let text = format!("`{path}` is set to bytes that are not text");
                    let problem = Problem::error(&path, text, "write it in UTF-8");
                    self.problems.push(problem.from(&origin));
                    self.refused.insert(path);
                }
                Some(path) => self.add_text(&path, &text, &origin),
                None => self.problems.extend(misnamed(&name).map(|problem| problem.from(&origin))),
            }
        }
    }

    /// Reads flags. Those that are suggested come before every other source, those that were given after it.
    pub(super) fn add_flags(&mut self, flags: Vec<Flag>) {
        for Flag { flag, key, value } in flags {
            self.add_text(key, &value, &Origin::Flag { flag });
        }
    }

    /// Sets what a verb imposes, and says so where something else was set.
    pub(super) fn impose(&mut self, flags: Vec<Flag>) {
        for Flag { flag, key, value } in flags {
            let before = self.settings.get(key).cloned();
            self.add_text(key, &value, &Origin::Flag { flag });
            let Some(((old, origin), (new, _))) = before.zip(self.settings.get(key)) else {
                continue;
            };
            if old != *new {
                let text = format!("`{key}` = {old} has no effect: `{flag}` makes it {new}");
                let fix = "use `tickcast serve` to have it as it is set";
                let problem = Problem::warning(key, text, fix).from(&origin);
                self.problems.push(Problem { value: Some(old), ..problem });
            }
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
                leaves.push(Leaf { path, values, origin: origin.clone(), name: origin.clone() });
            }),
            Err(_) => leaves.push(Leaf {
                path: path.to_owned(),
                values: vec![raw, Value::Array(list)],
                origin: origin.clone(),
                name: origin.clone(),
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
            if let Some((list, number)) = List::empty_table(&leaf.path) {
                self.expect_table(list, number, leaf.name);
                continue;
            }
            match accept(&leaf) {
                Ok(Some(value)) => self.insert(leaf, value),
                Ok(None) => {}
                Err(problem) => {
                    if let Some((list, number, _)) = List::split(&leaf.path)
                        && key_of(&leaf.path).is_some()
                    {
                        self.expect_table(list, number, leaf.origin);
                    }
                    self.problems.push(*problem);
                    self.refused.insert(leaf.path);
                }
            }
        }
    }

    /// There is a table. What it must have and has not is said when all sources are read.
    fn expect_table(&mut self, list: &'static List, number: usize, place: Origin) {
        self.lists.entry(list.path).or_default().entry(number).or_default();
        self.empty.entry((list.path, number)).or_insert(place);
    }

    fn insert(&mut self, leaf: Leaf, value: Value) {
        if let Some((list, number, key)) = List::split(&leaf.path) {
            let table = self.lists.entry(list.path).or_default().entry(number).or_default();
            table.insert(key.to_owned(), value.clone());
        }
        self.settings.insert(leaf.path, (value, leaf.origin));
    }

    /// The configuration, where each setting came from, and the problems met on the way.
    pub(super) fn resolve(mut self) -> (Config, Settings, Vec<Problem>) {
        let mut root = Table::new();
        for (path, (value, _)) in &self.settings {
            if List::split(path).is_none() {
                insert_at(&mut root, path, value.clone());
            }
        }
        for list in LISTS {
            let tables = self.lists.remove(list.path).unwrap_or_default();
            let mut usable = Vec::new();
            for (number, table) in tables {
                let is_missing = |key: &str| {
                    let is_refused = self.refused.contains(&list.place(number, key));
                    !is_refused && !table.contains_key(key)
                };
                let place = self.place_of(list, number);
                let missing = missing_keys(list, number, is_missing, &place);
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
            self.problems.push(Problem::error("", text, "please report this as a bug"));
            Config::default()
        });
        (config, self.settings, self.problems)
    }

    /// Where a table of a list is.
    fn place_of(&self, list: &List, number: usize) -> Origin {
        let prefix = list.place(number, "");
        let known = self.settings.iter().find(|(path, _)| path.starts_with(&prefix));
        let known = known.map(|(_, (_, origin))| origin);
        let empty = self.empty.get(&(list.path, number));
        known.or(empty).cloned().unwrap_or(Origin::Default)
    }
}

/// What is done with a leaf: its path, where its name and its value stand in the text, and the value.
type Visit<'a> = &'a mut dyn FnMut(String, [usize; 2], Value);

/// Walks a table down to its leaves.
fn flatten_table(table: &DeTable<'_>, path: &str, leaf: Visit<'_>) {
    for (key, value) in table {
        let separator = if path.is_empty() { "" } else { "." };
        let key_path = format!("{path}{separator}{}", key.get_ref());
        let name = key.span().start;
        flatten(value, &key_path, &mut |path, [inner, at], value| {
            // Deeper ones know the places of their own names.
            leaf(path.clone(), [if path == key_path { name } else { inner }, at], value);
        });
    }
}

fn flatten(value: &Spanned<DeValue<'_>>, path: &str, leaf: Visit<'_>) {
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
            leaf(path.to_owned(), [value.span().start; 2], plain);
        }
    }
}

/// The value that a leaf sets; `None` for an empty section.
fn accept(leaf: &Leaf) -> Result<Option<Value>, Box<Problem>> {
    let path = &leaf.path;
    let given = leaf.values.first();
    let Some(check) = check_of(path) else {
        if !is_section(path) {
            return Err(Box::new(unknown(leaf)));
        }
        return match given {
            Some(Value::Table(table)) if table.is_empty() => Ok(None),
            _ => {
                let text = format!("`{path}` is a section, not a setting");
                let problem = Problem::error(path, text, format!("set `{path}.…`"));
                Err(Box::new(problem.from(&leaf.origin)))
            }
        };
    };
    if let Some(value) = leaf.values.iter().find(|value| check(value).is_ok()) {
        return Ok(Some(value.clone()));
    }
    let expected = given.and_then(|value| check(value).err()).unwrap_or_default();
    let given = given.filter(|_| !is_secret(path));
    let form = key_of(path).map(|key| key.form);
    let suggestion = form.zip(given).and_then(|(form, given)| {
        suggest::value(form, given, |value| check(value).is_ok()).map(|value| value.to_string())
    });
    let shown = given.map(|value| format!(" = {value}")).unwrap_or_default();
    let meant = suggestion.as_ref().map(|value| format!("; did you mean {value}?"));
    let problem = Problem::error(
        path,
        format!("`{path}`{shown} cannot be used"),
        format!("expected {expected}{}", meant.unwrap_or_default()),
    );
    let value = given.cloned();
    Err(Box::new(Problem { value, suggestion, ..problem.from(&leaf.origin) }))
}

/// Its value is not shown: it may be a secret whose name is misspelled.
fn unknown(leaf: &Leaf) -> Problem {
    let path = &leaf.path;
    let is_variable = |variable: &String| *variable == environment::variable(path);
    // Who has written a variable is told the name of a variable.
    let suggestion = suggest::setting(path).map(|meant| match &leaf.name {
        Origin::Env { variable } if is_variable(variable) && !meant.contains('[') => {
            environment::variable(&meant)
        }
        _ => meant,
    });
    let fix = match (&suggestion, section_of(path)) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, Some(section)) => {
            let names: Vec<_> = section.keys.iter().map(last_name).collect();
            format!("[{}] has {}", section.name, names.join(", "))
        }
        (None, None) => "see docs/reference/configuration.md for all keys".to_owned(),
    };
    let problem = Problem::error(path, format!("unknown key `{path}`"), fix).from(&leaf.name);
    Problem { suggestion, ..problem }
}

/// A variable that looks like a setting and is read by nobody.
fn misnamed(name: &str) -> Option<Problem> {
    let meant = environment::meant(name)?;
    let text = format!("`{name}` is ignored: levels are separated by two underscores");
    let problem = Problem::warning("", text, format!("did you mean `{meant}`?"));
    Some(Problem { suggestion: Some(meant), ..problem })
}

/// The check of a setting's value, if there is such a setting.
fn check_of(path: &str) -> Option<Check> {
    match List::split(path) {
        Some((list, _, key)) => list.check(key),
        None => find_key(path).map(|key| key.check),
    }
}

/// Whether the values of this setting must not be shown.
pub(super) fn is_secret(path: &str) -> bool {
    key_of(path).is_some_and(|key| key.is_secret)
}

/// The row of the table for this path.
pub(super) fn key_of(path: &str) -> Option<&'static Key> {
    match List::split(path) {
        Some((list, _, name)) => list.key(name),
        None => find_key(path),
    }
}

/// The section that a path is in, if it is one of a table that is no list.
fn section_of(path: &str) -> Option<&'static Section> {
    let (name, _) = path.rsplit_once('.')?;
    SECTIONS.iter().find(|section| section.name == name)
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
    place: &Origin,
) -> Vec<Problem> {
    let missing = list.needed.iter().filter(|(key, _)| is_missing(key));
    let problem = |(key, example): &(&str, &str)| {
        let text = format!("{} {} of `{}` has no `{key}`", list.noun, number + 1, list.path);
        let fix = format!("add for example `{example}`");
        Problem::error(list.place(number, key), text, fix).from(place)
    };
    missing.map(problem).collect()
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
