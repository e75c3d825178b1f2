//! Jobs, their output and their documents.

use std::fmt;
use std::time::Duration;

use api::job::{JobId, JobRequest, JobState, JobStatus, Page};
use api::work::Document;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::answers::Why;
use crate::call::{ANSWER_WITHIN, Call};
use crate::connection::{Client, IDLE, decode};
use crate::digest::Hasher;
use crate::download::Download;
use crate::error::{Error, Strange};

/// The longest that the controller waits for a job's end in one call.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Which jobs a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub state: Option<JobState>,
    pub user: Option<String>,
    pub queue: Option<String>,
    pub node: Option<String>,
    /// A page's `next`.
    pub after: Option<String>,
    pub limit: Option<u32>,
    pub order: JobOrder,
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobOrder {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// What a job wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

impl fmt::Display for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// The header that makes a submission safe to repeat.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A new idempotency key: 128 random bits.
fn new_key() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Client {
    fn job(&self, method: Method, id: JobId, more: &[&str]) -> Result<Call, Error> {
        let id = id.to_string();
        let path = [&["v1", "jobs", &id], more].concat();
        Call::new(method, self.base(), &path)
    }

    /// Submits a job under a new idempotency key: however often the call is repeated on the way, it is
    /// one job.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn submit(&self, request: &JobRequest) -> Result<JobStatus, Error> {
        self.submit_as(request, &new_key()?).await
    }

    /// Submits a job under the caller's own idempotency key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn submit_as(&self, request: &JobRequest, key: &str) -> Result<JobStatus, Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "jobs"])?
            .header(IDEMPOTENCY_KEY, key)
            .json(request)?
            .safe();
        self.json(call).await
    }

    /// Submits many jobs at once, all or none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn submit_all(&self, requests: &[JobRequest]) -> Result<Vec<JobStatus>, Error> {
        self.submit_all_as(requests, &new_key()?).await
    }

    /// Submits many jobs at once, all or none, under the caller's own idempotency key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn submit_all_as(
        &self,
        requests: &[JobRequest],
        key: &str,
    ) -> Result<Vec<JobStatus>, Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "jobs", "batch"])?
            .header(IDEMPOTENCY_KEY, key)
            .json(requests)?
            .safe();
        self.json(call).await
    }

    /// `GET /v1/jobs`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<JobStatus>, Error> {
        let order = match filter.order {
            JobOrder::OldestFirst => None,
            JobOrder::NewestFirst => Some("desc"),
        };
        let call = Call::new(Method::GET, self.base(), &["v1", "jobs"])?
            .query("state", filter.state)
            .query("user", filter.user.as_deref())
            .query("queue", filter.queue.as_deref())
            .query("node", filter.node.as_deref())
            .query("after", filter.after.as_deref())
            .query("limit", filter.limit)
            .query("order", order);
        self.json(call).await
    }

    /// A job as it stands.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn job_status(&self, id: JobId) -> Result<JobStatus, Error> {
        self.json(self.job(Method::GET, id, &[])?).await
    }

    /// A job as it stands, and the text of the controller's answer, byte by byte.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn job_with_text(&self, id: JobId) -> Result<(JobStatus, Vec<u8>), Error> {
        let call = self.job(Method::GET, id, &[])?;
        let text = self.fetch(&call).await?;
        Ok((decode(&call.name(), &text)?, text))
    }

    /// A job as it stands when it is over or after `wait` (at most [`LONGEST_WAIT`]).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn wait_job(&self, id: JobId, wait: Duration) -> Result<JobStatus, Error> {
        let wait = wait.min(LONGEST_WAIT);
        let call = self
            .job(Method::GET, id, &[])?
            .query("wait", Some(wait.as_secs()))
            .within(wait + ANSWER_WITHIN);
        self.json(call).await
    }

    /// What a job waits for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn why(&self, id: JobId) -> Result<Why, Error> {
        self.json(self.job(Method::GET, id, &["why"])?).await
    }

    /// Asks for a job's end. That of a job that is over already is no error of the client's.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cancel(&self, id: JobId, reason: Option<&str>) -> Result<JobStatus, Error> {
        let body = match reason {
            Some(reason) => json!({ "reason": reason }),
            None => json!({}),
        };
        let call = self.job(Method::POST, id, &["cancel"])?.json(&body)?;
        self.json(call.safe()).await
    }

    /// Opens a document of a job's part on `node` (name or id), from byte `from` on. Reading resumes by
    /// itself after a broken connection.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open_document(
        &self,
        id: JobId,
        node: &str,
        name: &str,
        from: u64,
    ) -> Result<Download, Error> {
        let mut path = vec!["documents", node];
        path.extend(name.split('/'));
        let call = self.job(Method::GET, id, &path)?;
        Download::resumable(self, call, from).await
    }

    /// Writes a document to `sink`, checked against its length and digest. After an error the sink
    /// holds part of it, or something else.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Protocol`] with [`Strange::Digest`] or [`Strange::Length`] when it is not
    /// what the controller said that it has.
    pub async fn copy_document(
        &self,
        id: JobId,
        node: &str,
        document: &Document,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Error> {
        let mut download = self.open_document(id, node, &document.name, 0).await?;
        let (mut hasher, mut got) = (Hasher::default(), 0_u64);
        let call = download.call().to_owned();
        let strange = |source| Error::Protocol {
            call: call.clone(),
            source,
        };
        let expected = document.bytes;
        while let Some(chunk) = download.chunk().await? {
            got += chunk.len() as u64;
            if got > expected {
                return Err(strange(Strange::Length { expected, got }));
            }
            hasher.update(&chunk);
            let written = sink.write_all(&chunk).await;
            written.map_err(|source| Error::Sink {
                call: call.clone(),
                source,
            })?;
        }
        if got != expected {
            return Err(strange(Strange::Length { expected, got }));
        }
        let got = hasher.finish();
        if got != document.sha256 {
            let expected = document.sha256.clone();
            return Err(strange(Strange::Digest { expected, got }));
        }
        let flushed = sink.flush().await;
        flushed.map_err(|source| Error::Sink { call, source })
    }

    /// A document in memory, checked as by [`Client::copy_document`]; refused if it is longer than
    /// `limit` bytes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn fetch_document(
        &self,
        id: JobId,
        node: &str,
        document: &Document,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        if document.bytes > limit {
            return Err(Error::Protocol {
                call: format!("document {} of job {id}", document.name),
                source: Strange::TooLong { limit },
            });
        }
        let mut bytes = Vec::new();
        self.copy_document(id, node, document, &mut bytes).await?;
        Ok(bytes)
    }

    /// What a job's part wrote. `node` may be left out if there is one part only.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn logs(
        &self,
        id: JobId,
        stream: LogStream,
        node: Option<&str>,
    ) -> Result<Download, Error> {
        let call = self
            .job(Method::GET, id, &["logs"])?
            .query("stream", Some(stream))
            .query("node", node);
        Download::plain(self, call, Some(IDLE)).await
    }

    /// What a job's part writes, until it ends. That makes traffic while it is measured, and is noted
    /// with the result. Only a dead connection ends the wait for more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn follow_logs(
        &self,
        id: JobId,
        stream: LogStream,
        node: Option<&str>,
    ) -> Result<Download, Error> {
        let call = self
            .job(Method::GET, id, &["logs"])?
            .query("stream", Some(stream))
            .query("node", node)
            .query("follow", Some(true));
        Download::plain(self, call, None).await
    }
}
