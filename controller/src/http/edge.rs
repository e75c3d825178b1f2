//! What happens around every call: its deadline, its panics, its line in the audit log, its metrics.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, Response};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::audit::{Line, Subject};
use super::fault::{Fault, ProblemKind};
use super::peer::{Access, Peer};
use crate::metrics::Metrics;
use crate::refusal::Kind;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Of a call.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// The pattern that it matched; `-`: none.
    pub(crate) route: &'static str,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) peer: Peer,
    /// It is written to the audit log also when it is carried out.
    pub(crate) audited: bool,
    /// Until the head of the answer; `None`: the call has deadlines of its own.
    pub(crate) within: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) metrics: Arc<Metrics>,
}

/// Notes a call that nobody waits for any more, when it is dropped.
struct Open<'a> {
    edge: &'a Edge,
    about: &'a About,
    answered: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.edge.metrics.http_abandoned(self.about.route);
        if self.about.audited {
            self.edge.log(self.about, None, None, None);
        }
    }
}

impl Edge {
    pub(crate) async fn around<F>(&self, about: About, work: F) -> Response<Body>
    where
        F: Future<Output = Result<Response<Body>, Fault>>,
    {
        let begun = Instant::now();
        let mut open = Open {
            edge: self,
            about: &about,
            answered: false,
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let done = match about.within {
            Some(within) => tokio::time::timeout(within, work).await.ok(),
            None => Some(work.await),
        };
        open.answered = true;
        let mut response = match done {
            Some(Ok(Ok(response))) => response,
            Some(Ok(Err(fault))) => fault.into_response(&about.path),
            Some(Err(panic)) => {
                let panic = what(&*panic);
                tracing::error!(route = about.route, panic, "a call panicked");
                Fault::new(Kind::Internal, "the call met a fault of this program")
                    .into_response(&about.path)
            }
            None => late(&about).into_response(&about.path),
        };
        let headers = response.headers_mut();
        headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
        headers
            .entry(axum::http::header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        let status = response.status().as_u16();
        self.metrics
            .http_answered(&about.method, about.route, status, begun.elapsed());
        if about.audited || status >= 400 {
            let extensions = response.extensions();
            let subject = extensions.get::<Subject>().map(|s| s.0.as_str());
            let problem = extensions.get::<ProblemKind>().map(|p| p.0.as_str());
            self.log(&about, subject, Some(status), problem);
        }
        response
    }

    fn log(
        &self,
        about: &About,
        subject: Option<&str>,
        status: Option<u16>,
        problem: Option<&str>,
    ) {
        Line {
            who: about.peer.who(),
            role: about.peer.role(),
            address: about.peer.address(),
            method: about.method.as_str(),
            route: about.route,
            subject: subject.unwrap_or(&about.path),
            status,
            problem,
        }
        .write();
    }
}

fn late(about: &About) -> Fault {
    let seconds = about.within.unwrap_or_default().as_secs();
    if about.audited {
        Fault::new(
            Kind::Unknown,
            format!("not done within {seconds} s; it may still be"),
        )
    } else {
        Fault::new(Kind::Deadline, format!("no answer within {seconds} s"))
    }
}

/// What a panic said.
fn what(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}

/// The peer of a request.
pub(crate) fn peer_of(request: &Request) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

/// Whether `peer` may make a call.
pub(crate) fn admit(peer: &Peer, access: Access) -> Result<(), Fault> {
    if access.admits(peer) {
        return Ok(());
    }
    Err(match peer {
        Peer::Nobody { .. } => Fault::new(
            Kind::Unauthenticated,
            "the connection showed no client certificate",
        ),
        _ => Fault::new(
            Kind::Forbidden,
            format!(
                "role {} called, and this is for {}",
                peer.role(),
                access.words()
            ),
        ),
    })
}

/// Whoever accepted the connection did not say who it is from.
pub(crate) fn no_peer(path: &str) -> Response<Body> {
    tracing::error!("a request has no peer");
    Fault::new(Kind::Internal, "it is not known who calls").into_response(path)
}
