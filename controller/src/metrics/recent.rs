//! The highest value of the last minutes: what a scrape that reset its maximum used to tell, without
//! the reset.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};
use tokio::time::Instant;

/// Values are remembered for one to two of these.
const SPAN: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Spans {
    /// Of the present span.
    begun: Instant,
    present: f64,
    before: f64,
}

/// A gauge; 0 when nothing was observed lately.
#[derive(Debug, Clone)]
pub(super) struct RecentMax(Arc<Mutex<Spans>>);

impl Default for RecentMax {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Spans {
            begun: Instant::now(),
            present: 0.0,
            before: 0.0,
        })))
    }
}

impl Spans {
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.begun);
        if passed < SPAN {
            return;
        }
        self.before = if passed < 2 * SPAN { self.present } else { 0.0 };
        self.present = 0.0;
        self.begun = now;
    }
}

impl RecentMax {
    pub(super) fn observe(&self, value: f64) {
        self.with(|spans| spans.present = spans.present.max(value));
    }

    pub(super) fn value(&self) -> f64 {
        self.with(|spans| spans.present.max(spans.before))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Spans) -> T) -> T {
        // each step leaves it whole
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.turn(Instant::now());
        look(&mut spans)
    }
}

impl TypedMetric for RecentMax {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for RecentMax {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.value())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
