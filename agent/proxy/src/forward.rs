//! One request: whose it is, whether it may pass, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use hop::headers::{set_upgrade, strip_hop_by_hop};
use hop::{BusyGuard, Held};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use policy::{BodyRule, Endpoint, Role};

use crate::audit::Audit;
use crate::engine_client::EngineClient;
use crate::peer::{Line, Peer};
use crate::respond::Refusal;
use crate::service::Shared;
use crate::traits::{Body, BodyError, Subject};
use crate::{body, create, events, headers, inspect, start, store, subjects, upgrade};

/// The node's own API.
const OWN: &str = "/stillmetal/";

/// What every step of one request needs.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) line: Arc<Line>,
    pub(crate) engine: EngineClient,
}

/// Serves one request of a known peer.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    peer: &Peer,
    line: &Arc<Line>,
    busy: BusyGuard,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut audit = Audit::begin(request.method(), request.uri(), peer);
    let response = if request.uri().path().starts_with(OWN) {
        let subject = Subject(Arc::clone(&peer.subject));
        request.extensions_mut().insert(subject);
        shared.parts.node_api.handle(peer.role, request).await
    } else {
        proxied(shared, peer.role, line, &busy, request, &mut audit)
            .await
            .unwrap_or_else(Refusal::into_response)
    };
    audit.answered(response.status());
    // The connection counts as busy until the last byte of the answer.
    response.map(|body| Held::new(body, busy).boxed())
}

async fn proxied(
    shared: &Arc<Shared>,
    role: Role,
    line: &Arc<Line>,
    busy: &BusyGuard,
    mut request: Request<Incoming>,
    audit: &mut Audit,
) -> Result<Response<Body>, Refusal> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("", |target| target.as_str());
    let route = policy::route(role, request.method().as_str(), target)?;
    audit.routed(&route.target);
    for content_type in request.headers().get_all(CONTENT_TYPE) {
        let content_type = content_type
            .to_str()
            .map_err(|_| Refusal::bad_request("the Content-Type is not plain text"))?;
        policy::check_content_type(Some(content_type))?;
    }
    let protocol = upgrade::asked(request.headers(), &route.endpoint)?;
    let engine = EngineClient::open(shared)?;
    let context = Context {
        shared: Arc::clone(shared),
        line: Arc::clone(line),
        engine,
    };
    let only_ends = subjects::only_ends(&route.endpoint);
    subjects::check(&context.engine, role, &route.subjects, only_ends).await?;
    subjects::check_exec(&context.engine, role, &route.endpoint).await?;

    let client = protocol.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (parts, incoming) = request.into_parts();
    let body = body::prepare(
        shared,
        role,
        &route.endpoint,
        &route.body,
        protocol.is_some(),
        incoming,
    )
    .await?;
    if let Some(checked) = body.checked() {
        subjects::check(&context.engine, role, &checked.subjects, false).await?;
        subjects::check_volumes(&context.engine, role, &checked.volumes).await?;
    }
    if protocol.is_none() {
        upgrade::without(&context.engine, &route, body.checked()).await?;
    }
    let head = Head::new(
        parts.method,
        &route.target,
        &parts.headers,
        &route.body,
        protocol,
    )?;

    let response = match &route.endpoint {
        Endpoint::ContainerCreate => return create::run(context, head, &route.target, body).await,
        Endpoint::ContainerStart { id } | Endpoint::ContainerRestart { id } => {
            return start::run(context, id.clone(), head.request(body.into_body())).await;
        }
        _ => context.engine.send(head.request(body.into_body())).await?,
    };
    match (&route.endpoint, client) {
        (_, Some(client)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgrade::hand_over(&context, busy, client, response)
        }
        (Endpoint::ContainerInspect { .. }, _) if response.status() == StatusCode::OK => {
            inspect::restore(&context, response).await
        }
        (Endpoint::Events, _) if response.status() == StatusCode::OK => {
            Ok(events::answer(shared, &route, response))
        }
        (endpoint, _) if store::is_filled_by(endpoint) => {
            let gate = Arc::clone(&shared.parts.engine);
            Ok(store::explain(response, move || gate.store()))
        }
        _ => Ok(stream(response)),
    }
}

/// A request to the engine, but for its body.
pub(crate) struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    fn new(
        method: Method,
        target: &str,
        from: &HeaderMap,
        rule: &BodyRule,
        protocol: Option<HeaderValue>,
    ) -> Result<Self, Refusal> {
        let uri = target
            .parse()
            .map_err(|_| Refusal::bad_request("the request target is not a valid URI"))?;
        let mut headers = headers::request(from);
        // What was checked as JSON is read as JSON.
        if matches!(rule, BodyRule::Json { .. }) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(protocol) = protocol {
            set_upgrade(&mut headers, protocol);
        }
        Ok(Self {
            method,
            uri,
            headers,
        })
    }

    pub(crate) fn request(self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// The engine's answer as it comes.
pub(crate) fn stream<B>(response: Response<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = BodyError> + Send + Sync + 'static,
{
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    Response::from_parts(without_extensions(parts), body.boxed())
}

/// Extensions hold hyper's own business with the engine's connection.
pub(crate) fn without_extensions(
    mut parts: hyper::http::response::Parts,
) -> hyper::http::response::Parts {
    parts.extensions = hyper::http::Extensions::new();
    parts.version = hyper::Version::HTTP_11;
    parts
}
