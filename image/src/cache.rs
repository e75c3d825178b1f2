//! Finished outputs by the digest of their inputs, outside the source tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::Sha256;
use crate::file::{self, FileError};

/// No place for the cache.
#[derive(Debug, thiserror::Error)]
#[error("neither STILLMETAL_CACHE nor HOME is set")]
pub struct NoCacheError;

/// The cache directory: `$STILLMETAL_CACHE`, else `~/.cache/stillmetal`.
///
/// # Errors
/// When neither variable is set.
pub fn directory() -> Result<PathBuf, NoCacheError> {
    if let Some(dir) = std::env::var_os("STILLMETAL_CACHE").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME")
        .filter(|v| !v.is_empty())
        .ok_or(NoCacheError)?;
    Ok(PathBuf::from(home).join(".cache/stillmetal"))
}

/// One kind of output, e.g. `images`.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    #[must_use]
    pub fn new(cache: &Path, kind: &str) -> Self {
        Self {
            dir: cache.join(kind),
        }
    }

    /// Copies what was built from these inputs into `out`; false when there is nothing.
    ///
    /// # Errors
    /// When a cached file cannot be copied.
    pub fn take(&self, key: Sha256, names: &[&str], out: &Path) -> Result<bool, FileError> {
        let entry = self.dir.join(key.to_string());
        if !names.iter().all(|name| entry.join(name).is_file()) {
            return Ok(false);
        }
        file::create_dir(out)?;
        for name in names {
            file::copy(&entry.join(name), &out.join(name))?;
        }
        Ok(true)
    }

    /// Keeps the named files of `built`.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn put(&self, key: Sha256, names: &[&str], built: &Path) -> Result<(), FileError> {
        file::create_dir(&self.dir)?;
        let part = tempfile::tempdir_in(&self.dir).map_err(FileError::at("fill", &self.dir))?;
        for name in names {
            file::copy(&built.join(name), &part.path().join(name))?;
        }
        let entry = self.dir.join(key.to_string());
        let part = part.keep();
        if fs::rename(&part, &entry).is_err() {
            // Somebody else finished the same inputs first.
            return fs::remove_dir_all(&part).map_err(FileError::at("remove", &part));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (built, out) = (dir.path().join("built"), dir.path().join("out"));
        file::create_dir(&built).unwrap();
        file::replace(&built.join("a"), b"1").unwrap();
        let shelf = Shelf::new(dir.path(), "images");
        let key = Sha256::of(b"inputs");
        assert!(!shelf.take(key, &["a"], &out).unwrap());
        shelf.put(key, &["a"], &built).unwrap();
        shelf.put(key, &["a"], &built).unwrap();
        assert!(shelf.take(key, &["a"], &out).unwrap());
        assert_eq!(file::read(&out.join("a")).unwrap(), b"1");
        assert!(
            !shelf.take(key, &["a", "b"], &out).unwrap(),
            "an incomplete entry does not count"
        );
        assert!(!shelf.take(Sha256::of(b"other"), &["a"], &out).unwrap());
    }
}
