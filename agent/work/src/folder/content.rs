//! A document that is read.

use std::io;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// What is read at once, bytes: all the memory that sending a document takes here.
const CHUNK: u64 = 64 * 1024;

/// Bytes in chunks of bounded size.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// Of a document. It stays as it is even when the document is forgotten meanwhile.
#[derive(Debug)]
pub enum Content {
    /// In a file.
    File {
        /// Read from wherever it stands; nobody else has it.
        file: tokio::fs::File,
        /// Its length.
        bytes: u64,
    },
    /// In memory.
    Bytes(Bytes),
}

impl Content {
    pub(super) async fn of_file(path: &Path) -> io::Result<Self> {
        let file = tokio::fs::File::open(path).await?;
        let about = file.metadata().await?;
        if !about.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let bytes = about.len();
        Ok(Self::File { file, bytes })
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// `length` bytes from `first` on, as far as there are so many; a file that became shorter is an
    /// error.
    #[must_use]
    pub fn stream(self, first: u64, length: u64) -> Chunks {
        match self {
            Self::Bytes(bytes) => {
                let at = |offset: u64| {
                    usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len())
                };
                let part = bytes.slice(at(first)..at(first.saturating_add(length)));
                Box::pin(futures_util::stream::iter([Ok(part)]))
            }
            Self::File { file, .. } => {
                let start = (file, Some(first), length);
                let chunks = |(mut file, seek, left): (tokio::fs::File, _, u64)| async move {
                    if left == 0 {
                        return Ok(None);
                    }
                    if let Some(first) = seek {
                        file.seek(io::SeekFrom::Start(first)).await?;
                    }
                    let mut chunk = Vec::new();
                    let size = left.min(CHUNK);
                    (&mut file).take(size).read_to_end(&mut chunk).await?;
                    if chunk.len() as u64 != size {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Ok(Some((Bytes::from(chunk), (file, None, left - size))))
                };
                Box::pin(futures_util::stream::try_unfold(start, chunks))
            }
        }
    }
}
