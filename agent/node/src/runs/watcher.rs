//! Whoever has a series run and wants to know how it goes. What it is told, it is told between runs,
//! never within a window.

use std::collections::BTreeMap;

use api::run::{Attempt, RunStatus};
use api::tool::ToolResults;
use api::work::Document;
use futures_util::future::BoxFuture;

use super::attempt::Made;
use super::metrics::Lack;
use crate::tools::Outcomes;

/// What was kept of a run's artifacts.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) documents: Vec<Document>,
    /// Path in the container → name of its document.
    pub(crate) names: BTreeMap<String, String>,
    /// The first that is not among them.
    pub(crate) lack: Option<Lack>,
}

/// Follows one series.
pub(crate) trait Watcher: Send + Sync {
    /// The container of the next run is there and is started when this returns. After a restart of
    /// the agent the series goes on from what was given here last.
    ///
    /// # Errors
    /// Why the series is to end instead.
    fn starting<'a>(
        &'a self,
        series: &'a RunStatus,
        next: &'a Made,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Looks after a container from its start on; dropped when its run is over.
    fn attend<'a>(&'a self, made: &'a Made) -> BoxFuture<'a, ()>;

    /// Keeps these paths of the container of a run that is over.
    fn collect<'a>(&'a self, run: &'a Attempt, paths: &'a [String]) -> BoxFuture<'a, Collected>;

    /// Keeps what tools saw of a run that is over.
    fn keep_tools(
        &self,
        run: u32,
        outcomes: Outcomes,
    ) -> BoxFuture<'_, (ToolResults, Vec<Document>)>;

    /// A run is over, and its container still there. `documents`: what was kept of it.
    ///
    /// # Errors
    /// Why the series is to end.
    fn over<'a>(
        &'a self,
        run: &'a Attempt,
        certificate: Option<&'a str>,
        documents: Vec<Document>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// The last container goes.
    fn leaving<'a>(&'a self, made: &'a Made) -> BoxFuture<'a, ()>;
}

/// Nobody follows it.
pub(super) struct Nobody;

impl Watcher for Nobody {
    fn starting<'a>(
        &'a self,
        _series: &'a RunStatus,
        _next: &'a Made,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn attend<'a>(&'a self, _made: &'a Made) -> BoxFuture<'a, ()> {
        Box::pin(std::future::pending())
    }

    fn collect<'a>(&'a self, _run: &'a Attempt, _paths: &'a [String]) -> BoxFuture<'a, Collected> {
        // a series of nobody's has none: see `Runs::start`
        Box::pin(std::future::ready(Collected::default()))
    }

    fn keep_tools(
        &self,
        _run: u32,
        _outcomes: Outcomes,
    ) -> BoxFuture<'_, (ToolResults, Vec<Document>)> {
        // nor tools
        Box::pin(std::future::ready((ToolResults::new(), Vec::new())))
    }

    fn over<'a>(
        &'a self,
        _run: &'a Attempt,
        _certificate: Option<&'a str>,
        _documents: Vec<Document>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn leaving<'a>(&'a self, _made: &'a Made) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
