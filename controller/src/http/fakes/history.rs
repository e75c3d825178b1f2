//! What it remembers.

use api::event::Event;
use api::job::{JobId, JobStatus};
use store::{EventFilter, JobFilter, Order};
use tokio::sync::watch;

use super::FakeController;
use crate::http::History;
use crate::refusal::Refusal;

impl History for FakeController {
    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
        order: Order,
    ) -> Result<Vec<JobStatus>, Refusal> {
        self.trouble().await?;
        let state = self.state();
        let fits = |job: &&JobStatus| {
            (filter.states.is_empty() || filter.states.contains(&job.state))
                && filter.user.as_ref().is_none_or(|user| *user == job.user)
                && filter
                    .queue
                    .as_ref()
                    .is_none_or(|q| *q == job.request.queue)
                && filter
                    .node
                    .as_ref()
                    .is_none_or(|node| job.parts.iter().any(|part| part.node == *node))
        };
        let limit = limit as usize;
        let jobs = state.jobs.values().filter(fits);
        Ok(match order {
            Order::OldestFirst => {
                let behind = |job: &&JobStatus| after.is_none_or(|after| job.id > after);
                jobs.filter(behind).take(limit).cloned().collect()
            }
            Order::NewestFirst => {
                let before = |job: &&JobStatus| after.is_none_or(|after| job.id < after);
                jobs.rev().filter(before).take(limit).cloned().collect()
            }
        })
    }

    async fn events(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, Refusal> {
        self.trouble().await?;
        let state = self.state();
        let fits = |event: &&Event| {
            event.seq > after
                && filter.job.is_none_or(|job| event.job == Some(job))
                && (filter.node.is_none() || event.node == filter.node)
        };
        let events = state.events.iter().filter(fits);
        Ok(events.take(limit as usize).cloned().collect())
    }

    fn seen(&self) -> watch::Receiver<u64> {
        self.0.seen.subscribe()
    }
}
