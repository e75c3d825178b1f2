//! What happened, as the store has it: lists of jobs and of events.

use api::event::Event;
use api::job::{JobId, JobStatus};
use store::{EventFilter, JobFilter, Order, ReadError, Store};
use tokio::sync::watch;

use crate::refusal::{Kind, Refusal};

/// Reads what is durable. Cheap to clone.
pub trait History: Clone + Send + Sync + 'static {
    /// At most `limit` jobs that fit, from behind `after` in that order.
    fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
        order: Order,
    ) -> impl Future<Output = Result<Vec<JobStatus>, Refusal>> + Send;

    /// At most `limit` events that fit, from behind `after`, in their order. Who has read up to a
    /// number will never find a new event below it.
    fn events(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> impl Future<Output = Result<Vec<Event>, Refusal>> + Send;

    /// The number of the last event.
    fn seen(&self) -> watch::Receiver<u64>;
}

impl History for Store {
    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
        order: Order,
    ) -> Result<Vec<JobStatus>, Refusal> {
        let records = self.jobs(filter, after, limit, order).await;
        let records = records.map_err(|error| refusal(&error))?;
        Ok(records.into_iter().map(|record| record.status).collect())
    }

    async fn events(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, Refusal> {
        let events = self.events(after, limit, filter).await;
        events.map_err(|error| refusal(&error))
    }

    fn seen(&self) -> watch::Receiver<u64> {
        self.events_seen()
    }
}

fn refusal(error: &ReadError) -> Refusal {
    let kind = match error {
        ReadError::Unavailable { .. } => Kind::StoreUnavailable,
        ReadError::Malformed { .. } => Kind::Internal,
    };
    Refusal::new(kind, crate::chain(error))
}
