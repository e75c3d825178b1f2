//! Images to nodes, before anything is measured there.

use std::time::Duration;

use api::fleet::NodeId;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use hop::{Answer, BoxError};
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::index::ImageRecord;
use super::rest::{common, rest};
use crate::relay::{CallError, Recipient, Relay};
use crate::vault::read::ReadError;
use crate::vault::{ByteStream, Vault};

/// Of an engine's answer, bytes.
const ANSWER: usize = 8 * 1024 * 1024;
/// Images of a node that are asked for their layers, the newest.
const LOOKED_AT: usize = 64;
/// A smaller archive is sent sooner than asked about, bytes.
const WORTH_ASKING: u64 = 256 * 1024;

/// Why a node has not got an image.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("{id:?} is not the id of an image")]
    Id { id: String },
    #[error("ask the node's engine")]
    Call(#[from] CallError),
    #[error("the node's engine answered {status}: {words}")]
    Status { status: StatusCode, words: String },
    #[error("the node's engine answered nothing that can be understood")]
    Answer(#[source] BoxError),
    #[error("read the image")]
    Read(#[from] ReadError),
    #[error("the node's engine could not load it: {words}")]
    Refused { words: String },
    /// It said that it had loaded it.
    #[error("the node's engine has loaded it and has not got {id}")]
    Lost { id: String },
    #[error("not done within {within:?}")]
    Deadline { within: Duration },
}

/// How the node comes to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It had it.
    AlreadyThere,
    /// It was sent: so many bytes, without so many layers that were there.
    Loaded { bytes: u64, spared: usize },
}

impl Vault {
    /// Sees to it that a node's engine has an image, and sends it if it has not. Of several that want
    /// the same at the same time, one sends it.
    ///
    /// # Errors
    /// When it has not got it afterwards.
    pub async fn ensure_image(
        &self,
        relay: &Relay,
        node: &NodeId,
        image: &ImageRecord,
    ) -> Result<Ensured, EnsureError> {
        let digits = image.id.strip_prefix("sha256:").unwrap_or_default();
        let archive = image.object();
        let (Ok(_), Some(archive)) = (digits.parse::<store::Digest>(), archive) else {
            return Err(EnsureError::Id {
                id: image.id.clone(),
            });
        };
        let key = (node.as_str().to_owned(), image.id.clone());
        let _claim = self.shared.loading.claim(key).await;
        let engine = Engine {
            vault: self,
            relay,
            to: Recipient::ourselves(node.as_str()),
        };
        if engine.has(&image.id).await? {
            return Ok(Ensured::AlreadyThere);
        }
        let within = self.shared.patience.load;
        let loaded = timeout(within, engine.load_rest(&archive, image))
            .await
            .map_err(|_| EnsureError::Deadline { within })??;
        if engine.has(&image.id).await? {
            return Ok(loaded);
        }
        Err(EnsureError::Lost {
            id: image.id.clone(),
        })
    }
}

/// A node's engine, by way of its proxy.
struct Engine<'a> {
    vault: &'a Vault,
    relay: &'a Relay,
    to: Recipient<'a>,
}

impl Engine<'_> {
    async fn has(&self, id: &str) -> Result<bool, EnsureError> {
        let found = self.ask(&format!("/images/{id}/json")).await?;
        let found = found.and_then(|found| Some(found.get("Id")?.as_str()? == id));
        Ok(found.unwrap_or(false))
    }

    /// How many of an image's layers are there. An engine that cannot tell, for an image of its own that is
    /// broken, say, gets all of it.
    async fn common_layers(&self, image: &ImageRecord) -> usize {
        if image.bytes < WORTH_ASKING || image.layers.is_empty() {
            return 0;
        }
        match self.layers().await {
            Ok(there) => common(&image.layers, &there),
            Err(error) => {
                let error = crate::chain(&error);
                tracing::info!(error, "a node does not tell its images' layers");
                0
            }
        }
    }

    /// The digests of the layers of each image that is there.
    async fn layers(&self) -> Result<Vec<Vec<String>>, EnsureError> {
        let images: Option<Vec<Listed>> = self.ask("/images/json").await?.and_then(understood);
        let mut layers = Vec::new();
        for Listed { id } in images.unwrap_or_default().into_iter().take(LOOKED_AT) {
            let image = self.ask(&format!("/images/{id}/json")).await?;
            let image: Option<Inspected> = image.and_then(understood);
            layers.extend(image.and_then(|image| image.root_fs.layers));
        }
        Ok(layers)
    }

    /// `None`: there is no such thing.
    async fn ask(&self, target: &str) -> Result<Option<serde_json::Value>, EnsureError> {
        let request = Request::get(target)
            .body(Empty::<Bytes>::new())
            .map_err(|error| EnsureError::Answer(error.into()))?;
        let within = self.vault.shared.patience.answer;
        let asked = async {
            let answer = self.relay.call(self.to, request, Some(within)).await?;
            let status = answer.status();
            Ok::<_, EnsureError>((status, all(answer).await?))
        };
        let answered = timeout(within, asked).await;
        let (status, bytes) = answered.map_err(|_| EnsureError::Deadline { within })??;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                let answer = serde_json::from_slice(&bytes);
                answer
                    .map(Some)
                    .map_err(|error| EnsureError::Answer(error.into()))
            }
            status => Err(EnsureError::Status {
                status,
                words: words(&bytes),
            }),
        }
    }

    /// Sends an image without the layers that are there. The engine looks at each layer's content itself, and
    /// needs no file of one that it has (`tarexport`, Moby); if it does not do without, it gets all.
    async fn load_rest(
        &self,
        archive: &store::Digest,
        image: &ImageRecord,
    ) -> Result<Ensured, EnsureError> {
        let have = self.common_layers(image).await;
        if have > 0 {
            let parts = rest(&image.layers, image.bytes, have);
            let bytes = parts.iter().map(|part| part.end - part.start).sum();
            let mut streams = Vec::with_capacity(parts.len());
            for part in parts {
                streams.push(self.vault.get_range(archive, part).await?);
            }
            let body = stream::iter(streams).flatten().boxed();
            match self.load(bytes, body).await {
                Ok(()) => {
                    return Ok(Ensured::Loaded {
                        bytes,
                        spared: have,
                    });
                }
                Err(error @ (EnsureError::Status { .. } | EnsureError::Refused { .. })) => {
                    let error = crate::chain(&error);
                    tracing::info!(error, image = image.id, "a node wants all of an image");
                }
                Err(error) => return Err(error),
            }
        }
        let (bytes, body) = self.vault.get(archive).await?;
        self.load(bytes, body).await?;
        Ok(Ensured::Loaded { bytes, spared: 0 })
    }

    async fn load(&self, bytes: u64, archive: ByteStream) -> Result<(), EnsureError> {
        let request = Request::post("/images/load?quiet=1")
            .header(CONTENT_TYPE, "application/x-tar")
            .header(CONTENT_LENGTH, bytes)
            .body(StreamBody::new(archive.map_ok(Frame::data)))
            .expect("a request of plain words");
        let answer = self.relay.call(self.to, request, None).await?;
        let status = answer.status();
        let answer = all(answer).await?;
        if status != StatusCode::OK {
            return Err(EnsureError::Status {
                status,
                words: words(&answer),
            });
        }
        // The engine has begun its answer before it knows how it ends.
        match complaint(&answer) {
            Some(words) => Err(EnsureError::Refused { words }),
            None => Ok(()),
        }
    }
}

/// What an engine tells of its images.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Inspected {
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    layers: Option<Vec<String>>,
}

/// An answer of another kind tells nothing, and then everything is sent.
fn understood<T: DeserializeOwned>(answer: serde_json::Value) -> Option<T> {
    serde_json::from_value(answer).ok()
}

async fn all(answer: Response<Answer>) -> Result<Bytes, EnsureError> {
    let body = Limited::new(answer.into_body(), ANSWER).collect().await;
    Ok(body.map_err(EnsureError::Answer)?.to_bytes())
}

/// What the engine says, in `{"message": …}` or otherwise.
fn words(bytes: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(bytes), Into::into);
    text.trim().chars().take(1_000).collect()
}

/// What went wrong, in a stream of the engine's messages.
fn complaint(bytes: &[u8]) -> Option<String> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter::<serde_json::Value>()
        .map_while(Result::ok)
        .find_map(|message| {
            let detail = message.pointer("/errorDetail/message");
            let error = detail.or_else(|| message.get("error"))?;
            Some(error.as_str()?.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_a_stream_of_messages() {
        let fine = b"{\"stream\":\"Loaded image: a\"}\r\n{\"stream\":\"x\"}\n";
        assert_eq!(complaint(fine), None);
        let full = b"{\"stream\":\"Loading\"}\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}";
        assert_eq!(complaint(full), Some("no space".into()));
        assert_eq!(complaint(b"{\"error\":\"short\"}"), Some("short".into()));
        assert_eq!(complaint(b"not json"), None);
        assert_eq!(words(b"{\"message\":\"why\"}\n"), "why");
        assert_eq!(words(b" plain "), "plain");
    }
}
