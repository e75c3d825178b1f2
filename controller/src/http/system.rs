//! The controller itself: `/healthz`, `/metrics`, `/openapi.json` and `/v1/version`.

use axum::http::StatusCode;
use serde::Serialize;

use super::answer::{bytes_of, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use crate::desk::Desk;
use crate::refusal::Kind;

/// `GET /v1/version`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct VersionView {
    /// Of the controller.
    pub(crate) version: &'static str,
    /// Of the API: the first part of its paths.
    pub(crate) api: &'static str,
}

/// `GET /healthz`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// It takes calls.
    pub(crate) healthy: bool,
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) fn health(&self) -> Answer {
        if self.stop.is_cancelled() {
            return Err(Fault::stopping());
        }
        ok(&Health { healthy: true })
    }

    pub(crate) fn version() -> Answer {
        ok(&VersionView {
            version: env!("CARGO_PKG_VERSION"),
            api: "v1",
        })
    }

    pub(crate) fn openapi(&self) -> Answer {
        Ok(bytes_of(
            StatusCode::OK,
            "application/json",
            self.document.clone(),
        ))
    }

    pub(crate) async fn metrics(&self, _call: Call) -> Answer {
        let metrics = std::sync::Arc::clone(&self.metrics);
        // reads /proc
        let text = tokio::task::spawn_blocking(move || metrics.render()).await;
        match text {
            Ok(Ok(text)) => Ok(bytes_of(StatusCode::OK, OPENMETRICS, text)),
            _ => Err(Fault::new(Kind::Internal, "the metrics cannot be written")),
        }
    }
}
