//! The API's calls.

use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::{Open, unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 4.0, 10))
}

#[derive(Debug)]
pub(super) struct Http {
    requests: Family<Answer, Counter>,
    took: Family<Route, Histogram>,
    abandoned: Family<Route, Counter>,
    connections: Gauge,
    opened: Counter,
    streams: Gauge,
}

impl Http {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let http = Self {
            requests: Family::default(),
            took: Family::new_with_constructor(short),
            abandoned: Family::default(),
            connections: Gauge::default(),
            opened: Counter::default(),
            streams: Gauge::default(),
        };
        registry.register_with_unit(
            "http",
            "Calls that were answered, by route and status",
            unit("requests"),
            http.requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "From the head of a call until the head of its answer",
            Unit::Seconds,
            http.took.clone(),
        );
        registry.register_with_unit(
            "http_abandoned",
            "Calls whose caller went away before there was an answer",
            unit("requests"),
            http.abandoned.clone(),
        );
        registry.register_with_unit(
            "http",
            "Clients that are connected now",
            unit("connections"),
            http.connections.clone(),
        );
        registry.register_with_unit(
            "http_opened",
            "Connections that clients have made",
            unit("connections"),
            http.opened.clone(),
        );
        registry.register_with_unit(
            "http_event",
            "Streams of events that are open now",
            unit("streams"),
            http.streams.clone(),
        );
        http
    }

    pub(super) fn answered(
        &self,
        method: &Method,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let answer = Answer {
            method: word(method),
            route,
            status,
        };
        self.requests.get_or_create(&answer).inc();
        let took = took.as_secs_f64();
        self.took.get_or_create(&Route { route }).observe(took);
    }

    pub(super) fn abandoned(&self, route: &'static str) {
        self.abandoned.get_or_create(&Route { route }).inc();
    }

    pub(super) fn connection(&self) -> Open {
        self.opened.inc();
        Open::new(&self.connections)
    }

    pub(super) fn stream(&self) -> Open {
        Open::new(&self.streams)
    }
}

/// A peer may make up methods, but not labels.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
