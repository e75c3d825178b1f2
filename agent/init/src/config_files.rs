//! The configuration that came in the initramfs under `/stillmetal`: moved into a tmpfs with tight modes, the originals
//! unlinked, so that from then on exactly one copy exists, and none in the root that containers' engine sees.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// Certificates and keys are a few KiB; what is larger is a mistake that would eat the node's memory.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_FILES: usize = 256;
const MAX_DEPTH: usize = 4;

/// What lets the node join its controller, once. Whoever has it can join in the node's place.
const JOIN_TOKEN: &str = "join-token";

/// The SSH add-on is an image to be mounted, not a file to be copied.
pub(crate) const SSH_IMAGE: &str = "ssh.img";

/// What was moved, and what was left out with the reason.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) files: usize,
    pub(crate) skipped: Vec<String>,
}

/// Moves everything below `from` to `to`, except the SSH image at the top. A `from` that does not exist is no
/// configuration, which is fine.
pub(crate) fn collect(from: &Path, to: &Path) -> Result<Collected, ConfigError> {
    let mut collected = Collected::default();
    make_dir(to)?;
    if from.is_dir() {
        collect_dir(from, to, 0, &mut collected)?;
    }
    Ok(collected)
}

fn collect_dir(
    from: &Path,
    to: &Path,
    depth: usize,
    out: &mut Collected,
) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read {
        path: from.to_owned(),
        source,
    };
    for entry in fs::read_dir(from).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(read)?;
        if depth == 0 && entry.file_name() == SSH_IMAGE {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            make_dir(&target)?;
            collect_dir(&path, &target, depth + 1, out)?;
            remove(&path, fs::remove_dir(&path))?;
        } else if kind.is_file() && out.files < MAX_FILES {
            move_file(&path, &target, out)?;
        } else {
            out.skipped
                .push(format!("{}: not a plain file, or too many", path.display()));
        }
    }
    Ok(())
}

fn move_file(path: &Path, target: &Path, out: &mut Collected) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if metadata.len() > MAX_FILE_BYTES {
        out.skipped
            .push(format!("{}: larger than 1 MiB", path.display()));
        return remove(path, fs::remove_file(path));
    }
    let write = |source| ConfigError::Write {
        path: target.to_owned(),
        source,
    };
    let mode = mode_for(path, metadata.permissions().mode());
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(target)
        .map_err(write)?;
    io::copy(&mut file.take(MAX_FILE_BYTES), &mut copy).map_err(write)?;
    out.files += 1;
    remove(path, fs::remove_file(path))
}

/// Keys, the join token, and whatever came unreadable for others, stay the owner's alone.
fn mode_for(path: &Path, original: u32) -> u32 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let secret =
        name.ends_with(".key") || name == "key.pem" || name == JOIN_TOKEN || original & 0o004 == 0;
    if secret { 0o400 } else { 0o444 }
}

fn make_dir(path: &Path) -> Result<(), ConfigError> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|source| ConfigError::Write {
            path: path.to_owned(),
            source,
        })
}

fn remove(path: &Path, result: io::Result<()>) -> Result<(), ConfigError> {
    match result {
        // Something was skipped in there and said so.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.map_err(|source| ConfigError::Remove {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn moves_with_tight_modes_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (
            root.path().join("stillmetal"),
            root.path().join("run/config"),
        );
        fs::create_dir_all(from.join("engine")).unwrap();
        for (name, file_mode) in [
            ("ca.pem", 0o644),
            ("node.key", 0o644),
            ("password", 0o400),
            (JOIN_TOKEN, 0o644),
            ("engine/key.pem", 0o644),
        ] {
            fs::write(from.join(name), name).unwrap();
            fs::set_permissions(from.join(name), PermissionsExt::from_mode(file_mode)).unwrap();
        }
        fs::write(from.join(SSH_IMAGE), "hsqs").unwrap();

        let collected = collect(&from, &to).unwrap();
        assert_eq!((collected.files, collected.skipped.len()), (5, 0));
        assert_eq!(
            fs::read_to_string(to.join("engine/key.pem")).unwrap(),
            "engine/key.pem"
        );
        let modes = [
            "ca.pem",
            "node.key",
            "password",
            JOIN_TOKEN,
            "engine/key.pem",
            "engine",
            "",
        ]
        .map(|name| mode(&to.join(name)));
        assert_eq!(modes, [0o444, 0o400, 0o400, 0o400, 0o400, 0o700, 0o700]);
        let left: Vec<_> = fs::read_dir(&from)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, [SSH_IMAGE]);
    }

    #[test]
    fn nothing_given_is_fine_and_oddities_are_named() {
        let root = tempfile::tempdir().unwrap();
        let to = root.path().join("to");
        assert_eq!(collect(&root.path().join("absent"), &to).unwrap().files, 0);

        let from = root.path().join("from");
        fs::create_dir(&from).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.join("link")).unwrap();
        File::create(from.join("big"))
            .unwrap()
            .set_len(MAX_FILE_BYTES + 1)
            .unwrap();
        let collected = collect(&from, &to).unwrap();
        assert_eq!((collected.files, collected.skipped.len()), (0, 2));
        assert!(!to.join("link").exists() && !to.join("big").exists());
    }
}
