//! Objects as they are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use sha2::{Digest as _, Sha256};
use store::Digest;

use super::draft::blocking;
use super::objects::key;
use super::{ByteStream, Vault};

/// Read of a file at a time, bytes.
const PIECE: u64 = 256 * 1024;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no object {digest}")]
    Missing { digest: Digest },
    #[error("read the object {digest}")]
    Object {
        digest: Digest,
        source: object_store::Error,
    },
    /// Beyond its end.
    #[error("the object {digest} has {bytes} bytes, there is no {start}..{end} of it")]
    Range {
        digest: Digest,
        bytes: u64,
        start: u64,
        end: u64,
    },
}

impl Vault {
    /// The length of an object, bytes; `None`: it is not there.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, ReadError> {
        let found = self.shared.objects.find(digest).await;
        found
            .map(|found| found.map(|found| found.size))
            .map_err(|source| ReadError::Object {
                digest: *digest,
                source,
            })
    }

    /// # Errors
    /// When that cannot be found out.
    pub async fn contains(&self, digest: &Digest) -> Result<bool, ReadError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// All of an object. If it is not what its name says, the last piece is an error: who passes the
    /// bytes on must not end them in a clean way then.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn get(&self, digest: &Digest) -> Result<(u64, ByteStream), ReadError> {
        let (bytes, all) = self.open_object(digest, None).await?;
        Ok((bytes, verified(all, *digest).boxed()))
    }

    /// A part of an object.
    ///
    /// # Errors
    /// When it is not there, is shorter, or cannot be read.
    pub async fn get_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<ByteStream, ReadError> {
        let bytes = self
            .size(digest)
            .await?
            .ok_or(ReadError::Missing { digest: *digest })?;
        if range.start > range.end || range.end > bytes {
            return Err(ReadError::Range {
                digest: *digest,
                bytes,
                start: range.start,
                end: range.end,
            });
        }
        if range == (0..bytes) {
            return Ok(self.get(digest).await?.1);
        }
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        Ok(self.open_object(digest, Some(range)).await?.1)
    }

    /// The object's length, and the bytes of the range.
    async fn open_object(
        &self,
        digest: &Digest,
        range: Option<Range<u64>>,
    ) -> Result<(u64, ByteStream), ReadError> {
        let mut options = GetOptions::new();
        options.range = range.map(GetRange::Bounded);
        let store = self.shared.objects.store();
        let got = store.get_opts(&key(digest), options).await;
        let got = got.map_err(|source| match source {
            object_store::Error::NotFound { .. } => ReadError::Missing { digest: *digest },
            source => ReadError::Object {
                digest: *digest,
                source,
            },
        })?;
        let (size, range) = (got.meta.size, got.range.clone());
        let bytes = match got.payload {
            GetResultPayload::File(file, _) => pieces(file, range).boxed(),
            GetResultPayload::Stream(stream) => stream.map_err(io::Error::from).boxed(),
        };
        Ok((size, bytes))
    }
}

/// A part of a file.
fn pieces(file: File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    let begin = Some((file, range));
    stream::unfold(begin, |state| async {
        let (mut file, range) = state.filter(|(_, range)| !range.is_empty())?;
        let read = blocking(move || {
            file.seek(SeekFrom::Start(range.start))?;
            let count = PIECE.min(range.end - range.start);
            let mut piece = Vec::new();
            file.by_ref().take(count).read_to_end(&mut piece)?;
            if piece.len() as u64 != count {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((piece, file, range.start + count..range.end))
        });
        Some(match read.await {
            Ok((piece, file, range)) => (Ok(piece.into()), Some((file, range))),
            Err(error) => (Err(error), None),
        })
    })
}

/// The same bytes, and an error after them if they are not what was expected.
fn verified(bytes: ByteStream, expected: Digest) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let begin = Some((bytes, Sha256::new()));
    stream::unfold(begin, move |state| async move {
        let (mut bytes, mut hasher) = state?;
        match bytes.next().await {
            Some(Ok(piece)) => {
                hasher.update(&piece);
                Some((Ok(piece), Some((bytes, hasher))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                let found = Digest(hasher.finalize().into());
                (found != expected).then(|| {
                    let text = format!("the object {expected} is damaged: it is {found}");
                    let error = io::Error::new(io::ErrorKind::InvalidData, text);
                    (Err(error), None)
                })
            }
        }
    })
}
