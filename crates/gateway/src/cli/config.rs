//! `tickcast config`: the configuration in force with the source of every value, and what there is to set.

use std::io::{self, Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, NodeArgs, OutputFormat, USAGE, finish, print_json, report};
use crate::config::{Effective, Problem, effective_file, reference_file, schema};

/// Flags of `config`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast config --config /etc/tickcast.toml
  tickcast config --reference
  tickcast config --schema

Without --reference and --schema it takes the flags of `serve`, and prints every setting that a node started with them
would have, and where its value comes from: default, file:line:column, environment variable or flag. Secrets are shown
as `***`.")]
pub struct ConfigArgs {
    /// The flags of the node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Print a file with every setting, its description and its default, to be copied and changed
    #[arg(long, conflicts_with = "schema")]
    pub reference: bool,

    /// Print the JSON Schema of the file, for editors
    #[arg(long)]
    pub schema: bool,

    /// How the settings are printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", conflicts_with_all = ["reference", "schema"])]
    pub format: OutputFormat,
}

/// For programs.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    settings: &'a [Effective],
}

impl ConfigArgs {
    /// Runs `tickcast config`.
    pub fn run(&self) -> ExitCode {
        let printed = if self.reference {
            stdout().write_all(reference_file().as_bytes())
        } else if self.schema {
            print_json(&schema())
        } else {
            match self.node.inputs().load_with_origins() {
                Ok(loaded) => {
                    say(&loaded.warnings);
                    print(self.format, &loaded.effective())
                }
                Err(errors) => {
                    say(&errors.into_all());
                    return ExitCode::from(USAGE);
                }
            }
        };
        finish(printed.map_err(|error| Failure::Failed(format!("cannot print: {error}"))))
    }
}

/// What is wrong is not what was asked for. A closed standard error is no reason not to give that.
fn say(problems: &[Problem]) {
    if !problems.is_empty() {
        drop(stderr().write_all(report(problems).as_bytes()));
    }
}

fn print(format: OutputFormat, settings: &[Effective]) -> io::Result<()> {
    match format {
        OutputFormat::Text => stdout().write_all(effective_file(settings).as_bytes()),
        OutputFormat::Json => {
            print_json(&Document { version: env!("CARGO_PKG_VERSION"), settings })
        }
    }
}
