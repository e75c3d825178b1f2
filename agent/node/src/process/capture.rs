//! Output of a process, read to its end but kept only up to a bound.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes kept of each of stdout and stderr.
pub(super) const KEPT_BYTES: usize = 1 << 20;

/// What was written, and whether there was more than was kept.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
}

/// Reads until end of file; never blocks the writer, whatever it writes.
pub(super) async fn drain(source: Option<impl AsyncRead + Unpin>) -> Captured {
    let mut captured = Captured::default();
    let Some(mut source) = source else {
        return captured;
    };
    let mut chunk = vec![0_u8; 16 * 1024];
    loop {
        match source.read(&mut chunk).await {
            // a pipe that breaks ends the output as an end of file does
            Ok(0) | Err(_) => return captured,
            Ok(count) => {
                let room = KEPT_BYTES - captured.bytes.len();
                captured.truncated |= count > room;
                captured.bytes.extend_from_slice(&chunk[..count.min(room)]);
            }
        }
    }
}
