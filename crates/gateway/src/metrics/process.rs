//! What the operating system says about this process. Names and meanings are those of every Prometheus client.
//!
//! Two files of `/proc`, a folder and two system calls; that is less than the crates that would do it for us.

use std::fs;

use prometheus::proto::{Metric, MetricFamily, MetricType};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::exposition::set_value;

/// All metrics of the process, also those that this system does not tell: they are 0.
pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::read).unwrap_or_default();
    vec![
        family(
            "process_cpu_seconds_total",
            MetricType::COUNTER,
            "Total user and system CPU time spent in seconds.",
            cpu_seconds(),
        ),
        gauge("process_open_fds", "Number of open file descriptors.", open_files() as f64),
        gauge("process_max_fds", "Maximum number of open file descriptors.", open_files_max()),
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.virtual_bytes),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            stat.resident_pages * page_size() as f64,
        ),
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot_time() + stat.start_ticks / clock_ticks_per_second() as f64,
        ),
        gauge("process_threads", "Number of OS threads in the process.", stat.threads),
    ]
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, MetricType::GAUGE, help, value)
}

fn family(name: &str, kind: MetricType, help: &str, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    set_value(&mut metric, kind, value);
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

/// From the clock, not from `stat`: ticks of 10 ms are too coarse for a rate over a short window.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Without the one that this look opens itself.
fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1))
}

/// The soft limit. Without one, the largest number there is, as other clients of Prometheus show it.
fn open_files_max() -> f64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) as f64
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let time = text.lines().find_map(|line| line.strip_prefix("btime "));
    time.and_then(|time| time.trim().parse().ok()).unwrap_or_default()
}

/// What `/proc/self/stat` holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Stat {
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    /// The second field, the name in brackets, may hold anything; from the third on they are numbered by `man proc`.
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self {
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn value(name: &str) -> f64 {
        let families = families();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    #[test]
    fn the_file_is_understood() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194304 90 0 0 0 30 12 0 0 20 0 3 0 500 8192 2 99 1";
        let stat =
            Stat { threads: 3.0, start_ticks: 500.0, virtual_bytes: 8192.0, resident_pages: 2.0 };
        assert_eq!(Stat::read(text), Some(stat));
        assert_eq!(Stat::read("7 (a) S 1 7"), None);
        assert_eq!(Stat::read(""), None);
    }

    #[test]
    fn this_process_is_as_it_is() {
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!((2.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }

    #[test]
    fn open_files_show() {
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let shown = value("process_open_fds");
        assert!(shown >= files.len() as f64, "{shown}");
    }
}
