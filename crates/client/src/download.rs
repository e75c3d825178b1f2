//! Bodies that are too long, or too slow, to be read at once.

use std::fmt;
use std::time::Duration;

use crate::call::{Call, Repeat};
use crate::connection::{Client, Failure, IDLE, Tries};
use crate::error::{Error, Strange};
use bytes::Bytes;
use reqwest::{Response, StatusCode};

/// A body in pieces.
pub struct Download {
    client: Client,
    call: Call,
    name: String,
    response: Response,
    /// Of the next byte.
    at: u64,
    idle: Option<Duration>,
    resumable: bool,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("call", &self.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Download {
    /// One that is asked for anew, from where it stood, when the connection breaks.
    pub(crate) async fn resumable(client: &Client, call: Call, from: u64) -> Result<Self, Error> {
        let name = call.name();
        let mut this = Self {
            response: client.send(&ranged(&call, from)).await?,
            client: client.clone(),
            call,
            name,
            at: from,
            idle: Some(IDLE),
            resumable: true,
        };
        this.check_range()?;
        Ok(this)
    }

    /// One that is not; `idle`: the longest pause in it.
    pub(crate) async fn plain(
        client: &Client,
        call: Call,
        idle: Option<Duration>,
    ) -> Result<Self, Error> {
        Ok(Self {
            response: client.send(&call).await?,
            client: client.clone(),
            name: call.name(),
            call,
            at: 0,
            idle,
            resumable: false,
        })
    }

    /// For messages.
    #[must_use]
    pub fn call(&self) -> &str {
        &self.name
    }

    /// The next piece; `None` after the last. May be dropped while it waits, and loses nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let mut tries = Tries::new(Repeat::Safe);
        loop {
            let failure = match self.next_chunk().await {
                Ok(chunk) => {
                    self.at += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                    return Ok(chunk);
                }
                Err(failure) if !self.resumable => return Err(failure.error),
                Err(failure) => failure,
            };
            self.resume(failure, &mut tries).await?;
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = self.response.chunk();
        let next = match self.idle {
            Some(within) => tokio::time::timeout(within, next)
                .await
                .map_err(|_| Failure::silent(&self.name, within))?,
            None => next.await,
        };
        next.map_err(|source| self.client.unreachable(source))
    }

    async fn resume(&mut self, mut failure: Failure, tries: &mut Tries) -> Result<(), Error> {
        loop {
            tries.pause(failure).await?;
            match self.client.send_once(&ranged(&self.call, self.at)).await {
                Ok(response) => {
                    self.response = response;
                    return self.check_range();
                }
                Err(next) => failure = next,
            }
        }
    }

    /// What was asked for from some byte on must come from that byte on.
    fn check_range(&mut self) -> Result<(), Error> {
        if self.at == 0 {
            return Ok(());
        }
        let from = format!("bytes {}-", self.at);
        let given = self.response.headers().get("content-range");
        let given = given.and_then(|value| value.to_str().ok());
        if self.response.status() == StatusCode::PARTIAL_CONTENT
            && given.is_some_and(|range| range.starts_with(&from))
        {
            return Ok(());
        }
        Err(Error::Protocol {
            call: self.name.clone(),
            source: Strange::Range { from: self.at },
        })
    }

    /// All of it, if it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_to_end(mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(Error::Protocol {
                    call: self.name,
                    source: Strange::TooLong { limit },
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// The same call, from a byte on.
fn ranged(call: &Call, from: u64) -> Call {
    let mut headers = call.headers.clone();
    if from > 0 {
        headers.push(("range", format!("bytes={from}-")));
    }
    Call {
        method: call.method.clone(),
        url: call.url.clone(),
        repeat: call.repeat,
        body: call.body.clone(),
        headers,
        within: call.within,
    }
}
