//! The locked packages as directories: fetched, verified and unpacked on first use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::closure::{LIBRARY_DIRS, Libraries};
use crate::fetch::{Archive, FetchError, Fetched, download_dir};
use crate::file::{self, FileError};
use crate::lock::{Lock, LockError, Package};
use crate::program::{self, ProgramError};

/// A package could not be made available.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("fetch package {package}")]
    Fetch {
        package: String,
        source: Box<FetchError>,
    },
    #[error("unpack package {package}")]
    Unpack {
        package: String,
        source: Box<ProgramError>,
    },
    #[error("{package} {version} vanished from the archive while it was being fetched; try again")]
    Vanished { package: String, version: String },
}

/// A package whose files are at hand.
#[derive(Debug, Clone)]
pub struct Unpacked {
    pub package: Package,
    pub root: PathBuf,
}

/// A locked version that the archive no longer offers, and what was taken instead.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OffLock {
    pub package: String,
    pub wanted: String,
    pub got: String,
}

/// Hands out unpacked packages, and remembers which were used.
#[derive(Debug)]
pub struct Packages {
    lock: Lock,
    archive: Archive,
    cache: PathBuf,
    opened: BTreeMap<String, Unpacked>,
    used: BTreeSet<String>,
    off_lock: Vec<OffLock>,
}

impl Packages {
    #[must_use]
    pub fn new(lock: Lock, archive: Archive, cache: &Path) -> Self {
        let cache = cache.to_path_buf();
        let (opened, used) = (BTreeMap::new(), BTreeSet::new());
        Self {
            lock,
            archive,
            cache,
            opened,
            used,
            off_lock: Vec::new(),
        }
    }

    /// The unpacked package. A locked version that is gone is replaced by the current one, with a warning.
    ///
    /// # Errors
    /// When the package is not locked, or cannot be fetched or unpacked.
    pub fn open(&mut self, name: &str) -> Result<&Unpacked, UnpackError> {
        self.used.insert(name.to_owned());
        if !self.opened.contains_key(name) {
            let locked = self.lock.package(name)?;
            let unpacked = match unpack(&self.archive, &self.cache, locked)? {
                Some(unpacked) => unpacked,
                None => {
                    let wanted = locked.version.clone();
                    let (unpacked, gone) = self.substitute(name, wanted)?;
                    self.off_lock.push(gone);
                    unpacked
                }
            };
            self.opened.insert(name.to_owned(), unpacked);
        }
        Ok(&self.opened[name])
    }

    fn substitute(&self, name: &str, wanted: String) -> Result<(Unpacked, OffLock), UnpackError> {
        let fetch = |source| UnpackError::Fetch {
            package: name.to_owned(),
            source: Box::new(source),
        };
        let current = self.archive.current(name).map_err(fetch)?;
        let got = current.version.clone();
        eprintln!(
            "image: WARNING: the mirror has dropped {name} {wanted}; going on with {got}. \
             The result is off-lock: run `make relock` to pin it again."
        );
        let vanished = || UnpackError::Vanished {
            package: name.to_owned(),
            version: got.clone(),
        };
        let unpacked = unpack(&self.archive, &self.cache, &current)?.ok_or_else(vanished)?;
        Ok((
            unpacked,
            OffLock {
                package: name.to_owned(),
                wanted,
                got,
            },
        ))
    }

    /// The packages used since the last call, by name.
    pub fn take_used(&mut self) -> Vec<Unpacked> {
        let names = std::mem::take(&mut self.used);
        names
            .iter()
            .filter_map(|name| self.opened.get(name).cloned())
            .collect()
    }

    #[must_use]
    pub fn off_lock(&self) -> &[OffLock] {
        &self.off_lock
    }
}

impl Libraries for Packages {
    fn library(&mut self, soname: &str) -> Result<Option<PathBuf>, UnpackError> {
        let Some(name) = self.lock.supplier(soname).map(|p| p.name.clone()) else {
            return Ok(None);
        };
        let root = self.open(&name)?.root.clone();
        Ok(find_library(&root, soname))
    }
}

/// The real file of a library, found where the packages put them.
#[must_use]
pub fn find_library(root: &Path, soname: &str) -> Option<PathBuf> {
    LIBRARY_DIRS
        .iter()
        .filter_map(|dir| root.join(dir).join(soname).canonicalize().ok())
        .find(|real| real.is_file())
}

/// `None` when the archive no longer offers this version.
///
/// # Errors
/// When the package cannot be fetched or unpacked.
pub fn unpack(
    archive: &Archive,
    cache: &Path,
    package: &Package,
) -> Result<Option<Unpacked>, UnpackError> {
    let parent = cache.join("unpacked");
    let root = parent.join(package.sha256.to_string());
    let unpacked = Unpacked {
        package: package.clone(),
        root: root.clone(),
    };
    if root.is_dir() {
        return Ok(Some(unpacked));
    }
    let name = || package.name.clone();
    eprintln!("image: package {} {}", package.name, package.version);
    let download = download_dir(&cache.join("downloads"))?;
    let deb = match archive.fetch(package, download.path()) {
        Ok(Fetched::Deb(deb)) => deb,
        Ok(Fetched::Gone) => return Ok(None),
        Err(source) => {
            return Err(UnpackError::Fetch {
                package: name(),
                source: Box::new(source),
            });
        }
    };
    let part = download_dir(&parent)?;
    program::run(
        Command::new("dpkg-deb").arg("-x").arg(deb).arg(part.path()),
        "dpkg",
    )
    .map_err(|source| UnpackError::Unpack {
        package: name(),
        source: Box::new(source),
    })?;
    match fs::rename(part.keep(), &root) {
        Ok(()) => {}
        // Another build was faster; content-addressed, so it is the same.
        Err(_) if root.is_dir() => {}
        Err(error) => return Err(FileError::at("create", &root)(error).into()),
    }
    Ok(Some(unpacked))
}

/// Reads a text file of the data directory.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn load_lock(data: &Path) -> Result<Lock, LockError> {
    let path = data.join("image.lock");
    Lock::parse(&file::read_text(&path)?, &path)
}
