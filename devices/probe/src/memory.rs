//! How much memory there is, and how much of it this process may use.

use std::path::Path;

/// Installed memory in bytes, out of the text of `/proc/meminfo`.
pub(crate) fn installed(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The control group of this process, below the root of all, out of the text of `/proc/self/cgroup`.
/// Groups of the first version are left aside: their line begins with another number than 0.
pub(crate) fn group(cgroup: &str) -> Option<&Path> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of this process's own view is spelled with leading `..`.
    (!path.split('/').any(|part| part == "..")).then(|| Path::new(path))
}

/// A group's limit in bytes, out of the text of its `memory.max`; `None`: there is none.
pub(crate) fn limit(memory_max: &str) -> Option<u64> {
    memory_max.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_memory_is_read_in_bytes() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree:          812340 kB\n";
        assert_eq!(installed(meminfo), Some(16_303_428 * 1024));
        for odd in ["", "MemFree: 1 kB\n", "MemTotal: many kB\n", "MemTotal: 5\n"] {
            assert_eq!(installed(odd), None, "{odd}");
        }
        assert_eq!(installed("MemTotal: 18446744073709551615 kB\n"), None);
    }

    #[test]
    fn the_group_of_the_second_version_is_found() {
        let both = "5:memory:/user\n0::/user.slice/session-1.scope\n";
        assert_eq!(group(both), Some(Path::new("user.slice/session-1.scope")));
        assert_eq!(group("0::/\n"), Some(Path::new("")));
        assert_eq!(group("5:memory:/user\n"), None);
        assert_eq!(group("0::/../other\n"), None);
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(limit("536870912\n"), Some(512 << 20));
        assert_eq!(limit("max\n"), None);
    }
}
