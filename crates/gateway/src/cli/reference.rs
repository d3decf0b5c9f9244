//! The reference page of the command line, written from its definition.

use clap::{Arg, Command, CommandFactory};

use super::Cli;

const INTRODUCTION: &str = "\
# Command line

This page is generated from the definition of the command line in the code; a test keeps the two equal.

- `tickcast` without a command runs `tickcast dev`.
- Flags of a node stand above the environment, and that above the file: [configuration](configuration.md).
- Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
- Verbs that talk to a gateway use TLS 1.2 or 1.3 if its address begins with `https://` or `wss://`. They trust the authorities of the system, or those in `--ca` and nobody else; a handshake may take 5 s. With `--ca`, an address without TLS is refused unless it is on this machine.
- What was asked for goes to standard output, all that is said about it to standard error. `NO_COLOR` turns colors off.

| command | does |
|---|---|
";

/// Whose flags other verbs have too, and do not repeat.
const NODE: &str = "serve";

/// The text of `docs/reference/cli.md`.
fn reference_markdown() -> String {
    let mut cli = <Cli as CommandFactory>::command();
    cli.build();
    let mut verbs = Vec::new();
    collect(&cli, &mut verbs);
    let mut page = INTRODUCTION.to_owned();
    for (name, verb) in &verbs {
        let anchor = name.replace(' ', "-");
        page.extend(["| [`", name, "`](#", &anchor, ") | ", &about(verb), " |\n"]);
    }
    let node = cli.find_subcommand(NODE).expect("it is a verb");
    for (name, verb) in &verbs {
        page.push_str(&section(name, verb, node));
    }
    page
}

/// Every verb that does something, with its whole name.
fn collect<'a>(command: &'a Command, verbs: &mut Vec<(String, &'a Command)>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        if verb.has_subcommands() {
            collect(verb, verbs);
        } else {
            verbs.push((verb.get_bin_name().unwrap_or_default().to_owned(), verb));
        }
    }
}

fn section(name: &str, verb: &Command, node: &Command) -> String {
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ");
    let about = about(verb);
    let mut text = format!("\n## `{name}`\n\n`{usage}`\n\n{about}.\n");
    let is_of_node = |arg: &&Arg| node.get_arguments().any(|other| other.get_id() == arg.get_id());
    let shown: Vec<&Arg> = verb.get_arguments().filter(|arg| !is_common(arg)).collect();
    let of_node = shown.iter().filter(|arg| is_of_node(arg)).count();
    let has_all = of_node == node.get_arguments().filter(|arg| !is_common(arg)).count();
    let refers = has_all && verb.get_name() != NODE;
    if refers {
        text.push_str("\nThe flags are those of [`tickcast serve`](#tickcast-serve), and:\n");
    }
    let rows = shown.into_iter().filter(|arg| !(refers && is_of_node(arg))).map(row);
    let rows: String = rows.collect();
    if !rows.is_empty() {
        text.extend(["\n| argument | meaning |\n|---|---|\n", &rows]);
    }
    text.push_str(&closing(&verb.get_after_help().map(ToString::to_string).unwrap_or_default()));
    text
}

/// Every verb has it.
fn is_common(arg: &Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}

fn about(verb: &Command) -> String {
    let about = verb.get_long_about().or(verb.get_about()).map(ToString::to_string);
    about.unwrap_or_default().trim_end_matches('.').to_owned()
}

fn row(arg: &Arg) -> String {
    let values: String = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => {
            names.iter().map(|name| format!(" {name}")).collect()
        }
        _ => String::new(),
    };
    let name = match arg.get_long() {
        Some(long) => format!("--{long}{values}"),
        None => values.trim_start().to_owned(),
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    // Where the default is that of a setting, the help says it in the way of the generated ones.
    let (help, default) = help.split_once(" [default: ").unwrap_or((&help, ""));
    let default = Some(default.trim_end_matches(']').to_owned()).filter(|text| !text.is_empty());
    let takes_values = arg.get_action().takes_values();
    let choices: Vec<String> =
        arg.get_possible_values().iter().map(|choice| format!("`{}`", choice.get_name())).collect();
    let own_default = arg.get_default_values().first().map(|value| value.to_string_lossy());
    let notes = [
        (takes_values && !choices.is_empty()).then(|| format!(" One of {}.", choices.join(", "))),
        default.map(|default| format!(" Default: {default}.")),
        own_default.filter(|_| takes_values).map(|default| format!(" Default: {default}.")),
        arg.get_env().map(|name| format!(" Environment: `{}`.", name.to_string_lossy())),
    ];
    let notes: String = notes.into_iter().flatten().collect();
    let help = help.replace('\n', " ").replace('|', "\\|");
    format!("| `{name}` | {}.{notes} |\n", help.trim_end_matches('.'))
}

/// What stands below the help: examples, which are indented, and sentences.
fn closing(text: &str) -> String {
    let mut page = String::new();
    for part in text.split("\n\n").filter(|part| !part.trim().is_empty()) {
        match part.strip_prefix("Examples:\n") {
            Some(examples) => {
                let lines = examples.lines().map(|line| format!("{}\n", line.trim_start()));
                page.extend(["\n```sh parsed\n", &lines.collect::<String>(), "```\n"]);
            }
            None => page.extend(["\n", part.trim_end(), "\n"]),
        }
    }
    page
}

/// `docs/reference/cli.md` is this text. After a change, run the tests with `TICKCAST_BLESS=1` to write it.
#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
    let page = reference_markdown();
    if std::env::var_os("TICKCAST_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default() == page;
    assert!(current, "docs/reference/cli.md is out of date; run with TICKCAST_BLESS=1");
}
