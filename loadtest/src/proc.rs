//! What the operating system knows about a process and the machine: CPU time, resident memory, limits, cores.
//!
//! Everything comes from `/proc` and a few system calls, so the server under test needs no cooperation.
//! CPU time is read from the scheduler in nanoseconds where the kernel offers it; clock ticks of 10 ms would blur the
//! short windows in which a good server does little.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::error::LoadError;
use crate::units::{SECOND_NS, count, ratio, thousands};

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

    /// Run time of the living threads of that name, in nanoseconds; `None` if there is no such thread, or where the
    /// kernel does not keep it.
    #[must_use]
    pub fn thread_cpu_ns(self, name: &str) -> Option<u64> {
        let is_named = |thread: &Path| {
            fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let times: Vec<_> = self.threads()?.into_iter().filter(|thread| is_named(thread)).collect();
        if times.is_empty() { None } else { sum_of_run_times(times) }
    }

    /// Run time of all living threads; `None` where the kernel does not keep it.
    fn run_time_ns(self) -> Option<u64> {
        sum_of_run_times(self.threads()?)
    }

    /// The folders of the living threads.
    fn threads(self) -> Option<Vec<PathBuf>> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).ok()?;
        threads.map(|thread| Some(thread.ok()?.path())).collect()
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

/// What a core, or all of them together, did since the machine started, in nanoseconds to the clock tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// Ran processes.
    pub processes_ns: u64,
    /// Served interrupts, or was used by the host for something else.
    pub interrupts_ns: u64,
    /// Did nothing.
    pub idle_ns: u64,
}

impl CoreTime {
    /// What it did since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            processes_ns: self.processes_ns.saturating_sub(earlier.processes_ns),
            interrupts_ns: self.interrupts_ns.saturating_sub(earlier.interrupts_ns),
            idle_ns: self.idle_ns.saturating_sub(earlier.idle_ns),
        }
    }

    /// The time of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            processes_ns: self.processes_ns + other.processes_ns,
            interrupts_ns: self.interrupts_ns + other.interrupts_ns,
            idle_ns: self.idle_ns + other.idle_ns,
        }
    }

    /// The share of the time that it was not idle.
    #[must_use]
    pub fn busy_share(self) -> f64 {
        let busy = self.processes_ns + self.interrupts_ns;
        ratio(busy as f64, (busy + self.idle_ns) as f64)
    }
}

/// What every core did, by its number.
///
/// # Errors
/// If the system does not tell.
pub fn core_times() -> Result<Vec<(usize, CoreTime)>, LoadError> {
    let tick_ns = SECOND_NS / clock_ticks_per_second().max(1);
    fs::read_to_string("/proc/stat")
        .map(|text| text.lines().filter_map(|line| parse_core(line, tick_ns)).collect())
        .map_err(LoadError::system("reading /proc/stat", "mount /proc"))
}

/// A line `cpu0 user nice system idle waiting interrupts soft-interrupts stolen …` of `/proc/stat`.
fn parse_core(line: &str, tick_ns: u64) -> Option<(usize, CoreTime)> {
    let mut fields = line.strip_prefix("cpu")?.split(' ');
    let core = fields.next()?.parse().ok()?;
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? * tick_ns);
    let processes_ns = next()? + next()? + next()?;
    let idle_ns = next()? + next()?;
    let interrupts_ns = next()? + next()? + next()?;
    Some((core, CoreTime { processes_ns, interrupts_ns, idle_ns }))
}

fn sum_of_run_times(threads: Vec<PathBuf>) -> Option<u64> {
    let run_time = |thread: PathBuf| {
        let text = fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.into_iter().map(run_time).sum()
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
    set_cores(&cpu_set(&[core])?, &[core])
}

/// Does `work` on these cores, and returns to those of before. A process that it starts stays on them.
/// No core at all leaves everything as it is.
///
/// # Errors
/// If there is no such core for this process.
pub fn on_cores<T>(cores: &[usize], work: impl FnOnce() -> T) -> Result<T, LoadError> {
    if cores.is_empty() {
        return Ok(work());
    }
    let before = sched_getaffinity(None)
        .map_err(io::Error::from)
        .map_err(LoadError::system("reading the cores of this process", "report this as a bug"))?;
    set_cores(&cpu_set(cores)?, cores)?;
    let result = work();
    set_cores(&before, &[])?;
    Ok(result)
}

/// The cores that the calling thread may use.
///
/// # Errors
/// If the system does not tell.
pub fn cores() -> Result<Vec<usize>, LoadError> {
    let set = sched_getaffinity(None)
        .map_err(io::Error::from)
        .map_err(LoadError::system("reading the cores of this process", "report this as a bug"))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

fn cpu_set(cores: &[usize]) -> Result<CpuSet, LoadError> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(no_such_core(&[*core])(rustix::io::Errno::INVAL.into()));
        }
        set.set(*core);
    }
    Ok(set)
}

fn set_cores(set: &CpuSet, cores: &[usize]) -> Result<(), LoadError> {
    sched_setaffinity(None, set).map_err(io::Error::from).map_err(no_such_core(cores))
}

fn no_such_core(cores: &[usize]) -> impl FnOnce(io::Error) -> LoadError {
    LoadError::system(
        format!("pinning to core {cores:?}"),
        "choose a core that this machine has and this process may use",
    )
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
    fn cores_are_told_apart_with_what_they_did() {
        let time = CoreTime { processes_ns: 60, interrupts_ns: 20, idle_ns: 20 };
        assert_eq!(parse_core("cpu7 1 2 3 1 1 0 1 1 900 90", 10), Some((7, time)));
        assert!((time.busy_share() - 0.8).abs() < 1e-9);
        assert_eq!(time.and(time).since(time), time);
        for other in ["cpu  1 2 3 1 1 0 1 1", "intr 1 2 3", "cpu0 1 2", ""] {
            assert_eq!(parse_core(other, 10), None, "{other}");
        }
        let known = core_times().expect("told");
        assert!(cores().expect("cores").iter().all(|core| known.iter().any(|it| it.0 == *core)));
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
    fn a_thread_is_found_by_its_name() {
        let this = std::thread::Builder::new().name("busy".to_owned()).spawn(|| {
            // The kernel's list may miss a thread while others, such as those of other tests, come and go.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let used = loop {
                let used = Process::this().thread_cpu_ns("busy");
                if used.is_some() || std::time::Instant::now() > deadline {
                    break used;
                }
                std::thread::yield_now();
            };
            assert!(used.is_some_and(|nanos| nanos < 60 * SECOND_NS), "{used:?}");
        });
        this.expect("a thread").join().expect("no panic");
        assert_eq!(Process::this().thread_cpu_ns("no such thread"), None);
    }

    #[test]
    fn a_process_stays_on_the_core_it_was_started_on() {
        let all = cores().expect("cores");
        let one = on_cores(&all[..1], || cores().expect("cores")).expect("pinned");
        assert_eq!((one.as_slice(), cores().expect("cores")), (&all[..1], all.clone()));
        assert_eq!(on_cores(&[], || cores().expect("cores")).expect("as before"), all);
    }

    #[test]
    fn impossible_wishes_are_refused_with_the_limit() {
        assert!(pin(1_000_000).is_err());
        assert!(on_cores(&[1_000_000], || ()).is_err());
        assert!(allow_open_files(1).is_ok());
    }
}
