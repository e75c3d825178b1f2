//! What the proxy needs from the node it runs on: where containers may run, the node's own API and
//! the engine's state. `agent/node` implements them; the tests have fakes.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use policy::{Denial, NodeFacts, Pin, Role};

/// Why a body that was being streamed broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer.
pub type Body = BoxBody<Bytes, BodyError>;

/// CPUs that were taken for a container which does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Goes into `HostConfig.CgroupParent` of the create request.
    pub cgroup_parent: String,
    /// Goes into `HostConfig.Runtime`; `None`: the engine's default.
    pub runtime: Option<&'static str>,
    /// Names the claim in [`Placement::created`] and [`Placement::abandoned`].
    pub token: String,
}

/// Who may run where.
pub trait Placement: Send + Sync + 'static {
    /// The CPU sets that `policy` judges a request against.
    fn facts(&self) -> NodeFacts;

    /// Takes the CPUs before a create is forwarded. Exactly one of [`Placement::created`] and
    /// [`Placement::abandoned`] follows, whatever becomes of the client.
    fn claim<'a>(
        &'a self,
        pin: &'a Pin,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Claimed, Denial>>;

    /// The engine made the container.
    fn created<'a>(&'a self, token: &'a str, container_id: &'a str) -> BoxFuture<'a, ()>;

    /// The engine refused the create, or did not answer it. In the second case the container may
    /// exist nevertheless: implementations reconcile with the engine.
    fn abandoned<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()>;

    /// Before a start or restart is forwarded: takes the CPUs again if the container has a claim.
    fn starting<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<(), Denial>>;

    /// The engine answered that start or restart, whatever the answer was.
    fn started<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, ()>;

    /// Puts back what the user asked for into an inspect answer (`HostConfig.CgroupParent`,
    /// `CpusetCpus`, `CpusetMems`, `Runtime`), and adds what the node knows of its last run.
    fn restore_view(&self, inspect: &mut serde_json::Value);
}

/// Who asks, by the certificate's common name: in the extensions of each request that a [`NodeApi`]
/// gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(pub Arc<str>);

/// Everything under `/stillmetal/`.
pub trait NodeApi: Send + Sync + 'static {
    /// Answers one request; limits on the request's body are the implementation's duty.
    fn handle(&self, role: Role, request: Request<Incoming>) -> BoxFuture<'_, Response<Body>>;
}

/// Whether the engine can take requests now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineStatus {
    /// It listens on this unix socket.
    Ready(PathBuf),
    /// It does not; `why` is told to the client.
    NotReady {
        /// E.g. "containerd is being started".
        why: String,
    },
}

/// How much the file system of the image store holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSpace {
    pub free: u64,
    pub total: u64,
}

/// The engine's state, asked once per request.
pub trait EngineGate: Send + Sync + 'static {
    /// The state now; must not block.
    fn engine(&self) -> EngineStatus;

    /// The space of its image store now, if that can be told.
    fn store(&self) -> Option<StoreSpace>;
}
