//! Programs that a run starts: on cores of their own, with their last words kept, and never left behind.
//!
//! A child is killed when it is dropped, which covers every error. When this program itself is killed, by Ctrl-C or
//! worse, nothing is dropped; for that the kernel is told to kill the child together with its parent.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::LoadError;
use crate::proc::on_cores;

/// Longest wait for a server's first good answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions whether it is ready.
const READY_STEP: Duration = Duration::from_millis(20);
/// Longest wait for a program to end by itself after SIGTERM, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a program's output an error message shows, in bytes.
const LAST_WORDS: usize = 600;

/// A command for a program that dies with this one.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Child {
    /// What it is, for messages.
    name: String,
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a [`command`] on these cores. Its output goes to the file `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(
        name: impl Into<String>,
        command: &mut Command,
        log: &Path,
        cores: &[usize],
    ) -> Result<Self, LoadError> {
        let name = name.into();
        let output = File::create(log).and_then(|output| Ok((output.try_clone()?, output)));
        let failed = || {
            LoadError::system(
                format!("starting {name}"),
                "check the path of its binary, and that setpriv (util-linux) is installed",
            )
        };
        let (out, err) = output.map_err(failed())?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let process = on_cores(cores, || command.spawn())?.map_err(failed())?;
        Ok(Self { name, process, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `is_ready`, for 10 s at most.
    ///
    /// # Errors
    /// If the program ends before, or never becomes ready; `sign` says what was waited for.
    pub fn wait_ready(
        &mut self,
        sign: &str,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<(), LoadError> {
        let started = Instant::now();
        while !is_ready() {
            if let Some(status) = self.exited()? {
                return Err(self.died(&format!("ended at once with {status}")));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(self.died(&format!("{sign} did not happen within 10 s")));
            }
            self.wait_exit(READY_STEP)?;
        }
        Ok(())
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// If it has ended.
    pub fn check(&mut self) -> Result<(), LoadError> {
        match self.exited()? {
            Some(status) => Err(self.died(&format!("ended during the run with {status}"))),
            None => Ok(()),
        }
    }

    /// Ends it, politely first.
    ///
    /// # Errors
    /// If it had ended before.
    pub fn stop(mut self) -> Result<(), LoadError> {
        self.check()?;
        kill_process(Pid::from_child(&self.process), Signal::TERM)
            .map_err(io::Error::from)
            .map_err(LoadError::system(format!("stopping {}", self.name), "stop it by hand"))?;
        self.wait_exit(STOP_TIMEOUT)
    }

    /// Waits until the process has ended, or for `limit`.
    fn wait_exit(&self, limit: Duration) -> Result<(), LoadError> {
        let wait = || -> io::Result<()> {
            let process = pidfd_open(Pid::from_child(&self.process), PidfdFlags::empty())?;
            let timeout = Timespec::try_from(limit).map_err(|_long| io::ErrorKind::InvalidInput)?;
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout))?;
            Ok(())
        };
        wait().map_err(LoadError::system(format!("waiting for {}", self.name), "run it again"))
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>, LoadError> {
        self.process
            .try_wait()
            .map_err(LoadError::system(format!("looking after {}", self.name), "run it again"))
    }

    fn died(&self, problem: &str) -> LoadError {
        let output = fs::read(&self.log).unwrap_or_default();
        let last = String::from_utf8_lossy(&output[output.len().saturating_sub(LAST_WORDS)..]);
        LoadError::Server {
            place: self.name.clone(),
            problem: format!("{problem}; its last output: {:?}", last.trim()),
            fix: "start it by hand with the same flags",
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Ports of loopback that were free a moment ago, chosen together so that they differ.
///
/// # Errors
/// If there is none.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], LoadError> {
    let bind = || -> io::Result<[SocketAddr; N]> {
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
        let mut listeners = Vec::new();
        for address in &mut addresses {
            let listener = TcpListener::bind(*address)?;
            *address = listener.local_addr()?;
            listeners.push(listener);
        }
        Ok(addresses)
    };
    bind().map_err(LoadError::system("finding a free port", "end what holds them all"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::Process;

    fn child(folder: &Path, program: &str, arguments: &[&str]) -> Result<Child, LoadError> {
        let log = folder.join("log");
        Child::spawn("a program", command(program).args(arguments), &log, &[])
    }

    #[test]
    fn a_child_is_killed_when_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let child = child(folder.path(), "sleep", &["60"]).expect("started");
        let pid = child.pid();
        assert!(Process::new(pid).resident_bytes().is_ok());
        drop(child);
        assert!(Process::new(pid).resident_bytes().is_err());
    }

    #[test]
    fn a_child_that_ends_is_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ended =
            child(folder.path(), "sh", &["-c", "echo no room >&2; exit 3"]).expect("started");
        let error = ended.wait_ready("an answer", || false).expect_err("ended").to_string();
        assert!(error.contains("no room") && error.contains("exit status: 3"), "{error}");
        let error = ended.check().expect_err("ended").to_string();
        assert!(error.contains("during the run"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut missing = child(folder.path(), "no/such/program", &[]).expect("setpriv starts");
        let error = missing.wait_ready("an answer", || false).expect_err("ended").to_string();
        assert!(error.contains("no/such/program"), "{error}");
    }

    #[test]
    fn free_addresses_differ() {
        let [first, second, third] = free_addresses().expect("ports");
        assert!(first != second && second != third && first != third);
    }
}
