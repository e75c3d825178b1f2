//! What people and programs may ask of the controller: the one handle behind its HTTP API.
//!
//! Each call is answered when what it changed is durable, or not at all.

use api::booking::{BookingRequest, BookingView};
use api::fleet::{
    EnrolAnswer, EnrolRequest, NodeChange, NodeId, NodeView, PendingNode, RenewAnswer,
    TokenRequest, TokenView,
};
use api::health::{HealthCheck, HealthCheckView};
use api::job::{JobId, JobRequest, JobStatus};
use api::queue::{QueueSettings, QueueView};

use crate::refusal::Refusal;

/// Who calls, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The certificate's common name.
    pub user: String,
    pub role: policy::Role,
}

/// Why a job has not started, in codes and in words.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Explanation {
    pub state: api::job::JobState,
    pub reasons: Vec<sched::Reason>,
    /// Milliseconds since the epoch; `None`: not as the nodes are, or not known.
    pub could_start_ms: Option<u64>,
    /// One sentence for each reason.
    pub text: Vec<String>,
}

/// The controller, for those who ask it something. Cheap to clone.
#[allow(async_fn_in_trait, reason = "implemented and used within this package")]
pub trait Desk: Clone + Send + Sync + 'static {
    /// All of them or none. The same `key` of the same user with the same requests gives the jobs of
    /// the first time.
    ///
    /// # Errors
    /// Invalid, forbidden, no such queue, queue full or draining, key reused, store.
    fn submit(
        &self,
        caller: &Caller,
        key: Option<String>,
        requests: Vec<JobRequest>,
    ) -> impl Future<Output = Result<Vec<JobStatus>, Refusal>> + Send;

    /// # Errors
    /// No such job; forbidden for a user who is not its submitter; conflict when it is over.
    fn cancel(
        &self,
        caller: &Caller,
        id: JobId,
        reason: Option<String>,
    ) -> impl Future<Output = Result<JobStatus, Refusal>> + Send;

    /// # Errors
    /// No such job; store.
    fn job(&self, id: JobId) -> impl Future<Output = Result<JobStatus, Refusal>> + Send;

    /// # Errors
    /// No such job; store.
    fn why(&self, id: JobId) -> impl Future<Output = Result<Explanation, Refusal>> + Send;

    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeView>, Refusal>> + Send;

    /// By id or name.
    ///
    /// # Errors
    /// No such node.
    fn node(&self, name: &str) -> impl Future<Output = Result<NodeView, Refusal>> + Send;

    /// # Errors
    /// No such node, forbidden, store.
    fn change_node(
        &self,
        caller: &Caller,
        id: &NodeId,
        change: NodeChange,
    ) -> impl Future<Output = Result<NodeView, Refusal>> + Send;

    /// Its certificate is worth nothing from now on, and its connection ends.
    ///
    /// # Errors
    /// No such node, forbidden, store.
    fn revoke(
        &self,
        caller: &Caller,
        id: &NodeId,
    ) -> impl Future<Output = Result<NodeView, Refusal>> + Send;

    fn pending(&self) -> impl Future<Output = Result<Vec<PendingNode>, Refusal>> + Send;

    /// # Errors
    /// No such node, forbidden.
    fn approve(
        &self,
        caller: &Caller,
        fingerprint: &str,
    ) -> impl Future<Output = Result<PendingNode, Refusal>> + Send;

    /// # Errors
    /// Invalid; a token that is used, late, of another machine, or nobody's: forbidden.
    fn enrol(
        &self,
        address: std::net::SocketAddr,
        request: EnrolRequest,
    ) -> impl Future<Output = Result<EnrolAnswer, Refusal>> + Send;

    /// For a node that shows its certificate.
    ///
    /// # Errors
    /// Invalid, forbidden.
    fn renew(
        &self,
        node: &NodeId,
        csr_pem: &str,
    ) -> impl Future<Output = Result<RenewAnswer, Refusal>> + Send;

    fn queues(&self) -> impl Future<Output = Result<Vec<QueueView>, Refusal>> + Send;

    /// # Errors
    /// Invalid, forbidden, store.
    fn set_queue(
        &self,
        caller: &Caller,
        name: &str,
        settings: QueueSettings,
    ) -> impl Future<Output = Result<QueueView, Refusal>> + Send;

    /// # Errors
    /// No such queue, conflict while jobs wait in it, forbidden, store.
    fn remove_queue(
        &self,
        caller: &Caller,
        name: &str,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn bookings(&self) -> impl Future<Output = Result<Vec<BookingView>, Refusal>> + Send;

    /// # Errors
    /// No such node; conflict with what runs or is booked; forbidden, store.
    fn book(
        &self,
        caller: &Caller,
        request: BookingRequest,
    ) -> impl Future<Output = Result<BookingView, Refusal>> + Send;

    /// # Errors
    /// No such booking; forbidden for a user who did not make it; store.
    fn unbook(&self, caller: &Caller, id: u64) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn health_check(&self) -> impl Future<Output = Result<HealthCheckView, Refusal>> + Send;

    /// `None` ends the checks.
    ///
    /// # Errors
    /// No such queue or image, forbidden, store.
    fn set_health_check(
        &self,
        caller: &Caller,
        check: Option<HealthCheck>,
    ) -> impl Future<Output = Result<HealthCheckView, Refusal>> + Send;

    fn tokens(
        &self,
        caller: &Caller,
    ) -> impl Future<Output = Result<Vec<TokenView>, Refusal>> + Send;

    /// # Errors
    /// Invalid, forbidden, store.
    fn make_token(
        &self,
        caller: &Caller,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenView, Refusal>> + Send;

    /// # Errors
    /// No such token, forbidden, store.
    fn revoke_token(
        &self,
        caller: &Caller,
        id: &str,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}
