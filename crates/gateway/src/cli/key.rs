//! `tickcast key`: makes keys of machines, and the lines of configuration that let nodes know them.
//!
//! The table goes to standard output and the key to standard error, so that `>> keys.toml` keeps what nodes need and
//! nothing else. Nodes never see a key before it is used: they hold its hash.

use std::io::{self, Read as _, Write as _, stderr, stdin, stdout};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::{Failure, finish};
use crate::access::{RANDOM_BYTES, is_key, write_key};
use crate::config::access::check_pattern;
use crate::config::{AccessKey, KeyHash, KeyName, Right, Setting as _};

/// Longest text that is read as a key, in bytes: what is longer is none.
const INPUT_BYTES_MAX: u64 = 1024;

/// Flags of `key`.
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Make a key: its table for the file of keys on standard output, the key itself on standard error
    New(NewArgs),
    /// Read a key from standard input and print its hash
    Hash,
}

/// Flags of `key new`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast key new feed --publish --topics 'stocks.*' 'nba.*' >> keys.toml
  tickcast key new screens --subscribe --topics 'premium.*' >> keys.toml
  tickcast key new ops --admin --json

Nodes read the file that `access.keys_file` names; send them SIGHUP after a change. It has no keys in it, but says who
may do what: `umask 077` before it is made, or `chmod 600` after, keeps it from other users of the machine.")]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
struct NewArgs {
    /// How the log calls the key, such as `feed`
    #[arg(value_parser = name)]
    name: KeyName,

    /// It may publish
    #[arg(long)]
    publish: bool,

    /// It may subscribe to closed topics and read them
    #[arg(long)]
    subscribe: bool,

    /// It may use the routes under /admin/
    #[arg(long)]
    admin: bool,

    /// Topics it may publish and subscribe to: names, or beginnings of names followed by `*` [default: all]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_parser = pattern)]
    topics: Vec<String>,

    /// Publications per second at each node; 0 is no limit
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    rate: u32,

    /// Print one JSON object with the key and the table, and nothing else
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<KeyName, String> {
    KeyName::new(text).ok_or_else(|| format!("expected {}", KeyName::EXPECTED))
}

fn pattern(text: &str) -> Result<String, String> {
    check_pattern(text).map(|()| text.to_owned())
}

impl KeyArgs {
    /// Runs `tickcast key`.
    pub fn run(&self) -> ExitCode {
        finish(match &self.verb {
            Verb::New(args) => new(args),
            Verb::Hash => hash(),
        })
    }
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let given = [
        (args.publish, Right::Publish),
        (args.subscribe, Right::Subscribe),
        (args.admin, Right::Admin),
    ];
    let rights: Vec<Right> =
        given.iter().filter(|(is_given, _)| *is_given).map(|(_, right)| *right).collect();
    if rights.is_empty() {
        let text =
            "a key without rights is good for nothing; give --publish, --subscribe or --admin";
        return Err(Failure::Usage(text.to_owned()));
    }
    if args.rate > 0 && !args.publish {
        return Err(Failure::Usage("--rate is about publishing; give --publish too".to_owned()));
    }
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_unspecified| Failure::Failed("the system gives no random bytes".to_owned()))?;
    let key = write_key(&random);
    let mut table = AccessKey {
        name: args.name.clone(),
        hash: KeyHash::of(&key),
        rights: rights.into_iter().collect(),
        rate: args.rate as usize,
        ..AccessKey::default()
    };
    if !args.topics.is_empty() {
        table.topics.clone_from(&args.topics);
    }
    let printed = if args.json { print_json(&table, &key) } else { print(&table, &key) };
    printed.map_err(|error| Failure::Failed(format!("cannot print the key: {error}")))
}

/// The key comes first: if the table cannot be written, the key is worth nothing, and the other way round it is lost.
fn print(table: &AccessKey, key: &str) -> io::Result<()> {
    let name = table.name.as_str();
    write!(
        stderr(),
        "The key \"{name}\", which is shown this once and stored nowhere:\n\n  {key}\n\n\
         Standard output has its table: append it to the file that `access.keys_file` names, and reload the nodes.\n\
         A client sends the key as `Authorization: Bearer {}…`.\n",
        &key[..4]
    )?;
    let AccessKey { name, hash, rights, topics, rate } = table;
    let rate = if *rate > 0 { format!("rate = {rate}\n") } else { String::new() };
    write!(
        stdout(),
        "[[access.key]]\nname = {}\nhash = {}\nrights = {}\ntopics = {}\n{rate}",
        name.write(),
        hash.write(),
        rights.write(),
        topics.write()
    )
}

fn print_json(table: &AccessKey, key: &str) -> io::Result<()> {
    let AccessKey { name, hash, rights, topics, rate } = table;
    let rights: Vec<&str> = rights.iter().map(Right::as_str).collect();
    let object = json!({
        "name": name.as_str(), "key": key, "hash": hash.to_string(),
        "rights": rights, "topics": topics, "rate": rate,
    });
    writeln!(stdout(), "{object}")
}

fn hash() -> Result<(), Failure> {
    let mut text = String::new();
    let read = stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    let key = text.trim();
    if !is_key(key) {
        // Not shown: it may be a secret of another kind.
        let text = "standard input is not a key; expected tck_ and 43 characters, as `tickcast key new` makes them";
        return Err(Failure::Failed(text.to_owned()));
    }
    let printed = writeln!(stdout(), "{}", KeyHash::of(key));
    printed.map_err(|error| Failure::Failed(format!("cannot print the hash: {error}")))
}
