//! Messages on a byte stream: each is its length as four bytes, big-endian, then that many bytes of
//! JSON. The same at both ends.
//!
//! A frame is never longer than [`FRAME`] and never empty; memory for one grows with what has come,
//! not with what was announced. The end of the stream between two frames is an end, within one it is
//! an error. There is no deadline here: whoever waits for a peer sets it.

use std::io;

use api::work::FRAME;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEAD: usize = size_of::<u32>();
/// What is read at once at least, and kept while nothing comes.
const STEP: usize = 512;
/// More than this is not kept after a long frame.
const KEPT: usize = 16 * 1024;

/// Why no message could be read or written. After any but [`FrameError::Content`] the stream is of no
/// use any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream could not be read.
    #[error("read a frame")]
    Read {
        /// As the stream says.
        source: io::Error,
    },
    /// The stream could not be written to.
    #[error("write a frame")]
    Write {
        /// As the stream says.
        source: io::Error,
    },
    /// The peer ended the stream in the middle of a frame.
    #[error("the stream ended within a frame: {got} of {of} bytes came")]
    Truncated {
        /// Bytes of it that came, its length among them.
        got: usize,
        /// Bytes of it; four if not even its length came.
        of: usize,
    },
    /// A frame of no bytes.
    #[error("a frame is empty")]
    Empty,
    /// A frame of more than [`FRAME`] bytes: announced by the peer, or to be sent.
    #[error("a frame of {bytes} bytes is longer than {FRAME} bytes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The frame came whole and is not the message expected. The next one can be read.
    #[error("a frame is no message")]
    Content {
        /// As the parser says.
        source: serde_json::Error,
    },
    /// The message has no form in JSON.
    #[error("encode a message")]
    Encode {
        /// As the serializer says.
        source: serde_json::Error,
    },
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Of a stream of which nothing has been read.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None`: the peer ended the stream between two of them. May be dropped while
    /// it waits and called again: nothing is lost.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let whole = length(&self.buffer)?;
            if let Some(whole) = whole
                && self.buffer.len() >= whole
            {
                let message = serde_json::from_slice(&self.buffer[HEAD..whole]);
                self.consume(whole);
                return message
                    .map(Some)
                    .map_err(|source| FrameError::Content { source });
            }
            self.buffer.reserve(STEP);
            let count = self.stream.read_buf(&mut self.buffer).await;
            if count.map_err(|source| FrameError::Read { source })? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    got => Err(FrameError::Truncated {
                        got,
                        of: whole.unwrap_or(HEAD),
                    }),
                };
            }
        }
    }

    fn consume(&mut self, whole: usize) {
        self.buffer.advance(whole);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
    }
}

/// Length of the first frame, its head included; `None`: its head has not come.
fn length(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some((head, _)) = buffer.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let bytes = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    match bytes {
        0 => Err(FrameError::Empty),
        1..=FRAME => Ok(Some(HEAD + bytes)),
        _ => Err(FrameError::TooLong { bytes }),
    }
}

/// One message as a frame, ready to be written.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Encode`].
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, FrameError> {
    let mut writer = BytesMut::with_capacity(256).writer();
    writer.get_mut().put_bytes(0, HEAD);
    serde_json::to_writer(&mut writer, message).map_err(|source| FrameError::Encode { source })?;
    let mut frame = writer.into_inner();
    let bytes = frame.len() - HEAD;
    let head = match u32::try_from(bytes) {
        Ok(head) if bytes <= FRAME => head.to_be_bytes(),
        _ => return Err(FrameError::TooLong { bytes }),
    };
    frame[..HEAD].copy_from_slice(&head);
    Ok(frame.freeze())
}

/// Writes one message and flushes it. If it is dropped before it is done, the stream is of no use any
/// more.
///
/// # Errors
/// See [`FrameError`].
pub async fn write_frame<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    let frame = encode(message)?;
    let written = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    written.await.map_err(|source| FrameError::Write { source })
}

/// Reads one message and not a byte more; `None`: the stream ended. What it has read is lost if it is
/// dropped before it is done: in a loop with other events use [`FrameReader`].
///
/// # Errors
/// See [`FrameError`].
pub async fn read_frame<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let mut head = [0; HEAD];
    let got = fill(stream, &mut head).await?;
    if got == 0 {
        return Ok(None);
    }
    if got < HEAD {
        return Err(FrameError::Truncated { got, of: HEAD });
    }
    let Some(of) = length(&head)? else {
        return Err(FrameError::Truncated { got, of: HEAD });
    };
    let mut body = BytesMut::new();
    while body.len() < of - HEAD {
        body.reserve(STEP);
        let rest = of - HEAD - body.len();
        let count = stream.read_buf(&mut (&mut body).limit(rest)).await;
        if count.map_err(|source| FrameError::Read { source })? == 0 {
            let got = HEAD + body.len();
            return Err(FrameError::Truncated { got, of });
        }
    }
    let message = serde_json::from_slice(&body);
    message
        .map(Some)
        .map_err(|source| FrameError::Content { source })
}

async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
) -> Result<usize, FrameError> {
    let mut got = 0;
    while got < buffer.len() {
        let count = stream.read(&mut buffer[got..]).await;
        match count.map_err(|source| FrameError::Read { source })? {
            0 => break,
            count => got += count,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests;
