//! Images from people.

use std::fs::File;
use std::io;

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::spawn_blocking;

use super::archive::{ArchiveError, describe};
use super::index::ImageRecord;
use crate::vault::Vault;
use crate::vault::put::PutError;

/// Why an image was not kept. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("this is not an image as `docker save` writes it")]
    Archive(#[from] ArchiveError),
    #[error("keep the archive")]
    Put(#[from] PutError),
}

impl Vault {
    /// Keeps an archive of at most `limit` bytes, and tells which images it holds. They are listed
    /// nowhere yet.
    ///
    /// # Errors
    /// When it breaks off, is too long, holds no image, or cannot be stored.
    pub async fn push_images(
        &self,
        limit: u64,
        archive: impl Stream<Item = io::Result<Bytes>> + Send,
        user: &str,
        pushed_ms: u64,
    ) -> Result<Vec<ImageRecord>, PushError> {
        let finished = self.receive(limit, archive).await?;
        let path = finished.path.clone();
        let described = spawn_blocking(move || {
            let mut file = File::open(path).map_err(ArchiveError::Tar)?;
            describe(&mut file)
        });
        let described = described
            .await
            .map_err(|error| PutError::Write(io::Error::other(error)))??;
        let stored = self.create(finished).await?;
        let record = |image: super::archive::Described| ImageRecord {
            id: image.id,
            names: image.names,
            archive: stored.digest.to_string(),
            bytes: stored.bytes,
            pushed_ms,
            user: user.to_owned(),
            layers: image.layers,
        };
        Ok(described.into_iter().map(record).collect())
    }
}
