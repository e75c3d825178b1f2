//! Resolves `packages.txt` against the archive and writes `image.lock`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::closure::{self, ClosureError, LIBRARY_DIRS};
use crate::fetch::{Archive, FetchError};
use crate::file::{self, FileError};
use crate::lock::{Lock, LockError, Package};
use crate::rootfs::list;
use crate::unpack::{self, UnpackError};

/// The lock could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RelockError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        what: String,
    },
    #[error("resolve package {package}")]
    Resolve {
        package: String,
        source: Box<FetchError>,
    },
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("read the libraries of package {package}")]
    Libraries {
        package: String,
        source: ClosureError,
    },
    #[error("{0} vanished from the archive while the lock was written; try again")]
    Vanished(String),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Writes `data/image.lock` and returns it.
///
/// # Errors
/// When a package is unknown or cannot be fetched.
pub fn relock(data: &Path, cache: &Path) -> Result<Lock, RelockError> {
    let archive = Archive::new(data);
    let mut packages = Vec::new();
    for name in wanted(&data.join("packages.txt"))? {
        let mut package = archive
            .current(&name)
            .map_err(|source| RelockError::Resolve {
                package: name.clone(),
                source: Box::new(source),
            })?;
        let unpacked = unpack::unpack(&archive, cache, &package)?
            .ok_or_else(|| RelockError::Vanished(name.clone()))?;
        package.sonames = sonames(&package, &unpacked.root)?;
        packages.push(package);
    }
    let lock = Lock::new(packages);
    file::replace(&data.join("image.lock"), lock.to_toml()?.as_bytes())?;
    Ok(lock)
}

/// The package names of `packages.txt`: one a line, `#` starts a comment.
fn wanted(path: &Path) -> Result<Vec<String>, RelockError> {
    let mut names = BTreeSet::new();
    for (index, line) in file::read_text(path)?.lines().enumerate() {
        let name = line.split('#').next().unwrap_or_default().trim();
        let problem = |what| RelockError::Line {
            path: path.to_path_buf(),
            line: index + 1,
            what,
        };
        if name.contains(char::is_whitespace) {
            return Err(problem(format!("one package a line, found {name:?}")));
        }
        if !name.is_empty() && !names.insert(name.to_owned()) {
            return Err(problem(format!("package {name} is listed twice")));
        }
    }
    Ok(names.into_iter().collect())
}

/// Names under which the package's public libraries are found by the dynamic loader.
fn sonames(package: &Package, root: &Path) -> Result<Vec<String>, RelockError> {
    let mut found = BTreeSet::new();
    for dir in LIBRARY_DIRS
        .iter()
        .map(|dir| root.join(dir))
        .filter(|dir| dir.is_dir())
    {
        for (name, path) in list(&dir)? {
            if !name.contains(".so") || !path.is_file() {
                continue;
            }
            let elf = closure::inspect(&name, &file::read(&path)?).map_err(|source| {
                RelockError::Libraries {
                    package: package.name.clone(),
                    source,
                }
            })?;
            if elf
                .and_then(|elf| elf.soname)
                .is_some_and(|soname| soname == name)
            {
                found.insert(name);
            }
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, RelockError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file::replace(file.path(), text.as_bytes()).unwrap();
        wanted(file.path())
    }

    #[test]
    fn reads_names_and_reasons() {
        assert_eq!(
            parse("# head\nrunc # why\n\ncontainerd\n").unwrap(),
            ["containerd", "runc"]
        );
        let message = parse("a\nb\na\n").unwrap_err().to_string();
        assert!(
            message.contains("line 3") && message.contains("twice"),
            "{message}"
        );
        assert!(parse("a b\n").unwrap_err().to_string().contains("line 1"));
    }
}
