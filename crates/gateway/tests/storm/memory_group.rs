//! A control group whose processes may use so much memory together, of version 1 or 2.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// How long it is tried to remove a group.
const REMOVED: Duration = Duration::from_secs(2);

/// The group. It is removed when it is dropped: its processes must have ended by then.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    /// A group with so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").expect("Linux has groups");
        let of = |controller: &str| {
            let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            lines.find_map(|parts| match parts[..] {
                [_, known, path] if known == controller => {
                    Some(path.trim_start_matches('/').to_owned())
                }
                _ => None,
            })
        };
        let (parent, limit) = match of("memory") {
            Some(path) => (Path::new(MOUNT).join("memory").join(path), "memory.limit_in_bytes"),
            None => {
                let own = Path::new(MOUNT).join(of("").expect("a group"));
                // Where processes are, version 2 has no groups with limits: they go beside.
                let above = if own == Path::new(MOUNT) { None } else { own.parent() };
                (above.unwrap_or(&own).to_owned(), "memory.max")
            }
        };
        let folder = parent.join(format!("tickcast-storm-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap_or_else(|error| {
            panic!("{}: {error}: this test limits the memory of a node, which needs root and a writable {MOUNT}", folder.display())
        });
        let group = Self { folder };
        group.write(limit, &bytes.to_string());
        // What is beyond it is not to go to the disk. Where there is no swap there is no such file.
        for (file, value) in [
            ("memory.memsw.limit_in_bytes", bytes.to_string()),
            ("memory.swap.max", "0".to_owned()),
        ] {
            if group.folder.join(file).exists() {
                group.write(file, &value);
            }
        }
        group
    }

    fn write(&self, file: &str, value: &str) {
        let path = self.folder.join(file);
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The same command, to run in the group from its first moment on.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        let enter = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;
        inside.args(["-c", enter]).arg(&self.folder);
        inside.arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// How often the kernel has killed a process because there was no memory left.
    pub(crate) fn kills(&self) -> u64 {
        let files = ["memory.oom_control", "memory.events"];
        let text: String = files
            .iter()
            .filter_map(|file| std::fs::read_to_string(self.folder.join(file)).ok())
            .collect();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_else(|| panic!("no count in {text}"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel needs a moment after the last process has ended. A test that has failed is not to fail again here.
        let over = Instant::now() + REMOVED;
        while std::fs::remove_dir(&self.folder).is_err() && Instant::now() < over {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}
