//! The budget run: a gateway beside the bare loop, interleaved, repeated, judged.
//!
//! Each repetition of a scenario measures a fresh floor and then a fresh gateway within seconds, on the same core, with
//! the same load; only the ratio of the two is compared between repetitions, because machines drift and absolutes lie.
//! Servers are black boxes, started and stopped here on free ports.

mod document;
mod redis;
mod scenario;
mod server;
mod summary;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{LoadError, within};
use crate::fanout::{self, FanoutArgs};
use crate::idle::{self, IdleArgs};
use crate::proc::{Machine, allow_open_files, pin};
use crate::progress::Progress;
use crate::section;
use scenario::{Load, Scenario};
use server::{Kind, Launcher};
use summary::{Outcome, Reading, Repetition};

/// The run is given up beyond this: twice what it should take.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const LIMIT_QUICK: Duration = Duration::from_secs(3 * 60);
/// Repetitions of a quick run, at most.
const QUICK_REPS: usize = 2;

/// What to run; the flags of `tickcast-load bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The gateway's binary
    #[arg(long)]
    pub server: PathBuf,
    /// Markdown file to write the tables into, between its `bench` markers; made if missing
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Two repetitions and short windows: a smoke test, no evidence
    #[arg(long)]
    pub quick: bool,
    /// Repetitions of each measurement
    #[arg(long, default_value_t = 5)]
    pub reps: usize,
    /// Only this row of the budgets; may be given several times
    #[arg(long)]
    pub row: Vec<u8>,
    /// Publishing through a real Redis instead, beside redis-benchmark; cores are dealt out by themselves
    #[arg(long, conflicts_with = "row")]
    pub redis: bool,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Core of the generator
    #[arg(long, default_value_t = 1)]
    pub generator_core: usize,
}

impl BenchArgs {
    fn check(&self) -> Result<(), LoadError> {
        within("--reps", self.reps, 1, 100)?;
        if self.server_core == self.generator_core {
            return Err(LoadError::Usage {
                flag: "--server-core",
                value: self.server_core.to_string(),
                problem: "is the generator's core too, so neither could be measured",
                fix: "run on at least two cores and give each its own".to_owned(),
            });
        }
        if let Some(row) = self.row.iter().find(|row| !scenario::ROWS.contains(row)) {
            return Err(LoadError::Usage {
                flag: "--row",
                value: row.to_string(),
                problem: "is not measured here",
                fix: format!("choose from {:?}", scenario::ROWS),
            });
        }
        Ok(())
    }

    fn repetitions(&self) -> usize {
        if self.quick { self.reps.min(QUICK_REPS) } else { self.reps }
    }

    /// The command as typed, but for the folder of the server's binary, which is nobody's business.
    fn command_line(&self) -> String {
        let server = self.server.file_name().unwrap_or(self.server.as_os_str()).to_string_lossy();
        let quick = if self.quick { " --quick" } else { "" };
        let rows: String = self.row.iter().map(|row| format!(" --row {row}")).collect();
        let redis = if self.redis { " --redis" } else { "" };
        format!("tickcast-load bench --server {server} --reps {}{quick}{rows}{redis}", self.reps)
    }
}

/// The end of a budget run.
#[derive(Debug, Clone)]
pub struct BenchSummary {
    /// The tables, for people.
    pub text: String,
    /// Missed gates and lost deliveries, each with the value; empty if all is well.
    pub failures: Vec<String>,
}

/// Runs it and writes the tables.
///
/// # Errors
/// If a server does not start, a run cannot be done, the time is up, or the file cannot be written.
pub fn run(args: &BenchArgs, progress: &mut Progress) -> Result<BenchSummary, LoadError> {
    args.check()?;
    if args.redis {
        return run_redis(args, progress);
    }
    let scenarios = scenario::all(args.quick);
    let mut bench = Bench {
        launcher: Launcher::new(&args.server, args.server_core)?,
        started: Instant::now(),
        limit: if args.quick { LIMIT_QUICK } else { LIMIT },
        repetitions: args.repetitions(),
        progress,
    };
    // Read before pinning, which leaves this process one core. Servers inherit the open files limit.
    let machine = Machine::describe();
    allow_open_files(scenario::OPEN_FILES)?;
    pin(args.generator_core)?;
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        if args.row.is_empty() || args.row.contains(&scenario.row) {
            outcomes.push(bench.outcome(scenario)?);
        }
    }
    let text = document::section(&outcomes, &machine, &args.command_line(), args.quick);
    if let Some(path) = &args.out {
        section::write(path, document::NAME, &text)?;
    }
    let failures = outcomes.iter().flat_map(Outcome::failures).collect();
    Ok(BenchSummary { text: document::table(&outcomes), failures })
}

/// The rows that need a Redis, in their own section of the file.
fn run_redis(args: &BenchArgs, progress: &mut Progress) -> Result<BenchSummary, LoadError> {
    let size = (args.repetitions(), args.quick);
    let found = redis::run(&args.server, size, &args.command_line(), progress)?;
    if let Some(path) = &args.out {
        section::write(path, redis::NAME, &found.section)?;
    }
    Ok(BenchSummary { text: found.text, failures: found.failures })
}

/// A budget run under way.
struct Bench<'a> {
    launcher: Launcher,
    started: Instant,
    limit: Duration,
    repetitions: usize,
    progress: &'a mut Progress,
}

impl Bench<'_> {
    /// All repetitions of one scenario.
    fn outcome(&mut self, scenario: Scenario) -> Result<Outcome, LoadError> {
        let mut repetitions = Vec::new();
        for number in 1..=self.repetitions {
            let mut read = |kind| {
                self.progress.label(format!(
                    "row {} {}, {number}/{}, {kind}: ",
                    scenario.row, scenario.name, self.repetitions
                ));
                self.reading(&scenario, kind)
            };
            let (floor, gateway) = (read(Kind::Floor)?, read(Kind::Gateway)?);
            repetitions.push(Repetition { floor, gateway });
        }
        Ok(Outcome { scenario, repetitions })
    }

    /// One server, one load.
    fn reading(&mut self, scenario: &Scenario, kind: Kind) -> Result<Reading, LoadError> {
        if self.started.elapsed() > self.limit {
            return Err(LoadError::Timeout {
                waited_for: format!("the end of the bench (it is at row {})", scenario.row),
                limit: self.limit,
                fix: "lower --reps, choose a --row, or free the machine of other work",
            });
        }
        let server = self.launcher.start(kind, scenario.gateway_config)?;
        let reading = match &scenario.load {
            Load::Fanout(load) => {
                let load = FanoutArgs {
                    url: server.url(),
                    server_pid: Some(server.pid()),
                    ..FanoutArgs::clone(load)
                };
                fanout::run(&load, self.progress).map(|report| Reading::of_fanout(&report))
            }
            Load::Idle(load) => {
                let load = IdleArgs {
                    url: server.url(),
                    server_pid: server.pid(),
                    ..IdleArgs::clone(load)
                };
                idle::run(&load, self.progress).map(|report| Reading::of_idle(&report))
            }
        };
        // A server that died explains a failed run better than the run's own error does.
        server.stop()?;
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn args(flags: &[&str]) -> BenchArgs {
        let fixed = ["bench", "--server", "folder/tickcast"];
        Cli::try_parse_from(fixed.iter().chain(flags)).expect("flags").args
    }

    #[test]
    fn flags_are_checked() {
        assert!(args(&[]).check().is_ok());
        for (flags, named) in [
            (&["--reps", "0"][..], "--reps"),
            (&["--server-core", "1"], "--server-core"),
            (&["--row", "9"], "--row"),
        ] {
            let error = args(flags).check().expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_quick_run_is_short_and_says_so_in_its_command_line() {
        let quick = args(&["--quick", "--row", "2"]);
        assert_eq!(quick.repetitions(), 2);
        assert_eq!(
            quick.command_line(),
            "tickcast-load bench --server tickcast --reps 5 --quick --row 2"
        );
        assert_eq!(args(&["--quick", "--reps", "1"]).repetitions(), 1);
        assert!(args(&["--redis"]).command_line().ends_with(" --redis"));
    }
}
