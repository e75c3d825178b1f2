//! File access whose errors name the action and the path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// For `map_err`: `fs::read(p).map_err(FileError::at("read", p))`.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::at("read", path))
}

/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::at("read", path))
}

/// # Errors
/// When the directory cannot be made.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::at("create directory", path))
}

/// Replaces `path` as a whole: a reader sees the old content or the new one.
///
/// # Errors
/// When the file cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let part = beside(path);
    fs::write(&part, content).map_err(FileError::at("write", &part))?;
    fs::rename(&part, path).map_err(FileError::at("replace", path))
}

/// Copies over `to` as a whole, like [`replace`].
///
/// # Errors
/// When the file cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    let part = beside(to);
    fs::copy(from, &part).map_err(FileError::at("copy", from))?;
    fs::rename(&part, to).map_err(FileError::at("replace", to))
}

/// A temporary name in the same directory, so that the rename stays on one file system.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}
