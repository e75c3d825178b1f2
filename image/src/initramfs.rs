//! The initramfs: stage one, compressed, followed by the root image, which is compressed in itself.
//!
//! Two cpio archives in one file: the kernel unpacks concatenated archives in turn, each compressed or
//! not (Documentation/driver-api/early-userspace/buffer-format.rst). More may follow, such as a node's
//! `config.img`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cpio::{self, BLOCK, CpioError};
use crate::file::{self, FileError};
use crate::program::{self, ProgramError};
use crate::squash::Compression;
use crate::tree::{Node, Tree, TreeError};

const PACKAGE: &str = "zstd";

/// The initramfs cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cpio(#[from] CpioError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("write initramfs")]
    Write(#[from] io::Error),
}

/// The version line of zstd: another version may compress to other bytes.
///
/// # Errors
/// When zstd is missing.
pub fn version() -> Result<String, ProgramError> {
    let output = program::run(Command::new("zstd").arg("--version"), PACKAGE)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes the initramfs with `init` as `/init` and `rootfs` as `/rootfs.img`.
///
/// The large file comes last: with too little memory the kernel stops there, and `/init` can say so.
///
/// # Errors
/// When an input cannot be read, zstd fails, or the output cannot be written.
pub fn write(
    init: &Path,
    rootfs: &Path,
    compression: Compression,
    scratch: &Path,
    out: &Path,
) -> Result<(), InitramfsError> {
    let plain = scratch.join("stage-one.cpio");
    cpio::write(stage_one(init)?.iter(), &mut create(&plain)?)?;
    let mut stage_one = compress(&plain, compression)?;
    // Zeros between archives are skipped; a plain archive must start at a multiple of four.
    stage_one.resize(stage_one.len().next_multiple_of(BLOCK), 0);
    let mut root = Tree::default();
    root.file("rootfs.img", 0o444, rootfs)?;
    let mut target = create(out)?;
    target.write_all(&stage_one)?;
    cpio::write(root.iter(), &mut target)?;
    Ok(())
}

/// `/init`, the mount points that it uses, and a console: the kernel opens that before devtmpfs is
/// mounted, and without it PID 1 has no stdio.
fn stage_one(init: &Path) -> Result<Tree, TreeError> {
    let mut tree = Tree::default();
    tree.file("init", 0o755, init)?;
    for dir in ["proc", "sys", "dev", "run", "newroot"] {
        tree.dir(dir, 0o755)?;
    }
    let (mode, major, minor) = (0o600, 5, 1);
    tree.insert("dev/console", Node::CharDevice { mode, major, minor })?;
    Ok(tree)
}

fn compress(path: &Path, compression: Compression) -> Result<Vec<u8>, InitramfsError> {
    // Not above 19: the kernel's decoder takes windows up to 8 MiB. Always the multi-threaded format.
    let level = match compression {
        Compression::Release => "-19",
        Compression::Fast => "-3",
    };
    let mut command = Command::new("zstd");
    command
        .args([level, "-T2", "--quiet", "--stdout"])
        .arg(path);
    Ok(program::run(command.stdin(Stdio::null()), PACKAGE)?.stdout)
}

fn create(path: &Path) -> Result<BufWriter<File>, FileError> {
    Ok(BufWriter::new(
        File::create(path).map_err(FileError::at("create", path))?,
    ))
}

/// Reads back the two archives, for those who want to look inside.
///
/// # Errors
/// When the file cannot be read.
pub fn second_archive_offset(initramfs: &Path) -> Result<Option<usize>, FileError> {
    let bytes = file::read(initramfs)?;
    Ok((0..bytes.len())
        .step_by(BLOCK)
        .find(|at| bytes[*at..].starts_with(b"070701")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_one_is_compressed_and_the_root_image_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        file::replace(&path("agent"), b"\x7fELF agent").unwrap();
        file::replace(&path("root"), b"hsqs root image").unwrap();
        let out = path("initrd");
        write(
            &path("agent"),
            &path("root"),
            Compression::Fast,
            dir.path(),
            &out,
        )
        .unwrap();
        let bytes = file::read(&out).unwrap();
        assert!(bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "a zstd frame");
        let second = second_archive_offset(&out).unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes[second..]);
        assert!(text.contains("rootfs.img\0") && text.contains("hsqs root image"));
        assert_eq!(bytes.len() % BLOCK, 0);
    }
}
