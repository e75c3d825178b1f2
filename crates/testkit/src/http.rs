//! One HTTP/1.1 request at a time over TLS, for talking to a node without any client library in
//! between. Connections are not reused: each request shows its certificate.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pki::rustls::pki_types::ServerName;
use pki::rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::answer::{Answer, read_answer};
use crate::error::{Error, Result, chain};
use crate::lines::LineLog;
use crate::wait::{Deadline, poll};

/// Time of one request unless told.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two tries of a wait: a handshake costs an emulated guest milliseconds.
const RETRY: Duration = Duration::from_millis(100);
/// For one question of many.
const MOST_PATIENT: Duration = Duration::from_secs(5);

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
    /// Put before each path.
    below: String,
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
            below: String::new(),
        }
    }

    /// Puts this before each path: a node's API as its controller offers it.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        path.clone_into(&mut self.below);
        self
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
        let path = format!("{}{path}", self.below);
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
    /// [`Error::ApiTimedOut`] with the last answer or failure; at once when the machine has ended
    /// ([`ApiClient::with_console`]).
    pub fn wait_for(
        &self,
        what: &'static str,
        path: &str,
        within: Duration,
        mut accept: impl FnMut(&Answer) -> bool,
    ) -> Result<Answer> {
        let deadline = Deadline::after(within);
        let mut last = "none".to_owned();
        // A request to a guest whose network is not up yet hangs in the forwarding: ask anew soon,
        // and be more patient each time, as a guest may also be slow.
        let mut patience = Duration::from_millis(500);
        let found = poll(deadline, RETRY, || {
            if self.console.as_ref().is_some_and(LineLog::is_closed) {
                return Some(Err("the machine has ended".to_owned()));
            }
            let each = deadline.remaining().min(patience);
            let asked = Instant::now();
            let answer = self.clone().within(each).get(path);
            if asked.elapsed() >= each {
                patience = (patience * 2).min(MOST_PATIENT);
            }
            match answer {
                Ok(answer) if accept(&answer) => Some(Ok(answer)),
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
        found.unwrap_or(Err(last)).map_err(|last| {
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
