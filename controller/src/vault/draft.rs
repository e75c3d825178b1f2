//! Files that are on their way in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use store::Digest;
use tokio::task::spawn_blocking;

use super::OpenError;

/// Below the vault's root.
const DIRECTORY: &str = "incoming";
/// Belongs to nobody once its maker is gone.
const DRAFT: &str = "draft";
/// What is there of a document, whose digest is the file's name.
const PARTIAL: &str = "part";
/// Written and hashed at a time, bytes.
const PIECE: usize = 256 * 1024;

/// The directory of such files.
#[derive(Debug)]
pub(super) struct Incoming {
    path: PathBuf,
    next: AtomicU64,
}

impl Incoming {
    /// Made if it is not there; what nobody will continue is removed.
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        let path = root.join(DIRECTORY);
        let prepare = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)?;
            for entry in fs::read_dir(&path)? {
                let file = entry?.path();
                if file.extension().is_some_and(|it| it == DRAFT) {
                    fs::remove_file(file)?;
                }
            }
            Ok(())
        };
        prepare().map_err(|source| OpenError::Directory {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            next: AtomicU64::new(0),
        })
    }

    /// An empty file. It is removed when the draft is dropped.
    pub(super) async fn draft(&self) -> io::Result<Draft> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}.{DRAFT}");
        let path = self.path.join(&name);
        Draft::open(path, name, Leftover::Removed).await
    }

    /// What was fetched of a document so far; kept when the draft is dropped.
    pub(super) async fn partial(&self, digest: &Digest) -> io::Result<Draft> {
        let name = format!("{digest}.{PARTIAL}");
        let path = self.path.join(&name);
        Draft::open(path, name, Leftover::Kept).await
    }

    /// Partial documents that nobody has continued for so long. Blocks.
    pub(super) fn stale(&self, grace: Duration) -> io::Result<Vec<(Digest, PathBuf)>> {
        let mut stale = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let digest = stem.and_then(|stem| stem.parse().ok());
            let modified = match entry.metadata().and_then(|found| found.modified()) {
                Ok(modified) => modified,
                // It has become an object meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let old = SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age >= grace);
            if let (Some(digest), true) = (digest, old) {
                stale.push((digest, path));
            }
        }
        Ok(stale)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    Kept,
    Removed,
}

/// A file that is being written, counted and hashed. All work on it is done outside of the runtime's
/// threads.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    name: String,
    leftover: Leftover,
    /// None while it is worked on, and after work on it has failed.
    hashed: Option<Hashed>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Hashed {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

/// A file that is complete and on the disk. It is removed when this is dropped, unless it has become
/// an object and has no name here any more.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) path: PathBuf,
    /// Below [`DIRECTORY`].
    name: String,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl Draft {
    async fn open(path: PathBuf, name: String, leftover: Leftover) -> io::Result<Self> {
        let at = path.clone();
        let hashed = blocking(move || Hashed::open(&at)).await?;
        Ok(Self {
            path,
            name,
            leftover,
            hashed: Some(hashed),
            buffer: Vec::new(),
        })
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> u64 {
        let written = self.hashed.as_ref().map_or(0, |hashed| hashed.bytes);
        written + self.buffer.len() as u64
    }

    pub(super) async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.write().await?;
        }
        Ok(())
    }

    /// Begins anew.
    pub(super) async fn clear(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.work(|hashed, _| {
            hashed.file.set_len(0)?;
            hashed.file.seek(SeekFrom::Start(0))?;
            hashed.hasher = Sha256::new();
            hashed.bytes = 0;
            Ok(())
        })
        .await
    }

    /// Everything that was pushed is in the file, though perhaps not on the disk.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        self.work(Hashed::append).await
    }

    /// Everything is on the disk.
    pub(super) async fn finish(mut self) -> io::Result<Finished> {
        self.work(|hashed, buffer| {
            hashed.append(buffer)?;
            hashed.file.sync_all()
        })
        .await?;
        let hashed = self.hashed.take().ok_or_else(given_up)?;
        Ok(Finished {
            path: std::mem::take(&mut self.path),
            name: std::mem::take(&mut self.name),
            digest: Digest(hashed.hasher.finalize().into()),
            bytes: hashed.bytes,
        })
    }

    /// It is worth nothing.
    pub(super) fn discard(mut self) {
        self.leftover = Leftover::Removed;
    }

    async fn work(
        &mut self,
        work: impl FnOnce(&mut Hashed, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let mut hashed = self.hashed.take().ok_or_else(given_up)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let (hashed, buffer) = blocking(move || {
            work(&mut hashed, &buffer)?;
            buffer.clear();
            Ok((hashed, buffer))
        })
        .await?;
        self.hashed = Some(hashed);
        self.buffer = buffer;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A finished draft has given its path away.
        if self.leftover == Leftover::Removed && !self.path.as_os_str().is_empty() {
            remove(&self.path);
        }
    }
}

impl Finished {
    /// As an object of the vault's own directory.
    pub(super) fn key(&self) -> object_store::path::Path {
        object_store::path::Path::from_iter([DIRECTORY, &self.name])
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "file not removed");
    }
}

impl Hashed {
    /// With what is in the file already.
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(Self {
                    file,
                    hasher,
                    bytes,
                });
            }
            hasher.update(&piece[..count]);
            bytes += count as u64;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn given_up() -> io::Error {
    io::Error::other("the file was given up after an error")
}

/// Runs something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
