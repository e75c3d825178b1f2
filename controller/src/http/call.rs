//! One call: its path, its query, its headers, its body.

use std::time::Duration;

use api::job::JobId;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::operation::{Spec, Takes};
use super::peer::Peer;
use super::query::{MOST, Query, number};
use super::strict::Strict;
use crate::desk::Caller;
use crate::refusal::Kind;

/// The longest idempotency key.
pub(crate) const LONGEST_KEY: usize = 128;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// JSON of more bytes is read and written on a thread of its own.
const HEAVY: usize = 256 * 1024;

/// A call that its peer may make, with a query that is well formed.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) peer: Peer,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    path: Vec<(String, String)>,
    body: Body,
    takes: Takes,
}

impl Call {
    pub(crate) async fn read(request: Request, peer: Peer, spec: &Spec) -> Result<Self, Fault> {
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query(), spec.query)?;
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| {
                Fault::invalid(
                    "path",
                    "its percent-encoding is not UTF-8",
                    "encode it as UTF-8, then with %XX",
                )
            })?;
        let path = path
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Self {
            peer,
            query,
            headers: parts.headers,
            path,
            body,
            takes: spec.body,
        })
    }

    /// Who calls.
    pub(crate) fn caller(&self) -> Result<&Caller, Fault> {
        match &self.peer {
            Peer::Client(caller, _) => Ok(caller),
            // the table of calls admits nobody else
            _ => Err(Fault::new(Kind::Forbidden, "this is for clients")),
        }
    }

    /// A part of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        let mut parts = self.path.iter();
        parts
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    /// The job that the path names.
    pub(crate) fn job(&self) -> Result<JobId, Fault> {
        let text = self.part("id");
        match number(text) {
            Some(id) if id <= MOST => Ok(JobId(id)),
            // no job has a number that the store cannot hold
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(Fault::new(
                Kind::NoSuchJob,
                format!("there is no job {text}"),
            )),
            _ => Err(Fault::invalid(
                "path parameter id",
                "not the number of a job",
                "write it in digits, as GET /v1/jobs lists it",
            )),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn idempotency_key(&self) -> Result<Option<String>, Fault> {
        let mut values = self.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bytes = value.as_bytes();
        let printable = bytes.iter().all(|b| (b' '..=b'~').contains(b));
        match std::str::from_utf8(bytes) {
            Ok(key)
                if printable
                    && (1..=LONGEST_KEY).contains(&key.len())
                    && values.next().is_none() =>
            {
                Ok(Some(key.to_owned()))
            }
            _ => Err(Fault::invalid(
                "header Idempotency-Key",
                format!("not one key of 1 to {LONGEST_KEY} printable ASCII characters"),
                "use something like a random UUID, new for each submission",
            )),
        }
    }

    /// The body as JSON, read strictly.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(self) -> Result<T, Fault> {
        let bytes = self.bytes().await?;
        parse_all(bytes).await
    }

    /// The same, or `T`'s default if there is no body.
    pub(crate) async fn json_or_default<T>(self) -> Result<T, Fault>
    where
        T: DeserializeOwned + Default + Send + 'static,
    {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        parse_all(bytes).await
    }

    async fn bytes(self) -> Result<Bytes, Fault> {
        let Takes::Json {
            limit,
            within,
            optional,
        } = self.takes
        else {
            return Err(Fault::new(Kind::Internal, "this call takes no JSON"));
        };
        let empty = axum::body::HttpBody::is_end_stream(&self.body);
        if !(optional && empty) {
            wants_json(&self.headers)?;
        }
        collect(self.body, limit, within).await
    }

    /// The body as it comes, if its Content-Type is one of `formats`.
    pub(crate) fn archive(self, formats: &[&str]) -> Result<Body, Fault> {
        let given = media_type(&self.headers);
        if !formats.contains(&given.as_str()) {
            return Err(Fault::media_type(&given, &formats.join(" or ")));
        }
        Ok(self.body)
    }
}

/// In lower case, without parameters; empty: none is given.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let value = value.unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn wants_json(headers: &HeaderMap) -> Result<(), Fault> {
    let given = media_type(headers);
    if given == "application/json" {
        return Ok(());
    }
    Err(Fault::media_type(&given, "application/json"))
}

async fn collect(body: Body, limit: usize, within: Duration) -> Result<Bytes, Fault> {
    let body = Limited::new(body, limit).collect();
    let body = tokio::time::timeout(within, body)
        .await
        .map_err(|_| Fault::too_slow(within))?;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::too_large(limit)),
        Err(error) => Err(Fault::invalid(
            "body",
            format!("it broke off: {}", crate::chain(&*error)),
            "send it again",
        )),
    }
}

async fn parse_all<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<T, Fault> {
    heavy(bytes.len(), move || parse(&bytes)).await?
}

/// Does what takes long where it keeps nobody waiting. `bytes`: how much there is to do.
pub(crate) async fn heavy<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    if bytes <= HEAVY {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Fault::new(Kind::Internal, "the call met a fault of this program"))
}

/// # Errors
/// 400 with line, column and JSON pointer.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut reader)).map_err(|error| {
        let at = pointer(error.path());
        wrong_json(&at, error.inner())
    })?;
    reader.end().map_err(|error| wrong_json("", &error))?;
    Ok(value)
}

fn wrong_json(at: &str, error: &serde_json::Error) -> Fault {
    let what = if error.is_data() {
        "correct the field; GET /openapi.json describes it"
    } else {
        "send one valid JSON document"
    };
    // serde_json ends its messages with line and column; where both are 0 they mean nothing
    let text = error.to_string();
    let text = text.strip_suffix(" at line 0 column 0").unwrap_or(&text);
    let at = if at.is_empty() { "/" } else { at };
    Fault::invalid(at, text, what)
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // behind this the reader does not know where it is
            Segment::Unknown => break,
        }
    }
    pointer
}
