//! One HTTP call on a connection of its own, bounded in time and size.

use std::sync::Arc;

use api::problem::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pki::rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::dial::{Line, dial};
use crate::error::CallError;
use crate::options::JoinOptions;

/// Longest answer, in bytes: two certificates are 2 KiB.
const ANSWER: usize = 64 * 1024;
/// Of an answer that is not understood, so much is shown.
const SHOWN: usize = 200;

/// POSTs `question` to `path` at the controller.
pub(crate) async fn post<Q, A>(
    options: &JoinOptions,
    config: &Arc<ClientConfig>,
    path: &str,
    question: &Q,
) -> Result<A, CallError>
where
    Q: Serialize,
    A: DeserializeOwned,
{
    let body = serde_json::to_vec(question).map_err(CallError::Encode)?;
    let request = Request::post(path)
        .header(HOST, options.controller.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .expect("fixed words and an address are a request");
    let line = dial(options, config).await?;
    let alert = line.tls.alert();
    let within = options.deadlines.call;
    let answered = timeout(within, ask(line, request))
        .await
        .unwrap_or(Err(CallError::Deadline { within }));
    match (answered, alert.get()) {
        (Err(_), Some(alert)) => Err(CallError::CertificateRefused(alert)),
        (answered, _) => answered,
    }
}

async fn ask<A: DeserializeOwned>(
    line: Line,
    request: Request<Full<Bytes>>,
) -> Result<A, CallError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(line.tls))
        .await
        .map_err(CallError::Http)?;
    let call = async move {
        let response = sender.send_request(request).await;
        read(response.map_err(CallError::Http)?).await
    };
    tokio::pin!(call, connection);
    tokio::select! {
        biased;
        answer = &mut call => answer,
        // Its error, if it is one, is the call's too.
        _over = &mut connection => call.await,
    }
}

async fn read<A: DeserializeOwned>(response: Response<Incoming>) -> Result<A, CallError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER)
        .collect()
        .await
        .map_err(CallError::Body)?
        .to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(CallError::Decode);
    }
    let detail = match serde_json::from_slice::<Problem>(&body) {
        Ok(Problem {
            detail,
            next: Some(next),
            ..
        }) => format!("{detail}; {next}"),
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(SHOWN)])
            .trim()
            .to_owned(),
    };
    Err(CallError::Refused {
        status: status.as_u16(),
        detail: detail.replace(char::is_control, " "),
    })
}
