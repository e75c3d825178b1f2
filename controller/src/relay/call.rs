//! One request to a node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hop::headers::{asked_upgrade, set_upgrade, strip_hop_by_hop};
use hop::{Answer, BoxError};
use hyper::body::Body;
use hyper::header::{EXPECT, HOST, HeaderValue};
use hyper::{Request, Response, Uri, Version};
use policy::Role;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::OpenError;

use super::audit::Audit;
use super::limits::Limits;
use super::opener::{OpenNodeError, Opener};
use super::places::Places;
use crate::refusal::{Kind, Refusal};

/// To which node, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Id or name.
    pub node: &'a str,
    pub role: Role,
    pub user: &'a str,
}

impl<'a> Recipient<'a> {
    /// For the controller itself.
    #[must_use]
    pub fn ourselves(node: &'a str) -> Self {
        Self {
            node,
            role: Role::Admin,
            user: "controller",
        }
    }
}

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Open(#[from] OpenNodeError),
    #[error("node {node} did not answer within {within:?}")]
    Deadline { node: String, within: Duration },
    #[error("node {node} ended the stream before it answered")]
    Broken { node: String, source: hyper::Error },
    /// Without a path.
    #[error("the request's target is not a path")]
    Target,
}

impl CallError {
    /// As people are told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let detail = crate::chain(self);
        let (kind, next) = match self {
            Self::Open(OpenNodeError::Unknown { .. }) => {
                (Kind::NoSuchNode, Some("see `still nodes`"))
            }
            Self::Open(OpenNodeError::Offline { .. }) => (
                Kind::NodeOffline,
                Some("see `still node show`; a node that lost its connection comes back by itself"),
            ),
            Self::Open(OpenNodeError::Head { .. }) | Self::Target => (Kind::Invalid, None),
            Self::Open(OpenNodeError::Open { source, .. }) => match source {
                OpenError::Busy { .. } => (Kind::Busy, Some("try again in a moment")),
                OpenError::Deadline { .. } => (Kind::Deadline, Some("try again")),
                OpenError::Ended(_) | OpenError::GoingAway => (Kind::NodeOffline, None),
                OpenError::Refused { .. } | OpenError::Reset { .. } => (Kind::NodeFailed, None),
            },
            Self::Deadline { .. } => (Kind::Deadline, Some("try again")),
            Self::Broken { .. } => (Kind::NodeFailed, Some("try again")),
        };
        let refusal = Refusal::new(kind, detail);
        match next {
            Some(next) => refusal.next(next),
            None => refusal,
        }
    }
}

/// Sends requests to nodes. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    opener: Arc<dyn Opener>,
    pub(super) audit: Arc<dyn Audit>,
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) tasks: TaskTracker,
    /// Hijacked streams are cut off.
    pub(super) stop: CancellationToken,
}

impl Relay {
    /// `tasks` holds what goes on in the background, until `stop`.
    pub fn new(
        opener: Arc<dyn Opener>,
        audit: Arc<dyn Audit>,
        limits: Limits,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                opener,
                audit,
                places: Places::new(&limits),
                limits,
                tasks,
                stop,
            }),
        }
    }

    /// Sends a request over a stream of its own and returns when the head of the answer is there,
    /// which may be never: give `within` unless the request waits for something to happen. Dropping
    /// the future or the answer's body drops the stream, and the node notices.
    ///
    /// Headers that concern two neighbours only are taken out, but for an upgrade that is asked for;
    /// what of the answer is one is left in.
    ///
    /// # Errors
    /// When there is no stream to the node, or no answer on it.
    pub async fn call<B>(
        &self,
        to: Recipient<'_>,
        mut request: Request<B>,
        within: Option<Duration>,
    ) -> Result<Response<Answer>, CallError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        readdress(&mut request)?;
        let answer = async {
            let shared = &self.shared;
            let stream = shared.opener.open(to.node, to.role, to.user).await?;
            hop::ask(stream, request, &shared.tasks)
                .await
                .map_err(|source| CallError::Broken {
                    node: to.node.to_owned(),
                    source,
                })
        };
        match within {
            None => answer.await,
            Some(within) => timeout(within, answer).await.unwrap_or_else(|_| {
                Err(CallError::Deadline {
                    node: to.node.to_owned(),
                    within,
                })
            }),
        }
    }
}

/// The request as the node's router is to see it.
fn readdress<B>(request: &mut Request<B>) -> Result<(), CallError> {
    let target = request.uri().path_and_query().ok_or(CallError::Target)?;
    *request.uri_mut() = Uri::from(target.clone());
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    let protocol = asked_upgrade(headers).cloned();
    strip_hop_by_hop(headers);
    // It was our server that told the client to go on.
    headers.remove(EXPECT);
    headers.insert(HOST, HeaderValue::from_static("node"));
    if let Some(protocol) = protocol {
        set_upgrade(headers, protocol);
    }
    Ok(())
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_readdressed() {
        let mut request = Request::post("https://controller:7443/a%2Fb?c=d")
            .header("host", "controller:7443")
            .header("connection", "upgrade, x-private")
            .header("upgrade", "tcp")
            .header("x-private", "1")
            .header("expect", "100-continue")
            .header("x-registry-auth", "e30=")
            .body(())
            .unwrap();
        readdress(&mut request).unwrap();
        assert_eq!(request.uri(), "/a%2Fb?c=d");
        let mut names: Vec<&str> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "host", "upgrade", "x-registry-auth"]);
        assert_eq!(request.headers()["host"], "node");
    }
}
