//! The "newc" cpio format, which the kernel unpacks as initramfs.
//!
//! Uncompressed on purpose: the big member is compressed already, and archives can then be
//! concatenated by anyone. See the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

use crate::file::FileError;
use crate::tree::Node;

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Archives are padded to this, so that another one can follow directly.
pub const BLOCK: usize = 512;

/// The archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("write cpio archive")]
    Write(#[from] io::Error),
    #[error("{0} is too large for a cpio archive (4 GiB)")]
    TooLarge(String),
}

/// Writes entries in the given order: owner root, time 0, inodes counted from 1.
///
/// The order matters to a machine with too little memory: the kernel unpacks up to the entry that no
/// longer fits, and runs /init all the same.
///
/// # Errors
/// When a source cannot be read, the output cannot be written, or a file is too large.
pub fn write<'a>(
    entries: impl Iterator<Item = (&'a str, &'a Node)>,
    out: &mut dyn Write,
) -> Result<(), CpioError> {
    let mut written = 0;
    let mut inode = 0;
    for (path, node) in entries {
        inode += 1;
        let (mode, data, device) = match node {
            Node::Dir { mode } => (S_IFDIR | mode, Vec::new(), (0, 0)),
            Node::File { mode, content } => (S_IFREG | mode, content.read()?, (0, 0)),
            Node::Symlink { target } => (S_IFLNK | 0o777, target.clone().into_bytes(), (0, 0)),
            Node::CharDevice { mode, major, minor } => {
                (S_IFCHR | mode, Vec::new(), (*major, *minor))
            }
        };
        written += entry(out, path, inode, mode, &data, device)?;
    }
    written += entry(out, "TRAILER!!!", 0, 0, &[], (0, 0))?;
    out.write_all(&vec![0; written.next_multiple_of(BLOCK) - written])?;
    out.flush()?;
    Ok(())
}

fn entry(
    out: &mut dyn Write,
    path: &str,
    inode: u32,
    mode: u32,
    data: &[u8],
    (major, minor): (u32, u32),
) -> Result<usize, CpioError> {
    let size = u32::try_from(data.len()).map_err(|_| CpioError::TooLarge(path.to_owned()))?;
    let name_size =
        u32::try_from(path.len() + 1).map_err(|_| CpioError::TooLarge(path.to_owned()))?;
    let links = if mode & S_IFMT == S_IFDIR { 2 } else { 1 };
    let mut header = String::from("070701");
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    for field in [
        inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0,
    ] {
        header.push_str(&format!("{field:08x}"));
    }
    let mut head = header.into_bytes();
    head.extend_from_slice(path.as_bytes());
    head.push(0);
    head.resize(head.len().next_multiple_of(4), 0);
    out.write_all(&head)?;
    out.write_all(data)?;
    let padding = data.len().next_multiple_of(4) - data.len();
    out.write_all(&[0; 3][..padding])?;
    Ok(head.len() + data.len() + padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;
    use std::process::{Command, Stdio};

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.bytes("init", 0o755, b"12345".to_vec()).unwrap();
        tree.insert(
            "dev/console",
            Node::CharDevice {
                mode: 0o600,
                major: 5,
                minor: 1,
            },
        )
        .unwrap();
        tree.symlink("bin", "usr/bin").unwrap();
        tree
    }

    fn bytes(tree: &Tree) -> Vec<u8> {
        let mut out = Vec::new();
        write(tree.iter(), &mut out).unwrap();
        out
    }

    #[test]
    fn is_padded_and_repeatable() {
        let archive = bytes(&sample());
        assert_eq!(archive.len() % BLOCK, 0);
        assert_eq!(archive, bytes(&sample()));
    }

    #[test]
    fn cpio_reads_it_back() {
        let mut child = Command::new("cpio")
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&bytes(&sample()))
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert_eq!(lines.len(), 4, "{listing}");
        assert!(lines[0].starts_with("lrwxrwxrwx") && lines[0].ends_with("bin -> usr/bin"));
        assert!(lines[1].starts_with("drwxr-xr-x") && lines[1].ends_with(" dev"));
        assert!(
            lines[2].starts_with("crw-------") && lines[2].contains("5,   1"),
            "{listing}"
        );
        assert!(
            lines[3].starts_with("-rwxr-xr-x   1 0        0               5"),
            "{listing}"
        );
    }
}
