//! `/stillmetal/v1/…`: the node's own API, beside the container API on the same port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, IF_RANGE, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use policy::{Denial, Role};
use quiet::selftest::SelfTest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillmetal_proxy::{Body, BodyError, NodeApi, Subject};
use stillmetal_work::documents::{self, Asker, Conditions};

use crate::Node;
use crate::certify::Found;
use crate::power::PowerRequest;
use crate::selftest::Wanted;

/// Bodies of this API are small JSON objects.
const BODY_BYTES: usize = 256 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// The longest `?wait=` that is honoured; clients ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The API over one node.
#[derive(Debug, Clone)]
pub struct Http {
    node: Arc<Node>,
}

impl Http {
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    async fn answer(
        &self,
        role: Role,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Denial> {
        let path = request.uri().path().to_owned();
        let query = query(request.uri().query().unwrap_or_default())?;
        let method = request.method().clone();
        let Some(rest) = path.strip_prefix("/stillmetal/v1/") else {
            return Err(not_found(&path));
        };
        let parts: Vec<&str> = rest.split('/').collect();
        match (&method, parts.as_slice()) {
            (&Method::GET, ["health"]) => {
                json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
            }
            (&Method::GET, ["node"]) => {
                let mut status = self.node.status();
                if role != Role::Admin {
                    for claim in &mut status.claims {
                        claim.cgroup = None;
                    }
                }
                if wants_text(&request, &query) {
                    return Ok(plain(crate::status::render(&status)));
                }
                json(StatusCode::OK, &status)
            }
            (&Method::GET, ["manifest"]) => self
                .node
                .manifest()
                .map(|manifest| respond(StatusCode::OK, "application/json", manifest.into())),
            (&Method::GET, ["counters"]) => {
                let cpus = query
                    .get("cpus")
                    .map(|cpus| cpus.parse())
                    .transpose()
                    .map_err(|error: cpulist::ParseError| bad(error.to_string()))?;
                let container = query.get("container").map(String::as_str);
                json(StatusCode::OK, &self.node.counters(cpus, container).await?)
            }
            (&Method::GET, ["certificates"]) => json(StatusCode::OK, &self.node.certifier().list()),
            (&Method::GET, ["certificates", id]) => {
                let wait = seconds(query.get("wait"))?.min(LONGEST_WAIT);
                let text = certificate(id, self.node.certifier().certificate(id, wait).await)?;
                if wants_text(&request, &query) {
                    let certificate = serde_json::from_str(&text).map_err(|error| Denial {
                        status: 500,
                        message: format!("the certificate kept for {id}: {error}"),
                    })?;
                    return Ok(plain(quiet::render(&certificate)));
                }
                Ok(respond(StatusCode::OK, "application/json", text.into()))
            }
            (&Method::GET, ["selftest"]) => {
                admin_only(
                    role,
                    "run the self-test (its last result: GET /stillmetal/v1/selftest/last)",
                )?;
                let wanted = Wanted::from_query(&query)?;
                let test = self.node.selftest().run(&wanted).await?;
                selftest_answer(&test, wants_text(&request, &query))
            }
            (&Method::GET, ["selftest", "last"]) => {
                let test = self.node.selftest().last()?;
                selftest_answer(&test, wants_text(&request, &query))
            }
            (&Method::GET, ["processes"]) => json(StatusCode::OK, &self.node.processes().list()),
            (&Method::POST, ["processes"]) => {
                admin_only(role, "run host processes")?;
                let wanted = body(request).await?;
                json(
                    StatusCode::CREATED,
                    &self.node.processes().start(wanted).await?,
                )
            }
            (&Method::GET, ["processes", id]) => {
                let wait = seconds(query.get("wait"))?.min(LONGEST_WAIT);
                let id = process_id(id)?;
                let status = self.node.processes().get(id, wait).await;
                json(StatusCode::OK, &status.ok_or_else(|| no_process(id))?)
            }
            (&Method::DELETE, ["processes", id]) => {
                admin_only(role, "end host processes")?;
                let id = process_id(id)?;
                if self.node.processes().kill(id) {
                    Ok(respond(
                        StatusCode::NO_CONTENT,
                        "application/json",
                        Bytes::new(),
                    ))
                } else {
                    Err(no_process(id))
                }
            }
            (&Method::GET, ["runs"]) => json(StatusCode::OK, &self.node.runs().list()),
            (&Method::POST, ["runs"]) => {
                let wanted = body(request).await?;
                let node = Arc::clone(&self.node);
                // to its end, even if the client leaves: a claim is not left without a series
                let start = tokio::spawn(async move { node.runs().start(role, wanted).await });
                let started = start.await.map_err(|_| Denial {
                    status: 500,
                    message: "the start of the series died: see the node's log".into(),
                })?;
                json(StatusCode::CREATED, &started?)
            }
            (&Method::GET, ["runs", id]) => {
                let wait = seconds(query.get("wait"))?.min(LONGEST_WAIT);
                let status = self.node.runs().get(id, wait).await;
                let status = status.ok_or_else(|| no_series(id))?;
                if wants_text(&request, &query) {
                    return Ok(plain(crate::runs::render(&status)));
                }
                json(StatusCode::OK, &status)
            }
            (&Method::DELETE, ["runs", id]) => {
                if !self.node.runs().cancel(id) {
                    return Err(no_series(id));
                }
                Ok(respond(
                    StatusCode::NO_CONTENT,
                    "application/json",
                    Bytes::new(),
                ))
            }
            (&Method::GET, ["work", rest @ ..]) => self.work(role, rest, &request).await,
            (&Method::POST, ["power"]) => {
                admin_only(role, "power the node off or reboot it")?;
                let wanted: PowerRequest = body(request).await?;
                self.node.power().ask(wanted.action).await?;
                json(StatusCode::ACCEPTED, &wanted)
            }
            (_, ["health" | "node" | "manifest" | "counters" | "certificates"]) => {
                Err(wrong_method(&method, "GET"))
            }
            (_, ["certificates", _] | ["selftest"] | ["selftest", "last"]) => {
                Err(wrong_method(&method, "GET"))
            }
            (_, ["processes" | "runs"]) => Err(wrong_method(&method, "GET, POST")),
            (_, ["processes" | "runs", _]) => Err(wrong_method(&method, "GET, DELETE")),
            (_, ["work", ..]) => Err(wrong_method(&method, "GET")),
            (_, ["power"]) => Err(wrong_method(&method, "POST")),
            _ => Err(not_found(&path)),
        }
    }
}

impl Http {
    /// What the node does for its controller: admins see all of it, users what they submitted.
    async fn work(
        &self,
        role: Role,
        path: &[&str],
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Denial> {
        let worker = self.node.work().ok_or_else(|| Denial {
            status: 404,
            message: "this node works for no controller (stillmetal.controller= makes it join one)"
                .into(),
        })?;
        let subject = request.extensions().get::<Subject>();
        let asker = match role {
            Role::Admin => Asker::Admin,
            Role::User => Asker::User(subject.map(|subject| &*subject.0)),
        };
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|text| text.to_str().ok())
        };
        let conditions = Conditions {
            range: header(RANGE),
            if_range: header(IF_RANGE),
        };
        let answer = documents::answer(worker, asker, path, conditions).await;
        let answer = answer.ok_or_else(|| not_found(request.uri().path()))?;
        let frames = answer.body.map_ok(Frame::data);
        let frames = frames.map_err(|error| Box::new(error) as BodyError);
        let mut response = Response::builder()
            .status(answer.status)
            .header(CONTENT_LENGTH, answer.length);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        response
            .body(StreamBody::new(frames).boxed())
            .map_err(|error| Denial {
                status: 500,
                message: format!("answer: {error}"),
            })
    }
}

impl NodeApi for Http {
    fn handle(&self, role: Role, request: Request<Incoming>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async move {
            self.answer(role, request).await.unwrap_or_else(|denial| {
                let status = StatusCode::from_u16(denial.status)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let body = serde_json::json!({ "message": denial.message }).to_string();
                respond(status, "application/json", body.into())
            })
        })
    }
}

fn wrong_method(method: &Method, allowed: &str) -> Denial {
    Denial {
        status: 405,
        message: format!("{method} is not offered here, only {allowed}"),
    }
}

fn not_found(path: &str) -> Denial {
    Denial {
        status: 404,
        message: format!(
            "no resource {path}; there are /stillmetal/v1/{{health,node,counters,manifest,certificates,runs,selftest,processes,work,power}}"
        ),
    }
}

fn no_process(id: u64) -> Denial {
    Denial {
        status: 404,
        message: format!("no host process {id}; GET /stillmetal/v1/processes lists them"),
    }
}

fn no_series(id: &str) -> Denial {
    Denial {
        status: 404,
        message: format!(
            "no series of runs {id:?} (of this agent's lifetime); GET /stillmetal/v1/runs lists them"
        ),
    }
}

fn certificate(id: &str, found: Found) -> Result<String, Denial> {
    let (status, why) = match found {
        Found::Certificate(text) => return Ok(text),
        Found::Measuring => (
            409,
            "its run is still being measured; ask again, or with ?wait=60",
        ),
        Found::Nothing => (
            404,
            "no run of that container was certified here; start containers with --label \
             stillmetal.certify=true on isolated CPUs (GET /stillmetal/v1/certificates lists what \
             there is; ids may be shortened, names are not known after a container's removal)",
        ),
    };
    Err(Denial {
        status,
        message: format!("no certificate of container {id}: {why}"),
    })
}

fn bad(message: String) -> Denial {
    Denial {
        status: 400,
        message,
    }
}

fn process_id(text: &str) -> Result<u64, Denial> {
    text.parse().map_err(|_| {
        bad(format!(
            "`{text}` is not a host-process id (a whole number)"
        ))
    })
}

fn admin_only(role: Role, what: &str) -> Result<(), Denial> {
    match role {
        Role::Admin => Ok(()),
        Role::User => Err(Denial {
            status: 403,
            message: format!("role `user` may not {what}: use a certificate of role `admin`"),
        }),
    }
}

fn seconds(text: Option<&String>) -> Result<Duration, Denial> {
    text.map_or(Ok(Duration::ZERO), |text| {
        text.parse()
            .map(Duration::from_secs)
            .map_err(|_| bad(format!("`wait={text}`: give whole seconds")))
    })
}

/// `a=1&b=2`. Values here are CPU lists, ids and numbers, so nothing needs percent-decoding; what
/// would need it is refused rather than misread.
fn query(text: &str) -> Result<BTreeMap<String, String>, Denial> {
    let mut pairs = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace("%2C", ",").replace("%2c", ",");
        if value.contains(['%', '+']) || pairs.insert(name.to_owned(), value).is_some() {
            return Err(bad(format!(
                "query parameter `{name}` is repeated or badly encoded"
            )));
        }
    }
    Ok(pairs)
}

fn wants_text(request: &Request<Incoming>, query: &BTreeMap<String, String>) -> bool {
    query.get("format").is_some_and(|format| format == "text")
        || request
            .headers()
            .get(ACCEPT)
            .is_some_and(|accept| accept == "text/plain")
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Denial> {
    let limited = Limited::new(request.into_body(), BODY_BYTES).collect();
    let bytes = match tokio::time::timeout(BODY_DEADLINE, limited).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) => {
            let status = if error.is::<http_body_util::LengthLimitError>() {
                413
            } else {
                400
            };
            return Err(Denial {
                status,
                message: format!("request body: {error}"),
            });
        }
        Err(_elapsed) => {
            let message = format!("request body did not arrive within {BODY_DEADLINE:?}");
            return Err(Denial {
                status: 408,
                message,
            });
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("request body: {error}")))
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Body>, Denial> {
    let text = serde_json::to_vec(value).map_err(|error| Denial {
        status: 500,
        message: format!("answer: {error}"),
    })?;
    Ok(respond(status, "application/json", text.into()))
}

fn selftest_answer(test: &SelfTest, text: bool) -> Result<Response<Body>, Denial> {
    if text {
        return Ok(plain(quiet::selftest::render(test)));
    }
    json(StatusCode::OK, test)
}

fn plain(text: String) -> Response<Body> {
    respond(StatusCode::OK, "text/plain; charset=utf-8", text.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
