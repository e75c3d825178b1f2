//! Removes documents that belong to nothing: what was fetched or pushed by a controller that died before
//! it wrote down what for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::job::JobId;
use store::{Digest, JobFilter, Order, ReadError, Store};
use tokio_util::sync::CancellationToken;

use crate::stock::Stock;
use crate::vault::Vault;

/// Between the start and the first look, and between looks.
const FIRST: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(86_400);
/// How long something may lie in the vault before it is written down what it belongs to. Of a result the
/// first document may come a week before the last (`Settings::collect`).
const GRACE: Duration = Duration::from_secs(14 * 86_400);
/// Jobs that are read at once.
const PAGE: u32 = 500;

/// Looks once a day, until `stop`.
pub async fn run(vault: Vault, store: Store, stock: Arc<Stock>, stop: CancellationToken) {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        tokio::select! {
            () = stop.cancelled() => return,
            () = look(&vault, &store, &stock) => {}
        }
    }
}

async fn look(vault: &Vault, store: &Store, stock: &Stock) {
    // who cannot tell what is needed removes nothing
    let mut needed = match documents(store).await {
        Ok(needed) => needed,
        Err(error) => {
            let error = crate::chain(&error);
            tracing::warn!(error, "it is not known which documents are needed");
            return;
        }
    };
    needed.extend(stock.objects());
    match vault.sweep(&needed, GRACE).await {
        Ok(swept) => tracing::info!(
            objects = swept.objects,
            bytes = swept.bytes,
            partials = swept.partials,
            "swept what belongs to nothing"
        ),
        Err(error) => tracing::warn!(error = crate::chain(&error), "swept in part"),
    }
}

/// Of all jobs that ever were: their results, and what is kept of late ones as evidence.
///
/// # Errors
/// When the store cannot be read.
pub async fn documents(store: &Store) -> Result<HashSet<Digest>, ReadError> {
    let mut needed = HashSet::new();
    let mut after: Option<JobId> = None;
    loop {
        let filter = JobFilter::default();
        let page = store.jobs(&filter, after, PAGE, Order::OldestFirst).await?;
        let Some(last) = page.last() else {
            return Ok(needed);
        };
        after = Some(last.status.id);
        for job in page {
            let parts = job.status.parts.iter();
            // those that are still being fetched, too
            let of_parts = parts.flat_map(|part| {
                let ending = part.ending.iter().flat_map(|ending| &ending.documents);
                part.documents.iter().chain(ending)
            });
            needed.extend(of_parts.filter_map(|it| it.sha256.parse::<Digest>().ok()));
            for orphan in store.orphans(job.status.id).await? {
                let documents = orphan.documents.iter();
                needed.extend(documents.filter_map(|it| it.sha256.parse::<Digest>().ok()));
            }
        }
    }
}
