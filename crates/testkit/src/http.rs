//! One HTTP/1.1 request at a time over TLS, for talking to a node without any client library in
//! between. Connections are not reused: each request shows its certificate.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pki::rustls::pki_types::ServerName;
use pki::rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::error::{Error, Result, chain};
use crate::lines::LineLog;
use crate::wait::{Deadline, poll};

/// Largest answer taken.
const MAX_BYTES: usize = 64 << 20;
const MAX_HEADERS: usize = 64;
/// Time of one request unless told.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two tries of a wait: a handshake costs an emulated guest milliseconds.
const RETRY: Duration = Duration::from_millis(100);

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

/// A connection over which a test can send anything.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A client of one node with one certificate.
#[derive(Debug, Clone)]
pub struct ApiClient {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
    within: Duration,
    console: Option<LineLog>,
}

impl ApiClient {
    /// A client of the node at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        let name = ServerName::IpAddress(address.ip().into());
        Self {
            address,
            tls,
            name,
            within: WITHIN,
            console: None,
        }
    }

    /// Expects this name in the node's certificate instead of the address.
    #[must_use]
    pub fn expecting(mut self, name: IpAddr) -> Self {
        self.name = ServerName::IpAddress(name.into());
        self
    }

    /// The time of one request.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Quotes this console when a wait fails.
    #[must_use]
    pub fn with_console(mut self, console: LineLog) -> Self {
        self.console = Some(console);
        self
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET`.
    ///
    /// # Errors
    /// [`Error::Http`] when there is no answer; an error status is an answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, &[], &[])
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let body = body.to_string();
        self.request(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.request("DELETE", path, &[], &[])
    }

    /// Any request.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let failed = |action| {
            let (method, url) = (method.to_owned(), format!("{}{path}", self.address));
            move |source| Error::Http {
                action,
                method,
                url,
                source,
            }
        };
        let deadline = Deadline::after(self.within);
        let mut stream = self.open(deadline).map_err(failed("connect for"))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("connection: close\r\n\r\n");
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .and_then(|()| stream.flush());
        // A server that refuses early closes while we still write; its answer says why.
        let answer = read_answer(&mut stream, method == "HEAD", deadline);
        match (sent, answer) {
            (_, Ok(answer)) => Ok(answer),
            (Err(source), Err(_)) => Err(failed("send")(source)),
            (Ok(()), Err(source)) => Err(failed("read the answer to")(source)),
        }
    }

    /// A connection after the TLS handshake. In TLS 1.3 a refused certificate shows only at the
    /// first read.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn connect(&self) -> Result<TlsStream> {
        self.open(Deadline::after(self.within)).map_err(|source| {
            let (action, method, url) = ("connect to", String::new(), self.address.to_string());
            Error::Http {
                action,
                method,
                url,
                source,
            }
        })
    }

    fn open(&self, deadline: Deadline) -> io::Result<TlsStream> {
        let mut socket = TcpStream::connect_timeout(&self.address, non_zero(deadline))?;
        socket.set_read_timeout(Some(non_zero(deadline)))?;
        socket.set_write_timeout(Some(non_zero(deadline)))?;
        socket.set_nodelay(true)?;
        let connection = ClientConnection::new(Arc::clone(&self.tls), self.name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            if deadline.expired() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    /// Asks for `path` until `accept` likes the answer.
    ///
    /// # Errors
    /// [`Error::ApiTimedOut`] with the last answer or failure.
    pub fn wait_for(
        &self,
        what: &'static str,
        path: &str,
        within: Duration,
        mut accept: impl FnMut(&Answer) -> bool,
    ) -> Result<Answer> {
        let deadline = Deadline::after(within);
        let mut last = "none".to_owned();
        let found = poll(deadline, RETRY, || {
            // A request to a guest that is not up yet can hang in the forwarding; do not let one
            // use up the whole time.
            let each = deadline.remaining().min(Duration::from_secs(5));
            match self.clone().within(each).get(path) {
                Ok(answer) if accept(&answer) => Some(answer),
                Ok(answer) => {
                    last = format!("{} {}", answer.status, answer.text());
                    None
                }
                Err(error) => {
                    last = chain(&error);
                    None
                }
            }
        });
        found.ok_or_else(|| {
            let tail = self.console.as_ref().map(LineLog::tail).unwrap_or_default();
            let url = format!("{}{path}", self.address);
            Error::ApiTimedOut {
                what,
                url,
                within,
                last,
                tail,
            }
        })
    }
}

/// Socket time-outs of zero mean "for ever".
fn non_zero(deadline: Deadline) -> Duration {
    deadline.remaining().max(Duration::from_millis(1))
}

fn read_answer(stream: &mut impl Read, head_only: bool, deadline: Deadline) -> io::Result<Answer> {
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
