//! What gets mounted where, as tables, and the one function that mounts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::log;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("create mount point {path}")]
    MountPoint { path: PathBuf, source: io::Error },
    #[error("mount {kind} on {path}")]
    Mount {
        kind: &'static str,
        path: PathBuf,
        source: Errno,
    },
    #[error("move mount {from} to {to}")]
    Move {
        from: PathBuf,
        to: PathBuf,
        source: Errno,
    },
    #[error("bind {from} to {to}")]
    Bind {
        from: PathBuf,
        to: PathBuf,
        source: Errno,
    },
}

/// What it means for the node when a mount fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing works without it: the boot stops.
    Must,
    /// The kernel may lack it; what needs it says so later.
    May,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount {
    pub(crate) kind: &'static str,
    pub(crate) target: &'static str,
    pub(crate) flags: MsFlags,
    pub(crate) options: &'static str,
    pub(crate) need: Need,
}

const fn flags(all: &[MsFlags]) -> MsFlags {
    let mut bits = MsFlags::empty();
    let mut index = 0;
    while index < all.len() {
        bits = bits.union(all[index]);
        index += 1;
    }
    bits
}

const NOSUID: MsFlags = MsFlags::MS_NOSUID;
const NODEV: MsFlags = MsFlags::MS_NODEV;
const NOEXEC: MsFlags = MsFlags::MS_NOEXEC;
const STRICT: MsFlags = flags(&[NOSUID, NODEV, NOEXEC]);
const PLAIN: MsFlags = flags(&[NOSUID, NODEV]);

const fn must(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
) -> Mount {
    Mount {
        kind,
        target,
        flags,
        options,
        need: Need::Must,
    }
}

const fn may(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
) -> Mount {
    Mount {
        kind,
        target,
        flags,
        options,
        need: Need::May,
    }
}

/// In the initramfs, before anything can be logged.
pub(crate) const STAGE_ONE: &[Mount] = &[
    must("proc", "/proc", STRICT, ""),
    must("sysfs", "/sys", STRICT, ""),
    must("devtmpfs", "/dev", flags(&[NOSUID, NOEXEC]), "mode=0755"),
    must("tmpfs", "/run", PLAIN, "mode=0755,size=20%"),
];

/// In the squashfs root; what stage one moved there already is not mounted twice.
pub(crate) const ROOT: &[Mount] = &[
    must(
        "devpts",
        "/dev/pts",
        flags(&[NOSUID, NOEXEC]),
        "gid=5,mode=620,ptmxmode=666",
    ),
    must("tmpfs", "/dev/shm", STRICT, "mode=1777"),
    may("mqueue", "/dev/mqueue", STRICT, ""),
    must("tmpfs", "/tmp", PLAIN, "mode=1777"),
    // Image layers and containers' writable files live here: the rest of memory is for the programs themselves.
    must("tmpfs", "/var", PLAIN, "mode=0755,size=60%"),
    must(
        "cgroup2",
        "/sys/fs/cgroup",
        STRICT,
        "nsdelegate,memory_recursiveprot",
    ),
    may("debugfs", "/sys/kernel/debug", STRICT, "mode=0700"),
    may("tracefs", "/sys/kernel/tracing", STRICT, "mode=0700"),
];

/// Mounts a table in order. What may be missing is logged and passed over.
pub(crate) fn mount_all(table: &[Mount]) -> Result<(), MountError> {
    for entry in table {
        match (mount_one(entry), entry.need) {
            (Ok(()), _) => {}
            (Err(error), Need::May) => {
                log::info(&format!("going on without: {}", log::chain(&error)))
            }
            (Err(error), Need::Must) => return Err(error),
        }
    }
    Ok(())
}

fn mount_one(entry: &Mount) -> Result<(), MountError> {
    let target = Path::new(entry.target);
    let failed = |source| MountError::Mount {
        kind: entry.kind,
        path: target.to_owned(),
        source,
    };
    make_mount_point(target)?;
    match mount(
        Some(entry.kind),
        target,
        Some(entry.kind),
        entry.flags,
        Some(entry.options),
    ) {
        // EBUSY: the kernel mounted it already (CONFIG_DEVTMPFS_MOUNT).
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        // An older kernel does not know an option: the file system matters more.
        Err(Errno::EINVAL) if !entry.options.is_empty() => mount(
            Some(entry.kind),
            target,
            Some(entry.kind),
            entry.flags,
            None::<&str>,
        )
        .map_err(failed),
        Err(source) => Err(failed(source)),
    }
}

/// Mounts a block device's squashfs read-only.
pub(crate) fn mount_squashfs(device: &Path, target: &Path) -> Result<(), MountError> {
    make_mount_point(target)?;
    let flags = flags(&[MsFlags::MS_RDONLY, NODEV, NOSUID]);
    mount(Some(device), target, Some("squashfs"), flags, None::<&str>).map_err(|source| {
        MountError::Mount {
            kind: "squashfs",
            path: target.to_owned(),
            source,
        }
    })
}

/// Moves a mount with everything below it.
pub(crate) fn move_mount(from: &Path, to: &Path) -> Result<(), MountError> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(|source| {
        MountError::Move {
            from: from.to_owned(),
            to: to.to_owned(),
            source,
        }
    })
}

/// How much of a tree a bind takes along.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Depth {
    Alone,
    WithSubmounts,
}

pub(crate) fn bind(from: &Path, to: &Path, depth: Depth) -> Result<(), MountError> {
    let flags = match depth {
        Depth::Alone => MsFlags::MS_BIND,
        Depth::WithSubmounts => MsFlags::MS_BIND.union(MsFlags::MS_REC),
    };
    mount(Some(from), to, None::<&str>, flags, None::<&str>).map_err(|source| MountError::Bind {
        from: from.to_owned(),
        to: to.to_owned(),
        source,
    })
}

/// As on an ordinary host: `docker run -v …:shared` and host-side mounts then reach each other.
pub(crate) fn share_propagation() -> Result<(), MountError> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SHARED.union(MsFlags::MS_REC),
        None::<&str>,
    )
    .map_err(|source| MountError::Mount {
        kind: "propagation",
        path: "/".into(),
        source,
    })
}

fn make_mount_point(path: &Path) -> Result<(), MountError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|source| MountError::MountPoint {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_put_parents_before_children() {
        let all: Vec<&str> = STAGE_ONE.iter().chain(ROOT).map(|m| m.target).collect();
        for (index, target) in all.iter().enumerate() {
            for later in &all[index + 1..] {
                assert!(
                    !target.starts_with(&format!("{later}/")),
                    "{target} before {later}"
                );
                assert_ne!(target, later);
            }
        }
    }

    #[test]
    fn writable_places_take_no_devices_and_no_setuid() {
        for entry in ROOT.iter().chain(STAGE_ONE).filter(|m| m.kind == "tmpfs") {
            assert!(entry.flags.contains(PLAIN), "{}", entry.target);
        }
    }
}
