//! New objects.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use store::Digest;

use super::Vault;
use super::draft::Finished;

/// What was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub bytes: u64,
}

/// Why something was not put. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It broke off.
    #[error("receive it to its end")]
    Source(#[source] io::Error),
    #[error("it is longer than {limit} bytes")]
    TooLong { limit: u64 },
    #[error("its SHA-256 is {found}, not {expected}")]
    Mismatch { expected: Digest, found: Digest },
    #[error("write it to the disk")]
    Write(#[source] io::Error),
    #[error("store it as an object")]
    Object(#[source] object_store::Error),
}

impl PutError {
    /// Whether there is no room for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Write(_) | Self::Object(_) => super::is_full(self),
            Self::Source(_) | Self::TooLong { .. } | Self::Mismatch { .. } => false,
        }
    }
}

impl Vault {
    /// Takes bytes to their end, if there are at most `limit` of them. With `expected` they must be
    /// what that says. Whether the same is there already makes no difference.
    ///
    /// # Errors
    /// When they break off, are too many or others than expected, or cannot be stored.
    pub async fn put_stream(
        &self,
        expected: Option<Digest>,
        limit: u64,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<Stored, PutError> {
        let finished = self.receive(limit, bytes).await?;
        if let Some(expected) = expected
            && finished.digest != expected
        {
            return Err(PutError::Mismatch {
                expected,
                found: finished.digest,
            });
        }
        self.create(finished).await
    }

    /// Bytes as a file that is not an object yet.
    pub(super) async fn receive(
        &self,
        limit: u64,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<Finished, PutError> {
        let incoming = &self.shared.incoming;
        let mut draft = incoming.draft().await.map_err(PutError::Write)?;
        let mut bytes = std::pin::pin!(bytes);
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(PutError::Source)?;
            if draft.bytes() + piece.len() as u64 > limit {
                return Err(PutError::TooLong { limit });
            }
            draft.push(&piece).await.map_err(PutError::Write)?;
        }
        draft.finish().await.map_err(PutError::Write)
    }

    pub(super) async fn create(&self, finished: Finished) -> Result<Stored, PutError> {
        let (digest, bytes) = (finished.digest, finished.bytes);
        let _claim = self.shared.making.claim(digest).await;
        let objects = &self.shared.objects;
        objects.create(finished).await.map_err(PutError::Object)?;
        Ok(Stored { digest, bytes })
    }
}
