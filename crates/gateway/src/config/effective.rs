//! The configuration as it is in force, and where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use toml::{Table, Value};

use super::list::{LISTS, List};
use super::report::{Origin, Problem};
use super::setting::{Key, Setting as _};
use super::source::{Settings, Sources, is_secret};
use super::{Config, ConfigErrors, Flags, SECTIONS, Size, check, redis, secret};

/// What the sources make together, when nothing is wrong with it.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is hardly meant.
    pub warnings: Vec<Problem>,
    settings: Settings,
}

/// Shows nothing of the settings as they were read: they may be secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, warnings, settings: _ } = self;
        f.debug_struct("Loaded")
            .field("config", config)
            .field("warnings", warnings)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// As [`Config::load`].
    pub(super) fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Self, ConfigErrors> {
        let Flags { suggested, given, imposed } = flags;
        let mut sources = Sources::default();
        sources.add_flags(suggested);
        if let Some(file) = file {
            sources.add_file(file);
        }
        sources.add_env(env);
        sources.add_flags(given);
        sources.impose(imposed);
        sources.add_keys_file();
        let (mut config, mut settings, mut problems) = sources.resolve();

        // The checks run on whatever could be read, so that one run of the program shows all there is to fix.
        let url_file = redis::read_url_file(&mut config.broker.redis, &mut settings);
        let mut findings = check::check(&config, check::open_files_max());
        redis::check_certificates(&config.broker.redis, &mut findings);
        let findings = url_file.into_iter().chain(findings.0);
        problems.extend(findings.map(|problem| problem.at(&settings)));
        let warnings = ConfigErrors::sift(problems)?;
        Ok(Self { config, warnings, settings })
    }

    /// Every setting in reading order, those of each list behind the section that it is in.
    pub fn effective(&self) -> Vec<Effective> {
        let mut all = Vec::new();
        // Written out, secrets are hidden; a table of settings always serializes.
        let values = Table::try_from(&self.config).unwrap_or_default();
        for section in SECTIONS {
            all.extend(section.keys.iter().map(|key| self.setting(key, &values)));
            let inside = |list: &&List| list.path.rsplit_once('.').map(|(name, _)| name);
            for list in LISTS.into_iter().filter(|list| inside(list) == Some(section.name)) {
                all.extend(self.tables(list));
            }
        }
        all
    }

    fn setting(&self, key: &Key, values: &Table) -> Effective {
        let mut parts = key.name.split('.');
        let first = parts.next().and_then(|part| values.get(part));
        let value = parts.fold(first, |value, part| value?.get(part));
        Effective {
            name: key.name.to_owned(),
            value: value.cloned().unwrap_or_else(key.default),
            here: self.config.here(key.name),
            origin: self
                .settings
                .get(key.name)
                .map_or(Origin::Default, |(_, origin)| origin.clone()),
        }
    }

    /// What the tables of a list set; what they leave open is not said again for each.
    fn tables(&self, list: &'static List) -> impl Iterator<Item = Effective> {
        let mut tables = BTreeMap::<usize, Vec<Effective>>::new();
        for (path, (value, origin)) in &self.settings {
            let Some((_, number, _)) =
                List::split(path).filter(|(other, ..)| other.path == list.path)
            else {
                continue;
            };
            let value = if is_secret(path) { secret::hidden() } else { value.clone() };
            let (name, origin) = (path.clone(), origin.clone());
            tables.entry(number).or_default().push(Effective { name, value, here: None, origin });
        }
        tables.into_values().flatten()
    }
}

impl Config {
    /// What a setting comes to on this machine, where it leaves that to the machine.
    fn here(&self, key: &str) -> Option<Value> {
        let count = |setting: usize, value: usize| (setting != value).then(|| value.write());
        let size = |setting: Size, value: Size| (setting != value).then(|| value.write());
        match key {
            "server.workers" => count(self.server.workers, self.workers()),
            "server.max_connections" => count(self.server.max_connections, self.max_connections()),
            "hub.log_memory" => size(self.hub.log_memory, self.log_memory()),
            "broker.memory.memory" => size(self.broker.memory.memory, self.broker_memory()),
            _ => None,
        }
    }
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effective {
    /// Its whole name, such as `server.listen` or `topics.pattern[0].mode`.
    #[serde(rename = "setting")]
    pub name: String,
    /// Its value; `***` for one that must not be shown.
    pub value: Value,
    /// What that comes to on this machine.
    pub here: Option<Value>,
    /// Where it was set.
    pub origin: Origin,
}

impl Effective {
    /// The heading under which it stands in a file, and its name there.
    fn place(&self) -> (String, &str) {
        match List::split(&self.name) {
            Some((list, number, key)) => (format!("[[{}]] # {}", list.path, number + 1), key),
            None => {
                let (section, key) = self.name.rsplit_once('.').unwrap_or(("", &self.name));
                (format!("[{section}]"), key)
            }
        }
    }
}

/// Widest value beside which comments are aligned.
const WIDTH_MAX: usize = 40;

/// The settings as a file that says behind each value where it came from.
pub fn effective_file(settings: &[Effective]) -> String {
    let mut text = String::new();
    let mut heading = String::new();
    let assigned = |setting: &Effective| format!("{} = {}", setting.place().1, setting.value);
    let widths = settings.iter().map(|setting| assigned(setting).chars().count());
    let width = widths.filter(|width| *width <= WIDTH_MAX).max().unwrap_or_default();
    for setting in settings {
        let (section, _) = setting.place();
        if section != heading {
            let gap = if heading.is_empty() { "" } else { "\n" };
            text.extend([gap, &section, "\n"]);
            heading = section;
        }
        let here = setting.here.as_ref().map(|value| format!(", here {value}"));
        let assigned = assigned(setting);
        let comment = format!("# {}{}", setting.origin, here.unwrap_or_default());
        text.extend([&format!("{assigned:width$}  {comment}"), "\n"]);
    }
    text
}
