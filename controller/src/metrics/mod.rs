//! What the controller counts, as OpenMetrics: see `docs/metrics.md` for each name.
//!
//! One [`Metrics`] is made at the start and handed to whoever has something to count; there is nothing
//! global. A scrape changes nothing: two scrapers see the same. Labels have few values (queues, routes,
//! states), never users, jobs or whatever a peer may choose.

mod fleet;
mod http;
mod process;
mod queues;
mod recent;
mod store;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use ::store::Stats;
use api::job::JobState;
use axum::http::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use fleet::Fleet;
pub use fleet::FleetState;
use http::Http;
use queues::Queues;
use store::Commits;

/// All metrics of one controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    queues: Queues,
    fleet: Fleet,
    commits: Commits,
    http: Http,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that is open as long as this lives.
#[derive(Debug)]
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A stream of events that is open as long as this lives.
#[derive(Debug)]
pub struct OpenStream(#[expect(dead_code, reason = "counts while it lives")] Open);

/// A connection of a client that is open as long as this lives.
#[derive(Debug)]
pub struct OpenConnection(#[expect(dead_code, reason = "counts while it lives")] Open);

/// A node's tunnel that is open as long as this lives.
#[derive(Debug)]
pub struct OpenTunnel {
    _open: Open,
    closed: prometheus_client::metrics::counter::Counter,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.closed.inc();
    }
}

fn unit(name: &str) -> Unit {
    Unit::Other(name.to_owned())
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stillmetal");
        let queues = Queues::register(&mut registry);
        let fleet = Fleet::register(&mut registry);
        let commits = Commits::register(&mut registry);
        let http = Http::register(&mut registry);
        registry.register_collector(Box::new(process::Process::default()));
        Self {
            registry,
            queues,
            fleet,
            commits,
            http,
        }
    }

    /// All of it as OpenMetrics text. Reads files of `/proc`.
    ///
    /// # Errors
    /// Never, as long as the metrics are what they are: memory takes everything.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// How many jobs of a queue wait and run now.
    pub fn queue(&self, queue: &str, waiting: usize, running: usize) {
        self.queues.now(queue, waiting, running);
    }

    /// Its series end.
    pub fn queue_removed(&self, queue: &str) {
        self.queues.removed(queue);
    }

    /// A queue took a job.
    pub fn job_submitted(&self, queue: &str) {
        self.queues.submitted(queue);
    }

    /// A job is over. `wait`: from its submission until it had its place for the last time, or its end
    /// if it never had one; `run`: from there to its end, `None` if it never had a place.
    ///
    /// # Panics
    /// In debug builds, if `state` is not the end of a job.
    pub fn job_ended(&self, queue: &str, state: JobState, wait: Duration, run: Option<Duration>) {
        debug_assert!(state.is_over(), "{state} is no end");
        self.queues.ended(queue, state, wait, run);
    }

    /// The controller lost a node that worked on a job of this queue, whatever becomes of the job.
    pub fn job_disconnected(&self, queue: &str) {
        self.queues.disconnected(queue);
    }

    /// A job went back to its queue.
    pub fn job_requeued(&self, queue: &str) {
        self.queues.requeued(queue);
    }

    /// How long the scheduler looked for places.
    pub fn scheduled(&self, took: Duration) {
        self.queues.scheduled(took);
    }

    /// How many nodes are in this state now.
    pub fn nodes(&self, state: FleetState, count: usize) {
        self.fleet.nodes(state, count);
    }

    /// How many machines wait for approval.
    pub fn pending_nodes(&self, count: usize) {
        self.fleet.pending(count);
    }

    /// Messages that came on control streams.
    pub fn control_received(&self, messages: u64) {
        self.fleet.received(messages);
    }

    /// Messages that were sent on control streams.
    pub fn control_sent(&self, messages: u64) {
        self.fleet.sent(messages);
    }

    /// A node's tunnel was opened. Keep what this returns as long as it is.
    #[must_use]
    pub fn tunnel_opened(&self) -> OpenTunnel {
        self.fleet.tunnel()
    }

    /// A commit of so many changes was done, and took so long from the call to its return.
    pub fn store_committed(&self, changes: usize, took: Duration) {
        self.commits.done(changes, took);
    }

    /// A call of the store failed; `kind` is one of few words, such as `full`, `unavailable`.
    pub fn store_failed(&self, kind: &'static str) {
        self.commits.failed(kind);
    }

    /// Where to ask the store's writer what it has done.
    pub fn watch_store(&mut self, stats: impl Fn() -> Stats + Send + Sync + 'static) {
        store::watch(&mut self.registry, stats);
    }

    /// A client connected. Keep what this returns as long as it stays so.
    #[must_use]
    pub fn connection_opened(&self) -> OpenConnection {
        OpenConnection(self.http.connection())
    }

    /// A stream of events began. Keep what this returns as long as it lasts.
    #[must_use]
    pub fn stream_opened(&self) -> OpenStream {
        OpenStream(self.http.stream())
    }

    /// A call was answered. `route` is the pattern that it matched.
    pub fn http_answered(&self, method: &Method, route: &'static str, status: u16, took: Duration) {
        self.http.answered(method, route, status, took);
    }

    /// Whoever made a call went away before there was an answer.
    pub fn http_abandoned(&self, route: &'static str) {
        self.http.abandoned(route);
    }
}
