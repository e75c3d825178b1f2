//! A growing, bounded list of lines with the time each arrived, that others can wait on. The
//! console of a machine and the output of a long command are both one.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::wait::Deadline;

/// Lines kept; older ones are dropped (the log file has them all).
const MAX_LINES: usize = 50_000;
/// Bytes kept of one line.
const MAX_LINE_BYTES: usize = 4096;
/// Lines that an error quotes.
const TAIL_LINES: usize = 15;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Host time since the start of the machine or command.
    pub at: Duration,
    /// The text, without line end and terminal escapes.
    pub text: String,
}

/// A place in a list of lines: "after everything seen so far".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark(usize);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    dropped: usize,
    closed: bool,
}

/// The list. Clones share it.
#[derive(Debug, Clone)]
pub struct LineLog {
    whose: Arc<str>,
    origin: Instant,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl LineLog {
    /// An empty list of `whose` lines; times count from `origin`.
    #[must_use]
    pub fn new(whose: &str, origin: Instant) -> Self {
        Self {
            whose: whose.into(),
            origin,
            shared: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves the list as it was: still good to read.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: String) {
        let at = self.origin.elapsed();
        let mut state = self.state();
        if state.lines.len() == MAX_LINES {
            state.lines.pop_front();
            state.dropped += 1;
        }
        state.lines.push_back(Line { at, text });
        drop(state);
        self.shared.1.notify_all();
    }

    fn close(&self) {
        self.state().closed = true;
        self.shared.1.notify_all();
    }

    /// Reads `source` to its end, line by line; `each` sees every line too (for a log file).
    pub(crate) fn fill(&self, mut source: impl Read, mut each: impl FnMut(&Line)) {
        let mut splitter = Splitter::default();
        let mut buffer = [0_u8; 4096];
        let mut take = |text: String| {
            each(&Line {
                at: self.origin.elapsed(),
                text: text.clone(),
            });
            self.push(text);
        };
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => splitter.feed(&buffer[..count], &mut take),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A terminal whose other side is gone reads as EIO; any other failure also means
                // that no line can come any more.
                Err(_) => break,
            }
        }
        splitter.finish(&mut take);
        self.close();
    }

    /// Everything seen (and still kept).
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.state().lines.iter().cloned().collect()
    }

    /// Lines from `mark` on.
    #[must_use]
    pub fn since(&self, mark: Mark) -> Vec<Line> {
        let state = self.state();
        state
            .lines
            .iter()
            .skip(mark.0.saturating_sub(state.dropped))
            .cloned()
            .collect()
    }

    /// The place after the last line.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let state = self.state();
        Mark(state.dropped + state.lines.len())
    }

    /// Whether whoever wrote the lines is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// The last lines as one text, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        let state = self.state();
        let skip = state.lines.len().saturating_sub(TAIL_LINES);
        let lines: Vec<String> = state
            .lines
            .iter()
            .skip(skip)
            .map(|line| format!("  [{:8.3}] {}", line.at.as_secs_f64(), line.text))
            .collect();
        if lines.is_empty() {
            "  (none)".into()
        } else {
            lines.join("\n")
        }
    }

    /// The first line at or after `mark` for which `matches` is true.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or [`Error::EndedFirst`] when no line can come any more.
    pub fn wait_where(
        &self,
        what: &str,
        mark: Mark,
        within: Duration,
        mut matches: impl FnMut(&str) -> bool,
    ) -> Result<Line> {
        let deadline = Deadline::after(within);
        let mut next = mark.0;
        let mut state = self.state();
        loop {
            let skip = next.saturating_sub(state.dropped);
            if let Some(line) = state
                .lines
                .iter()
                .skip(skip)
                .find(|line| matches(&line.text))
            {
                return Ok(line.clone());
            }
            next = state.dropped + state.lines.len();
            let closed = state.closed;
            let left = deadline.remaining();
            if closed || left.is_zero() {
                drop(state);
                let (what, whom, tail) = (what.into(), self.whose.to_string(), self.tail());
                return Err(if closed {
                    Error::EndedFirst { what, whom, tail }
                } else {
                    Error::TimedOut {
                        what,
                        whom,
                        within,
                        tail,
                    }
                });
            }
            let waited = self.shared.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line from the start that contains `text`.
    ///
    /// # Errors
    /// As [`LineLog::wait_where`].
    pub fn wait(&self, text: &str, within: Duration) -> Result<Line> {
        self.wait_after(Mark::default(), text, within)
    }

    /// The first line at or after `mark` that contains `text`.
    ///
    /// # Errors
    /// As [`LineLog::wait_where`].
    pub fn wait_after(&self, mark: Mark, text: &str, within: Duration) -> Result<Line> {
        self.wait_where(&format!("{text:?}"), mark, within, |line| {
            line.contains(text)
        })
    }

    /// Waits until no line can come any more.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn wait_closed(&self, within: Duration) -> Result<()> {
        match self.wait_where("the end of output", self.mark(), within, |_| false) {
            Err(Error::EndedFirst { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

/// Cuts bytes into lines and removes what a terminal would not show.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Start,
    /// In a control sequence, up to its final byte (ECMA-48 5.4).
    Sequence,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(String)) {
        for &byte in bytes {
            match (self.escape, byte) {
                (_, 0x1b) => self.escape = Escape::Start,
                (Escape::Start, b'[') => self.escape = Escape::Sequence,
                (Escape::Start, _) | (Escape::Sequence, 0x40..=0x7e) => self.escape = Escape::None,
                (Escape::Sequence, _) | (Escape::None, b'\r' | 0) => {}
                (Escape::None, b'\n') => self.finish(take),
                (Escape::None, byte) => {
                    if self.line.len() < MAX_LINE_BYTES {
                        self.line.push(byte);
                    }
                }
            }
        }
    }

    fn finish(&mut self, take: &mut impl FnMut(String)) {
        if !self.line.is_empty() {
            take(String::from_utf8_lossy(&self.line).into_owned());
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &[u8]) -> LineLog {
        let log = LineLog::new("test", Instant::now());
        log.fill(text, |_| {});
        log
    }

    fn texts(log: &LineLog) -> Vec<String> {
        log.lines().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_lose_ends_and_escapes() {
        let log = filled(b"\x1bc\x1b[?7lone\r\n\x1b[0;32mtwo\x1b[0m\n\n\0three");
        assert_eq!(texts(&log), ["one", "two", "three"]);
    }

    #[test]
    fn a_line_cut_into_pieces_is_one_line() {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for piece in [&b"ab\x1b"[..], b"[3", b"1mc", b"d\n"] {
            splitter.feed(piece, &mut |line| lines.push(line));
        }
        assert_eq!(lines, ["abcd"]);
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let log = filled(&vec![b'x'; 3 * MAX_LINE_BYTES]);
        assert_eq!(texts(&log)[0].len(), MAX_LINE_BYTES);
    }

    #[test]
    fn old_lines_are_dropped_and_marks_stay_true() {
        let log = LineLog::new("test", Instant::now());
        for number in 0..MAX_LINES {
            log.push(number.to_string());
        }
        let mark = log.mark();
        log.push("after".into());
        assert_eq!(log.since(mark).len(), 1);
        assert_eq!(log.lines()[0].text, "1");
        assert_eq!(
            log.wait_after(mark, "a", Duration::from_secs(1))
                .unwrap()
                .text,
            "after"
        );
    }

    #[test]
    fn waiting_sees_lines_that_come_later() {
        let log = LineLog::new("test", Instant::now());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| log.wait("late", Duration::from_secs(10)));
            log.push("early".into());
            log.push("late one".into());
            assert_eq!(waiter.join().unwrap().unwrap().text, "late one");
        });
    }

    #[test]
    fn a_timeout_quotes_the_last_lines() {
        let log = LineLog::new("vm x", Instant::now());
        log.push("the last word".into());
        let error = log.wait("never", Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }));
        assert!(error.to_string().contains("the last word"));
    }

    #[test]
    fn the_end_ends_a_wait_at_once() {
        let error = filled(b"bye\n")
            .wait("never", Duration::from_secs(1000))
            .unwrap_err();
        assert!(matches!(error, Error::EndedFirst { .. }), "{error}");
    }
}
