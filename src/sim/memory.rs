//! The memory of a process, as Linux tells it.

/// Returns the memory that a process holds, in MiB; none unless this is Linux and the process runs.
pub(crate) fn resident_mib(pid: u32) -> Option<u64> {
    status_mib(pid, "VmRSS:")
}

/// Returns the most memory that this process has held, in MiB; none unless this is Linux.
pub(crate) fn peak_mib() -> Option<u64> {
    status_mib(std::process::id(), "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_known_as_long_as_it_runs() {
        let resident = resident_mib(std::process::id()).unwrap();
        assert!((1..100_000).contains(&resident));
        assert!(peak_mib().is_some_and(|peak| peak >= resident / 2));
        assert_eq!(resident_mib(u32::MAX), None);
    }
}
