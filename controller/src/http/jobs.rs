//! `/v1/jobs`.

use std::sync::Arc;
use std::time::Duration;

use api::job::{JobId, JobRequest, JobState, JobStatus, Page};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION};
use serde::Deserialize;
use store::{JobFilter, Order};
use tokio::time::Instant;

use super::answer::{about, json, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use super::nodes::node_id;
use super::operation::{JOB_TOKEN, LONGEST_PAGE};
use super::query::MOST;
use crate::check;
use crate::desk::Desk;
use crate::refusal::{Kind, Refusal};

/// Items of a page when the caller does not say.
const PAGE: u64 = 100;

/// `POST /v1/jobs/ID/cancel`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRequest {
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = r"^[^\u0000-\u001f\u007f]*$")]
    pub(crate) reason: Option<String>,
}

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn submit(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let key = call.idempotency_key()?;
        let request: JobRequest = call.json().await?;
        check::job(&request, caller.role, "")?;
        let jobs = self.desk.submit(&caller, key, vec![request]).await?;
        let Some(job) = jobs.into_iter().next() else {
            return Err(Fault::new(Kind::Internal, "no job was made"));
        };
        let mut response = json(StatusCode::CREATED, &job)?;
        if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(about(response, format!("job:{}", job.id)))
    }

    pub(crate) async fn submit_batch(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let key = call.idempotency_key()?;
        let requests: Vec<JobRequest> = call.json().await?;
        if requests.is_empty() || requests.len() > check::BATCH {
            return Err(Fault::invalid(
                "/",
                format!("{} jobs: 1 to {} are allowed", requests.len(), check::BATCH),
                "send more jobs in several submissions",
            ));
        }
        for (index, request) in requests.iter().enumerate() {
            check::job(request, caller.role, &format!("/{index}"))?;
        }
        let jobs = self.desk.submit(&caller, key, requests).await?;
        let subject = match (jobs.first(), jobs.last()) {
            (Some(first), Some(last)) => format!("jobs:{}-{}", first.id, last.id),
            _ => String::new(),
        };
        let size = jobs.len() * 1024;
        let response = super::call::heavy(size, move || json(StatusCode::CREATED, &jobs)).await??;
        Ok(about(response, subject))
    }

    pub(crate) async fn jobs(&self, call: Call) -> Answer {
        let query = &call.query;
        let node = match query.text("node") {
            Some(name) => Some(node_id(&self.desk, name).await?),
            None => None,
        };
        let filter = JobFilter {
            states: query.states("state"),
            user: query.text("user").map(str::to_owned),
            queue: query.text("queue").map(str::to_owned),
            node,
        };
        let after = query.token("after").map(|token| {
            // what no store can hold is behind everything that it holds
            let id = u64::from_str_radix(token, 16).unwrap_or(MOST);
            JobId(id.min(MOST))
        });
        let order = match query.text("order") {
            Some("desc") => Order::NewestFirst,
            _ => Order::OldestFirst,
        };
        let limit = query.integer("limit").unwrap_or(PAGE).min(LONGEST_PAGE);
        let limit = usize::try_from(limit).unwrap_or_default();
        // one more, to know whether there are more
        let ask = u32::try_from(limit + 1).unwrap_or(u32::MAX);
        let mut items = self.history.jobs(&filter, after, ask, order).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more);
        let next = next.map(|job| format!("{JOB_TOKEN}{:x}", job.id.0));
        let size = items.len() * 1024;
        super::call::heavy(size, move || ok(&Page { items, next })).await?
    }

    pub(crate) async fn job(&self, call: Call) -> Answer {
        let id = call.job()?;
        let Some(wait) = call.query.integer("wait").filter(|seconds| *seconds > 0) else {
            return ok(&self.desk.job(id).await?);
        };
        let seen = call.query.text("seen").and_then(JobState::parse);
        let _permit = self
            .waits
            .try_acquire()
            .map_err(|_| Fault::too_many("calls that wait for a job"))?;
        ok(&self.wait_for(id, Duration::from_secs(wait), seen).await?)
    }

    /// The job when it is over, has another state than `seen`, or after `wait`.
    async fn wait_for(
        &self,
        id: JobId,
        wait: Duration,
        seen: Option<JobState>,
    ) -> Result<JobStatus, Refusal> {
        let until = Instant::now() + wait;
        let watch = self.feed.watch(id);
        let notify = Arc::clone(&watch.notify);
        loop {
            // first listen, then look: a change in between is not missed
            let mut changed = std::pin::pin!(notify.notified());
            changed.as_mut().enable();
            let job = self.desk.job(id).await?;
            let news = seen.is_some_and(|seen| seen != job.state);
            let late = Instant::now() >= until || self.stop.is_cancelled();
            if job.state.is_over() || news || late {
                return Ok(job);
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    pub(crate) async fn why(&self, call: Call) -> Answer {
        ok(&self.desk.why(call.job()?).await?)
    }

    pub(crate) async fn cancel(&self, call: Call) -> Answer {
        let id = call.job()?;
        let caller = call.caller()?.clone();
        let CancelRequest { reason } = call.json_or_default().await?;
        if let Some(reason) = &reason {
            let long = reason.chars().count() > 1000;
            if long || reason.chars().any(|c| c < ' ' || c == '\u{7f}') {
                return Err(Fault::invalid(
                    "/reason",
                    "more than 1000 characters, or control characters",
                    "say it on one line",
                ));
            }
        }
        let job = self.desk.cancel(&caller, id, reason).await?;
        Ok(about(ok(&job)?, format!("job:{id}")))
    }
}
