//! Documents from nodes.

use std::time::Duration;

use api::fleet::NodeId;
use api::work::{Document, Key};
use bytes::Bytes;
use hop::{Answer, BoxError};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{Request, Response, StatusCode};
use store::Digest;
use tokio::time::timeout;

use super::Vault;
use super::draft::Draft;
use super::put::PutError;
use crate::relay::{CallError, Recipient, Relay};

/// Of a node's explanation, bytes.
const WORDS: usize = 4 * 1024;

/// Why a document is not here yet.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{name:?} is not a document's name")]
    Name { name: String },
    #[error("{sha256:?} is not a SHA-256")]
    Digest { sha256: String },
    #[error("ask for it")]
    Call(#[from] CallError),
    #[error("the node answered {status}: {words}")]
    Status { status: StatusCode, words: String },
    /// What has come is kept.
    #[error("it broke off after {have} of {bytes} bytes")]
    Cut {
        have: u64,
        bytes: u64,
        #[source]
        source: Option<BoxError>,
    },
    /// What has come is kept.
    #[error("nothing came for {within:?}, after {have} of {bytes} bytes")]
    Stalled {
        have: u64,
        bytes: u64,
        within: Duration,
    },
    /// Nothing is kept.
    #[error("it is longer than the {bytes} bytes that were announced")]
    Longer { bytes: u64 },
    /// Nothing is kept.
    #[error("store it")]
    Put(#[from] PutError),
}

impl FetchError {
    /// Whether there is no room for it here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Put(error) if error.is_full())
    }
}

impl Vault {
    /// Fetches what a node keeps of a job's attempt. What was fetched before a cut is continued; what
    /// is here already is not fetched again. Tries once: what is cut can be asked for again.
    ///
    /// # Errors
    /// When the node does not give it, or gives something else than it has announced.
    pub async fn fetch_document(
        &self,
        relay: &Relay,
        node: &NodeId,
        key: Key,
        document: &Document,
    ) -> Result<(), FetchError> {
        let path = path(key, document)?;
        let digest: Digest = document.sha256.parse().map_err(|_| FetchError::Digest {
            sha256: document.sha256.clone(),
        })?;
        let shared = &self.shared;
        let _claim = shared.fetching.claim(digest).await;
        if self.renew(&digest, document.bytes).await? {
            return Ok(());
        }
        let partial = shared.incoming.partial(&digest).await;
        let mut draft = partial.map_err(PutError::Write)?;
        let receiving = Receiving {
            vault: self,
            relay,
            node,
            path: &path,
            bytes: document.bytes,
        };
        match receiving.rest(&mut draft).await {
            Ok(()) => {}
            Err(error @ FetchError::Longer { .. }) => {
                draft.discard();
                return Err(error);
            }
            Err(error) => {
                // What is still in memory goes to the rest; its loss costs only time.
                if let Err(error) = draft.write().await {
                    tracing::debug!(%error, "part of a document not kept");
                }
                return Err(error);
            }
        }
        let finished = draft.finish().await.map_err(PutError::Write)?;
        if finished.digest != digest {
            return Err(FetchError::Put(PutError::Mismatch {
                expected: digest,
                found: finished.digest,
            }));
        }
        self.create(finished).await?;
        Ok(())
    }

    /// Whether it is here, and stays for another grace period.
    async fn renew(&self, digest: &Digest, bytes: u64) -> Result<bool, PutError> {
        let _claim = self.shared.making.claim(*digest).await;
        let renewed = self.shared.objects.renew(digest, bytes).await;
        renewed.map_err(PutError::Object)
    }
}

struct Receiving<'a> {
    vault: &'a Vault,
    relay: &'a Relay,
    node: &'a NodeId,
    path: &'a str,
    /// As announced.
    bytes: u64,
}

impl Receiving<'_> {
    /// What the draft has not.
    async fn rest(&self, draft: &mut Draft) -> Result<(), FetchError> {
        if draft.bytes() > self.bytes {
            // Of a document with the same digest and another length: one of both is a lie.
            draft.clear().await.map_err(PutError::Write)?;
        }
        let have = draft.bytes();
        if have == self.bytes {
            return Ok(());
        }
        let mut request = Request::get(self.path);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .expect("a path of plain letters");
        let to = Recipient::ourselves(self.node.as_str());
        let within = self.vault.shared.patience.answer;
        let answer = self.relay.call(to, request, Some(within)).await?;
        match answer.status() {
            StatusCode::OK => draft.clear().await.map_err(PutError::Write)?,
            StatusCode::PARTIAL_CONTENT if begins_at(&answer, have) => {}
            status => return Err(self.refused(status, answer).await),
        }
        self.body(draft, answer.into_body()).await
    }

    async fn body(&self, draft: &mut Draft, mut body: Answer) -> Result<(), FetchError> {
        let bytes = self.bytes;
        let within = self.vault.shared.patience.piece;
        loop {
            let have = draft.bytes();
            let frame = match timeout(within, body.frame()).await {
                Err(_) => {
                    return Err(FetchError::Stalled {
                        have,
                        bytes,
                        within,
                    });
                }
                Ok(None) if have == bytes => return Ok(()),
                Ok(None) => {
                    return Err(FetchError::Cut {
                        have,
                        bytes,
                        source: None,
                    });
                }
                Ok(Some(Err(source))) => {
                    return Err(FetchError::Cut {
                        have,
                        bytes,
                        source: Some(source),
                    });
                }
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(piece) = frame.into_data() {
                if piece.len() as u64 > bytes - have {
                    return Err(FetchError::Longer { bytes });
                }
                draft.push(&piece).await.map_err(PutError::Write)?;
            }
        }
    }

    async fn refused(&self, status: StatusCode, answer: Response<Answer>) -> FetchError {
        let within = self.vault.shared.patience.answer;
        let words = timeout(within, words(answer)).await.unwrap_or_default();
        FetchError::Status { status, words }
    }
}

/// What a node says to explain itself, as far as it is bearable.
async fn words(answer: Response<Answer>) -> String {
    match Limited::new(answer.into_body(), WORDS).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Whether a partial answer continues what is here.
fn begins_at<B>(answer: &Response<B>, have: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE);
    let text = range.and_then(|value: &HeaderValue| value.to_str().ok());
    let first = text
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split_once('-'))
        .and_then(|(first, _)| first.parse::<u64>().ok());
    first == Some(have)
}

/// Where the node keeps it. Names are checked: they come from the node.
fn path(key: Key, document: &Document) -> Result<String, FetchError> {
    let name = &document.name;
    let known = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(known);
    if name.len() > 512 || !name.split('/').all(part) {
        return Err(FetchError::Name { name: name.clone() });
    }
    let Key { job, attempt, .. } = key;
    Ok(format!(
        "/stillmetal/v1/work/{job}/{attempt}/documents/{name}"
    ))
}

#[cfg(test)]
mod tests {
    use api::job::JobId;
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> Result<String, FetchError> {
        let key = Key {
            job: JobId(7),
            attempt: 2,
            fence: 9,
        };
        let document = Document {
            name: name.into(),
            bytes: 0,
            sha256: String::new(),
        };
        path(key, &document)
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        assert_eq!(
            named("run-1/stdout.txt").unwrap(),
            "/stillmetal/v1/work/7/2/documents/run-1/stdout.txt"
        );
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../../b",
            "a//b",
            "a/./b",
            "a/",
            "a?b",
            "a#b",
            "a%2e%2e",
            "a b",
            "ä",
            "a\nb",
            "a\\b",
        ] {
            assert!(matches!(named(bad), Err(FetchError::Name { .. })), "{bad}");
        }
        assert!(named(&"a".repeat(513)).is_err());
    }

    proptest! {
        #[test]
        fn a_path_is_a_path(name in any::<String>()) {
            if let Ok(path) = named(&name) {
                let request = Request::get(&path).body(()).unwrap();
                prop_assert_eq!(request.uri().path(), &path);
                prop_assert!(request.uri().query().is_none());
                prop_assert!(!path.split('/').any(|part| part == ".." || part == "."));
            }
        }
    }
}
