//! What belongs to one attempt: documents, which the controller fetches, and notes, which whoever
//! does the work keeps for itself should the agent be killed.
//!
//! A document is whole or absent, and never changes once it is there under its name.

mod content;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::work::Document;
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use content::{Chunks, Content};
pub use writer::Writer;

use crate::durable;

/// Longest name of a document, bytes.
const NAME: usize = 255;
/// Longest note that is read back, bytes.
const NOTE: u64 = 64 << 20;
const DOCUMENTS: &str = "documents";
const NOTES: &str = "notes";
const WRITING: &str = "writing";

/// Why a document or note cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No such name is allowed, see [`Document::name`].
    #[error("{name:?} is not a document's name")]
    Name {
        /// As given.
        name: String,
    },
    /// The file system's answer to a write.
    #[error("write {name}")]
    Write {
        /// Of which document or note.
        name: String,
        /// As it says.
        source: io::Error,
    },
    /// The file system's answer to a read.
    #[error("read {name}")]
    Read {
        /// Of which document or note.
        name: String,
        /// As it says.
        source: io::Error,
    },
    /// The thread that wrote has died.
    #[error("the writer of {name} died")]
    Died {
        /// Of which document or note.
        name: String,
    },
}

/// The documents and notes of one attempt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Directory(Arc<Path>),
    Memory(Arc<Mutex<Shelf>>),
}

/// A folder in memory.
#[derive(Debug, Default)]
struct Shelf {
    documents: BTreeMap<String, Bytes>,
    notes: BTreeMap<String, Bytes>,
}

impl Folder {
    /// Below an attempt's directory, which must be there when something is written.
    #[must_use]
    pub(crate) fn directory(path: &Path) -> Self {
        Self(Kind::Directory(path.into()))
    }

    /// One that ends with its last clone.
    #[must_use]
    pub fn memory() -> Self {
        Self(Kind::Memory(Arc::default()))
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// [`FolderError`].
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<Document, FolderError> {
        let bytes = bytes.into();
        self.writing(name, move |writer| writer.write(&bytes)).await
    }

    /// Makes a document of a [`Folder::file`], which is not written to any more; that it is one
    /// already is as good.
    ///
    /// # Errors
    /// [`FolderError`].
    pub async fn put_file(&self, name: &str) -> Result<Document, FolderError> {
        let name = check(name)?.to_owned();
        let failed = |source| FolderError::Write {
            name: name.clone(),
            source,
        };
        let Kind::Directory(root) = &self.0 else {
            return Err(failed(io::ErrorKind::Unsupported.into()));
        };
        let (root, file) = (Arc::clone(root), name.clone());
        let published = tokio::task::spawn_blocking(move || {
            let goal = root.join(DOCUMENTS).join(&file);
            writer::publish(&root, &root.join(NOTES).join(&file), &goal)?;
            writer::digest(&goal)
        });
        let published = published.await;
        let published = published.map_err(|_| FolderError::Died { name: name.clone() })?;
        let (bytes, sha256) = published.map_err(failed)?;
        Ok(Document {
            name,
            bytes,
            sha256,
        })
    }

    /// Runs a writer on a thread where it may block.
    async fn writing(
        &self,
        name: &str,
        write: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
    ) -> Result<Document, FolderError> {
        let mut writer = self.create(name)?;
        let failed = name.to_owned();
        let work = move || {
            write(&mut writer).map_err(|source| FolderError::Write {
                name: failed,
                source,
            })?;
            writer.finish()
        };
        match &self.0 {
            Kind::Memory(_) => work(),
            Kind::Directory(_) => {
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|_| FolderError::Died { name: name.into() })?
            }
        }
    }

    /// Begins a document. Writing it blocks; dropped before its [`Writer::finish`] it never was.
    ///
    /// # Errors
    /// [`FolderError::Name`] and [`FolderError::Write`].
    pub fn create(&self, name: &str) -> Result<Writer, FolderError> {
        Writer::new(self, check(name)?)
    }

    /// A document as it was put.
    ///
    /// # Errors
    /// [`FolderError`]; `NotFound` in it when there is none.
    pub async fn open(&self, name: &str) -> Result<Content, FolderError> {
        let name = check(name)?;
        let failed = |source| FolderError::Read {
            name: name.into(),
            source,
        };
        match &self.0 {
            Kind::Memory(shelf) => {
                let bytes = lock(shelf).documents.get(name).cloned();
                let bytes = bytes.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                Ok(Content::Bytes(bytes))
            }
            Kind::Directory(root) => {
                let path = root.join(DOCUMENTS).join(name);
                Content::of_file(&path).await.map_err(failed)
            }
        }
    }

    /// Keeps a note, in place of an older one of that name.
    ///
    /// # Errors
    /// [`FolderError`].
    pub async fn note(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), FolderError> {
        let (name, bytes) = (check(name)?.to_owned(), bytes.into());
        match &self.0 {
            Kind::Memory(shelf) => {
                lock(shelf).notes.insert(name, bytes);
                Ok(())
            }
            Kind::Directory(root) => {
                let path = root.join(NOTES).join(&name);
                let write = move || {
                    fs::create_dir_all(path.parent().unwrap_or(&path))?;
                    durable::replace(&path, &bytes)
                };
                match tokio::task::spawn_blocking(write).await {
                    Ok(written) => written.map_err(|source| FolderError::Write { name, source }),
                    Err(_) => Err(FolderError::Died { name }),
                }
            }
        }
    }

    /// A note as it was kept last; `None`: there is none.
    ///
    /// # Errors
    /// [`FolderError`].
    pub async fn noted(&self, name: &str) -> Result<Option<Bytes>, FolderError> {
        let name = check(name)?.to_owned();
        match &self.0 {
            Kind::Memory(shelf) => Ok(lock(shelf).notes.get(&name).cloned()),
            Kind::Directory(root) => {
                let path = root.join(NOTES).join(&name);
                let read = move || durable::read(&path, NOTE);
                match tokio::task::spawn_blocking(read).await {
                    Ok(Ok(bytes)) => Ok(bytes.map(Bytes::from)),
                    Ok(Err(source)) => Err(FolderError::Read { name, source }),
                    Err(_) => Err(FolderError::Died { name }),
                }
            }
        }
    }

    /// Where a program of this attempt may write a file of this name while it runs, which survives
    /// as notes do; `None`: this folder is in memory.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>, FolderError> {
        let name = check(name)?;
        let Kind::Directory(root) = &self.0 else {
            return Ok(None);
        };
        let path = root.join(NOTES).join(name);
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(|source| {
            FolderError::Write {
                name: name.into(),
                source,
            }
        })?;
        Ok(Some(path))
    }
}

/// Sound as a path below any directory.
fn check(name: &str) -> Result<&str, FolderError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    let part = |part: &str| !matches!(part, "" | "." | "..");
    if name.len() <= NAME && name.bytes().all(known) && name.split('/').all(part) {
        Ok(name)
    } else {
        Err(FolderError::Name { name: name.into() })
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // each change is one call: a panic leaves nothing half done
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
