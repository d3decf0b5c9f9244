//! The reference page of the configuration, written from the table of settings.

use super::list::LISTS;
use super::setting::Key;
use super::{SECTIONS, list};

const INTRODUCTION: &str = "\
# Configuration

This page is generated from the settings in the code; a test keeps the two equal.

Sources, later ones win: the defaults below, the file given with `--config`, environment variables, flags.
An unknown key, a wrong type or a value out of bounds is an error: the node names all of them and does not start.
[Check a configuration before a deploy](../how-to/check-a-configuration.md) shows how to see them earlier, the values in force with the source of each, a file with every setting, and a JSON Schema for editors.

- **File**: TOML, one table per section, 8 MiB at most.
- **Environment**: `TICKCAST__` and the key with two underscores between levels, such as `TICKCAST__SERVER__LISTEN=127.0.0.1:9000`.
  A variable with fewer underscores, such as `TICKCAST_SERVER_LISTEN`, is not read; a warning names the right one.
  Values are read as TOML where they are TOML, else as text; lists may also be written with commas.
- **Reload**: SIGHUP, `systemctl reload` or `POST /admin/reload` make a running node, also one that drains, read all of them again, the environment and the flags as they were at its start.
  What is wrong is logged and changes nothing. What is right counts at once, also for open connections, except where it says *needs a restart* below: such a setting keeps its value, and the log names it.
- **Durations** are written as `\"250ms\"`, `\"25s\"`, `\"5m\"`, `\"1h\"`, `\"7d\"`; **sizes** as `\"64KiB\"`, `\"1MiB\"`, `\"2GiB\"` or a plain number of bytes.
";

const TABLE_HEAD: &str = "| key | default | bounds | description |\n|---|---|---|---|\n";

const KEYS: &str = "
### `[[access.key]]`

";

/// A table of a key.
pub(super) const KEYS_EXAMPLE: &str = "\
[[access.key]]
name = \"feed\"
hash = \"sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"
rights = [\"publish\"]
topics = [\"stocks.*\"]
rate = 500
";

/// Tables of patterns.
pub(super) const PATTERNS_EXAMPLE: &str = "\
[[topics.pattern]]
match = \"stocks.*\"
mode = \"latest\"
flush_interval = \"20ms\"

[[topics.pattern]]
match = \"nba.*\"
history_age = \"1h\"
";

const PATTERNS: &str = "
### `[[topics.pattern]]`

Each pattern has a `match` and any of the keys above; what it leaves open is taken from `[topics]`.
`match` is an exact topic name, or the beginning of one followed by `*`. The first pattern that matches wins.

```toml
[topics]
history = 100

";

/// The text of `docs/reference/configuration.md`.
pub fn reference_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS {
        page.extend(["\n## `[", section.name, "]`\n\n", &join(section.docs), "\n\n", TABLE_HEAD]);
        page.extend(section.keys.iter().map(row));
        if section.name == "access" {
            let keys = list::KEYS.section;
            page.extend([KEYS, &join(keys.docs), "\n\n", TABLE_HEAD]);
            page.extend(keys.keys.iter().map(key_row));
            page.extend(["\n```toml\n", KEYS_EXAMPLE, "```\n"]);
        }
    }
    page.extend([PATTERNS, PATTERNS_EXAMPLE, "```\n"]);
    page
}

fn row(key: &Key) -> String {
    let name = key.name.rsplit('.').next().unwrap_or_default();
    let default = (key.default)();
    let bounds = (key.bounds)().map(|(low, high)| format!("`{low}` to `{high}`"));
    let mut description = join(key.docs).replace('|', "\\|");
    if key.needs_restart {
        description.push_str(" *Needs a restart.*");
    }
    format!("| `{name}` | `{default}` | {} | {description} |\n", bounds.unwrap_or_default())
}

/// What every key must have has no default.
fn key_row(key: &Key) -> String {
    let is_needed = list::KEYS.needed.iter().any(|(name, _)| *name == list::last_name(key));
    let default = format!("| `{}` |", (key.default)());
    if is_needed { row(key).replacen(&default, "| needed |", 1) } else { row(key) }
}

/// The page about a setting, at its section.
pub(super) fn page_of(key: &str) -> String {
    const PAGE: &str = "docs/reference/configuration.md";
    let mut lists =
        LISTS.into_iter().filter(|list| key.starts_with(list.path)).map(|list| list.path);
    let sections = SECTIONS.iter().map(|section| section.name);
    let is_inside = |name: &&str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    // Of sections inside each other the inner one.
    let section = sections.filter(is_inside).max_by_key(|name| name.len());
    match lists.next().or(section) {
        // As headings are made into anchors.
        Some(name) => format!("{PAGE}#{}", name.replace('.', "")),
        None => PAGE.to_owned(),
    }
}

/// Doc comments begin with a space on every line.
pub(super) fn join(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
