//! Images.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::image::ImageView;
use bytes::Bytes;
use futures_util::stream;
use reqwest::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::call::Call;
use crate::connection::{Client, decode};
use crate::error::Error;

/// Read and sent at a time, bytes.
const PIECE: usize = 256 * 1024;
/// After the last byte: the controller unpacks, hashes and stores it.
const STORED_WITHIN: Duration = Duration::from_secs(600);
/// The longest an upload may stand still.
const STALLED: Duration = Duration::from_secs(60);

/// An archive to be sent, as `docker save` writes it.
pub struct Upload {
    source: Box<dyn AsyncRead + Send + Unpin>,
    bytes: Option<u64>,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Upload {
    /// Of a source whose length is not known.
    pub fn new(source: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self {
            source: Box::new(source),
            bytes: None,
            progress: Box::new(|_| ()),
        }
    }

    /// Its length.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Told how many bytes were sent so far.
    #[must_use]
    pub fn progress(mut self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }
}

/// What an upload's body leaves behind when it ends early.
#[derive(Debug, Default)]
struct Watch {
    sent: u64,
    broken: Option<io::Error>,
    /// All of it was handed over.
    ended: bool,
}

type Shared = Arc<Mutex<Watch>>;

fn with<T>(shared: &Shared, look: impl FnOnce(&mut Watch) -> T) -> T {
    // a panic while holding it leaves it as it was
    look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

fn body(upload: Upload, shared: Shared) -> reqwest::Body {
    let pieces = stream::unfold(Some((upload, shared)), |state| async {
        let (mut upload, shared) = state?;
        let mut piece = vec![0; PIECE];
        match upload.source.read(&mut piece).await {
            Ok(0) => {
                with(&shared, |watch| watch.ended = true);
                None
            }
            Ok(count) => {
                piece.truncate(count);
                let sent = with(&shared, |watch| {
                    watch.sent += count as u64;
                    watch.sent
                });
                (upload.progress)(sent);
                Some((Ok(Bytes::from(piece)), Some((upload, shared))))
            }
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                with(&shared, |watch| watch.broken = Some(error));
                Some((Err(told), None))
            }
        }
    });
    reqwest::Body::wrap_stream(pieces)
}

impl Client {
    /// All images.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn images(&self) -> Result<Vec<ImageView>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "images"])?;
        self.json(call).await
    }

    /// Sends an image. Made once: a source can be read once only.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Source`] when the archive cannot be read.
    pub async fn push_image(&self, upload: Upload) -> Result<ImageView, Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "images"])?;
        let name = call.name();
        let shared = Shared::default();
        let mut request = self
            .http()
            .request(call.method, call.url)
            .header("content-type", "application/x-tar");
        if let Some(bytes) = upload.bytes {
            request = request.header("content-length", bytes);
        }
        let request = request.body(body(upload, Arc::clone(&shared)));
        let sent = tokio::select! {
            sent = request.send() => sent,
            within = stalled(&shared) => return Err(Error::Deadline { call: name, within }),
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let broken = with(&shared, |watch| watch.broken.take());
                return Err(match broken {
                    Some(source) => Error::Source { call: name, source },
                    None => self.unreachable(error).error,
                });
            }
        };
        let accepted = self.accept(&name, response).await;
        let response = accepted.map_err(|failure| failure.error)?;
        let answer = self.read(&name, response).await;
        decode(&name, &answer.map_err(|failure| failure.error)?)
    }
}

/// Returns when nothing has moved for too long.
async fn stalled(shared: &Shared) -> Duration {
    let mut seen = None;
    loop {
        let (sent, ended) = with(shared, |watch| (watch.sent, watch.ended));
        if seen == Some((sent, ended)) {
            return if ended { STORED_WITHIN } else { STALLED };
        }
        seen = Some((sent, ended));
        tokio::time::sleep(if ended { STORED_WITHIN } else { STALLED }).await;
    }
}
