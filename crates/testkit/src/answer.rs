//! Reading an HTTP/1.1 answer: status, headers, and a body by length, in chunks or up to the end.

use std::io::{self, Read};

use serde_json::Value;

use crate::wait::Deadline;

/// Largest answer taken.
const MAX_BYTES: usize = 64 << 20;
const MAX_HEADERS: usize = 64;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) fn read_answer(
    stream: &mut impl Read,
    head_only: bool,
    deadline: Deadline,
) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        if deadline.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            // A peer that closes TCP without TLS's goodbye: enough if the body has a length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !bytes.is_empty() => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(answer) = parse(&bytes, head_only, count == 0)? {
            return Ok(answer);
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// The whole answer, if it is all there.
fn parse(bytes: &[u8], head_only: bool, at_end: bool) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    if (100..200).contains(&status) && status != 101 {
        return parse(&bytes[length..], head_only, at_end);
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
        .collect();
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    let rest = &bytes[length..];
    let body = if head_only || matches!(status, 101 | 204 | 304) {
        Some(Vec::new())
    } else if answer
        .header("transfer-encoding")
        .is_some_and(|value| value.contains("chunked"))
    {
        dechunk(rest)?
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().map_err(io::Error::other)?;
        rest.get(..length).map(<[u8]>::to_vec)
    } else {
        at_end.then(|| rest.to_vec())
    };
    Ok(body.map(|body| {
        answer.body = body;
        answer
    }))
}

fn dechunk(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(bytes);
        let size = size.map_err(|_| io::Error::other("a malformed chunk"))?;
        let httparse::Status::Complete((start, size)) = size else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let end = start
            .checked_add(size)
            .ok_or_else(|| io::Error::other("a huge chunk"))?;
        let Some(chunk) = bytes.get(start..end) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        // The chunk's own line end.
        let Some(next) = bytes.get(end + 2..) else {
            return Ok(None);
        };
        bytes = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Answer> {
        parse(text.as_bytes(), false, false).unwrap()
    }

    #[test]
    fn a_body_with_a_length() {
        let text = "HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
        let answer = whole(text).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (409, "hello"));
        assert_eq!(answer.header("x-a"), Some("b"));
        for cut in 0..text.len() {
            assert_eq!(whole(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_body_in_chunks() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\nwiki\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(whole(text).unwrap().text(), "wiki0123456789");
        assert_eq!(whole(&text[..text.len() - 8]), None);
        let bad = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        assert!(parse(bad.as_bytes(), false, false).is_err());
    }

    #[test]
    fn a_body_up_to_the_end() {
        let text = b"HTTP/1.0 200 OK\r\n\r\nabc";
        assert_eq!(parse(text, false, false).unwrap(), None);
        assert_eq!(parse(text, false, true).unwrap().unwrap().text(), "abc");
    }

    #[test]
    fn answers_without_body() {
        assert_eq!(
            whole("HTTP/1.1 204 No Content\r\n\r\n").unwrap().status,
            204
        );
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        assert_eq!(parse(text, true, false).unwrap().unwrap().body, b"");
        let after = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(after).unwrap().status, 200);
    }
}
