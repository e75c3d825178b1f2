//! Server-sent events, as in the HTML standard (§9.2): bytes in any pieces in, messages out.
//!
//! Pure. A message that is too long ends the stream: nothing after it could be trusted.

use std::collections::VecDeque;
use std::time::Duration;

/// Longest message, bytes of its lines together.
pub const LONGEST: usize = 1024 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The last id that the stream gave.
    pub id: Option<String>,
    /// `message` unless it says otherwise.
    pub event: String,
    /// Its lines, joined by `\n`.
    pub data: String,
}

/// A message longer than [`LONGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {LONGEST} bytes")]
pub struct TooLong;

/// Reads a stream.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that has begun.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed belongs to it.
    returned: bool,
    /// The first line is behind us.
    begun: bool,
    id: Option<String>,
    event: String,
    /// Each line with a line feed behind it.
    data: String,
    retry: Option<Duration>,
    /// Whole messages that nobody has taken.
    ready: VecDeque<Message>,
}

impl Parser {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for byte in bytes {
            let returned = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if returned => {}
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() + self.data.len() >= LONGEST => return Err(TooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(())
    }

    /// The next whole message.
    pub fn take(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }

    /// How long the server wants a client to wait before it comes back.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let mut line = &*line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            // a comment (no name before the colon), or a field that nobody knows
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        self.ready.push_back(Message {
            id: self.id.clone().filter(|id| !id.is_empty()),
            event: if event.is_empty() {
                "message".into()
            } else {
                event
            },
            data,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<Message> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.take()).collect()
    }

    fn message(id: Option<&str>, event: &str, data: &str) -> Message {
        Message {
            id: id.map(str::to_owned),
            event: event.into(),
            data: data.into(),
        }
    }

    #[test]
    fn the_standards_examples() {
        let text = b"data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(all(&[text]), [message(None, "message", "YHOO\n+2\n10")]);
        let text = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            all(&[text]),
            [
                message(Some("1"), "message", "first event"),
                message(None, "message", "second event"),
                message(None, "message", " third event"),
            ]
        );
        let text = b"data\n\ndata\ndata\n\ndata:";
        assert_eq!(
            all(&[text]),
            [message(None, "message", ""), message(None, "message", "\n")]
        );
        let text = b"data:test\n\ndata: test\n\n";
        let test = message(None, "message", "test");
        assert_eq!(all(&[text]), [test.clone(), test]);
    }

    #[test]
    fn line_ends_names_and_marks() {
        let text = b"\xef\xbb\xbfevent: a\r\nid: 7\rdata: x\r\n\r\nevent: lost\n\ndata: y\nunknown: z\nid: 8\0\n\n";
        assert_eq!(
            all(&[text]),
            [
                message(Some("7"), "a", "x"),
                message(Some("7"), "message", "y")
            ]
        );
        let mut parser = Parser::default();
        parser.feed(b"retry: 1500\nretry: soon\n\n").unwrap();
        assert_eq!(parser.retry(), Some(Duration::from_millis(1500)));
        assert_eq!(parser.take(), None);
    }

    #[test]
    fn what_is_too_long_is_refused_wherever_it_grows() {
        let mut parser = Parser::default();
        let line = vec![b'x'; LONGEST];
        parser.feed(&line).unwrap();
        assert_eq!(parser.feed(b"x"), Err(TooLong));
        let mut parser = Parser::default();
        let line = [b"data:".as_slice(), &vec![b'x'; LONGEST / 2]].concat();
        parser.feed(&line).unwrap();
        parser.feed(b"\n").unwrap();
        assert_eq!(parser.feed(&line), Err(TooLong));
        // comments are not kept
        let mut parser = Parser::default();
        for _ in 0..4 {
            parser.feed(b":").unwrap();
            parser.feed(&vec![b'x'; LONGEST - 1]).unwrap();
            parser.feed(b"\n").unwrap();
        }
    }

    /// As the standard says it, over a whole text of lines that end with a line feed.
    fn by_the_standard(text: &str) -> Vec<(String, String)> {
        let (mut event, mut data, mut messages) = (String::new(), None::<String>, Vec::new());
        for line in text.split('\n').take(text.matches('\n').count()) {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    let name = if event.is_empty() { "message" } else { &event };
                    messages.push((name.to_owned(), data));
                }
                event.clear();
            } else if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                data = Some(data.map_or(value.to_owned(), |data| format!("{data}\n{value}")));
            } else if let Some(value) = line.strip_prefix("event:") {
                event = value.strip_prefix(' ').unwrap_or(value).to_owned();
            }
        }
        messages
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "data:[ a-zä:]{0,8}",
            "event:[ a-z]{0,4}",
            ":[a-z]{0,4}",
            "[a-z]{1,4}:? ?[a-z]{0,3}"
                .prop_filter("told apart above", |line| !line.starts_with("data")
                    && !line.starts_with("event"))
        ]
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            lines in proptest::collection::vec(line(), 0..40),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let unix: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            let text = unix.replace('\n', end);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let got = all(&pieces);
            prop_assert_eq!(&got, &all(&[text.as_bytes()]));
            let got: Vec<_> = got.into_iter().map(|it| (it.event, it.data)).collect();
            prop_assert_eq!(got, by_the_standard(&unix));
        }

        #[test]
        fn nothing_breaks_it(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let whole = pieces.concat();
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(all(&pieces), all(&[&whole]));
        }
    }
}
