//! `/nodes/NODE/…`: a node's own router, for people.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use hop::headers::{asked_upgrade, set_upgrade, strip_hop_by_hop};
use hop::{Answer, Hijack, Resets, SocketWatch, Traffic};
use hyper::StatusCode;
use hyper::body::{Frame, SizeHint};
use hyper::header::{HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;

use super::audit::Record;
use super::call::{Recipient, Relay};
use super::places::Place;
use super::refuse::Reader;
use crate::desk::Caller;
use crate::refusal::{Kind, Refusal};

/// The routes. A request must have a [`Caller`] among its extensions, or it is refused; it should have
/// the [`SocketWatch`] of its connection, so that a client which vanishes after it has ended its half
/// is noticed.
pub fn router(relay: Relay) -> Router {
    Router::new()
        .route("/nodes/{node}/{*path}", any(handle))
        .with_state(relay)
}

async fn handle(State(relay): State<Relay>, request: Request) -> Result<Response, Infallible> {
    let target = request.uri().path_and_query().map_or("", |it| it.as_str());
    let (node, target) = split(target).unwrap_or(("", target));
    let reader = Reader::of(target);
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        let refusal = Refusal::new(Kind::Unauthenticated, "no client certificate was shown");
        return Ok(reader.refuse(&refusal));
    };
    let (node, target) = (node.to_owned(), target.to_owned());
    let audit = Arc::clone(&relay.shared.audit);
    let record = Record::begin(audit, caller.clone(), &node, request.method(), &target);
    let errand = Errand {
        relay,
        caller,
        node,
        target,
        record,
    };
    Ok(errand.run(request, reader).await)
}

/// Node and target of `/nodes/NODE/TARGET`. Neither is decoded: names of nodes need no escapes, and
/// the target is the node's business.
fn split(target: &str) -> Option<(&str, &str)> {
    let rest = target.strip_prefix("/nodes/")?;
    let (node, _) = rest.split_once('/')?;
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let named = !node.is_empty() && node.bytes().all(known);
    named.then(|| (node, &rest[node.len()..]))
}

/// One request on its way.
struct Errand {
    relay: Relay,
    caller: Caller,
    node: String,
    target: String,
    record: Record,
}

impl Errand {
    async fn run(mut self, request: Request, reader: Reader) -> Response {
        match self.forward(request).await {
            Ok(Forwarded::Answer(answer, place)) => {
                self.record.answered(answer.status());
                answer.map(|answer| {
                    Body::new(Counted {
                        traffic: Arc::clone(&self.record.traffic),
                        direction: Traffic::add_output,
                        body: answer,
                        _until_the_end: Some((place, self.record)),
                    })
                })
            }
            Ok(Forwarded::Hijack(response, hijack)) => {
                self.record.answered(response.status());
                let tasks = self.relay.shared.tasks.clone();
                tasks.spawn(hijack.run(self.relay, self.record));
                response
            }
            Err(refusal) => {
                let response = reader.refuse(&refusal);
                self.record.answered(response.status());
                response
            }
        }
    }

    async fn forward(&self, mut request: Request) -> Result<Forwarded, Refusal> {
        let shared = &self.relay.shared;
        if self.node.is_empty() {
            return Err(Refusal::new(
                Kind::NoSuchNode,
                "names of nodes are made of letters, digits, `-`, `_` and `.`",
            ));
        }
        let place = shared.places.enter(&self.node, &self.caller.user).await;
        let place = place.ok_or_else(|| {
            Refusal::new(
                Kind::Busy,
                format!(
                    "too many requests to node {} at once, of {} or of all",
                    self.node, self.caller.user
                ),
            )
            .next("end some, such as `docker logs -f`, or try again")
        })?;
        *request.uri_mut() = self
            .target
            .parse()
            .map_err(|_| Refusal::new(Kind::Invalid, "the request's target is no valid path"))?;
        let client = asked_upgrade(request.headers())
            .is_some()
            .then(|| hyper::upgrade::on(&mut request));
        let socket = request.extensions_mut().remove::<SocketWatch>();
        let request = request.map(|body| Counted {
            traffic: Arc::clone(&self.record.traffic),
            direction: Traffic::add_input,
            body,
            _until_the_end: None,
        });
        let to = Recipient {
            node: &self.node,
            role: self.caller.role,
            user: &self.caller.user,
        };
        // Some requests wait for a container to end: the client says how long it has patience.
        let called = self.relay.call(to, request, None).await;
        let answer = called.map_err(|error| error.refusal())?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Forwarded::Answer(passed_on(answer), place));
        }
        let client = client.ok_or_else(|| {
            Refusal::new(Kind::NodeFailed, "the node changed protocols without cause")
        })?;
        Ok(hand_over(answer, client, socket, place))
    }
}

enum Forwarded {
    Answer(Response<Answer>, Place),
    Hijack(Response, Box<Hijacked>),
}

/// The node's answer without what concerned its stream, which hyper has put among the extensions too.
fn passed_on<B>(answer: Response<B>) -> Response<B> {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    strip_hop_by_hop(response.headers_mut());
    response
}

fn hand_over(
    mut answer: Response<Answer>,
    client: OnUpgrade,
    socket: Option<SocketWatch>,
    place: Place,
) -> Forwarded {
    let protocol = answer.headers().get(UPGRADE).cloned();
    let protocol = protocol.unwrap_or_else(|| HeaderValue::from_static("tcp"));
    let server = hyper::upgrade::on(&mut answer);
    let (mut head, answer) = {
        let response = passed_on(answer);
        let (parts, answer) = response.into_parts();
        (Response::from_parts(parts, Body::empty()), answer)
    };
    set_upgrade(head.headers_mut(), protocol);
    let hijack = Hijack {
        client,
        server,
        answer,
        // A node that has said everything ends its half; a reset means that it has not.
        resets: Resets::AreErrors,
    };
    Forwarded::Hijack(
        head,
        Box::new(Hijacked {
            hijack,
            socket,
            place,
        }),
    )
}

/// A connection that no longer talks HTTP.
struct Hijacked {
    hijack: Hijack,
    socket: Option<SocketWatch>,
    place: Place,
}

impl Hijacked {
    async fn run(self: Box<Self>, relay: Relay, record: Record) {
        let Self {
            hijack,
            socket,
            place,
        } = *self;
        let limits = &relay.shared.limits;
        let passing = hijack.run(limits.handshake, limits.half_closed_idle, &record.traffic);
        let gone = async {
            match socket {
                Some(socket) => socket.gone().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = relay.shared.stop.cancelled() => {}
            () = gone => tracing::debug!("client of a hijacked stream vanished"),
            ended = passing => if let Err(error) = ended {
                tracing::debug!(error = %crate::chain(&error), "hijacked stream broke");
            }
        }
        drop(place);
    }
}

/// A body whose bytes are counted.
struct Counted<B> {
    traffic: Arc<Traffic>,
    direction: fn(&Traffic, usize),
    body: B,
    /// The request is over with the answer's body.
    _until_the_end: Option<(Place, Record)>,
}

impl<B> hyper::body::Body for Counted<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            (this.direction)(&this.traffic, data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn node_and_target_are_told_apart() {
        assert_eq!(
            split("/nodes/n1/v1.45/containers/json?all=1"),
            Some(("n1", "/v1.45/containers/json?all=1"))
        );
        assert_eq!(split("/nodes/lab.7/_ping"), Some(("lab.7", "/_ping")));
        assert_eq!(split("/nodes/n1/a%2Fb//c"), Some(("n1", "/a%2Fb//c")));
        assert_eq!(split("/nodes/n1"), None);
        assert_eq!(split("/nodes//_ping"), None);
        assert_eq!(split("/nodes/a%2Fb/_ping"), None);
        assert_eq!(split("/nodes/a?b/_ping"), None);
        assert_eq!(split("/v1/jobs"), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(node in "[a-zA-Z0-9._-]{1,64}", target in "/[ -~]{0,80}") {
            let whole = format!("/nodes/{node}{target}");
            prop_assert_eq!(split(&whole), Some((node.as_str(), target.as_str())));
        }
    }
}
