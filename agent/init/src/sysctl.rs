//! The kernel settings that an appliance running containers needs from the start. CPU tuning is the agent's.

use std::fs;

use crate::{log, memory};

const SETTINGS: [(&str, &str); 6] = [
    // Containers' networks are routed; the engine would set it too, but later and not for a static set-up.
    ("net/ipv4/ip_forward", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    // Kernel addresses and messages are not a container's business.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
    // A container runtime watches many files; the default of 128 instances is for a desktop.
    ("fs/inotify/max_user_instances", "1024"),
];

/// Lets init and the agent log during boot without the rate limit for user space.
pub(crate) fn unlimit_kmsg() {
    // The newline is part of the value: without it the kernel answers EINVAL.
    apply("kernel/printk_devkmsg", "on\n");
}

pub(crate) fn apply_all() {
    for (key, value) in SETTINGS {
        apply(key, value);
    }
    if let Some(kib) = memory::installed_mib().and_then(reserve_kib) {
        apply("vm/min_free_kbytes", &kib.to_string());
    }
}

/// Below this a node's memory is better used for images than kept free.
const SMALL_MIB: u64 = 8192;

/// The memory that the kernel keeps free, by its own formula (mm/page_alloc.c,
/// `calculate_min_free_kbytes`), on a small node. With huge pages configured, khugepaged raises it to
/// 45 MiB and more, and the watermarks that follow cost a node of 1 GiB 120 MiB (measured).
fn reserve_kib(installed_mib: u64) -> Option<u64> {
    (installed_mib < SMALL_MIB).then(|| (installed_mib * 1024 * 16).isqrt())
}

fn apply(key: &str, value: &str) {
    if let Err(error) = fs::write(format!("/proc/sys/{key}"), value) {
        log::warn(&format!("sysctl {key}={}: {error}", value.trim()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_the_kernels_on_a_small_node_and_left_alone_on_a_large_one() {
        // what Linux prints without huge pages on 1 GiB, but for what it keeps itself
        assert_eq!(reserve_kib(1024), Some(4096));
        assert_eq!(reserve_kib(320), Some(2289));
        assert_eq!(reserve_kib(8192), None);
    }
}
