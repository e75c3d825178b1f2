//! Connections to one controller: sends calls, tells failures apart, and tries again.

use std::fmt;
use std::time::Duration;

use api::problem::Problem;
use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::backoff::{Backoff, dice};
use crate::call::{Call, Repeat};
use crate::context::{Context, authority};
use crate::error::{Error, Strange};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Between two parts of an answer that is not a stream of somebody's output.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// A peer that does not even acknowledge is gone after so long.
const DEAD_AFTER: Duration = Duration::from_secs(20);
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Longest answer that is read into memory, bytes.
pub(crate) const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// What is quoted of an answer that nobody understands, bytes.
const QUOTE: usize = 300;

/// A client of one controller. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects on its first call.
    ///
    /// # Errors
    /// [`Error::Certificates`] or [`Error::Setup`].
    pub fn new(context: &Context) -> Result<Self, Error> {
        let trust = pki::Trust::Ca(context.ca_pem.clone());
        let identity = (&*context.cert_pem, &*context.key_pem);
        let tls = pki::api_client_config(&trust, Some(identity))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .tcp_keepalive(PROBE_EVERY)
            .tcp_keepalive_interval(PROBE_EVERY)
            .tcp_user_timeout(DEAD_AFTER)
            .user_agent(concat!("stillmetal-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::Setup)?;
        Ok(Self {
            http,
            base: context.controller.clone(),
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Makes a call until the head of an answer of success is there, as often as that is allowed.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response, Error> {
        let mut tries = Tries::new(call.repeat);
        loop {
            match self.send_once(call).await {
                Ok(response) => return Ok(response),
                Err(failure) => tries.pause(failure).await?,
            }
        }
    }

    /// Makes a call until a whole answer of success is there, as often as that is allowed.
    pub(crate) async fn fetch(&self, call: &Call) -> Result<Vec<u8>, Error> {
        let mut tries = Tries::new(call.repeat);
        loop {
            match self.fetch_once(call).await {
                Ok(body) => return Ok(body),
                Err(failure) => tries.pause(failure).await?,
            }
        }
    }

    async fn fetch_once(&self, call: &Call) -> Result<Vec<u8>, Failure> {
        let response = self.send_once(call).await?;
        self.read(&call.name(), response).await
    }

    /// One try.
    pub(crate) async fn send_once(&self, call: &Call) -> Result<Response, Failure> {
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = match tokio::time::timeout(call.within, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => return Err(self.unreachable(source)),
            Err(_) => return Err(Failure::silent(&call.name(), call.within)),
        };
        self.accept(&call.name(), response).await
    }

    /// A response of success, or what the other response means.
    pub(crate) async fn accept(&self, call: &str, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wish = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = self.read(call, response).await?;
        let problem = serde_json::from_slice(&body).ok();
        let problem = problem.or_else(|| node_says(status, &body));
        let (reached, error) = match problem {
            Some(problem) => {
                let reached = Reached::of(&problem, wish.is_some());
                (reached, Error::Problem(Box::new(problem)))
            }
            None => {
                let reached = match status {
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => Reached::Perhaps,
                    _ => Reached::Final,
                };
                let call = call.to_owned();
                let (status, text) = (status.as_u16(), quote(&body));
                let source = Strange::Status { status, text };
                (reached, Error::Protocol { call, source })
            }
        };
        Err(Failure {
            error,
            reached,
            wish,
        })
    }

    pub(crate) fn unreachable(&self, source: reqwest::Error) -> Failure {
        let reached = if source.is_connect() {
            Reached::No
        } else {
            Reached::Perhaps
        };
        let error = Error::Unreachable {
            url: format!("https://{}", authority(&self.base)),
            source: source.without_url(),
        };
        Failure {
            error,
            reached,
            wish: None,
        }
    }

    /// Reads a whole answer, if it is not too long.
    pub(crate) async fn read(
        &self,
        call: &str,
        mut response: Response,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let chunk = tokio::time::timeout(IDLE, response.chunk()).await;
            let chunk = chunk.map_err(|_| Failure::silent(call, IDLE))?;
            let Some(chunk) = chunk.map_err(|source| self.unreachable(source))? else {
                return Ok(body);
            };
            if (body.len() + chunk.len()) as u64 > LONGEST_ANSWER {
                let limit = LONGEST_ANSWER;
                return Err(Failure::final_of(Error::Protocol {
                    call: call.to_owned(),
                    source: Strange::TooLong { limit },
                }));
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Makes a call and reads its JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        decode(&call.name(), &self.fetch(&call).await?)
    }

    /// Makes a call of whose answer only success matters.
    pub(crate) async fn done(&self, call: Call) -> Result<(), Error> {
        self.fetch(&call).await.map(drop)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(call: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Protocol {
        call: call.to_owned(),
        source: Strange::Json(error),
    })
}

/// The tries of one call.
#[derive(Debug)]
pub(crate) struct Tries {
    allowed: Repeat,
    begun: Instant,
    backoff: Backoff,
}

impl Tries {
    pub(crate) fn new(allowed: Repeat) -> Self {
        Self {
            allowed,
            begun: Instant::now(),
            backoff: Backoff::new(),
        }
    }

    /// Something came: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.begun = Instant::now();
        self.backoff = Backoff::new();
    }

    /// None has failed yet.
    pub(crate) fn are_fresh(&self) -> bool {
        self.backoff.is_fresh()
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// The failure itself, when another try is not allowed or not worth it.
    pub(crate) fn next(&mut self, failure: Failure) -> Result<Duration, Error> {
        let again = match failure.reached {
            Reached::No => true,
            Reached::Perhaps => self.allowed == Repeat::Safe,
            Reached::Final => false,
        };
        let elapsed = self.begun.elapsed();
        let pause = match again {
            true => self.backoff.next(elapsed, failure.wish, dice()),
            false => None,
        };
        pause.ok_or(failure.error)
    }

    /// Waits until it is time for the next try.
    ///
    /// # Errors
    /// As [`Tries::next`].
    pub(crate) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        tokio::time::sleep(self.next(failure)?).await;
        Ok(())
    }
}

/// One try that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    reached: Reached,
    wish: Option<Duration>,
}

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// It was not carried out, and may be later.
    No,
    /// It may have been carried out.
    Perhaps,
    /// Wherever it got, the next would come to the same.
    Final,
}

impl Reached {
    /// `asked`: the controller says when to come back.
    fn of(problem: &Problem, asked: bool) -> Self {
        match &*problem.kind {
            "stillmetal:outcome-unknown" => Self::Perhaps,
            "stillmetal:store-unavailable" => Self::No,
            _ if asked => Self::No,
            _ => Self::Final,
        }
    }
}

impl Failure {
    fn of(error: Error) -> Self {
        Self {
            error,
            reached: Reached::Perhaps,
            wish: None,
        }
    }

    /// One that another try would not mend.
    pub(crate) fn final_of(error: Error) -> Self {
        Self {
            error,
            reached: Reached::Final,
            wish: None,
        }
    }

    /// Nothing came for so long.
    pub(crate) fn silent(call: &str, within: Duration) -> Self {
        Self::of(Error::Deadline {
            call: call.to_owned(),
            within,
        })
    }
}

/// A node's own API, behind the controller's, answers as an engine does: `{"message": …}`.
fn node_says(status: StatusCode, body: &[u8]) -> Option<Problem> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    let detail = said.get("message")?.as_str()?.to_owned();
    // one that is away is asked again
    status.is_client_error().then(|| Problem {
        kind: "stillmetal:node-refused".into(),
        title: "the node refuses".into(),
        status: status.as_u16(),
        detail,
        instance: None,
        next: None,
    })
}

fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(QUOTE)]);
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_refuses_is_told_in_its_own_words() {
        let body = br#"{"message":"its power is not ours"}"#;
        let problem = node_says(StatusCode::CONFLICT, body).unwrap();
        assert_eq!(
            (problem.status, &*problem.detail),
            (409, "its power is not ours")
        );
        assert_eq!(node_says(StatusCode::BAD_GATEWAY, body), None);
        assert_eq!(node_says(StatusCode::CONFLICT, b"{}"), None);
        assert_eq!(node_says(StatusCode::CONFLICT, b"<html>"), None);
    }
}
