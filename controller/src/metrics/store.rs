//! The store, as its callers see it and as its writer counts.

use std::fmt;
use std::time::Duration;

use ::store::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::unit;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    kind: &'static str,
}

#[derive(Debug)]
pub(super) struct Commits {
    took: Histogram,
    changes: Histogram,
    failures: Family<Failure, Counter>,
}

impl Commits {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let commits = Self {
            took: Histogram::new(exponential_buckets(0.000_1, 3.0, 12)),
            changes: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            failures: Family::default(),
        };
        registry.register_with_unit(
            "store_commit",
            "From the call of a commit until it was durable",
            Unit::Seconds,
            commits.took.clone(),
        );
        registry.register_with_unit(
            "store_commit",
            "Changes of a commit",
            unit("changes"),
            commits.changes.clone(),
        );
        registry.register_with_unit(
            "store",
            "Calls of the store that failed, by kind",
            unit("errors"),
            commits.failures.clone(),
        );
        commits
    }

    pub(super) fn done(&self, changes: usize, took: Duration) {
        self.took.observe(took.as_secs_f64());
        // exact up to 2^53 changes of one commit
        let changes = u32::try_from(changes).map_or(f64::MAX, f64::from);
        self.changes.observe(changes);
    }

    pub(super) fn failed(&self, kind: &'static str) {
        self.failures.get_or_create(&Failure { kind }).inc();
    }
}

struct Writer<F>(F);

impl<F> fmt::Debug for Writer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

pub(super) fn watch(registry: &mut Registry, stats: impl Fn() -> Stats + Send + Sync + 'static) {
    // collectors get the registry's prefix like metrics
    registry.register_collector(Box::new(Writer(stats)));
}

impl<F: Fn() -> Stats + Send + Sync + 'static> Collector for Writer<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = (self.0)();
        let counters = [
            (
                "transactions",
                "Transactions that the store's writer committed",
                stats.transactions,
            ),
            (
                "calls",
                "Commits that the store's writer did, several in a transaction",
                stats.calls,
            ),
            (
                "failures",
                "Commits that the store's writer refused, or failed to do",
                stats.failures,
            ),
            (
                "changes",
                "Changes that the store's writer made durable",
                stats.changes,
            ),
        ];
        for (name, help, value) in counters {
            let unit = unit(name);
            let help = format!("{help}.");
            let encoder = encoder.encode_descriptor(
                "store_writer",
                &help,
                Some(&unit),
                MetricType::Counter,
            )?;
            ConstCounter::new(value).encode(encoder)?;
        }
        let busy = encoder.encode_descriptor(
            "store_writer_busy",
            "Time that the store's writer spent in transactions.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        ConstCounter::new(stats.busy.as_secs_f64()).encode(busy)?;
        let unit = unit("commits");
        let waiting = encoder.encode_descriptor(
            "store_writer_waiting",
            "Commits that wait for the store's writer now.",
            Some(&unit),
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(stats.waiting).unwrap_or(i64::MAX)).encode(waiting)
    }
}
