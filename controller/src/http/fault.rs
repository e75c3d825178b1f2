//! Why a call is not answered as asked: the one place where that becomes HTTP.

use api::problem::Problem;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use axum::http::{Response, StatusCode};

use crate::refusal::{Kind, Refusal};

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// An answer with a problem.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The kind of the problem that a response carries, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct ProblemKind(pub(crate) String);

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let mut problem = refusal.problem();
        let next = problem.next.take();
        problem.next = Some(next.unwrap_or_else(|| next_step(refusal.kind).to_owned()));
        let fault = Self::of(problem);
        match refusal.kind {
            Kind::QueueFull | Kind::Busy => fault.retry_after("5"),
            Kind::NodeOffline | Kind::StoreUnavailable | Kind::Unknown => fault.retry_after("1"),
            Kind::StoreFull => fault.retry_after("30"),
            _ => fault,
        }
    }
}

/// What to do when the refusal does not say.
fn next_step(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "correct the request; GET /openapi.json describes it",
        Kind::Forbidden => {
            "use a certificate of the role that it needs, or ask somebody who has one"
        }
        Kind::Unauthenticated => {
            "connect with a client certificate that this controller has issued"
        }
        Kind::NoSuchJob => "GET /v1/jobs lists the jobs",
        Kind::NoSuchNode => "GET /v1/nodes lists the nodes",
        Kind::NoSuchQueue => "GET /v1/queues lists the queues",
        Kind::NoSuchBooking => "GET /v1/bookings lists the bookings",
        Kind::NoSuchToken => "GET /v1/tokens lists the tokens",
        Kind::NoSuchImage => "GET /v1/images lists the images; POST /v1/images adds one",
        Kind::NoSuchDocument => "GET /v1/jobs/ID lists a job's documents by node",
        Kind::NoSuchRoute => "GET /openapi.json lists what there is",
        Kind::WrongMethod => "see the Allow header for the methods of this resource",
        Kind::QueueFull => {
            "submit again when jobs of this queue have started, or use another queue"
        }
        Kind::Busy => "try again in a moment",
        Kind::QueueDraining => "use another queue, or wait until an admin opens this one again",
        Kind::Conflict => "look at its present state, and ask for what that allows",
        Kind::KeyReused => "use a new idempotency key for a new request",
        Kind::TooLarge => "send less at once",
        Kind::NodeOffline => "wait for the node to come back, or look at GET /v1/nodes/ID",
        Kind::NodeFailed => "look at the node's own logs, and try again",
        Kind::Deadline => "try again; look at GET /metrics if it stays so",
        Kind::StoreUnavailable => "try again in a moment",
        Kind::StoreFull => "free space on the store's disk, then try again",
        Kind::Unknown => "look whether it was done, or send it again with the same Idempotency-Key",
        Kind::Internal => "report it with the controller's log of this moment",
    }
}

impl Fault {
    fn of(problem: Problem) -> Self {
        Self(Box::new(Inner {
            problem,
            headers: Vec::new(),
        }))
    }

    /// One that only HTTP knows.
    fn wire(status: u16, name: &str, title: &str, detail: String, next: &str) -> Self {
        Self::of(Problem {
            kind: format!("stillmetal:{name}"),
            title: title.to_owned(),
            status,
            detail,
            instance: None,
            next: Some(next.to_owned()),
        })
    }

    fn header(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        // a value that is no header is left out: the problem says the same in words
        if let Ok(value) = value.try_into() {
            self.0.headers.push((name, value));
        }
        self
    }

    fn retry_after(self, seconds: &'static str) -> Self {
        self.header(RETRY_AFTER, seconds)
    }

    pub(crate) fn invalid(at: &str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Refusal::new(Kind::Invalid, detail).at(at).next(next).into()
    }

    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Refusal::new(kind, detail).into()
    }

    /// 405; axum adds the header Allow.
    pub(crate) fn wrong_method(method: &str) -> Self {
        Self::new(
            Kind::WrongMethod,
            format!("this resource does not know the method {method}"),
        )
    }

    pub(crate) fn too_slow(within: std::time::Duration) -> Self {
        Self::wire(
            408,
            "too-slow",
            "the request came too slowly",
            format!("its body did not come within {} s", within.as_secs()),
            "send it again over a better connection",
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            Kind::TooLarge,
            format!("the body is longer than {limit} bytes, the limit of this call"),
        )
    }

    pub(crate) fn media_type(given: &str, wanted: &str) -> Self {
        Self::wire(
            415,
            "media-type",
            "not in this format",
            format!("the body's Content-Type is {given:?}, and this call takes {wanted}"),
            &format!("send it with Content-Type: {wanted}"),
        )
    }

    pub(crate) fn range(bytes: u64) -> Self {
        Self::wire(
            416,
            "range",
            "there are no such bytes",
            format!("the document has {bytes} bytes, and the range begins behind them"),
            "ask for a range within it, or for all of it without Range",
        )
        .header(CONTENT_RANGE, format!("bytes */{bytes}"))
    }

    pub(crate) fn too_many(what: &str) -> Self {
        Self::wire(
            429,
            "too-many",
            "too many such calls at once",
            format!("as many {what} as this controller allows are open already"),
            "close some, or try again in a moment",
        )
        .retry_after("5")
    }

    pub(crate) fn stopping() -> Self {
        Self::wire(
            503,
            "stopping",
            "the controller is going down",
            "it takes no new calls".to_owned(),
            "try again when it is up again",
        )
        .retry_after("2")
    }

    #[cfg(test)]
    pub(crate) fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// As a response; `path` is what it is about if nothing better is known.
    pub(crate) fn into_response(self, path: &str) -> Response<Body> {
        let Inner {
            mut problem,
            headers,
        } = *self.0;
        problem.instance.get_or_insert_with(|| path.to_owned());
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // strings and a number: it can always be written
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let target = response.headers_mut();
        target.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        target.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in headers {
            target.insert(name, value);
        }
        debug_assert!(!target.contains_key(ALLOW), "axum's to set");
        response.extensions_mut().insert(ProblemKind(problem.kind));
        response
    }
}
