//! What the operating system knows about a process and the machine: CPU time, resident memory, limits, cores.
//!
//! Everything comes from `/proc` and a few system calls, so the server under test needs no cooperation.
//! CPU time is read from the scheduler in nanoseconds where the kernel offers it; clock ticks of 10 ms would blur the
//! short windows in which a good server does little.

use std::fs;
use std::io::{self, ErrorKind};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::error::LoadError;
use crate::units::{SECOND_NS, count, thousands};

/// CPU time used by a process since it started, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CpuTime {
    /// User and system time together, as exact as the kernel tells.
    pub total_ns: u64,
    /// User time, to the clock tick.
    pub user_ns: u64,
    /// System time, to the clock tick.
    pub system_ns: u64,
}

impl CpuTime {
    /// The time used since an earlier reading of the same process.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }
}

/// A process to observe.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// The process with this id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// This process.
    #[must_use]
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// The CPU time of all its threads.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn cpu(self) -> Result<CpuTime, LoadError> {
        let ticks = self.read("stat", parse_stat)?;
        let tick_ns = SECOND_NS / clock_ticks_per_second().max(1);
        let (user_ns, system_ns) = (ticks.0 * tick_ns, ticks.1 * tick_ns);
        let total_ns = self.run_time_ns().unwrap_or(user_ns + system_ns);
        Ok(CpuTime { total_ns, user_ns, system_ns })
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn resident_bytes(self) -> Result<u64, LoadError> {
        Ok(self.read("statm", parse_statm)? * count(page_size()))
    }

    /// Run time of all living threads; `None` where the kernel does not keep it.
    fn run_time_ns(self) -> Option<u64> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0)).ok()? {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            total += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(total)
    }

    fn read<T>(self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, LoadError> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path)
            .and_then(|text| {
                parse(&text).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, text.clone()))
            })
            .map_err(LoadError::system(
                format!("reading {path}"),
                "check that the server still runs and that --server-pid is its process id",
            ))
    }
}

/// User and system ticks from `/proc/PID/stat`. The command name may hold spaces and brackets, so count from its end.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let (_, fields) = text.rsplit_once(')')?;
    // The first field behind the name is number 3 (state); utime and stime are numbers 14 and 15.
    let mut fields = fields.split_whitespace().skip(14 - 3);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident pages from `/proc/PID/statm`.
fn parse_statm(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Runs the calling thread, and every process it starts from now on, on one core.
///
/// # Errors
/// If there is no such core for this process.
pub fn pin(core: usize) -> Result<(), LoadError> {
    let mut set = CpuSet::new();
    let known = core < CpuSet::MAX_CPU;
    if known {
        set.set(core);
    }
    let result = if known { sched_setaffinity(None, &set) } else { Err(rustix::io::Errno::INVAL) };
    result.map_err(io::Error::from).map_err(LoadError::system(
        format!("pinning to core {core}"),
        "choose a core that this machine has and this process may use",
    ))
}

/// Raises the soft limit of open files to `needed`.
///
/// # Errors
/// If the hard limit is lower.
pub fn allow_open_files(needed: usize) -> Result<(), LoadError> {
    let needed = count(needed);
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limits.maximum.filter(|hard| *hard < needed) {
        return Err(LoadError::Usage {
            flag: "--connections",
            value: format!("needs {} open files", thousands(needed)),
            problem: "the hard limit is lower",
            fix: format!("open fewer than {}, or raise `ulimit -Hn`", thousands(hard)),
        });
    }
    let raised = Rlimit { current: limits.maximum, ..limits };
    setrlimit(Resource::Nofile, raised).map_err(io::Error::from).map_err(LoadError::system(
        format!("raising the open files limit to {}", thousands(needed)),
        "raise `ulimit -n` before the run",
    ))
}

/// The machine a result was measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the first core.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// Reads the machine's description; what the system does not tell is `unknown`.
    #[must_use]
    pub fn describe() -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| parse_cpu_model(&text).map(str::to_owned));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            cpu: cpu.unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: kernel.map_or_else(|_| unknown(), |text| text.trim().to_owned()),
        }
    }
}

fn parse_cpu_model(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_command_name() {
        let line =
            "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 3 0 733 1911 0 0 20 0 4 0 12345 1 2 3";
        assert_eq!(parse_stat(line), Some((733, 1911)));
        assert_eq!(parse_stat("42 (short) S 1"), None);
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn statm_and_cpuinfo_are_read() {
        assert_eq!(parse_statm("765 440 412 5 0 123 0\n"), Some(440));
        assert_eq!(parse_statm("765"), None);
        assert_eq!(
            parse_cpu_model("processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n"),
            Some("A CPU @ 3 GHz")
        );
        assert_eq!(parse_cpu_model(""), None);
    }

    #[test]
    fn this_process_can_be_observed() {
        let this = Process::this();
        let before = this.cpu().expect("own cpu time");
        assert!(this.resident_bytes().expect("own memory") > 100_000);
        assert!(this.cpu().expect("own cpu time").since(before).total_ns < 60 * SECOND_NS);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Process::new(u32::MAX).cpu().expect_err("no such process").to_string();
        assert!(
            error.contains("/proc/4294967295/stat") && error.contains("--server-pid"),
            "{error}"
        );
    }

    #[test]
    fn impossible_wishes_are_refused_with_the_limit() {
        assert!(pin(1_000_000).is_err());
        assert!(allow_open_files(1).is_ok());
    }
}
