//! Files and folders of a container that has ended, as the engine packs them: a tar stream.
//!
//! What lay on a tmpfs of the container is gone by then. Symbolic links are followed within the
//! container.

use std::io::{self, Read};
use std::time::Duration;

use bollard::query_parameters::DownloadFromContainerOptions;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::client::EngineClient;

/// Without a byte for so long, the engine is not waited for any more.
const IDLE: Duration = Duration::from_secs(60);
/// Links that are followed; the kernel follows 40.
const LINKS: usize = 16;
/// Longest part of an archive before the first entry's content: names and targets may be long.
const HEAD: usize = 1 << 16;

/// Why something could not be taken from a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("not in the container")]
    NotThere,
    #[error("a link that goes round in circles, or through more than {LINKS} others")]
    Links,
    #[error("the engine could not be asked")]
    Engine { source: bollard::errors::Error },
    #[error("the engine said nothing for {IDLE:?}")]
    Silent,
    #[error("what the engine packed could not be read")]
    Read { source: io::Error },
    #[error("the thread that read it died")]
    Died,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is read as its content.
    File {
        bytes: u64,
    },
    /// It and all the rest are read as the archive itself.
    Folder,
    Other,
}

enum Took<T, F> {
    Done(T),
    /// It is a link to there, and `F` was not called.
    Link(String, F),
}

impl EngineClient {
    /// Has a path of a container read by `read`, on a thread where it may block. The engine's answer
    /// goes through in pieces, whatever its length.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub(crate) async fn take<T, F>(
        &self,
        container: &str,
        path: &str,
        mut read: F,
    ) -> Result<T, ArchiveError>
    where
        T: Send + 'static,
        F: FnOnce(Kind, &mut dyn Read) -> io::Result<T> + Send + 'static,
    {
        let mut path = path.to_owned();
        for _ in 0..=LINKS {
            match self.take_once(container, &path, read).await? {
                Took::Done(done) => return Ok(done),
                Took::Link(target, unused) => {
                    path = follow(&path, &target);
                    read = unused;
                }
            }
        }
        Err(ArchiveError::Links)
    }

    async fn take_once<T, F>(
        &self,
        container: &str,
        path: &str,
        read: F,
    ) -> Result<Took<T, F>, ArchiveError>
    where
        T: Send + 'static,
        F: FnOnce(Kind, &mut dyn Read) -> io::Result<T> + Send + 'static,
    {
        let engine = |source| ArchiveError::Engine { source };
        let docker = self.connect().map_err(engine)?;
        let options = DownloadFromContainerOptions {
            path: path.to_owned(),
        };
        let mut chunks = Box::pin(docker.download_from_container(container, Some(options)));
        let first = match next(&mut chunks).await? {
            None => Bytes::new(),
            Some(Ok(chunk)) => chunk,
            Some(Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404,
                ..
            })) => return Err(ArchiveError::NotThere),
            Some(Err(error)) => return Err(engine(error)),
        };
        let (sender, later) = mpsc::channel(4);
        let mut pipe = Pipe { now: first, later };
        let reading = tokio::task::spawn_blocking(move || open(&mut pipe, read));
        let broken = loop {
            match next(&mut chunks).await {
                Ok(None) => break None,
                Ok(Some(Ok(chunk))) => {
                    if sender.send(Ok(chunk)).await.is_err() {
                        // nobody reads any more
                        break None;
                    }
                }
                Ok(Some(Err(source))) => break Some(ArchiveError::Engine { source }),
                Err(error) => break Some(error),
            }
        };
        if broken.is_some() {
            // whoever has gone has what he wanted
            drop(sender.send(Err(io::ErrorKind::BrokenPipe.into())).await);
        }
        drop(sender);
        let read = reading.await.map_err(|_| ArchiveError::Died)?;
        read.map_err(|source| broken.unwrap_or(ArchiveError::Read { source }))
    }
}

async fn next<T>(chunks: &mut (impl Stream<Item = T> + Unpin)) -> Result<Option<T>, ArchiveError> {
    let next = tokio::time::timeout(IDLE, chunks.next()).await;
    next.map_err(|_elapsed| ArchiveError::Silent)
}

/// Where a link at `path` goes; the engine resolves what stands before the last slash.
fn follow(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{target}")
}

fn open<T, F>(pipe: &mut Pipe, read: F) -> io::Result<Took<T, F>>
where
    F: FnOnce(Kind, &mut dyn Read) -> io::Result<T>,
{
    let mut head = Head {
        inner: &mut *pipe,
        seen: Vec::new(),
    };
    let kind = {
        let mut archive = tar::Archive::new(&mut head);
        let first = archive.entries()?.next();
        let entry = first.ok_or(io::ErrorKind::UnexpectedEof)??;
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            return Ok(Took::Link(target, read));
        }
        if kind.is_file() {
            let bytes = entry.size();
            let mut content = Exactly {
                left: bytes,
                inner: entry,
            };
            return read(Kind::File { bytes }, &mut content).map(Took::Done);
        }
        if kind.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        }
    };
    let seen = head.seen;
    if seen.len() >= HEAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    read(kind, &mut Read::chain(seen.as_slice(), pipe)).map(Took::Done)
}

/// The engine's answer, for a thread that may block.
struct Pipe {
    now: Bytes,
    later: mpsc::Receiver<io::Result<Bytes>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.later.blocking_recv() {
                Some(chunk) => self.now = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.now.len().min(buffer.len());
        self.now.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Remembers how an archive began.
struct Head<'a> {
    inner: &'a mut Pipe,
    /// At most [`HEAD`] bytes.
    seen: Vec<u8>,
}

impl Read for Head<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let room = HEAD - self.seen.len();
        self.seen.extend_from_slice(&buffer[..count.min(room)]);
        Ok(count)
    }
}

/// An end before its time is an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
