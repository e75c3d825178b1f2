//! A document in the making.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use api::work::Document;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{DOCUMENTS, Folder, FolderError, Kind, Shelf, WRITING, hexadecimal, lock};
use crate::durable;

/// Takes a document's bytes; under its name only after [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    name: String,
    hash: Sha256,
    bytes: u64,
    goal: Goal,
}

#[derive(Debug)]
enum Goal {
    File {
        file: BufWriter<File>,
        root: PathBuf,
        temporary: Temporary,
        path: PathBuf,
    },
    Memory {
        buffer: Vec<u8>,
        shelf: Arc<Mutex<Shelf>>,
    },
}

/// Taken away when it is dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // it has its name by now, or is not wanted
        drop(fs::remove_file(&self.0));
    }
}

impl Writer {
    pub(super) fn new(folder: &Folder, name: &str) -> Result<Self, FolderError> {
        let goal = match &folder.0 {
            Kind::Memory(shelf) => Goal::Memory {
                buffer: Vec::new(),
                shelf: Arc::clone(shelf),
            },
            Kind::Directory(root) => file(root, name).map_err(|source| FolderError::Write {
                name: name.into(),
                source,
            })?,
        };
        Ok(Self {
            name: name.into(),
            hash: Sha256::new(),
            bytes: 0,
            goal,
        })
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds to it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.goal {
            Goal::File { file, .. } => file.write_all(bytes)?,
            Goal::Memory { buffer, .. } => buffer.extend_from_slice(bytes),
        }
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`FolderError::Write`].
    pub fn finish(self) -> Result<Document, FolderError> {
        let (name, bytes) = (self.name, self.bytes);
        let finished = match self.goal {
            Goal::Memory { buffer, shelf } => {
                lock(&shelf)
                    .documents
                    .insert(name.clone(), Bytes::from(buffer));
                Ok(())
            }
            Goal::File {
                file,
                root,
                temporary,
                path,
            } => close(file, &root, &temporary.0, &path),
        };
        finished.map_err(|source| FolderError::Write {
            name: name.clone(),
            source,
        })?;
        Ok(Document {
            name,
            bytes,
            sha256: hexadecimal(self.hash),
        })
    }
}

fn file(root: &Path, name: &str) -> io::Result<Goal> {
    let writing = root.join(WRITING);
    make(root, &writing)?;
    // two documents of one attempt may be written at the same time
    let temporary = writing.join(name.replace('/', ","));
    let file = durable::create(&temporary)?;
    Ok(Goal::File {
        file: BufWriter::with_capacity(64 * 1024, file),
        root: root.to_path_buf(),
        temporary: Temporary(temporary),
        path: root.join(DOCUMENTS).join(name),
    })
}

fn close(file: BufWriter<File>, root: &Path, temporary: &Path, path: &Path) -> io::Result<()> {
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    make(root, path.parent().unwrap_or(root))?;
    fs::rename(temporary, path)?;
    durable::sync_parent(path)
}

/// Makes a document of a file below the same root, unless it is one already.
pub(super) fn publish(root: &Path, file: &Path, path: &Path) -> io::Result<()> {
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => return Ok(()),
        opened => opened?.sync_all()?,
    }
    make(root, path.parent().unwrap_or(root))?;
    fs::rename(file, path)?;
    durable::sync_parent(path)
}

/// Length, and digest in hexadecimal.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let bytes = io::copy(&mut file, &mut hash)?;
    Ok((bytes, hexadecimal(hash)))
}

/// Makes a directory below `root`, with those between, so that their names survive.
fn make(root: &Path, path: &Path) -> io::Result<()> {
    if path == root || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(root);
    make(root, parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    durable::sync_directory(parent)
}
