//! Read-only loop devices, set up with the two ioctls that it takes.
//!
//! `unsafe` is for those ioctls only: nix has no wrapper for them.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoopError {
    #[error("open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("find a free loop device")]
    Free { source: Errno },
    #[error("attach {image} to {device}")]
    Attach {
        image: PathBuf,
        device: PathBuf,
        source: Errno,
    },
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

const LOOP_CTL_GET_FREE: u32 = 0x4C82;
const LOOP_CONFIGURE: u32 = 0x4C0A;
nix::ioctl_none_bad!(loop_ctl_get_free, LOOP_CTL_GET_FREE);
nix::ioctl_write_ptr_bad!(loop_configure, LOOP_CONFIGURE, LoopConfig);

/// Another process may take the free device first; in stage one there is none, in tests there may be.
const ATTEMPTS: usize = 16;

/// A loop device that reads from an image. The kernel frees the device when its last user (this file, then the mount)
/// is gone, so keep it open until it is mounted.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    _device: File,
}

pub(crate) fn attach(image: &Path) -> Result<LoopDevice, LoopError> {
    let open = |path: &Path, write: bool| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|source| LoopError::Open {
                path: path.to_owned(),
                source,
            })
    };
    let backing = open(image, false)?;
    let control = open(Path::new("/dev/loop-control"), true)?;
    let config = config(backing.as_raw_fd());
    let mut tries = 0;
    loop {
        tries += 1;
        // SAFETY: the request takes no argument; the fd is open for the whole call.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }
            .map_err(|source| LoopError::Free { source })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path, false)?;
        // SAFETY: `config` is a live, fully initialised `struct loop_config`, which the kernel only reads; both fds that
        // take part are open for the whole call.
        match unsafe { loop_configure(device.as_raw_fd(), &raw const config) } {
            Ok(_) => {
                return Ok(LoopDevice {
                    path,
                    _device: device,
                });
            }
            Err(Errno::EBUSY) if tries < ATTEMPTS => {}
            Err(source) => {
                return Err(LoopError::Attach {
                    image: image.to_owned(),
                    device: path,
                    source,
                });
            }
        }
    }
}

fn config(backing: RawFd) -> LoopConfig {
    LoopConfig {
        fd: backing.unsigned_abs(),
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

// The kernel reads this many bytes whatever we think the layout is.
const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);
