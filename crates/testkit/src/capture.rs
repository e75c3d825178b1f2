//! The bytes of a stream, collected by a thread, bounded, and with somebody to wait for them.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::wait::Deadline;

/// Bytes kept; what comes after is read (so that nobody blocks) and thrown away.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Capture(Arc<(Mutex<State>, Condvar)>);

/// What a wait saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The text is there.
    pub(crate) held: bool,
    /// Nothing more can come.
    pub(crate) closed: bool,
}

impl Capture {
    /// Collects `source` to its end; an absent stream is one that has ended.
    pub(crate) fn of(name: &str, source: Option<impl Read + Send + 'static>) -> io::Result<Self> {
        let capture = Self::default();
        let Some(source) = source else {
            capture.state().closed = true;
            return Ok(capture);
        };
        let theirs = capture.clone();
        let name = name.to_owned();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || theirs.collect(source))?;
        Ok(capture)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves the bytes as they were.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, mut source: impl Read) {
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let mut state = self.state();
                    let room = MAX_BYTES - state.bytes.len();
                    state.bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal whose programs are gone reads as EIO.
                Err(_) => break,
            }
            self.0.1.notify_all();
        }
        self.state().closed = true;
        self.0.1.notify_all();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    fn wait_until(&self, within: Duration, mut done: impl FnMut(&[u8]) -> bool) -> Seen {
        let deadline = Deadline::after(within);
        let mut state = self.state();
        loop {
            let seen = Seen {
                held: done(&state.bytes),
                closed: state.closed,
            };
            let left = deadline.remaining();
            if seen.held || seen.closed || left.is_zero() {
                return seen;
            }
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn wait_for(&self, text: &str, within: Duration) -> Seen {
        self.wait_until(within, |bytes| contains(bytes, text.as_bytes()))
    }

    pub(crate) fn wait_closed(&self, within: Duration) -> bool {
        self.wait_until(within, |_| false).closed
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_across_reads_is_found() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let capture = Capture::of("test", Some(reader)).unwrap();
        io::Write::write_all(&mut writer, b"on").unwrap();
        assert!(!capture.wait_for("one", Duration::from_millis(20)).held);
        io::Write::write_all(&mut writer, b"e two").unwrap();
        assert!(capture.wait_for("one", Duration::from_secs(10)).held);
        drop(writer);
        assert!(capture.wait_closed(Duration::from_secs(10)));
        assert_eq!(capture.bytes(), b"one two");
    }

    #[test]
    fn an_absent_stream_has_ended() {
        let capture = Capture::of("test", None::<io::Empty>).unwrap();
        assert!(capture.wait_closed(Duration::ZERO));
    }
}
