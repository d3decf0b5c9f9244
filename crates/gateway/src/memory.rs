//! How much memory this process may use: what the machine has, or less where a control group says so.

use std::path::{Component, Path};
use std::sync::LazyLock;

/// So many bytes, where the system tells. Looked up once: bounds that follow from it stay what they are while a node runs.
pub(crate) fn allowed() -> Option<u64> {
    static ALLOWED: LazyLock<Option<u64>> = LazyLock::new(|| allowed_on(Path::new("/")));
    *ALLOWED
}

fn allowed_on(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|group| group_limits(root, group));
    limits.chain(physical(root)).min()
}

fn physical(root: &Path) -> Option<u64> {
    let facts = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = facts.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The limits of one line of `/proc/self/cgroup`, such as `4:memory:/a/b` or, in version 2, `0::/a/b`.
///
/// All groups from the top to that of the process count. In a container the path may be that of the host and lead
/// nowhere: then the container's own group is the top.
fn group_limits(root: &Path, group: &str) -> Vec<u64> {
    let parts: Vec<_> = group.splitn(3, ':').collect();
    let [_, controllers, path] = parts[..] else { return Vec::new() };
    let (top, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let mut folder = root.join(top);
    // `..` leads out of what is mounted here.
    let names = Path::new(path).components().map_while(|component| match component {
        Component::RootDir => Some(Path::new("")),
        Component::Normal(name) => Some(Path::new(name)),
        _ => None,
    });
    let limits = names.filter_map(|name| {
        folder.push(name);
        // Without a limit it says `max`, or a number beyond any machine.
        std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384 kB\nMemFree:         1024 kB\n";
    const MIB: u64 = 1 << 20;

    /// What a process may use where these files are.
    fn allowed(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        allowed_on(root.path())
    }

    #[test]
    fn nothing_is_known() {
        assert_eq!(allowed(&[]), None);
        assert_eq!(
            allowed(&[("proc/meminfo", "MemTotal: lots"), ("proc/self/cgroup", "::")]),
            None
        );
    }

    #[test]
    fn without_a_group_the_machine_counts() {
        assert_eq!(allowed(&[("proc/meminfo", MEMINFO)]), Some(16 * MIB));
        let unlimited = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/a\n0::/a\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(allowed(&unlimited), Some(16 * MIB));
    }

    #[test]
    fn the_tightest_group_on_the_way_counts() {
        let check = |outer: &str, inner: &str, expected: u64| {
            let second = [
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/memory.max", outer),
                ("sys/fs/cgroup/a/b/memory.max", inner),
            ];
            assert_eq!(allowed(&second), Some(expected), "{outer} {inner}");
            let number = |text: &str| text.replace("max", "9223372036854771712");
            let (outer, inner) = (number(outer), number(inner));
            let first = [
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "7:cpu:/x\n4:hugetlb,memory:/a/b\n0::/\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", &outer),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", &inner),
            ];
            assert_eq!(allowed(&first), Some(expected), "{outer} {inner}");
        };
        check("8388608\n", "max\n", 8 * MIB);
        check("8388608\n", "4194304\n", 4 * MIB);
        check("4194304\n", "8388608\n", 4 * MIB);
        check("max\n", "67108864\n", 16 * MIB);
    }

    #[test]
    fn in_a_container_the_top_is_its_own_group() {
        for path in ["4:memory:/docker/0f3a", "4:memory:/../../elsewhere"] {
            let files = [
                ("proc/self/cgroup", path),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n"),
                ("sys/fs/elsewhere/memory.limit_in_bytes", "1\n"),
            ];
            assert_eq!(allowed(&files), Some(4 * MIB), "{path}");
        }
        let second = [("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", "4194304\n")];
        assert_eq!(allowed(&second), Some(4 * MIB));
    }
}
