//! The API over the fake controller.

mod audit;
mod documents;
mod enrol;
mod events;
mod faults;
mod fuzz;
mod history;
mod jobs;
mod lab;
mod openapi;
mod pages;
mod roles;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeId;
use api::job::{JobId, JobStatus};
use api::problem::Problem;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use policy::Role;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::fakes::FakeController;
use super::{Parts, Peer, router};
use crate::desk::{Caller, Desk as _};
use crate::metrics::Metrics;

/// The API, and what it stands on.
struct Bench {
    fake: FakeController,
    router: Router,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Of a call.
struct Ask<'a> {
    bench: &'a Bench,
    peer: Option<Peer>,
    request: axum::http::request::Builder,
    body: Body,
}

fn address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 40_000))
}

fn client(user: &str, role: Role) -> Peer {
    let user = user.to_owned();
    Peer::Client(Caller { user, role }, address())
}

fn alice() -> Peer {
    client("alice", Role::User)
}

fn root() -> Peer {
    client("root", Role::Admin)
}

fn node() -> Peer {
    let id = NodeId::try_from("bench1".to_owned()).unwrap();
    let address = address();
    Peer::Node { id, address }
}

fn nobody() -> Peer {
    Peer::Nobody { address: address() }
}

impl Bench {
    fn new() -> Self {
        let fake = FakeController::new();
        let metrics = Arc::new(Metrics::new());
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let router = router(Parts {
            desk: fake.clone(),
            history: fake.clone(),
            vault: fake.clone(),
            metrics: Arc::clone(&metrics),
            tracker: tracker.clone(),
            stop: stop.clone(),
        });
        Self {
            fake,
            router,
            metrics,
            tracker,
            stop,
        }
    }

    fn ask(&self, peer: Peer, method: &str, uri: &str) -> Ask<'_> {
        Ask {
            bench: self,
            peer: Some(peer),
            request: Request::builder().method(method).uri(uri),
            body: Body::empty(),
        }
    }

    async fn get(&self, uri: &str) -> Got {
        self.ask(alice(), "GET", uri).send().await
    }

    /// A job of alice's.
    async fn job(&self) -> JobId {
        let caller = Caller {
            user: "alice".into(),
            role: Role::User,
        };
        let request = serde_json::from_value(json!({ "image": "demo" })).unwrap();
        let jobs = self.fake.submit(&caller, None, vec![request]).await;
        jobs.unwrap()[0].id
    }

    /// A job of alice's with a part on each of these nodes.
    async fn placed(&self, nodes: &[&str]) -> (JobId, Vec<NodeId>) {
        let nodes: Vec<_> = nodes.iter().map(|name| self.fake.add_node(name)).collect();
        let job = self.job().await;
        self.fake.place(job, &nodes);
        (job, nodes)
    }
}

impl Ask<'_> {
    fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.request = self.request.header(name, value.as_ref());
        self
    }

    fn json(self, value: &Value) -> Self {
        self.text(&value.to_string())
    }

    fn text(self, text: &str) -> Self {
        let body = Body::from(text.to_owned());
        Self { body, ..self }.header("content-type", "application/json")
    }

    fn bytes(self, format: &str, body: impl Into<Body>) -> Self {
        let body = body.into();
        Self { body, ..self }.header("content-type", format)
    }

    /// The head of the answer, and its body as it comes.
    async fn begin(self) -> Response<Body> {
        let mut request = self.request.body(self.body).unwrap();
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        let sent = self.bench.router.clone().oneshot(request).await;
        sent.unwrap()
    }

    async fn send(self) -> Got {
        let (head, body) = self.begin().await.into_parts();
        Got {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// What it holds, if it is what `status` says.
    fn json(&self, status: u16) -> Value {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn job(&self, status: u16) -> JobStatus {
        serde_json::from_value(self.json(status)).unwrap()
    }

    /// The problem, if it is one: of this status and kind, and with all that a problem has to say.
    fn problem(&self, status: u16, kind: &str) -> Problem {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{text}"
        );
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.kind, format!("stillmetal:{kind}"), "{text}");
        assert_eq!(problem.status, status);
        assert!(
            !problem.title.is_empty() && !problem.detail.is_empty(),
            "{text}"
        );
        assert!(
            problem.next.as_ref().is_some_and(|next| !next.is_empty()),
            "{text}"
        );
        assert!(
            problem.instance.as_ref().is_some_and(|at| !at.is_empty()),
            "{text}"
        );
        problem
    }

    /// Where the problem is.
    fn at(&self, status: u16, kind: &str) -> String {
        self.problem(status, kind).instance.unwrap()
    }
}

/// Real time: more than enough for whatever a test waits for.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(20), wait).await;
    done.expect("it takes too long")
}
