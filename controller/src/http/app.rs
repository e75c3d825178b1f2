//! What the calls work with.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::documents::Documents;
use super::fault::Fault;
use super::feed::Feed;
use super::images::Images;
use crate::metrics::Metrics;

/// What every call ends with.
pub(crate) type Answer = Result<Response<Body>, Fault>;

/// Calls that wait for a job at the same time.
const WAITS: usize = 4096;
/// Streams of events at the same time.
const STREAMS: usize = 1024;
/// Enrolments at the same time: anybody may ask for one.
const ENROLMENTS: usize = 64;

/// Where documents and images are.
pub trait Vault: Documents + Images {}

impl<T: Documents + Images> Vault for T {}

/// What the API stands on.
#[derive(Debug)]
pub struct Parts<D, H, V> {
    pub desk: D,
    pub history: H,
    pub vault: V,
    pub metrics: Arc<Metrics>,
    /// The API's own tasks; they end soon after `stop`.
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct App<D, H, V> {
    pub(crate) desk: D,
    pub(crate) history: H,
    pub(crate) vault: V,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) feed: Arc<Feed>,
    pub(crate) waits: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    /// The OpenAPI document.
    pub(crate) document: bytes::Bytes,
    pub(crate) enrolments: Semaphore,
}

impl<D, H, V> App<D, H, V> {
    pub(crate) fn new(parts: Parts<D, H, V>, feed: Arc<Feed>) -> Self {
        Self {
            desk: parts.desk,
            history: parts.history,
            vault: parts.vault,
            metrics: parts.metrics,
            tracker: parts.tracker,
            stop: parts.stop,
            feed,
            waits: Semaphore::new(WAITS),
            streams: Arc::new(Semaphore::new(STREAMS)),
            document: super::openapi::DOCUMENT.clone(),
            enrolments: Semaphore::new(ENROLMENTS),
        }
    }
}
