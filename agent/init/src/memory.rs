//! Is there enough memory, and what to tell people if not.
//!
//! What counts is the memory installed, as an operator knows it from the machine's data sheet or `-m`: the sum of
//! "System RAM" in `/proc/iomem`. MemTotal is smaller by what the kernel keeps, which varies by build.

use std::fs;

/// The engine starts and a container runs in this much; in less they fail in obscure ways.
pub(crate) const MINIMUM_MIB: u64 = 320;

const MIB: u64 = 1024 * 1024;

/// The installed memory, rounded up, or what the kernel manages if the map cannot be read.
pub(crate) fn installed_mib() -> Option<u64> {
    let mapped = fs::read_to_string("/proc/iomem")
        .ok()
        .and_then(|text| iomem_mib(&text));
    mapped.or_else(|| meminfo_mib(&fs::read_to_string("/proc/meminfo").ok()?))
}

/// The sentence to show if `have` is too little.
pub(crate) fn verdict(have_mib: Option<u64>, need_mib: u64) -> Option<String> {
    let have_mib = have_mib?;
    (have_mib < need_mib)
        .then(|| format!("too little memory: {have_mib} MiB, needs {need_mib} MiB"))
}

fn iomem_mib(text: &str) -> Option<u64> {
    let mut bytes: u64 = 0;
    // Indented lines are parts of the ranges above them.
    for line in text
        .lines()
        .filter(|line| line.ends_with(" : System RAM") && !line.starts_with(' '))
    {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        bytes = bytes.saturating_add(end.checked_sub(start)?.saturating_add(1));
    }
    // Without the privilege every address reads as zero.
    (bytes > MIB).then(|| bytes.div_ceil(MIB))
}

fn meminfo_mib(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU_320: &str = "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n\
        000f0000-000fffff : System ROM\n00100000-13fdffff : System RAM\n  01000000-01ffffff : Kernel code\n\
        13fe0000-13ffffff : Reserved\n";

    #[test]
    fn a_320_mib_machine_counts_as_320() {
        assert_eq!(iomem_mib(QEMU_320), Some(320));
        assert_eq!(verdict(iomem_mib(QEMU_320), MINIMUM_MIB), None);
    }

    #[test]
    fn the_unprivileged_map_is_not_believed() {
        assert_eq!(iomem_mib("00000000-00000000 : System RAM\n"), None);
        assert_eq!(iomem_mib("garbage : System RAM\n"), None);
    }

    #[test]
    fn too_little_is_said_in_numbers() {
        let text = verdict(Some(255), 320).unwrap();
        assert_eq!(text, "too little memory: 255 MiB, needs 320 MiB");
        assert_eq!(verdict(None, 320), None);
    }

    #[test]
    fn meminfo() {
        assert_eq!(
            meminfo_mib("MemTotal:         300001 kB\nMemFree: 1 kB\n"),
            Some(293)
        );
        assert_eq!(meminfo_mib("MemFree: 1 kB\n"), None);
    }
}
