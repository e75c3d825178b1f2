//! The node's work over HTTP, as far as it is not HTTP: who may see what, which bytes of a document
//! were asked for, and what to answer. The edge turns an [`Answer`] into a response.
//!
//! ```text
//! GET work                               all that is held: admins all, users their own
//! GET work/JOB/ATTEMPT
//! GET work/JOB/ATTEMPT/documents/NAME    with Range: one part; If-Range: by its ETag
//! ```

use std::io;

use api::work::{PartView, WorkView};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use crate::Worker;
use crate::folder::{Chunks, Content, FolderError};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<'a> {
    /// Sees everything.
    Admin,
    /// Sees what it submitted; `None`: nobody knows who it is, and it sees nothing.
    User(Option<&'a str>),
}

impl Asker<'_> {
    fn may_see(self, part: &PartView) -> bool {
        match self {
            Self::Admin => true,
            Self::User(name) => name == Some(part.user.as_str()),
        }
    }
}

/// The request's head, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `Range`.
    pub range: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
}

/// What to answer.
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes of the body.
    pub length: u64,
    /// All of them.
    pub body: Chunks,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Answers a GET of `path`, which is what follows `work` in the URL, split at its slashes; `None`:
/// there is no such resource.
pub async fn answer(
    worker: &Worker,
    asker: Asker<'_>,
    path: &[&str],
    conditions: Conditions<'_>,
) -> Option<Answer> {
    match path {
        [] => Some(overview(worker, asker).await),
        [job, attempt] => Some(match find(worker, asker, job, attempt).await {
            Ok(part) => json(200, &part),
            Err(refusal) => refusal,
        }),
        [job, attempt, "documents", name @ ..] if !name.is_empty() => {
            let name = name.join("/");
            Some(match find(worker, asker, job, attempt).await {
                Ok(part) => document(worker, &part, &name, conditions).await,
                Err(refusal) => refusal,
            })
        }
        _ => None,
    }
}

async fn overview(worker: &Worker, asker: Asker<'_>) -> Answer {
    let Some(view) = worker.overview().await else {
        return message(503, "the agent is going down");
    };
    let parts = view.parts.into_iter().filter(|part| asker.may_see(part));
    let view = WorkView {
        parts: parts.collect(),
        ..view
    };
    json(200, &view)
}

/// What somebody may not see is not there for him.
async fn find(
    worker: &Worker,
    asker: Asker<'_>,
    job: &str,
    attempt: &str,
) -> Result<PartView, Answer> {
    let numbers = job.parse().ok().zip(attempt.parse().ok());
    let Some((job, attempt)) = numbers else {
        let why = format!("work/{job}/{attempt}: give the numbers of a job and of its attempt");
        return Err(message(400, &why));
    };
    let part = worker.detail(job, attempt).await;
    part.filter(|part| asker.may_see(part)).ok_or_else(|| {
        let why = format!(
            "attempt {attempt} of job {job} is not on this node, or not yours; what was collected \
             by the controller is kept there"
        );
        message(404, &why)
    })
}

async fn document(
    worker: &Worker,
    part: &PartView,
    name: &str,
    conditions: Conditions<'_>,
) -> Answer {
    let documents = part.ending.as_ref().map(|ending| &ending.documents);
    let told = documents.and_then(|all| all.iter().find(|document| document.name == name));
    let Some(told) = told else {
        let why = match documents {
            None => "it has not ended yet".to_owned(),
            Some(all) => {
                let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                format!("there are: {}", names.join(", "))
            }
        };
        return message(404, &format!("no document {:?}: {why}", short(name)));
    };
    let content = match worker.document(part.key, name).await {
        Ok(content) => content,
        Err(error) => return message(status(&error), &crate::chain(&error)),
    };
    if content.bytes() != told.bytes {
        let why = format!(
            "{name} has {} bytes and had {} when it was written: it was damaged",
            content.bytes(),
            told.bytes
        );
        return message(500, &why);
    }
    send(content, &format!("\"{}\"", told.sha256), conditions)
}

fn status(error: &FolderError) -> u16 {
    match error {
        FolderError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => 404,
        FolderError::Name { .. } => 404,
        _ => 500,
    }
}

fn send(content: Content, etag: &str, conditions: Conditions<'_>) -> Answer {
    let total = content.bytes();
    let same = conditions.if_range.is_none_or(|wanted| wanted == etag);
    let range = conditions.range.filter(|_| same);
    let mut headers = vec![
        ("accept-ranges", "bytes".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
        ("etag", etag.to_owned()),
    ];
    match range.map_or(Range::Whole, |text| parse_range(text, total)) {
        Range::Whole => Answer {
            status: 200,
            headers,
            length: total,
            body: content.stream(0, total),
        },
        Range::Part { first, last } => {
            let length = last - first + 1;
            headers.push(("content-range", format!("bytes {first}-{last}/{total}")));
            Answer {
                status: 206,
                headers,
                length,
                body: content.stream(first, length),
            }
        }
        Range::Beyond => {
            let why = format!("it has {total} bytes");
            let mut answer = message(416, &why);
            let range = format!("bytes */{total}");
            answer.headers.push(("content-range", range));
            answer
        }
    }
}

/// Which bytes were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Whole,
    /// Both counted from 0 and included.
    Part {
        first: u64,
        last: u64,
    },
    /// None of it.
    Beyond,
}

/// One range of bytes (RFC 9110, 14.1.2). Several, or anything else, is taken for no `Range` at all,
/// as a server may.
fn parse_range(text: &str, total: u64) -> Range {
    let digits = |text: &str| {
        let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // more than there can be: the end of it
        sound.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Range::Whole;
    };
    let (first, last) = match (digits(first), digits(last), last.is_empty()) {
        (Some(first), None, true) => (first, u64::MAX),
        (Some(first), Some(last), _) if first <= last => (first, last),
        // the last so many bytes
        (None, Some(0), _) if first.is_empty() => return Range::Beyond,
        (None, Some(count), _) if first.is_empty() => (total.saturating_sub(count), u64::MAX),
        _ => return Range::Whole,
    };
    if first >= total {
        return Range::Beyond;
    }
    let last = last.min(total - 1);
    Range::Part { first, last }
}

fn json<T: Serialize>(status: u16, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => whole(status, text),
        Err(error) => message(500, &format!("answer: {error}")),
    }
}

fn message(status: u16, text: &str) -> Answer {
    let text = serde_json::json!({ "message": text }).to_string();
    whole(status, text.into_bytes())
}

fn whole(status: u16, text: Vec<u8>) -> Answer {
    Answer {
        status,
        headers: vec![("content-type", "application/json".to_owned())],
        length: text.len() as u64,
        body: Box::pin(stream::iter([Ok(Bytes::from(text))])),
    }
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests;
