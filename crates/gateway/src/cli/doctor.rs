//! `tickcast doctor`: looks at this machine, the configuration and Redis, and says what is wrong or will be one day.
//!
//! It takes the flags of `serve` and sees what a node started with them would see. Every check is a [`Finding`]: a value,
//! and if it is not good, what to do. It connects to Redis as a node does, and leaves nothing there.

mod finding;
mod keys;
mod listeners;
mod machine;
mod redis;
#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::process::ExitCode;

use tickcast_broker::redis::inspect::{InspectError, inspect};

use self::finding::{Finding, Level, Report};
use super::{DoctorArgs, Failure, colors, runtime};
use crate::config::{Config, Level as Severity, Problem};

/// Runs the verb. The exit code is 1 if something is wrong, and 0 if at most something could be better.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let report = match args.node.inputs().load() {
        Ok((config, warnings)) => examine(&config, &warnings)?,
        Err(errors) => misconfigured(&errors.into_all()),
    };
    let out = &mut stdout();
    let text = if args.json { report.json() } else { report.text(colors(out)) };
    // A reader that has gone has seen enough.
    drop(out.write_all(text.as_bytes()));
    Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(config: &Config, warnings: &[Problem]) -> Result<Report, Failure> {
    let mut report = Report::default();
    let mut machine = machine::examine(config);
    machine.extend(listeners::examine(config));
    report.section("This machine", machine);
    report.section("Configuration", settings(warnings));
    report.section("Keys", keys::examine(config));
    let redis = &config.broker.redis;
    let findings = match redis.address() {
        Ok(Some(url)) => {
            let inspected = runtime()?.block_on(inspect(&url, &redis.tls(), &redis.prefix));
            match inspected {
                Ok(facts) => redis::judge(&facts, &redis.prefix),
                Err(error) => unreachable(&error),
            }
        }
        // A URL that cannot be read is an error of the configuration.
        Ok(None) | Err(_) => {
            let text = "inside the node, for one node alone; --redis URL shares one between nodes";
            vec![Finding::ok("broker", text)]
        }
    };
    report.section("Broker", findings);
    Ok(report)
}

/// The configuration is valid; some of it may not do what it should.
fn settings(warnings: &[Problem]) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("settings", "valid")];
    findings.extend(warnings.iter().map(of_problem));
    findings
}

fn of_problem(problem: &Problem) -> Finding {
    let level = match problem.level {
        Severity::Error => Level::Fail,
        Severity::Warning => Level::Warn,
    };
    Finding::new(level, "settings", format!("{}: {}", problem.origin, problem.text), &problem.fix)
}

/// With a wrong configuration there is no telling which Redis is meant.
fn misconfigured(problems: &[Problem]) -> Report {
    let mut report = Report::default();
    report.section("This machine", machine::examine(&Config::default()));
    report.section("Configuration", problems.iter().map(of_problem).collect());
    report
}

fn unreachable(error: &InspectError) -> Vec<Finding> {
    let text = error.to_string();
    let (text, fix) = text
        .rsplit_once("; ")
        .unwrap_or((&text, "see broker.redis in docs/reference/configuration.md"));
    let mut findings = vec![Finding::new(Level::Fail, "reachable", text, fix)];
    findings.extend(redis::judge_sentinels(&error.sentinels));
    findings
}
