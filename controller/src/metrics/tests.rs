//! What a scraper reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use api::job::JobState;
use axum::http::Method;

use super::process::{cpu, resident, threads};
use super::queues::ENDS;
use super::*;

/// Name and sorted labels of a series, as text.
type Series = String;

/// OpenMetrics text, read strictly (OpenMetrics 1.0 §ABNF and the rules about it).
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    values: BTreeMap<Series, f64>,
}

impl Scrape {
    fn of(metrics: &Metrics) -> Self {
        Self::read(&metrics.render().unwrap())
    }

    fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
        let mut family = String::new();
        let mut closed = BTreeSet::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').unwrap();
                let (name, text) = rest.split_once(' ').unwrap();
                if name != family {
                    assert!(closed.insert(name.to_owned()), "{name} comes twice");
                    family = name.to_owned();
                }
                match word {
                    "HELP" => assert!(
                        text.ends_with('.') && !text.contains(['\\', '\n']),
                        "{line}"
                    ),
                    "TYPE" => {
                        assert!(["counter", "gauge", "histogram"].contains(&text), "{line}");
                        scrape.types.insert(name.to_owned(), text.to_owned());
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{text}")), "{line}"),
                    other => panic!("{other}: {line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let kind = scrape.types[&family].as_str();
            let suffix = name
                .strip_prefix(&family)
                .expect("samples follow their family");
            let known: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            assert!(known.contains(&suffix), "{line}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            check_labels(series);
            let value: f64 = value.parse().unwrap();
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            let before = scrape.values.insert(series.to_owned(), value);
            assert_eq!(before, None, "{line} comes twice");
        }
        scrape.check_histograms();
        scrape
    }

    /// Buckets grow, and the last one is the count.
    fn check_histograms(&self) {
        let mut last: HashMap<String, (f64, f64)> = HashMap::new();
        let mut buckets: Vec<(String, f64, f64)> = Vec::new();
        for (series, value) in &self.values {
            let Some((name, labels)) = series.split_once("_bucket{") else {
                continue;
            };
            let labels = labels.trim_end_matches('}');
            let (others, le): (Vec<_>, Vec<_>) =
                labels.split(',').partition(|l| !l.starts_with("le="));
            let le = le[0].trim_start_matches("le=").trim_matches('"');
            let le = le.replace("+Inf", "inf").parse().unwrap();
            buckets.push((format!("{name}|{}", others.join(",")), le, *value));
        }
        buckets.sort_by(|a, b| (&a.0, a.1).partial_cmp(&(&b.0, b.1)).unwrap());
        for (key, le, value) in buckets {
            let (_, before) = last.get(&key).copied().unwrap_or((0.0, 0.0));
            assert!(value >= before, "{key} le={le}");
            last.insert(key, (le, value));
        }
        for (key, (le, value)) in last {
            assert!(le.is_infinite(), "{key} has no +Inf");
            let (name, labels) = key.split_once('|').unwrap();
            let count = match labels {
                "" => format!("{name}_count"),
                labels => format!("{name}_count{{{labels}}}"),
            };
            assert_eq!(self.values.get(&count), Some(&value), "{key}");
        }
    }

    fn get(&self, series: &str) -> f64 {
        let value = self.values.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {:#?}", self.values))
    }
}

fn check_labels(series: &str) {
    let Some((_, labels)) = series.split_once('{') else {
        return;
    };
    let labels = labels.strip_suffix('}').unwrap();
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{series}"
        );
        let mut escaped = false;
        let end = value
            .char_indices()
            .find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            })
            .unwrap()
            .0;
        rest = value[end + 1..].trim_start_matches(',');
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn jobs_are_counted_by_queue_and_outcome() {
    let metrics = Metrics::new();
    metrics.queue("fast", 3, 2);
    for _ in 0..4 {
        metrics.job_submitted("fast");
    }
    metrics.job_ended("fast", JobState::Done, seconds(2), Some(seconds(5)));
    metrics.job_ended("fast", JobState::Done, seconds(1), Some(seconds(7)));
    metrics.job_ended("fast", JobState::TimedOut, seconds(9), None);
    metrics.job_disconnected("fast");
    metrics.job_requeued("fast");
    metrics.scheduled(Duration::from_millis(1));
    let scrape = Scrape::of(&metrics);
    for (series, value) in [
        ("queue_waiting_jobs{queue=\"fast\"}", 3.0),
        ("queue_running_jobs{queue=\"fast\"}", 2.0),
        ("queue_all_jobs{queue=\"fast\"}", 5.0),
        ("queue_submitted_jobs_total{queue=\"fast\"}", 4.0),
        (
            "queue_ended_jobs_total{queue=\"fast\",outcome=\"success\"}",
            2.0,
        ),
        (
            "queue_ended_jobs_total{queue=\"fast\",outcome=\"timed_out\"}",
            1.0,
        ),
        (
            "queue_ended_jobs_total{queue=\"fast\",outcome=\"lost\"}",
            0.0,
        ),
        ("queue_disconnects_total{queue=\"fast\"}", 1.0),
        ("queue_requeued_jobs_total{queue=\"fast\"}", 1.0),
        ("queue_wait_seconds_count{queue=\"fast\"}", 3.0),
        ("queue_wait_seconds_sum{queue=\"fast\"}", 12.0),
        ("queue_wait_seconds_bucket{le=\"3.0\",queue=\"fast\"}", 2.0),
        ("queue_run_seconds_count{queue=\"fast\"}", 2.0),
        ("queue_run_seconds_sum{queue=\"fast\"}", 12.0),
        ("queue_total_seconds_sum{queue=\"fast\"}", 24.0),
        ("queue_wait_max_seconds{queue=\"fast\"}", 9.0),
        ("queue_run_max_seconds{queue=\"fast\"}", 7.0),
        ("queue_total_max_seconds{queue=\"fast\"}", 9.0),
        ("scheduler_pass_seconds_count", 1.0),
    ] {
        assert_eq!(
            scrape.get(&format!("stillmetal_{series}")),
            value,
            "{series}"
        );
    }
    metrics.queue_removed("fast");
    let text = metrics.render().unwrap();
    assert!(!text.contains("fast"), "{text}");
}

#[test]
fn a_scrape_changes_nothing() {
    let metrics = Metrics::new();
    metrics.queue("q", 1, 1);
    metrics.job_ended("q", JobState::Failed, seconds(1), Some(seconds(1)));
    let first = Scrape::of(&metrics).values;
    let second = Scrape::of(&metrics).values;
    for (series, value) in first {
        // the process itself goes on
        if !series.starts_with("stillmetal_process_") {
            assert_eq!(second.get(&series), Some(&value), "{series}");
        }
    }
}

#[test]
fn all_series_of_a_queue_are_there_from_the_first_mention() {
    let metrics = Metrics::new();
    metrics.queue("new", 0, 0);
    let scrape = Scrape::of(&metrics);
    for state in ENDS {
        let outcome = match state {
            JobState::Done => "success".to_owned(),
            JobState::Failed => "failure".to_owned(),
            state => state.as_str().replace('-', "_"),
        };
        let series = format!("queue_ended_jobs_total{{queue=\"new\",outcome=\"{outcome}\"}}");
        assert_eq!(scrape.get(&format!("stillmetal_{series}")), 0.0);
    }
    assert_eq!(
        scrape.get("stillmetal_queue_wait_max_seconds{queue=\"new\"}"),
        0.0
    );
    assert_eq!(
        scrape.get("stillmetal_queue_disconnects_total{queue=\"new\"}"),
        0.0
    );
}

#[tokio::test(start_paused = true)]
async fn the_longest_is_forgotten_after_a_while_and_not_by_reading() {
    let metrics = Metrics::new();
    let longest = |metrics: &Metrics| {
        Scrape::of(metrics).get("stillmetal_queue_wait_max_seconds{queue=\"q\"}")
    };
    metrics.job_ended("q", JobState::Done, seconds(9), None);
    for _ in 0..3 {
        assert_eq!(longest(&metrics), 9.0);
    }
    tokio::time::advance(seconds(299)).await;
    metrics.job_ended("q", JobState::Done, seconds(4), None);
    assert_eq!(longest(&metrics), 9.0);
    tokio::time::advance(seconds(299)).await;
    metrics.job_ended("q", JobState::Done, seconds(2), None);
    assert_eq!(longest(&metrics), 9.0, "younger than ten minutes");
    tokio::time::advance(seconds(302)).await;
    assert_eq!(longest(&metrics), 2.0);
    tokio::time::advance(seconds(10_000)).await;
    assert_eq!(longest(&metrics), 0.0);
}

#[test]
fn nodes_tunnels_messages_and_the_store() {
    let mut metrics = Metrics::new();
    metrics.nodes(FleetState::Ready, 7);
    metrics.nodes(FleetState::Offline, 1);
    metrics.pending_nodes(2);
    metrics.control_received(10);
    metrics.control_sent(4);
    let first = metrics.tunnel_opened();
    let second = metrics.tunnel_opened();
    drop(first);
    metrics.store_committed(12, Duration::from_millis(3));
    metrics.store_failed("full");
    metrics.watch_store(|| ::store::Stats {
        transactions: 5,
        calls: 9,
        failures: 1,
        changes: 40,
        waiting: 2,
        busy: Duration::from_millis(1500),
    });
    let connection = metrics.connection_opened();
    metrics.http_answered(&Method::GET, "/v1/jobs", 200, Duration::from_millis(2));
    let scrape = Scrape::of(&metrics);
    for (series, value) in [
        ("fleet_nodes{state=\"ready\"}", 7.0),
        ("fleet_nodes{state=\"quarantined\"}", 0.0),
        ("fleet_nodes{state=\"offline\"}", 1.0),
        ("fleet_pending_nodes", 2.0),
        ("control_messages_total{direction=\"received\"}", 10.0),
        ("control_messages_total{direction=\"sent\"}", 4.0),
        ("tunnel_connections", 1.0),
        ("tunnel_opened_connections_total", 2.0),
        ("tunnel_closed_connections_total", 1.0),
        ("store_commit_seconds_count", 1.0),
        ("store_commit_changes_sum", 12.0),
        ("store_errors_total{kind=\"full\"}", 1.0),
        ("store_writer_transactions_total", 5.0),
        ("store_writer_calls_total", 9.0),
        ("store_writer_failures_total", 1.0),
        ("store_writer_changes_total", 40.0),
        ("store_writer_busy_seconds_total", 1.5),
        ("store_writer_waiting_commits", 2.0),
        ("http_connections", 1.0),
        ("http_opened_connections_total", 1.0),
        (
            "http_requests_total{method=\"GET\",route=\"/v1/jobs\",status=\"200\"}",
            1.0,
        ),
        ("http_request_seconds_count{route=\"/v1/jobs\"}", 1.0),
    ] {
        assert_eq!(
            scrape.get(&format!("stillmetal_{series}")),
            value,
            "{series}"
        );
    }
    drop((second, connection));
    let scrape = Scrape::of(&metrics);
    assert_eq!(scrape.get("stillmetal_tunnel_connections"), 0.0);
    assert_eq!(scrape.get("stillmetal_http_connections"), 0.0);
}

#[test]
fn the_process_looks_at_itself() {
    let scrape = Scrape::of(&Metrics::new());
    assert!(scrape.get("stillmetal_process_resident_bytes") > 100_000.0);
    assert!(scrape.get("stillmetal_process_open_files") >= 1.0);
    assert!(scrape.get("stillmetal_process_threads") >= 1.0);
    assert!(scrape.get("stillmetal_process_start_seconds") > 1.6e9);
    assert!(scrape.get("stillmetal_process_cpu_seconds_total") >= 0.0);
}

#[test]
fn files_of_proc() {
    let status = "Name:\tx\nVmHWM:\t  999 kB\nVmRSS:\t    5120 kB\nThreads:\t12\n";
    assert_eq!(resident(status), Some(5120 * 1024));
    assert_eq!(threads(status), Some(12));
    assert_eq!(resident("VmRSS:\tx kB\n"), None);
    let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 10";
    assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
    assert_eq!(cpu("7 (a) S 1"), None);
    assert_eq!(cpu(""), None);
}

#[test]
fn names_of_queues_cannot_break_the_text() {
    let metrics = Metrics::new();
    metrics.queue("a\"} 1\n# EOF\n\\", 1, 0);
    let scrape = Scrape::of(&metrics);
    assert!(scrape.values.len() > 10);
}

/// Each name is in `docs/metrics.md`, and nothing else is.
#[test]
fn the_documentation_has_every_name() {
    let text = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `stillmetal_"))
        .map(|rest| format!("stillmetal_{}", rest.split(['`', '{']).next().unwrap()))
        .collect();
    let mut metrics = Metrics::new();
    metrics.watch_store(::store::Stats::default);
    metrics.queue("q", 0, 0);
    metrics.store_failed("full");
    metrics.http_answered(&Method::GET, "/", 200, Duration::ZERO);
    metrics.http_abandoned("/");
    let types = Scrape::of(&metrics).types;
    let exported: BTreeSet<_> = types
        .into_iter()
        .map(|(name, kind)| match kind.as_str() {
            "counter" => format!("{name}_total"),
            _ => name,
        })
        .collect();
    assert_eq!(documented, exported);
}
