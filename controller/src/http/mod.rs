//! The controller's HTTP API: `/v1`, `/healthz`, `/metrics` and `/openapi.json`.
//!
//! One table ([`Operation`]) says where each call is, who may make it and what it takes; the router,
//! the checks and `openapi.json` are made from it. Whatever is not answered as asked is answered with
//! `application/problem+json`: what, where, why, and what to do next. Every call that changes
//! something and every refused call leaves a line in the audit log.
//!
//! Who calls is said by whoever accepted the connection, in the extension [`Peer`]. TLS, accepting and
//! the deadline for a request's head are not done here; nor is anything decided that depends on the
//! controller's state: that is the [`Desk`]'s.

pub mod fakes;

mod answer;
mod app;
mod audit;
mod bookings;
mod call;
mod documents;
mod edge;
mod enrol;
mod events;
mod fault;
mod feed;
mod health;
mod history;
mod images;
mod jobs;
mod nodes;
mod openapi;
mod operation;
mod peer;
mod query;
mod queues;
mod range;
mod strict;
mod system;
mod tokens;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::routing::{MethodFilter, on};

pub use app::{Parts, Vault};
pub use documents::Documents;
pub use history::History;
pub use images::{Archive, ByteStream, Images};
pub use openapi::openapi;
pub use operation::Operation;
pub use peer::{Access, Peer};

use crate::desk::Desk;
use crate::refusal::Kind;
use app::{Answer, App};
use call::Call;
use edge::{About, Edge, admit, no_peer, peer_of};
use fault::Fault;
use feed::Feed;

/// The whole API. Has a fallback of its own: what is merged with it must have none.
///
/// Starts a task on `parts.tracker`, so it needs a runtime.
pub fn router<D: Desk, H: History, V: Vault>(parts: Parts<D, H, V>) -> Router {
    let feed = Arc::new(Feed::new(*parts.history.seen().borrow()));
    let reading = Arc::clone(&feed).run(parts.history.clone(), parts.stop.clone());
    parts.tracker.spawn(reading);
    let app = Arc::new(App::new(parts, feed));
    let mut router = Router::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        // the table has methods of HTTP only
        let Ok(filter) = MethodFilter::try_from(spec.method) else {
            continue;
        };
        let handler = move |State(app): State<Arc<App<D, H, V>>>, request: Request| async move {
            app.run(operation, request).await
        };
        router = router.route(spec.path, on(filter, handler));
    }
    router
        .fallback(no_such_route::<D, H, V>)
        .method_not_allowed_fallback(wrong_method::<D, H, V>)
        .with_state(app)
}

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    fn edge(&self) -> Edge {
        Edge {
            metrics: Arc::clone(&self.metrics),
        }
    }

    async fn run(&self, operation: Operation, request: Request) -> Response<Body> {
        let spec = operation.spec();
        let Some(peer) = peer_of(&request) else {
            return no_peer(request.uri().path());
        };
        let about = About {
            route: spec.path,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            peer: peer.clone(),
            audited: spec.changes,
            within: spec.within,
        };
        self.edge()
            .around(about, async {
                admit(&peer, spec.access)?;
                let call = Call::read(request, peer, &spec).await?;
                self.answer(operation, call).await
            })
            .await
    }

    async fn answer(&self, operation: Operation, call: Call) -> Answer {
        match operation {
            Operation::Health => self.health(),
            Operation::OpenApi => self.openapi(),
            Operation::Metrics => self.metrics(call).await,
            Operation::Version => Self::version(),
            Operation::Enrol => self.enrol(call).await,
            Operation::Renew => self.renew(call).await,
            Operation::Submit => self.submit(call).await,
            Operation::SubmitBatch => self.submit_batch(call).await,
            Operation::Jobs => self.jobs(call).await,
            Operation::Job => self.job(call).await,
            Operation::Why => self.why(call).await,
            Operation::Cancel => self.cancel(call).await,
            Operation::Document => self.document(call).await,
            Operation::Logs => self.logs(call).await,
            Operation::Nodes => self.nodes(call).await,
            Operation::Pending => self.pending_nodes(call).await,
            Operation::Approve => self.approve(call).await,
            Operation::Node => self.node(call).await,
            Operation::ChangeNode => self.change_node(call).await,
            Operation::RevokeNode => self.revoke_node(call).await,
            Operation::Queues => self.queues(call).await,
            Operation::SetQueue => self.set_queue(call).await,
            Operation::RemoveQueue => self.remove_queue(call).await,
            Operation::Bookings => self.bookings(call).await,
            Operation::Book => self.book(call).await,
            Operation::Unbook => self.unbook(call).await,
            Operation::HealthCheck => self.health_check(call).await,
            Operation::SetHealthCheck => self.set_health_check(call).await,
            Operation::RemoveHealthCheck => self.remove_health_check(call).await,
            Operation::Tokens => self.tokens(call).await,
            Operation::MakeToken => self.make_token(call).await,
            Operation::RevokeToken => self.revoke_token(call).await,
            Operation::Images => self.images(call).await,
            Operation::PushImage => self.push_image(call).await,
            Operation::Events => self.events(call).await,
        }
    }

    /// A call that is not in the table. Who has no certificate is not told what is.
    async fn lost(&self, request: Request, fault: Fault, public: bool) -> Response<Body> {
        let Some(peer) = peer_of(&request) else {
            return no_peer(request.uri().path());
        };
        let about = About {
            route: "-",
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            peer: peer.clone(),
            audited: false,
            within: None,
        };
        let access = if public {
            Access::Everybody
        } else {
            Access::Client
        };
        let answer = async {
            admit(&peer, access)?;
            Err(fault)
        };
        self.edge().around(about, answer).await
    }
}

async fn no_such_route<D: Desk, H: History, V: Vault>(
    State(app): State<Arc<App<D, H, V>>>,
    request: Request,
) -> Response<Body> {
    let fault = Fault::new(
        Kind::NoSuchRoute,
        format!("there is no {}", audit::escape(request.uri().path())),
    );
    app.lost(request, fault, false).await
}

async fn wrong_method<D: Desk, H: History, V: Vault>(
    State(app): State<Arc<App<D, H, V>>>,
    request: Request,
) -> Response<Body> {
    let path = request.uri().path();
    let public = Operation::ALL.into_iter().any(|operation| {
        let spec = operation.spec();
        spec.access == Access::Everybody && spec.path == path
    });
    let fault = Fault::wrong_method(&audit::escape(request.method().as_str()));
    app.lost(request, fault, public).await
}
