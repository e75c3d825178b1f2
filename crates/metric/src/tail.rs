//! The end of a stream or file.

use std::borrow::Cow;
use std::collections::VecDeque;

/// Bytes of a stream or file that are looked at: its last ones.
pub const LOOKED_AT: usize = 16 << 20;

/// Keeps the last [`LOOKED_AT`] bytes of what is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// Adds to its end.
    pub fn push(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(LOOKED_AT)..];
        let over = (self.bytes.len() + last.len()).saturating_sub(LOOKED_AT);
        self.cut |= over > 0 || last.len() < bytes.len();
        self.bytes.drain(..over);
        self.bytes.extend(last);
    }

    /// There was more before it, which nobody told.
    pub fn cut(&mut self) {
        self.cut = true;
    }

    /// What is looked at. When it was cut, it begins behind the first end of a line: half a number must
    /// not be taken for one.
    pub(crate) fn text(&mut self) -> (Cow<'_, str>, bool) {
        let bytes: &[u8] = self.bytes.make_contiguous();
        let whole = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if self.cut => &bytes[end + 1..],
            None if self.cut => &[],
            _ => bytes,
        };
        (String::from_utf8_lossy(whole), self.cut)
    }
}
