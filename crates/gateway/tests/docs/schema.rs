//! The JSON Schema of the configuration file, judged by a validator that is not ours: it is a schema, it takes every
//! configuration of these pages, and it never refuses what a node would take.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tickcast::config::{Config, Flags, Form, Key, keys, reference_file, schema};

use crate::packages::packages;
use crate::page::{Page, root};

/// A value of every kind that TOML has, to be tried with every setting.
const VALUES: [&str; 13] = [
    "true", "1", "-1", "1.5", "99999999", "''", "'x'", "'5'", "'64KiB'", "'5s'", "[]", "['x']",
    "{}",
];

fn validator() -> Command {
    Command::new(packages().join("venv/bin/check-jsonschema"))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("room on the disk");
    path
}

/// The files that do not follow the schema.
fn refused(folder: &TempDir, files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let schema = write(folder.path(), "schema.json", &schema().to_string());
    let mut validator = validator();
    validator.args(["--output-format", "json", "--schemafile"]).arg(schema).args(files);
    let output = validator.output().expect("the packages are installed");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["parse_errors"].as_array().map_or(0, Vec::len), 0, "{said}");
    let errors = said["errors"].as_array().into_iter().flatten();
    errors.map(|error| error["filename"].as_str().expect("a file").into()).collect()
}

#[test]
fn it_is_a_schema() {
    let folder = TempDir::new().expect("room on the disk");
    let file = write(folder.path(), "schema.json", &schema().to_string());
    let output = validator().arg("--check-metaschema").arg(file).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The reference file with every setting in it.
fn complete_file() -> String {
    let is_comment = |line: &&str| line.starts_with("# ") || *line == "#";
    let lines = reference_file();
    let lines = lines.lines().filter(|line| !is_comment(line));
    lines.map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line))).collect()
}

#[test]
fn the_reference_file_has_every_setting() {
    let text = complete_file();
    let table: toml::Table = text.parse().expect("TOML");
    for key in keys() {
        let mut parts = key.name.split('.');
        let all = toml::Value::Table(table.clone());
        let value = parts.try_fold(&all, |value, part| value.get(part)).cloned();
        assert_eq!(value, Some((key.default)()), "{}", key.name);
    }
    let folder = TempDir::new().expect("room on the disk");
    let file = write(folder.path(), "all.toml", &text);
    let loaded = Config::load(Some(&file), std::iter::empty(), Flags::default());
    let (config, warnings) = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    // The examples of lists are settings too.
    assert_eq!((config.access.keys.len(), config.topics.patterns.len()), (1, 2));
    assert!(refused(&folder, &[file]).is_empty());
}

#[test]
fn configurations_of_these_pages_follow_it() {
    let folder = TempDir::new().expect("room on the disk");
    let pages = Page::all();
    let blocks =
        pages.iter().flat_map(|page| &page.blocks).filter(|block| block.language == "toml");
    let name = |number: usize| format!("{number}.toml");
    let mut files: Vec<PathBuf> = blocks
        .enumerate()
        .map(|(number, block)| write(folder.path(), &name(number), &block.text))
        .collect();
    assert!(files.len() > 5, "{files:?}");
    files.push(root().join("deploy/tickcast.toml"));
    assert_eq!(refused(&folder, &files), BTreeSet::new());
}

#[test]
fn it_refuses_what_it_can_see_and_nothing_that_a_node_takes() {
    let folder = TempDir::new().expect("room on the disk");
    let mut files = Vec::new();
    for key in keys() {
        for (number, value) in VALUES.into_iter().enumerate() {
            let (section, name) = key.name.rsplit_once('.').expect("a section");
            let text = format!("[{section}]\n{name} = {value}\n");
            let file = write(folder.path(), &format!("{}.{number}.toml", key.name), &text);
            files.push((key, value, file));
        }
    }
    let others = [
        "colour = 1",
        "[server]\nlistn = 'x'",
        "[[access.key]]\nname = 'a'",
        "[[topics.pattern]]\nmode = 'all'",
    ];
    let others: Vec<PathBuf> = others
        .into_iter()
        .enumerate()
        .map(|(number, text)| write(folder.path(), &format!("{number}.toml"), text))
        .collect();
    let paths: Vec<PathBuf> =
        files.iter().map(|(_, _, file)| file.clone()).chain(others.clone()).collect();
    let refused = refused(&folder, &paths);
    for file in others {
        assert!(refused.contains(&file), "{}", fs::read_to_string(file).expect("it is there"));
    }
    for (key, value, file) in files {
        assert_eq!(refused.contains(&file), is_refused(key, value), "{} = {value}", key.name);
    }
}

/// Whether a value is of the wrong kind or out of bounds that are numbers. Bounds of texts are beyond the schema.
fn is_refused(key: &Key, value: &str) -> bool {
    let value =
        format!("x = {value}").parse::<toml::Table>().expect("TOML").remove("x").expect("x");
    let is_unit = matches!(key.form, Form::Size | Form::Duration);
    match (&value, key.takes(&value)) {
        (_, true) => false,
        (toml::Value::String(text), false) if is_unit => {
            let units = if key.form == Form::Size { &["", "KiB"][..] } else { &["s"] };
            let digits = text.chars().take_while(char::is_ascii_digit).count();
            digits == 0 || !units.contains(&&text[digits..])
        }
        _ => true,
    }
}
