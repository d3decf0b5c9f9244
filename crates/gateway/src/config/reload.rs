//! Reading the configuration of a running node again, and what is different in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::flags::Flag;
use super::setting::{Compare, Form, Key, Setting};
use super::source::key_of;
use super::{AccessKey, Config, ConfigErrors, Flags, Loaded, Problem, environment};

/// Names of keys in one line of the log. There may be thousands of keys.
const NAMES_SHOWN_MAX: usize = 20;

/// Where the configuration of a node comes from, as it was given at the start. Every load reads the file again.
#[derive(Clone)]
pub struct Inputs {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Flags,
}

/// Shows which variables and flags there are, and not their values: one of them may be a secret.
impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Inputs")
            .field("file", &self.file)
            .field("environment", &names)
            .field("flags", &self.flags)
            .finish()
    }
}

impl Inputs {
    /// `environment` may be the whole of it: only names that begin with `TICKCAST_` are kept.
    pub fn new(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: Flags,
    ) -> Self {
        let environment = environment.filter(|(name, _)| environment::is_ours(name)).collect();
        Self { file: file.map(Path::to_owned), environment, flags }
    }

    /// The arguments that name the same sources to another call of the program. They tell no secret.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        let file =
            self.file.iter().flat_map(|path| ["--config".to_owned(), path.display().to_string()]);
        let flags = self.flags.given.iter().flat_map(|Flag { flag, key, value }| {
            let value = match key_of(key).map(|key| (key.form, key.is_secret)) {
                // A flag without a value.
                Some((Form::Truth, _)) => None,
                Some((_, true)) => Some("…".to_owned()),
                _ => Some(value.clone()),
            };
            std::iter::once((*flag).to_owned()).chain(value)
        });
        file.chain(flags)
    }

    /// Puts the configuration together as it is now, and checks it.
    ///
    /// # Errors
    /// Everything that is wrong, in every source, at once.
    pub fn load(&self) -> Result<(Config, Vec<Problem>), ConfigErrors> {
        self.load_with_origins().map(|loaded| (loaded.config, loaded.warnings))
    }

    /// As [`Inputs::load`], with the place of every setting.
    ///
    /// # Errors
    /// As [`Inputs::load`].
    pub fn load_with_origins(&self) -> Result<Loaded, ConfigErrors> {
        let environment = self.environment.iter().cloned();
        Loaded::load(self.file.as_deref(), environment, self.flags.clone())
    }
}

/// A setting that is different after a reload. It is shown as its name and both values, a secret as its name alone, and
/// serialized as its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The setting, such as `websocket.ping_interval`.
    pub name: &'static str,
    /// It keeps its value until a restart.
    pub needs_restart: bool,
    /// What follows the name. Nothing of what is not to be shown.
    details: String,
}

impl Change {
    pub(super) fn of<T: Setting>(key: &Key, before: &T, after: &T) -> Self {
        let details = match key.is_secret {
            true => String::new(),
            false => format!(" = {} (was {})", after.write(), before.write()),
        };
        Self { name: key.name, needs_restart: key.needs_restart, details }
    }

    /// Of a list of tables.
    pub(super) fn of_list(name: &'static str, details: String) -> Self {
        Self { name, needs_restart: false, details }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.details)
    }
}

/// Keys are told apart by their names, which may be shown.
impl Compare for Vec<AccessKey> {
    fn changes(&self, after: &mut Self, changes: &mut Vec<Change>) {
        if self == after {
            return;
        }
        let by_name = |keys: &Self| -> BTreeMap<String, AccessKey> {
            keys.iter().map(|key| (key.name.as_str().to_owned(), key.clone())).collect()
        };
        let (old, new) = (by_name(self), by_name(after));
        let added = new.keys().filter(|name| !old.contains_key(*name)).map(|name| ("+", name));
        let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| ("-", name));
        let changed =
            new.iter().filter(|(name, key)| old.get(*name).is_some_and(|old| old != *key));
        let changed = changed.map(|(name, _)| ("~", name));
        let names: Vec<_> = added.chain(removed).chain(changed).collect();
        let shown = names.iter().take(NAMES_SHOWN_MAX).map(|(sign, name)| format!("{sign}{name}"));
        let shown = shown.collect::<Vec<_>>().join(" ");
        let rest = match names.len().saturating_sub(NAMES_SHOWN_MAX) {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        changes.push(Change::of_list("access.key", format!(" ({shown}{rest})")));
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;
    use crate::config::{KeyHash, keys};

    /// A value that this setting can have and does not have by default.
    fn other_value(key: &Key) -> Value {
        let default = (key.default)();
        let text = |text: &str| Value::String(text.to_owned());
        let list = |item: &str| Value::Array(vec![text(item)]);
        let (low, high) = (key.bounds)().unzip();
        let plain = ["latest", "json", "required", "closed", "127.0.0.1:1", "x"].map(text);
        let mut candidates: Vec<Value> = [low, high].into_iter().flatten().collect();
        candidates.extend([Value::Boolean(true), Value::Boolean(false)]);
        candidates.extend(plain);
        candidates.extend([list("10.0.0.0/8"), list("x")]);
        let can_be = |value: &Value| *value != default && (key.check)(value).is_ok();
        candidates.into_iter().find(can_be).unwrap_or_else(|| panic!("no value for {}", key.name))
    }

    fn config_with(name: &str, value: Value) -> Config {
        let nested = name.rsplit('.').fold(value, |inner, part| {
            let mut table = Table::new();
            table.insert(part.to_owned(), inner);
            Value::Table(table)
        });
        nested.try_into().unwrap()
    }

    #[test]
    fn every_setting_is_compared_and_only_those_that_can_change_do() {
        for key in keys() {
            let before = Config::default();
            let value = other_value(key);
            let mut after = config_with(key.name, value.clone());
            let changes = before.succeeded_by(&mut after);
            assert_eq!(changes.len(), 1, "{}", key.name);
            assert_eq!((changes[0].name, changes[0].needs_restart), (key.name, key.needs_restart));
            assert_eq!(after == before, key.needs_restart, "{}", key.name);
            let shown = changes[0].to_string();
            if key.is_secret {
                assert_eq!(shown, key.name);
            } else {
                let default = (key.default)();
                assert_eq!(shown, format!("{} = {value} (was {default})", key.name));
            }
            assert_eq!(before.succeeded_by(&mut before.clone()), []);
        }
    }

    #[test]
    fn the_patterns_of_topics_are_compared_as_a_whole() {
        let text = "[[topics.pattern]]\nmatch = 'a.*'\nhistory = 5\n";
        let mut after: Config = toml::from_str(text).unwrap();
        let changes = Config::default().succeeded_by(&mut after);
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["topics.pattern"]);
        assert_eq!(after.for_topic("a.b").history, 5);
    }

    #[test]
    fn keys_are_told_apart_by_their_names() {
        let key = |name: &str, rights: &str| {
            let hash = KeyHash::of(name);
            format!("[[access.key]]\nname = '{name}'\nhash = '{hash}'\nrights = ['{rights}']\n")
        };
        let config = |keys: &[String]| toml::from_str::<Config>(&keys.concat()).unwrap();
        let before = config(&[key("a", "publish"), key("b", "publish"), key("c", "publish")]);
        let mut after = config(&[key("d", "publish"), key("c", "admin"), key("a", "publish")]);
        let changes = before.succeeded_by(&mut after);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to_string(), "access.key (+d -b ~c)");
        assert_eq!(after.access.keys.len(), 3);
    }

    #[test]
    fn inputs_keep_what_is_ours_and_do_not_show_it() {
        let variables = [("TICKCAST__BROKER__REDIS__URL", "redis://:hunter2@a"), ("PATH", "/bin")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut flags = Flags::default();
        flags.set("--redis", "broker.redis.url", "redis://:hunter2@b");
        let inputs = Inputs::new(None, variables.into_iter(), flags);
        let shown = format!("{inputs:?}");
        assert!(shown.contains("TICKCAST__BROKER__REDIS__URL"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("PATH"), "{shown}");
        let loaded = format!("{:?}", inputs.load_with_origins().unwrap());
        assert!(loaded.contains("***") && !loaded.contains("hunter2"), "{loaded}");
        assert_eq!(inputs.load().unwrap().0.broker.redis.url.reveal(), "redis://:hunter2@b");
    }
}
