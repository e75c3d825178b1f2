//! The journal as a directory.
//!
//! ```text
//! fences.json              attempts that were seen and are not here any more
//! JOB-ATTEMPT-FENCE/
//!   assignment.json        there first and gone first: without it there is no attempt
//!   stage                  there as soon as a program of it may have been started
//!   ending.json
//!   documents/…  notes/…   see the module `folder`
//! ```
//! Files are whole or absent (temporary file, fsync, rename, fsync of the directory).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::work::{Ending, Key, Stage};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Contents, Found, Journal, JournalError, Record};
use crate::attempt;
use crate::durable;
use crate::fences::Fences;
use crate::folder::Folder;

const FENCES: &str = "fences.json";
const ASSIGNMENT: &str = "assignment.json";
const STAGE: &str = "stage";
const ENDING: &str = "ending.json";
/// Longest file that is read back, bytes: an ending names at most some thousand documents.
const LONGEST: u64 = 4 << 20;

/// A journal below one directory. Only one of them may use it.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<Path>,
}

impl Directory {
    /// Makes the directory if it is missing.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn open(root: &Path) -> Result<Self, JournalError> {
        fs::create_dir_all(root).map_err(|source| JournalError::Write {
            path: root.into(),
            source,
        })?;
        Ok(Self { root: root.into() })
    }

    fn attempt(&self, key: Key) -> PathBuf {
        self.root.join(attempt::name(key))
    }

    fn read_all(&self) -> Result<Contents, JournalError> {
        let failed = |source| JournalError::Read {
            path: self.root.to_path_buf(),
            source,
        };
        let mut fences: Fences = match read(&self.root.join(FENCES)) {
            Ok(fences) => fences.unwrap_or_default(),
            Err(JournalError::Read { path, source })
                if source.kind() == io::ErrorKind::InvalidData =>
            {
                // refusing all work for ever would help nobody
                tracing::error!(path = %path.display(), error = %source, "fences are unreadable");
                Fences::default()
            }
            Err(error) => return Err(error),
        };
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(key) = entry.file_name().to_str().and_then(attempt::parse) else {
                continue;
            };
            let path = entry.path();
            match read_attempt(&path, key) {
                Ok(Some(attempt)) => {
                    fences.see(key);
                    found.insert(key, attempt);
                }
                Ok(None) => {
                    // it was being taken or forgotten
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "remains of an attempt stay");
                    }
                }
                Err(error) => {
                    // left where it is, for people; what it ran is ended as nobody's
                    fences.see(key);
                    tracing::error!(path = %path.display(), %error, "an attempt is unreadable");
                }
            }
        }
        Ok(Contents {
            attempts: found.into_values().collect(),
            fences,
        })
    }

    fn write_one(&self, change: &Change) -> Result<(), JournalError> {
        match change {
            Change::Take(record) => {
                let dir = self.attempt(record.assignment.key);
                let taken = self.take(&dir, record);
                if taken.is_err() {
                    // remains are not an attempt, and go when the journal is read at the latest
                    drop(fs::remove_dir_all(&dir));
                }
                taken
            }
            Change::Stage(key, stage) => write(&self.held(*key)?.join(STAGE), stage),
            Change::End(key, ending) => write(&self.held(*key)?.join(ENDING), ending),
            Change::Forget(key, fences) => {
                write(&self.root.join(FENCES), fences)?;
                self.remove(*key)
            }
            Change::Fences(fences) => write(&self.root.join(FENCES), fences),
        }
    }

    fn take(&self, dir: &Path, record: &Record) -> Result<(), JournalError> {
        let failed = |source| JournalError::Write {
            path: dir.into(),
            source,
        };
        fs::create_dir(dir).map_err(failed)?;
        write(&dir.join(ASSIGNMENT), record)?;
        durable::sync_directory(&self.root).map_err(failed)
    }

    fn held(&self, key: Key) -> Result<PathBuf, JournalError> {
        let dir = self.attempt(key);
        if dir.join(ASSIGNMENT).exists() {
            Ok(dir)
        } else {
            Err(JournalError::Unknown { key })
        }
    }

    fn remove(&self, key: Key) -> Result<(), JournalError> {
        let path = self.attempt(key);
        let failed = |source| JournalError::Remove {
            path: path.clone(),
            source,
        };
        match fs::remove_file(path.join(ASSIGNMENT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        }
        durable::sync_directory(&path).map_err(failed)?;
        fs::remove_dir_all(&path).map_err(failed)
    }
}

impl Journal for Directory {
    fn load(&self) -> BoxFuture<'_, Result<Contents, JournalError>> {
        let journal = self.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || journal.read_all());
            read.await.map_err(|_| JournalError::Died)?
        })
    }

    fn write(&self, change: Change) -> BoxFuture<'_, Result<(), JournalError>> {
        let journal = self.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || journal.write_one(&change));
            written.await.map_err(|_| JournalError::Died)?
        })
    }

    fn folder(&self, key: Key) -> Folder {
        Folder::directory(&self.attempt(key))
    }
}

/// `None`: it is no attempt (any more, or yet).
fn read_attempt(dir: &Path, key: Key) -> Result<Option<Found>, JournalError> {
    let path = dir.join(ASSIGNMENT);
    let Some(record) = read::<Record>(&path)? else {
        return Ok(None);
    };
    if record.assignment.key != key {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it is another attempt's");
        return Err(JournalError::Read { path, source });
    }
    // unreadable: whoever adopts it looks for itself
    let ending = read::<Ending>(&dir.join(ENDING)).unwrap_or_else(|error| {
        tracing::error!(dir = %dir.display(), %error, "an ending is unreadable");
        None
    });
    let stage = read::<Stage>(&dir.join(STAGE)).unwrap_or_else(|error| {
        tracing::error!(dir = %dir.display(), %error, "a stage is unreadable");
        Some(Stage::Preparing)
    });
    Ok(Some(Found {
        record,
        stage,
        ending: ending.map(Arc::new),
    }))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JournalError> {
    let failed = |source| JournalError::Read {
        path: path.into(),
        source,
    };
    let Some(bytes) = durable::read(path, LONGEST).map_err(failed)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let failed = |source| JournalError::Write {
        path: path.into(),
        source,
    };
    let bytes = serde_json::to_vec(value).map_err(|error| failed(io::Error::other(error)))?;
    durable::replace(path, &bytes).map_err(failed)
}
