//! The reference file: every setting with its description and its default, to be copied and changed.

use super::list::{KEYS, LISTS, List};
use super::reference::{KEYS_EXAMPLE, PATTERNS_EXAMPLE, join};
use super::setting::{Key, Section};
use super::{SECTIONS, list};

const INTRODUCTION: &str = "\
# The configuration of a Tickcast node: every setting and its default.
#
# A line that begins with `#` and a name is a setting: take the `#` away to change it. What may stay as it is need not be
# in the file at all. `tickcast check --config FILE` says what is wrong with a file before a node reads it.
# Environment variables and flags stand above the file: TICKCAST__SERVER__LISTEN is `listen` of [server].
";

/// Longest line of a description.
const WIDTH: usize = 120;

/// The text that `tickcast config --reference` prints. As it is, it changes nothing.
pub fn reference_file() -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in SECTIONS {
        text.extend(["\n", &comment(&join(section.docs)), "[", section.name, "]\n"]);
        text.extend(section.keys.iter().map(setting));
        for list in LISTS {
            if list.path.rsplit_once('.').is_some_and(|(name, _)| name == section.name) {
                text.push_str(&example(list, section));
            }
        }
    }
    text
}

fn setting(key: &Key) -> String {
    let bounds = (key.bounds)().map(|(low, high)| format!("From {low} to {high}."));
    let restart = key.needs_restart.then(|| "Needs a restart.".to_owned());
    let docs = std::iter::once(join(key.docs)).chain(bounds).chain(restart);
    let docs = docs.collect::<Vec<_>>().join(" ");
    format!("\n{}#{} = {}\n", comment(&docs), list::last_name(key), (key.default)())
}

/// A list has no default: it shows one.
fn example(list: &List, section: &Section) -> String {
    let (docs, example) = if list.path == KEYS.path {
        (join(list.section.docs), KEYS_EXAMPLE)
    } else {
        let docs = format!(
            "Options for topics by name: `match`, and any of the settings of [{}].",
            section.name
        );
        (docs, PATTERNS_EXAMPLE)
    };
    let lines = example.lines().map(|line| format!("#{line}\n")).collect::<String>();
    format!("\n{}{lines}", comment(&docs))
}

/// The text in lines that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line + 1 + word.chars().count() > WIDTH {
            lines.push("#".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.extend([" ", word]);
        }
    }
    lines.join("\n") + "\n"
}
