//! Makes steps durable, in their order, and then has them acted on.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeId;
use store::{Change, Changes, CommitError, Lease, Store};
use tokio::sync::{mpsc, watch};

use super::Done;
use super::records::changes;
use crate::lifecycle::{Collect, Conclusion, Instruction, Mark, Orphan, Step};
use crate::metrics::Metrics;
use crate::refusal::{Kind, Refusal};

/// Between two tries of a store that takes nothing.
const AGAIN: Duration = Duration::from_millis(500);

/// A step and who waits for it.
pub(super) struct Batch {
    pub(super) step: Step,
    pub(super) extra: Vec<Change>,
    pub(super) dones: Vec<Done>,
}

/// What is to be done after a commit.
#[derive(Debug, Default)]
pub struct Deeds {
    pub orders: Vec<Instruction>,
    pub collect: Vec<Collect>,
    pub dismiss: Vec<(NodeId, String)>,
    pub conclusions: Vec<Conclusion>,
    pub marks: Vec<(String, Mark)>,
    /// Not written yet: whether they are late or only repeated the store knows.
    pub late: Vec<Orphan>,
}

/// Why this process must not go on with what it knows.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("the store did not take a step")]
    Commit(#[source] CommitError),
    #[error("the task that writes steps died")]
    Died,
}

pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) lease: watch::Receiver<Lease>,
    pub(super) queued: mpsc::Receiver<Batch>,
    pub(super) trouble: watch::Sender<Option<Refusal>>,
    pub(super) act: Arc<dyn Fn(Deeds) + Send + Sync>,
    pub(super) metrics: Arc<Metrics>,
}

impl Committer {
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        while let Some(batch) = self.queued.recv().await {
            let Batch { step, extra, dones } = batch;
            let (changes, deeds) = changes(step, extra);
            if !changes.is_empty()
                && let Err(fatal) = self.commit(changes).await
            {
                let why = Refusal::new(Kind::Unknown, format!("{fatal}: it may have been done"))
                    .next("ask again in a moment");
                for done in dones {
                    done(Err(why.clone()));
                }
                return Err(fatal);
            }
            (self.act)(deeds);
            for done in dones {
                done(Ok(()));
            }
        }
        Ok(())
    }

    /// Tries until it is done or can never be.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), Fatal> {
        let changes = Changes::prepare(changes).map_err(Fatal::Commit)?;
        loop {
            let term = self.lease.borrow().term;
            let begun = tokio::time::Instant::now();
            let error = match self.store.commit_prepared(term, &changes).await {
                Ok(_seq) => {
                    self.metrics.store_committed(changes.len(), begun.elapsed());
                    if self.trouble.borrow().is_some() {
                        tracing::info!("the store takes changes again");
                        self.trouble.send_replace(None);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let (word, kind, next) = match &error {
                CommitError::Full { .. } => (
                    "full",
                    Kind::StoreFull,
                    "free space where the controller keeps its state; it goes on by itself",
                ),
                CommitError::Unavailable { .. } => (
                    "unavailable",
                    Kind::StoreUnavailable,
                    "look after the database; the controller goes on by itself",
                ),
                CommitError::NotLeader { .. }
                | CommitError::Conflict { .. }
                | CommitError::Invalid { .. }
                | CommitError::InDoubt { .. } => return Err(Fatal::Commit(error)),
            };
            self.metrics.store_failed(word);
            let detail = crate::chain(&error);
            if self.trouble.borrow().is_none() {
                tracing::error!(error = detail, "the store takes no changes");
            }
            self.trouble
                .send_replace(Some(Refusal::new(kind, detail).next(next)));
            tokio::time::sleep(AGAIN).await;
        }
    }
}
