//! `/v1/images`.

use std::io;
use std::time::Duration;

use api::image::ImageView;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};

use super::answer::{about, json, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::history::History;
use super::query::number;
use crate::desk::{Caller, Desk};
use crate::refusal::Refusal;

/// Bytes as they come. An error ends them.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// An image on its way in, as `docker save` writes it.
pub struct Archive {
    /// Its length, if the sender says so; not to be relied on.
    pub bytes: Option<u64>,
    /// Ends with an error when the sender stalls or breaks off.
    pub body: ByteStream,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Where images are kept.
pub trait Images: Clone + Send + Sync + 'static {
    /// Keeps an image; one that is there already is not kept twice. Reads the archive to its end
    /// before it answers, or refuses.
    ///
    /// # Errors
    /// Invalid (no such archive, broken off, a digest that does not fit), store full.
    fn push(
        &self,
        caller: &Caller,
        archive: Archive,
    ) -> impl Future<Output = Result<ImageView, Refusal>> + Send;

    /// All images, by name.
    ///
    /// # Errors
    /// Store.
    fn images(&self) -> impl Future<Output = Result<Vec<ImageView>, Refusal>> + Send;
}

/// What an archive may call itself.
pub(crate) const ARCHIVES: [&str; 5] = [
    "application/x-tar",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
];
/// The longest that an archive may stand still.
const STALLED: Duration = Duration::from_secs(60);

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn images(&self, _call: Call) -> Answer {
        ok(&self.vault.images().await?)
    }

    pub(crate) async fn push_image(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let bytes = call.header(CONTENT_LENGTH.as_str()).and_then(number);
        let body = call.archive(&ARCHIVES)?;
        let archive = Archive {
            bytes,
            body: impatient(body.into_data_stream(), STALLED).boxed(),
        };
        let image = self.vault.push(&caller, archive).await?;
        let subject = format!("image:{}", image.digest);
        Ok(about(json(StatusCode::CREATED, &image)?, subject))
    }
}

/// Ends with an error when nothing comes for `within`.
fn impatient(
    body: axum::body::BodyDataStream,
    within: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(within, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => {
                let text = format!("nothing came for {} s", within.as_secs());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, text)), None))
            }
        }
    })
}
