//! What jobs leave behind: `/v1/jobs/ID/documents` and `/v1/jobs/ID/logs`.

use std::ops::Range;

use api::job::{JobPart, JobStatus};
use api::work::Document;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{Response, StatusCode};

use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use super::images::ByteStream;
use super::range::{Extent, extent};
use crate::desk::Desk;
use crate::refusal::{Kind, Refusal};

/// Where documents are.
pub trait Documents: Clone + Send + Sync + 'static {
    /// The bytes `range` of a document that `part` of `job` lists as stored.
    ///
    /// # Errors
    /// No such document, although it is listed; store.
    fn read(
        &self,
        job: &JobStatus,
        part: &JobPart,
        document: &Document,
        range: Range<u64>,
    ) -> impl Future<Output = Result<ByteStream, Refusal>> + Send;

    /// What a part that has not ended has written to `stdout` or `stderr` (`stream`); with `follow`
    /// also what it writes from then on, until it ends.
    ///
    /// # Errors
    /// No such document yet; the node is offline or fails.
    fn live(
        &self,
        job: &JobStatus,
        part: &JobPart,
        stream: &str,
        follow: bool,
    ) -> impl Future<Output = Result<ByteStream, Refusal>> + Send;
}

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn document(&self, call: Call) -> Answer {
        let job = self.desk.job(call.job()?).await?;
        let part = part_of(&job, call.part("node"))?;
        let name = call.part("name");
        let Some(document) = stored(part, name) else {
            return Err(no_such(&job, part, name).into());
        };
        self.stored(&call.headers, &job, part, document).await
    }

    pub(crate) async fn logs(&self, call: Call) -> Answer {
        let job = self.desk.job(call.job()?).await?;
        let part = match call.query.text("node") {
            Some(node) => part_of(&job, node)?,
            None => only_part(&job)?,
        };
        let stream = call.query.text("stream").unwrap_or("stdout");
        if let Some(document) = stored(part, stream) {
            return self.stored(&call.headers, &job, part, document).await;
        }
        if job.state.is_over() {
            return Err(no_such(&job, part, stream).into());
        }
        let follow = call.query.flag("follow");
        let bytes = self.vault.live(&job, part, stream, follow).await?;
        let mut response = Response::new(Body::from_stream(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format_of(stream)));
        harmless(headers);
        Ok(response)
    }

    async fn stored(
        &self,
        asked: &HeaderMap,
        job: &JobStatus,
        part: &JobPart,
        document: &Document,
    ) -> Answer {
        let text = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
        let tag = format!("\"{}\"", document.sha256);
        if text(IF_NONE_MATCH).is_some_and(|known| matches(known, &tag)) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            describe(response.headers_mut(), &tag);
            return Ok(response);
        }
        // a part of something else than the caller has already is of no use
        let same = text(IF_RANGE).is_none_or(|known| known == tag);
        let wanted = text(RANGE).filter(|_| same);
        let (status, range) = match extent(wanted, document.bytes) {
            Extent::All => (StatusCode::OK, 0..document.bytes),
            Extent::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Extent::Outside => return Err(Fault::range(document.bytes)),
        };
        let (first, count) = (range.start, range.end - range.start);
        let bytes = self.vault.read(job, part, document, range).await?;
        let mut response = Response::new(Body::from_stream(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        describe(headers, &tag);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(format_of(&document.name)),
        );
        headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
        if status == StatusCode::PARTIAL_CONTENT {
            let last = first + count - 1;
            let text = format!("bytes {first}-{last}/{}", document.bytes);
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(CONTENT_RANGE, value);
            }
        }
        Ok(response)
    }
}

fn describe(headers: &mut HeaderMap, tag: &str) {
    // a digest is hexadecimal; anything else is no tag
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // what a digest names never changes, but an attempt may be followed by another one
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=0, must-revalidate"),
    );
    harmless(headers);
}

/// A browser must not take what a benchmark wrote for a page of the controller's.
fn harmless(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
}

/// Nothing that a browser would run.
fn format_of(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name);
    match file.rsplit_once('.').map(|(_, end)| end) {
        Some("json") => "application/json",
        Some("txt" | "log" | "csv") => "text/plain; charset=utf-8",
        None if matches!(file, "stdout" | "stderr") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// If-None-Match compares weakly.
fn matches(known: &str, tag: &str) -> bool {
    let mut tags = known.split(',').map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn stored<'a>(part: &'a JobPart, name: &str) -> Option<&'a Document> {
    part.documents.iter().find(|document| document.name == name)
}

/// A job's part by its node's id or name.
fn part_of<'a>(job: &'a JobStatus, node: &str) -> Result<&'a JobPart, Refusal> {
    let mut parts = job.parts.iter();
    let by_id = parts.find(|part| part.node.as_str() == node);
    let found = by_id.or_else(|| job.parts.iter().find(|part| part.node_name == node));
    found.ok_or_else(|| {
        let node = super::audit::escape(node);
        let detail = format!("job {} has no part on a node {node}", job.id);
        Refusal::new(Kind::NoSuchDocument, detail).next(name_one(job))
    })
}

fn only_part(job: &JobStatus) -> Result<&JobPart, Fault> {
    match job.parts.as_slice() {
        [part] => Ok(part),
        [] => {
            let detail = format!("job {} has no part on any node yet", job.id);
            Err(Refusal::new(Kind::NoSuchDocument, detail)
                .next(name_one(job))
                .into())
        }
        parts => Err(Fault::invalid(
            "query parameter node",
            format!("job {} has {} parts", job.id, parts.len()),
            name_one(job),
        )),
    }
}

fn name_one(job: &JobStatus) -> String {
    let nodes: Vec<_> = job
        .parts
        .iter()
        .map(|part| part.node_name.as_str())
        .collect();
    match nodes.as_slice() {
        [] => format!(
            "wait until it has one: GET /v1/jobs/{}?wait=60&seen={}",
            job.id, job.state
        ),
        nodes => format!("name one of its nodes: {}", nodes.join(", ")),
    }
}

fn no_such(job: &JobStatus, part: &JobPart, name: &str) -> Refusal {
    let name = super::audit::escape(name);
    let detail = format!(
        "no document {name} of job {} on {} is stored here",
        job.id, part.node_name
    );
    let names: Vec<_> = part.documents.iter().map(|d| d.name.as_str()).collect();
    let refusal = Refusal::new(Kind::NoSuchDocument, detail);
    match names.as_slice() {
        [] if !job.state.is_over() => refusal.next(format!(
            "wait until it is over: GET /v1/jobs/{}?wait=60",
            job.id
        )),
        [] => refusal,
        names => refusal.next(format!("it has {}", names.join(", "))),
    }
}
