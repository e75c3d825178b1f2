//! Stage one, in the initramfs: mounts what the kernel offers, takes the configuration in, mounts the read-only root
//! from `/rootfs.img` and becomes `/sbin/init` in it.
//!
//! From the bare initramfs every container would fail in `pivot_root`; from a mounted root it works, and the root is
//! read-only by construction. The image stays compressed in memory: `rootfs.img` backs the loop device for ever.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{chdir, chroot, execv};

use crate::cmdline::BootConfig;
use crate::config_files::{self, ConfigError, SSH_IMAGE};
use crate::loopdev::{self, LoopError};
use crate::mounts::{self, MountError};
use crate::squashfs::{self, Image};
use crate::{CONFIG_DIR, affinity, fail, log, memory, signals, ssh, sysctl};

const ROOT_IMAGE: &str = "/rootfs.img";
const NEW_ROOT: &str = "/newroot";
const CONFIG_SOURCE: &str = "/stillmetal";
const NEXT_INIT: &CStr = c"/sbin/init";

#[derive(Debug, thiserror::Error)]
pub(crate) enum StageOneError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("initramfs incomplete: {what}, with {memory} of memory")]
    Incomplete { what: String, memory: String },
    #[error("{ROOT_IMAGE} is not a squashfs image")]
    NotSquashfs,
    #[error("read {path}")]
    Read {
        path: &'static str,
        source: io::Error,
    },
    #[error("take the configuration in")]
    Config(#[source] ConfigError),
    #[error("attach the root image")]
    Loop(#[source] LoopError),
    #[error("switch to the root image: {step}")]
    Switch { step: &'static str, source: Errno },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Initramfs,
    Root,
}

/// Which stage this process is. A root without the image that is not a squashfs is an initramfs that lost it, because
/// memory ended while the kernel unpacked.
pub(crate) fn detect() -> Stage {
    if Path::new(ROOT_IMAGE).exists() || !root_is_squashfs() {
        Stage::Initramfs
    } else {
        Stage::Root
    }
}

fn root_is_squashfs() -> bool {
    // linux/magic.h, SQUASHFS_MAGIC; nix has no constant for it.
    const SQUASHFS_MAGIC: i64 = 0x7371_7368;
    nix::sys::statfs::statfs("/").is_ok_and(|root| root.filesystem_type().0 == SQUASHFS_MAGIC)
}

/// Never returns when it succeeds: the process becomes the next stage.
pub(crate) fn run() -> StageOneError {
    match try_run() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_run() -> Result<Infallible, StageOneError> {
    signals::block_all_handled();
    mounts::mount_all(mounts::STAGE_ONE)?;
    affinity::keep_off_isolated_cpus();
    sysctl::unlimit_kmsg();
    if let Ok(config) = BootConfig::read() {
        fail::set_policy(&config);
    }
    check_image()?;
    take_configuration()?;
    let root = loopdev::attach(Path::new(ROOT_IMAGE)).map_err(StageOneError::Loop)?;
    mounts::mount_squashfs(&root.path, Path::new(NEW_ROOT))?;
    // The next stage runs its own copy from the image; this one's pages (the agent is in the same binary) are given
    // back as soon as it is replaced.
    if let Err(error) = fs::remove_file("/init") {
        log::info(&format!("/init stays in memory: {error}"));
    }
    log::info("root image mounted, switching to it");
    switch_root()
}

fn check_image() -> Result<(), StageOneError> {
    let incomplete = |what: String| {
        let have = memory::installed_mib();
        if let Some(text) = memory::verdict(have, memory::MINIMUM_MIB) {
            log::marker(&text);
        }
        let memory = have.map_or("an unknown amount".to_owned(), |mib| format!("{mib} MiB"));
        StageOneError::Incomplete { what, memory }
    };
    match squashfs::inspect(Path::new(ROOT_IMAGE)) {
        Ok(Image::Whole) => Ok(()),
        Ok(Image::Truncated { want_bytes }) => Err(incomplete(format!(
            "the end of rootfs.img ({want_bytes} bytes) is missing"
        ))),
        Ok(Image::NotSquashfs) => Err(StageOneError::NotSquashfs),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(incomplete("rootfs.img is missing".to_owned()))
        }
        Err(source) => Err(StageOneError::Read {
            path: ROOT_IMAGE,
            source,
        }),
    }
}

fn take_configuration() -> Result<(), StageOneError> {
    let source = Path::new(CONFIG_SOURCE);
    let collected =
        config_files::collect(source, Path::new(CONFIG_DIR)).map_err(StageOneError::Config)?;
    for skipped in &collected.skipped {
        log::warn(&format!("configuration left out: {skipped}"));
    }
    log::info(&format!("configuration: {} files", collected.files));
    let image = source.join(SSH_IMAGE);
    // SSH is an add-on: without it the node is whole.
    if let Err(error) = mount_ssh(&image) {
        log::warn(&format!("ssh is not available: {}", log::chain(&error)));
    }
    // Gone already, still backing the loop device, or something odd that was named above.
    let _leftovers = fs::remove_file(&image);
    let _not_empty = fs::remove_dir(source);
    Ok(())
}

fn mount_ssh(image: &Path) -> Result<(), StageOneError> {
    if !image.exists() {
        return Ok(());
    }
    if !ssh::keys_given() {
        log::warn("ssh.img is given, but no authorized_keys: ssh stays off");
        return Ok(());
    }
    let device = loopdev::attach(image).map_err(StageOneError::Loop)?;
    Ok(mounts::mount_squashfs(&device.path, Path::new(ssh::ROOT))?)
}

/// `pivot_root` refuses an initramfs as the old root, so the mounts move and the new root is moved over `/`
/// (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
fn switch_root() -> Result<Infallible, StageOneError> {
    let step = |step: &'static str| move |source| StageOneError::Switch { step, source };
    for mount in mounts::STAGE_ONE {
        let to = format!("{NEW_ROOT}{}", mount.target);
        mounts::move_mount(Path::new(mount.target), Path::new(&to))?;
    }
    chdir(NEW_ROOT).map_err(step("enter it"))?;
    mounts::move_mount(Path::new("."), Path::new("/"))?;
    chroot(".").map_err(step("make it the root"))?;
    chdir("/").map_err(step("go to its top"))?;
    execv(NEXT_INIT, &[c"init"]).map_err(step("run /sbin/init"))
}
