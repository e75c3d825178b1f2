//! A client with a certificate, down to the bytes where a test needs that.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pki::rustls::ClientConfig;
use pki::rustls::pki_types::ServerName;
use pki::{Authority, Issued};
use serde_json::Value;
use stillmetal_proxy::{Body, full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::soon;

pub(crate) type Tls = TlsStream<TcpStream>;

/// A TLS connection; with TLS 1.3 a refusal of the certificate shows only at the first read.
pub(crate) async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    soon(
        "TLS handshake",
        TlsConnector::from(config).connect(name, stream),
    )
    .await
}

pub(crate) async fn tls_as(
    address: SocketAddr,
    trusts: &Authority,
    issued: &Issued,
) -> std::io::Result<Tls> {
    let config = pki::client_config(trusts.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    tls(address, config).await
}

/// Sends bytes, and receives until the peer ends or `enough` says so.
pub(crate) async fn raw(stream: &mut Tls, send: &[u8]) -> std::io::Result<String> {
    stream.write_all(send).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    soon("raw answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) struct Client {
    pub(crate) sender: SendRequest<Body>,
}

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        trusts: &Authority,
        issued: &Issued,
    ) -> std::io::Result<Self> {
        Ok(Self::over(tls_as(address, trusts, issued).await?).await)
    }

    pub(crate) async fn over<IO>(stream: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            // A test that cares looks at the answer.
            drop(connection.with_upgrades().await);
        });
        Self { sender }
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        soon("ready", self.sender.ready()).await?;
        soon("answer's head", self.sender.send_request(request)).await
    }

    pub(crate) async fn call(
        &mut self,
        method: &str,
        target: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let response = self.send(request(method, target, body)).await.unwrap();
        let status = response.status();
        let bytes = soon("answer's body", response.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (status, value)
    }

    pub(crate) async fn get(&mut self, target: &str) -> (StatusCode, Value) {
        self.call("GET", target, "").await
    }

    pub(crate) async fn post(&mut self, target: &str, body: &str) -> (StatusCode, Value) {
        self.call("POST", target, body).await
    }
}

pub(crate) fn request(method: &str, target: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "node")
        .header("content-type", "application/json")
        .body(full(body.to_owned()))
        .unwrap()
}

pub(crate) fn upgrade(target: &str, body: &str) -> Request<Body> {
    let mut request = request("POST", target, body);
    request
        .headers_mut()
        .insert("connection", "Upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "tcp".parse().unwrap());
    request
}
