//! What a kernel image says about itself, and which source it was built from.

use std::path::{Path, PathBuf};

use crate::digest::Sha256;
use crate::file::{self, FileError};
use crate::unpack::OffLock;

/// The kernel's origin cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a Linux x86 boot image", .0.display())]
    NotBootable(PathBuf),
    #[error("{} lacks package, version or sha256", .0.display())]
    Source(PathBuf),
}

/// The Debian source package of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub package: String,
    pub version: String,
    /// Unknown when another version than the locked one was used.
    pub sha256: Option<Sha256>,
}

/// The version string inside a bzImage (see the kernel's Documentation/arch/x86/boot.rst).
///
/// # Errors
/// When the file is not a bzImage.
pub fn version(path: &Path) -> Result<String, KernelError> {
    let image = file::read(path)?;
    version_of(&image).ok_or_else(|| KernelError::NotBootable(path.to_path_buf()))
}

fn version_of(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = image.get(0x20e..0x210)?;
    let start = usize::from(u16::from_le_bytes([pointer[0], pointer[1]])) + 0x200;
    let text = image.get(start..)?;
    let end = text.iter().take(256).position(|b| matches!(b, 0 | b' '))?;
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// The source that `kernel-config/build.sh` used: the locked one, unless it left a note beside the kernel.
///
/// # Errors
/// When the lock is malformed.
pub fn source(lock: &Path, kernel: &Path) -> Result<(Source, Option<OffLock>), KernelError> {
    let text = file::read_text(lock)?;
    let bad = || KernelError::Source(lock.to_path_buf());
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(bad)
    };
    let (package, wanted) = (field("package")?.to_owned(), field("version")?.to_owned());
    let sha256 = field("sha256")?.parse().map_err(|_| bad())?;
    let note = kernel.with_file_name("off-lock");
    let note = if note.is_file() {
        file::read_text(&note)?
    } else {
        String::new()
    };
    let got = note.lines().find_map(|line| {
        line.strip_prefix(&format!("{package} wanted {wanted} got "))
            .map(str::to_owned)
    });
    Ok(match got {
        None => (
            Source {
                package,
                version: wanted,
                sha256: Some(sha256),
            },
            None,
        ),
        Some(got) => {
            let off_lock = OffLock {
                package: package.clone(),
                wanted,
                got: got.clone(),
            };
            (
                Source {
                    package,
                    version: got,
                    sha256: None,
                },
                Some(off_lock),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version() {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x40;
        image[0x240..0x24f].copy_from_slice(b"6.12.1-still (b");
        assert_eq!(version_of(&image).unwrap(), "6.12.1-still");
        assert_eq!(version_of(&image[..0x204]), None);
        assert_eq!(version_of(b"\x7fELF"), None);
    }

    #[test]
    fn the_source_is_the_locked_one_unless_noted() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let digest = Sha256::of(b"source");
        let lock = format!("# c\npackage=linux-source-6.12\nversion=6.12.1-1\nsha256={digest}\n");
        file::replace(&path("lock"), lock.as_bytes()).unwrap();
        let (found, off) = source(&path("lock"), &path("kernel")).unwrap();
        assert_eq!((found.sha256, off), (Some(digest), None));
        let note = b"linux-source-6.12 wanted 6.12.1-1 got 6.12.2-1\n";
        file::replace(&path("off-lock"), note).unwrap();
        let (found, off) = source(&path("lock"), &path("kernel")).unwrap();
        assert_eq!((found.version.as_str(), found.sha256), ("6.12.2-1", None));
        assert_eq!(off.unwrap().wanted, "6.12.1-1");
        file::replace(&path("lock"), b"package=x\n").unwrap();
        assert!(source(&path("lock"), &path("kernel")).is_err());
    }
}
