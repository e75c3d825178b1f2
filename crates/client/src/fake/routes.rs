//! The API's routes, as far as a client can tell.

use std::sync::Arc;
use std::time::Duration;

use api::booking::{BookingRequest, BookingView};
use api::event::Event;
use api::fleet::{NodeChange, NodeState, NodeView, TokenRequest, TokenView};
use api::health::{HealthCheck, HealthCheckView, NodeHealth};
use api::image::ImageView;
use api::job::{JobId, JobRequest, JobState, JobStatus, Page};
use api::problem::Problem;
use api::queue::{QueueSettings, QueueView};
use axum::body::Body;
use axum::extract::{Path, Query, State as Held};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Shared;
use super::state::State;
use crate::digest::Hasher;
use crate::jobs::IDEMPOTENCY_KEY;

type Fake = Held<Arc<Shared>>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/version", get(version))
        .route("/v1/jobs", get(jobs).post(submit))
        .route("/v1/jobs/batch", post(submit_all))
        .route("/v1/jobs/{id}", get(job))
        .route("/v1/jobs/{id}/why", get(why))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/documents/{node}/{*name}", get(document))
        .route("/v1/jobs/{id}/logs", get(logs))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/pending", get(pending))
        .route("/v1/nodes/approve", post(approve))
        .route("/v1/nodes/{node}", get(node).patch(change_node))
        .route("/v1/nodes/{node}/revoke", post(revoke_node))
        .route("/v1/queues", get(queues))
        .route("/v1/queues/{name}", put(put_queue).delete(delete_queue))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(delete_token))
        .route("/v1/bookings", get(bookings).post(book))
        .route("/v1/bookings/{id}", delete(unbook))
        .route(
            "/v1/health-check",
            get(health).put(set_health).delete(remove_health),
        )
        .route("/v1/images", get(images).post(push_image))
        .route("/v1/events", get(events))
        .with_state(shared)
}

/// As every refusal of the API.
pub(crate) fn refuse(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let body = serde_json::to_vec(problem).unwrap_or_default();
    (status, kind, body).into_response()
}

fn missing(what: &str, name: &str) -> Response {
    refuse(&Problem {
        kind: format!("stillmetal:no-such-{what}"),
        title: format!("there is no such {what}"),
        status: 404,
        detail: format!("no {what} is called {name}"),
        instance: None,
        next: Some(format!("see what there is: still {what}s")),
    })
}

fn found<T: Serialize>(thing: Option<T>, what: &str, name: &str) -> Response {
    thing.map_or_else(|| missing(what, name), |thing| Json(thing).into_response())
}

async fn version() -> Response {
    Json(json!({ "version": "0.0.0-fake" })).into_response()
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(IDEMPOTENCY_KEY)?.to_str().ok()
}

async fn submit(Held(fake): Fake, headers: HeaderMap, Json(request): Json<JobRequest>) -> Response {
    let mut jobs = fake.change(|state| state.submit(key_of(&headers), &[request]));
    (StatusCode::CREATED, Json(jobs.pop())).into_response()
}

async fn submit_all(
    Held(fake): Fake,
    headers: HeaderMap,
    Json(requests): Json<Vec<JobRequest>>,
) -> Response {
    let jobs = fake.change(|state| state.submit(key_of(&headers), &requests));
    (StatusCode::CREATED, Json(jobs)).into_response()
}

#[derive(Debug, Deserialize)]
struct JobsQuery {
    state: Option<JobState>,
    user: Option<String>,
    queue: Option<String>,
    node: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
    order: Option<String>,
}

async fn jobs(Held(fake): Fake, Query(query): Query<JobsQuery>) -> Response {
    let newest_first = query.order.as_deref() == Some("desc");
    let mut all: Vec<JobStatus> = fake.read(|state| {
        let jobs = state.jobs.values().map(|job| job.status.clone());
        jobs.collect()
    });
    if newest_first {
        all.reverse();
    }
    all.retain(|job| {
        let on = |node: &String| job.parts.iter().any(|part| part.node_name == *node);
        query.state.is_none_or(|state| job.state == state)
            && query.user.as_ref().is_none_or(|user| job.user == *user)
            && query
                .queue
                .as_ref()
                .is_none_or(|it| job.request.queue == *it)
            && query.node.as_ref().is_none_or(on)
            && query.after.is_none_or(|after| match newest_first {
                true => job.id.0 < after,
                false => job.id.0 > after,
            })
    });
    Json(page(all, query.limit, |job| job.id.0)).into_response()
}

fn page<T>(mut items: Vec<T>, limit: Option<usize>, id: impl Fn(&T) -> u64) -> Page<T> {
    let limit = limit.unwrap_or(100);
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|last| id(last).to_string());
    Page { items, next }
}

#[derive(Debug, Deserialize)]
struct WaitQuery {
    wait: Option<u64>,
}

async fn job(Held(fake): Fake, Path(id): Path<u64>, Query(query): Query<WaitQuery>) -> Response {
    let look = || {
        fake.read(|state| {
            let job = state.jobs.get(&JobId(id));
            job.map(|job| job.status.clone())
        })
    };
    let mut changes = fake.changes();
    let over = async {
        while look().is_some_and(|job| !job.state.is_over()) {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    if let Some(seconds) = query.wait {
        // either way it is told as it stands
        drop(tokio::time::timeout(Duration::from_secs(seconds.min(60)), over).await);
    }
    found(look(), "job", &id.to_string())
}

async fn why(Held(fake): Fake, Path(id): Path<u64>) -> Response {
    let why = fake.read(|state| state.jobs.get(&JobId(id)).map(|_| state.why.clone()));
    found(why, "job", &id.to_string())
}

#[derive(Debug, Deserialize)]
struct CancelBody {
    reason: Option<String>,
}

async fn cancel(Held(fake): Fake, Path(id): Path<u64>, Json(body): Json<CancelBody>) -> Response {
    let over = fake.read(|state| {
        let job = state.jobs.get(&JobId(id))?;
        Some(job.status.state.is_over())
    });
    if over == Some(true) {
        return refuse(&Problem {
            kind: "stillmetal:conflict".into(),
            title: "not in the present state".into(),
            status: 409,
            detail: format!("job {id} is over"),
            instance: None,
            next: None,
        });
    }
    let job = fake.change(|state| {
        state.cancel(JobId(id), body.reason);
        let job = state.jobs.get(&JobId(id))?;
        Some(job.status.clone())
    });
    found(job, "job", &id.to_string())
}

async fn document(
    Held(fake): Fake,
    Path((id, node, name)): Path<(u64, String, String)>,
    headers: HeaderMap,
) -> Response {
    let bytes = fake.read(|state| {
        let job = state.jobs.get(&JobId(id))?;
        job.documents.get(&(node, name.clone())).cloned()
    });
    let Some(bytes) = bytes else {
        return missing("document", &name);
    };
    let from = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes="))
        .and_then(|range| range.strip_suffix('-')?.parse().ok());
    let whole = bytes.len();
    match from {
        None => pieces(bytes).into_response(),
        Some(from) if from < whole => {
            let range = format!("bytes {from}-{}/{whole}", whole - 1);
            let range = [(header::CONTENT_RANGE, range)];
            let rest = pieces(bytes[from..].to_vec());
            (StatusCode::PARTIAL_CONTENT, range, rest).into_response()
        }
        Some(_) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
    }
}

/// A body in small pieces, so that it can be cut.
fn pieces(bytes: Vec<u8>) -> Body {
    let pieces: Vec<_> = bytes
        .chunks(1000)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    Body::from_stream(stream::iter(pieces))
}

#[derive(Debug, Deserialize)]
struct LogsQuery {
    stream: Option<String>,
    #[serde(default)]
    follow: bool,
}

async fn logs(Held(fake): Fake, Path(id): Path<u64>, Query(query): Query<LogsQuery>) -> Response {
    let stderr = query.stream.as_deref() == Some("stderr");
    let look = move |fake: &Shared| {
        fake.read(|state| {
            let job = state.jobs.get(&JobId(id))?;
            let text = if stderr { &job.stderr } else { &job.stdout };
            Some((text.clone(), job.status.state.is_over()))
        })
    };
    let Some((text, _)) = look(&fake) else {
        return missing("job", &id.to_string());
    };
    if !query.follow {
        return pieces(text).into_response();
    }
    let changes = fake.changes();
    let body = stream::unfold(
        (fake, changes, 0),
        move |(fake, mut changes, at)| async move {
            loop {
                let (text, over) = look(&fake)?;
                if text.len() > at {
                    let piece = Bytes::copy_from_slice(&text[at..]);
                    return Some((Ok::<_, std::io::Error>(piece), (fake, changes, text.len())));
                }
                if over {
                    return None;
                }
                changes.changed().await.ok()?;
            }
        },
    );
    Body::from_stream(body).into_response()
}

#[derive(Debug, Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

async fn nodes(Held(fake): Fake, Query(query): Query<PageQuery>) -> Response {
    let mut all = fake.read(|state| state.nodes.clone());
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.retain(|node| {
        let after = query.after.as_deref();
        after.is_none_or(|after| node.id.as_str() > after)
    });
    let limit = query.limit.unwrap_or(100);
    let more = all.len() > limit;
    all.truncate(limit);
    let last = all.last().filter(|_| more);
    let next = last.map(|node| node.id.to_string());
    Json(Page { items: all, next }).into_response()
}

async fn pending(Held(fake): Fake) -> Response {
    Json(fake.read(|state| state.pending.clone())).into_response()
}

#[derive(Debug, Deserialize)]
struct ApproveBody {
    fingerprint: String,
}

async fn approve(Held(fake): Fake, Json(body): Json<ApproveBody>) -> Response {
    let name = body.fingerprint;
    let node = fake.change(|state| {
        let at = state.pending.iter().position(|it| it.fingerprint == name)?;
        Some(state.pending.remove(at))
    });
    found(node, "node", &name)
}

fn is_called(node: &NodeView, name: &str) -> bool {
    node.id.as_str() == name || node.name == name
}

async fn node(Held(fake): Fake, Path(name): Path<String>) -> Response {
    let node = fake.read(|state| {
        let mut nodes = state.nodes.iter();
        nodes.find(|node| is_called(node, &name)).cloned()
    });
    found(node, "node", &name)
}

async fn change_node(
    Held(fake): Fake,
    Path(name): Path<String>,
    Json(change): Json<NodeChange>,
) -> Response {
    let node = fake.change(|state| {
        let mut nodes = state.nodes.iter_mut();
        let node = nodes.find(|node| is_called(node, &name))?;
        match change.draining {
            Some(true) => node.state = NodeState::Draining,
            Some(false) => node.state = NodeState::Ready,
            None => {}
        }
        if change.healthy == Some(true) && matches!(node.state, NodeState::Quarantined { .. }) {
            node.state = NodeState::Ready;
        }
        for (key, value) in change.labels {
            if value.is_empty() {
                node.labels.remove(&key);
            } else {
                node.labels.insert(key, value);
            }
        }
        Some(node.clone())
    });
    found(node, "node", &name)
}

async fn revoke_node(Held(fake): Fake, Path(name): Path<String>) -> Response {
    let node = fake.change(|state| {
        let at = state.nodes.iter().position(|it| is_called(it, &name))?;
        Some(state.nodes.remove(at))
    });
    found(node, "node", &name)
}

fn queue_view((name, settings): (&String, &QueueSettings)) -> QueueView {
    QueueView {
        name: name.clone(),
        settings: settings.clone(),
        waiting: 0,
        running: 0,
    }
}

async fn queues(Held(fake): Fake) -> Response {
    let queues: Vec<_> = fake.read(|state| state.queues.iter().map(queue_view).collect());
    Json(queues).into_response()
}

async fn put_queue(
    Held(fake): Fake,
    Path(name): Path<String>,
    Json(settings): Json<QueueSettings>,
) -> Response {
    fake.change(|state| state.queues.insert(name.clone(), settings.clone()));
    Json(queue_view((&name, &settings))).into_response()
}

async fn delete_queue(Held(fake): Fake, Path(name): Path<String>) -> Response {
    match fake.change(|state| state.queues.remove(&name)) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => missing("queue", &name),
    }
}

async fn tokens(Held(fake): Fake) -> Response {
    let mut tokens = fake.read(|state| state.tokens.clone());
    for token in &mut tokens {
        token.token = None;
    }
    Json(tokens).into_response()
}

async fn bookings(Held(fake): Fake) -> Response {
    Json(fake.read(|state| state.bookings.clone())).into_response()
}

async fn book(Held(fake): Fake, Json(request): Json<BookingRequest>) -> Response {
    let known = |state: &State, name: &String| state.nodes.iter().any(|it| it.name == *name);
    let unknown = fake.read(|state| {
        let mut names = request.nodes.iter();
        names.find(|name| !known(state, name)).cloned()
    });
    if let Some(name) = unknown {
        return missing("node", &name);
    }
    let booking = fake.change(|state| {
        let booked = state.nodes.iter();
        let booked = booked.filter(|node| request.nodes.contains(&node.name));
        let from_ms = request.in_seconds * 1000;
        let booking = BookingView {
            id: state.bookings.len() as u64 + 1,
            nodes: booked.map(|node| node.id.clone()).collect(),
            node_names: request.nodes.iter().cloned().collect(),
            users: request.users.clone(),
            from_ms,
            until_ms: from_ms + request.for_seconds * 1000,
            made_by: "anna".into(),
        };
        state.bookings.push(booking.clone());
        booking
    });
    (StatusCode::CREATED, Json(booking)).into_response()
}

async fn unbook(Held(fake): Fake, Path(id): Path<u64>) -> Response {
    let gone = fake.change(|state| {
        let before = state.bookings.len();
        state.bookings.retain(|booking| booking.id != id);
        state.bookings.len() < before
    });
    match gone {
        true => StatusCode::NO_CONTENT.into_response(),
        false => missing("booking", &id.to_string()),
    }
}

fn health_view(state: &State) -> HealthCheckView {
    let nodes = state.nodes.iter().map(|node| NodeHealth {
        node: node.id.clone(),
        name: node.name.clone(),
        state: node.state.clone(),
        passed_ms: None,
        job: None,
    });
    HealthCheckView {
        check: state.health.clone(),
        nodes: nodes.collect(),
    }
}

async fn health(Held(fake): Fake) -> Response {
    Json(fake.read(health_view)).into_response()
}

async fn set_health(Held(fake): Fake, Json(check): Json<HealthCheck>) -> Response {
    let view = fake.change(|state| {
        state.health = Some(check);
        health_view(state)
    });
    Json(view).into_response()
}

async fn remove_health(Held(fake): Fake) -> Response {
    fake.change(|state| state.health = None);
    StatusCode::NO_CONTENT.into_response()
}

async fn create_token(Held(fake): Fake, Json(request): Json<TokenRequest>) -> Response {
    let token = fake.change(|state| {
        let id = format!("t{}", state.tokens.len() + 1);
        let token = TokenView {
            token: Some(format!("{id}.secret")),
            id,
            machine: request.machine,
            expires_ms: u64::from(request.valid_seconds) * 1000,
            used_by: None,
        };
        state.tokens.push(token.clone());
        token
    });
    (StatusCode::CREATED, Json(token)).into_response()
}

async fn delete_token(Held(fake): Fake, Path(id): Path<String>) -> Response {
    let gone = fake.change(|state| {
        let at = state.tokens.iter().position(|token| token.id == id)?;
        Some(state.tokens.remove(at))
    });
    match gone {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => missing("token", &id),
    }
}

async fn images(Held(fake): Fake) -> Response {
    Json(fake.read(|state| state.images.clone())).into_response()
}

/// Keeps the digest of the archive itself, under the name `pushed:N`.
async fn push_image(Held(fake): Fake, body: Body) -> Response {
    let (mut hasher, mut bytes) = (Hasher::default(), 0);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        hasher.update(&piece);
        bytes += piece.len() as u64;
    }
    let image = fake.change(|state| {
        let image = ImageView {
            name: format!("pushed:{}", state.images.len() + 1),
            digest: format!("sha256:{}", hasher.finish()),
            bytes,
            pushed_ms: 0,
            user: "tester".into(),
        };
        state.images.push(image.clone());
        image
    });
    (StatusCode::CREATED, Json(image)).into_response()
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
    job: Option<u64>,
    node: Option<String>,
}

async fn events(
    Held(fake): Fake,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Response {
    let text = |name| {
        headers
            .get(name)
            .and_then(|it: &header::HeaderValue| it.to_str().ok())
    };
    let last: Option<u64> = text("last-event-id").and_then(|id| id.parse().ok());
    let after = last.or(query.after).unwrap_or_default();
    let (job, node) = (query.job.map(JobId), query.node);
    let later = move |fake: &Shared, after: u64| -> Vec<Event> {
        fake.read(|state| {
            let events = state.events.iter().filter(|event| {
                event.seq > after
                    && job.is_none_or(|job| event.job == Some(job))
                    && node.as_deref().is_none_or(|node| {
                        event.node.as_ref().is_some_and(|it| it.as_str() == node)
                    })
            });
            events.cloned().collect()
        })
    };
    if text("accept") != Some("text/event-stream") {
        let page = page(later(&fake, after), query.limit, |event| event.seq);
        return Json(page).into_response();
    }
    let changes = fake.changes();
    let body = stream::unfold((fake, changes, after), move |(fake, mut changes, after)| {
        let later = later.clone();
        async move {
            loop {
                if let Some(event) = later(&fake, after).first() {
                    let data = serde_json::to_string(event).ok()?;
                    let (seq, kind) = (event.seq, &event.kind);
                    let text = format!("id: {seq}\nevent: {kind}\ndata: {data}\n\n");
                    let piece = Ok::<_, std::io::Error>(Bytes::from(text));
                    return Some((piece, (fake, changes, seq)));
                }
                changes.changed().await.ok()?;
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(body)).into_response()
}
