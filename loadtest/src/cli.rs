//! The command line. Exit codes: 0 all is well, 1 a check was made and failed, 2 the run could not be done.

use std::io::{Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::assertion::Assertions;
use crate::bench::{self, BenchArgs};
use crate::error::LoadError;
use crate::fanout::{self, FanoutArgs};
use crate::floor::Floor;
use crate::idle::{self, IdleArgs};
use crate::progress::Progress;
use crate::publish::{self, PublishArgs};
use crate::report;

/// A check was made and failed.
const CHECK_FAILED: u8 = 1;
/// The run could not be done. The argument parser uses the same code.
const NOT_DONE: u8 = 2;

/// Load tester for Tickcast and its peers
#[derive(Debug, Parser)]
#[command(name = "tickcast-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the bare loop: one plain send per subscriber, the yardstick of all budgets
    Floor {
        /// Address to listen on; port 0 takes a free one, which is printed
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
    /// Publish on an open schedule and account for every delivery
    Fanout {
        #[command(flatten)]
        args: Box<FanoutArgs>,
        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,
        /// Conditions, such as 'p99<50ms,missing=0'; exit code 1 if one fails
        #[arg(long)]
        assert: Option<Assertions>,
    },
    /// Hold idle connections and measure what each costs
    Idle {
        #[command(flatten)]
        args: IdleArgs,
        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,
    },
    /// Publish through a real Redis as fast as it goes, beside redis-benchmark making the same script calls
    Publish {
        #[command(flatten)]
        args: Box<PublishArgs>,
        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,
    },
    /// Measure a gateway beside the bare loop and check the budgets
    Bench(BenchArgs),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            // Help and version are "errors" with the code 0; a closed pipe is no reason to fail.
            drop(problem.print());
            return ExitCode::from(u8::try_from(problem.exit_code()).unwrap_or(NOT_DONE));
        }
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            Progress::new().clear();
            drop(writeln!(stderr(), "error: {error}"));
            ExitCode::from(NOT_DONE)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, LoadError> {
    match command {
        Command::Floor { listen } => {
            let floor = Floor::bind(listen)?;
            print(&format!("listening on {}\n", floor.address()?))?;
            floor.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fanout { args, json, assert } => {
            let found = fanout::run(&args, &mut Progress::new())?;
            print(&if json { as_json(&found) } else { report::fanout(&found) })?;
            let failures = assert.map(|assert| assert.failures(&found)).unwrap_or_default();
            verdict(&failures)
        }
        Command::Idle { args, json } => {
            let found = idle::run(&args, &mut Progress::new())?;
            print(&if json { as_json(&found) } else { report::idle(&found) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Publish { args, json } => {
            let found = publish::run(&args, &mut Progress::new())?;
            print(&if json { as_json(&found) } else { publish::text(&found) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(args) => {
            let summary = bench::run(&args, &mut Progress::new())?;
            print(&summary.text)?;
            verdict(&summary.failures)
        }
    }
}

/// Names the failures, if any, and gives the exit code for them.
fn verdict(failures: &[String]) -> Result<ExitCode, LoadError> {
    for failure in failures {
        writeln!(stderr(), "FAILED      {failure}")
            .map_err(LoadError::system("writing to standard error", "keep it open"))?;
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) })
}

/// A report as one line of JSON. Reports hold only text and numbers, which always serialize.
fn as_json(report: &impl Serialize) -> String {
    serde_json::to_string(report).unwrap_or_default() + "\n"
}

fn print(text: &str) -> Result<(), LoadError> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(LoadError::system("writing to standard output", "keep it open until the end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
