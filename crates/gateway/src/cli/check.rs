//! `tickcast check`: says everything that is wrong with a configuration, before a node reads it.
//!
//! It loads the configuration as `serve` does, through the same [`Inputs`](crate::config::Inputs).

use std::io::{self, Write as _, stdout};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{NodeArgs, OutputFormat, USAGE, print_json, report};
use crate::config::{Level, Problem};

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast check --config /etc/tickcast.toml
  tickcast check --config /etc/tickcast.toml --strict --format json

It takes the flags of `serve`, reads the same files and the same environment, and refuses what `serve` would refuse.
It binds no port and connects to nothing, so it may run beside a node. `tickcast doctor` looks at the machine and at
Redis as well.
The exit code is 0 if a node starts with the configuration, warnings or not, and 2 otherwise.")]
pub struct CheckArgs {
    /// The flags of the node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Let warnings count as errors
    #[arg(long)]
    pub strict: bool,

    /// What is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

/// For programs.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    /// A node starts with it.
    ok: bool,
    errors: usize,
    warnings: usize,
    problems: &'a [Problem],
}

impl CheckArgs {
    /// Runs `tickcast check`.
    pub fn run(&self) -> ExitCode {
        let problems = match self.node.inputs().load() {
            Ok((_config, warnings)) => warnings,
            Err(errors) => errors.into_all(),
        };
        let is_good = |problem: &Problem| !self.strict && problem.level == Level::Warning;
        let is_good = problems.iter().all(is_good);
        // A reader that has gone has seen enough; the exit code still says it.
        drop(print(self.format, &problems));
        if is_good { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
    }
}

fn print(format: OutputFormat, problems: &[Problem]) -> io::Result<()> {
    match format {
        OutputFormat::Text => stdout().write_all(report(problems).as_bytes()),
        OutputFormat::Json => {
            let count = |level| problems.iter().filter(|problem| problem.level == level).count();
            let (errors, warnings) = (count(Level::Error), count(Level::Warning));
            let version = env!("CARGO_PKG_VERSION");
            print_json(&Document { version, ok: errors == 0, errors, warnings, problems })
        }
    }
}
