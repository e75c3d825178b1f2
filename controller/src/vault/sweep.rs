//! Objects that nobody needs any more.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use store::Digest;

use super::Vault;
use super::draft::blocking;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub objects: u64,
    pub bytes: u64,
    /// Documents of which only a part had been fetched.
    pub partials: u64,
}

/// Why not everything was looked at.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("list the objects")]
    List(#[source] object_store::Error),
    #[error("remove the object {digest}")]
    Remove {
        digest: Digest,
        source: object_store::Error,
    },
    #[error("clear up what was on its way in")]
    Incoming(#[source] io::Error),
}

impl Vault {
    /// Removes objects that are not among `live` and were not put for `grace`, and what was fetched in
    /// part and not continued for so long.
    ///
    /// Whoever puts an object and only then writes down that it is needed must do so within `grace`:
    /// some hours at least.
    ///
    /// # Errors
    /// When something cannot be listed or removed; the rest comes next time.
    pub async fn sweep(
        &self,
        live: &HashSet<Digest>,
        grace: Duration,
    ) -> Result<Swept, SweepError> {
        let shared = &self.shared;
        let mut swept = Swept::default();
        let mut all = shared.objects.list();
        while let Some((digest, age)) = all.try_next().await.map_err(SweepError::List)? {
            if age < grace || live.contains(&digest) {
                continue;
            }
            // Somebody puts it just now, so it is needed.
            let Some(_claim) = shared.making.try_claim(&digest) else {
                continue;
            };
            let removed = shared.objects.remove(&digest, grace).await;
            let removed = removed.map_err(|source| SweepError::Remove { digest, source })?;
            if let Some(bytes) = removed {
                swept.objects += 1;
                swept.bytes += bytes;
            }
        }
        swept.partials = self.sweep_partials(grace).await?;
        Ok(swept)
    }

    async fn sweep_partials(&self, grace: Duration) -> Result<u64, SweepError> {
        let shared = Arc::clone(&self.shared);
        let stale = blocking(move || shared.incoming.stale(grace)).await;
        let mut removed = 0;
        for (digest, path) in stale.map_err(SweepError::Incoming)? {
            let Some(claim) = self.shared.fetching.try_claim(&digest) else {
                continue;
            };
            let gone = blocking(move || std::fs::remove_file(path)).await;
            drop(claim);
            match gone {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(SweepError::Incoming(error)),
            }
        }
        Ok(removed)
    }
}
