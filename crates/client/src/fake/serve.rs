//! Connections of the fake, and the faults on them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use pki::rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Fault, Shared, routes};

#[derive(Debug)]
pub(crate) struct NothingRevoked;

impl pki::Revocation for NothingRevoked {
    fn is_revoked(&self, _serial: &[u8]) -> bool {
        false
    }
}

pub(crate) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, shared: Arc<Shared>) {
    // dropped with this future, and every connection with it
    let mut connections = JoinSet::new();
    let acceptor = TlsAcceptor::from(tls);
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // a client that went, or a fault that was asked for
    drop(served);
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    let whole = request.uri().path_and_query().map_or("", |it| it.as_str());
    shared.call(format!("{} {whole}", request.method()));
    let fault = shared.fault(&path);
    match &fault {
        Some(Fault::Refuse {
            problem,
            retry_after_seconds,
            ..
        }) => {
            let mut response = routes::refuse(problem);
            if let Some(seconds) = retry_after_seconds {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, (*seconds).into());
            }
            return Ok(response);
        }
        Some(Fault::Answer { status, body, .. }) => {
            let status = StatusCode::from_u16(*status).map_err(io::Error::other)?;
            return Ok((status, body.clone()).into_response());
        }
        _ => {}
    }
    let router = TowerToHyperService::new(routes::router(shared));
    let response: Result<_, Infallible> = router.call(request).await;
    let response = response.unwrap_or_else(|never| match never {});
    match fault {
        Some(Fault::LoseAnswer { .. }) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Silence { .. }) => std::future::pending().await,
        Some(Fault::Cut { after, .. }) => Ok(response.map(|body| cut(body, after))),
        _ => Ok(response),
    }
}

/// The body up to a byte, then an error.
fn cut(body: Body, after: u64) -> Body {
    let pieces = stream::unfold(
        (body.into_data_stream(), Some(after)),
        |(mut pieces, left)| async move {
            let left = left?;
            if left == 0 {
                let error = io::Error::from(io::ErrorKind::ConnectionReset);
                return Some((Err(error), (pieces, None)));
            }
            let mut piece = pieces.next().await?.ok()?;
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - piece.len() as u64;
            Some((Ok(piece), (pieces, Some(left))))
        },
    );
    Body::from_stream(pieces)
}
