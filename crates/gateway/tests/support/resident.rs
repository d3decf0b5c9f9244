//! The memory of a program that runs.

use rustix::process::Pid;

/// What of it is resident, in bytes.
pub(crate) fn resident(program: Pid) -> u64 {
    let path = format!("/proc/{}/status", program.as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
