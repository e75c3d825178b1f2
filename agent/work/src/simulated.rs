//! A node that only pretends: the real protocol, the real state machine, a journal in memory and a
//! [`FakeExecutor`](crate::fakes::FakeExecutor). No thread and no file each, so that there can be thousands in one process.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeFacts;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{IF_RANGE, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Worker;
use crate::documents::{self, Answer, Asker, Conditions};
use crate::executor::Executor;
use crate::fakes::World;
use crate::journal::{JournalError, Memory};
use crate::worker::{Clock, Parts};

/// How long a client may take for a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// A pretended machine: it outlives its agents.
#[derive(Debug, Clone)]
pub struct Machine {
    facts: watch::Sender<NodeFacts>,
    /// What runs on it.
    pub world: World,
    /// What it remembers.
    pub journal: Memory,
    booted: Instant,
}

impl Machine {
    /// A machine on which nothing has run.
    #[must_use]
    pub fn new(facts: NodeFacts) -> Self {
        Self {
            facts: watch::Sender::new(facts),
            world: World::default(),
            journal: Memory::new(),
            booted: Instant::now(),
        }
    }

    /// What it says of itself from now on.
    pub fn set_facts(&self, facts: NodeFacts) {
        self.facts.send_replace(facts);
    }

    /// Starts an agent on it; it is as good as killed when `stop` is cancelled. An earlier one must
    /// have been.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn agent(
        &self,
        executor: Arc<dyn Executor>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Worker, JournalError> {
        let booted = self.booted;
        let clock: Clock = Arc::new(move || booted.elapsed());
        Worker::start(Parts {
            facts: self.facts.subscribe(),
            journal: Arc::new(self.journal.clone()),
            executor,
            clock,
            tasks: tasks.clone(),
            stop,
        })
        .await
    }
}

/// Serves HTTP/1.1 on one `router` stream, as far as [`documents`] goes: for an asker of role admin.
///
/// # Errors
/// The stream's, or when the peer speaks no HTTP.
pub async fn serve_router<S>(worker: &Worker, stream: S) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(respond(worker, &request).await)
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn respond(worker: &Worker, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().strip_prefix("/stillmetal/v1/");
    let parts: Vec<&str> = path.unwrap_or_default().split('/').collect();
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|text| text.to_str().ok())
    };
    let answer = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["work", rest @ ..]) => {
            let conditions = Conditions {
                range: header(RANGE),
                if_range: header(IF_RANGE),
            };
            documents::answer(worker, Asker::Admin, rest, conditions).await
        }
        _ => None,
    };
    answer.map_or_else(
        || {
            let empty = http_body_util::Empty::new().map_err(|never| match never {});
            let mut response = Response::new(BoxBody::new(empty));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        },
        response,
    )
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-length", answer.length);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = StreamBody::new(answer.body.map_ok(Frame::data));
    let response = response.body(BodyExt::boxed(body));
    response.expect("statuses and headers of answers are HTTP's")
}
