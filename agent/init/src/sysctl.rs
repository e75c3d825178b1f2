//! The kernel settings that an appliance running containers needs from the start. CPU tuning is the agent's.

use std::fs;

use crate::log;

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
}

fn apply(key: &str, value: &str) {
    if let Err(error) = fs::write(format!("/proc/sys/{key}"), value) {
        log::warn(&format!("sysctl {key}={}: {error}", value.trim()));
    }
}
