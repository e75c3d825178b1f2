//! What came of a series or a program, in the controller's words. Pure.

use std::collections::BTreeMap;

use api::metric::Reading;
use api::process::ProcessStatus;
use api::run::{Attempt, RunState, RunStatus};
use api::tool::ToolResult;
use api::work::{Ending, PartOutcome};
use quiet::{Outcome, Verdict};
use stillmetal_work::Task;

use crate::runs::metrics::{Fault, Lack};

/// Of a series that is over, without documents and times.
pub(super) fn of_series(status: &RunStatus) -> Ending {
    let last = status.attempts.last();
    let (outcome, reason) = match status.state {
        RunState::Done | RunState::Unproven => (PartOutcome::Done, unproven(status)),
        RunState::Noisy => (PartOutcome::Noisy, Some(noisy(status))),
        RunState::Failed => failed(last),
        RunState::Cancelled => (PartOutcome::Cancelled, None),
        RunState::Running => (
            PartOutcome::Error,
            Some("the series died: see the node's log".into()),
        ),
        RunState::Error => (PartOutcome::Error, Some(interrupted(status))),
    };
    Ending {
        exit_code: last.and_then(|run| run.exit_code),
        signal: last.and_then(|run| run.signal),
        verdict: verdict(status),
        figures: figures(status),
        ..Task::ending(outcome, reason)
    }
}

/// A series' verdict: of each repetition its best run, and of those the worst. `None`: nothing was
/// measured.
#[must_use]
pub fn verdict(status: &RunStatus) -> Option<Verdict> {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Quiet => 0,
        Verdict::Unproven => 1,
        Verdict::Noisy => 2,
    };
    let mut best: BTreeMap<u32, Verdict> = BTreeMap::new();
    for run in &status.attempts {
        let (Some(repetition), Some(verdict)) = (run.repetition, run.verdict) else {
            continue;
        };
        // as the series itself judges: what was noisy once and not quiet later is noisy
        best.entry(repetition)
            .and_modify(|known| {
                if *known != Verdict::Quiet
                    && (verdict == Verdict::Quiet || rank(&verdict) > rank(known))
                {
                    *known = verdict;
                }
            })
            .or_insert(verdict);
    }
    best.into_values().max_by_key(rank)
}

fn failed(last: Option<&Attempt>) -> (PartOutcome, Option<String>) {
    let Some(run) = last else {
        return (PartOutcome::Failed, None);
    };
    let why = run.failure.clone();
    let why = why.unwrap_or_else(|| "nobody saw how it ended".into());
    let what = match run.repetition {
        Some(repetition) => format!("repetition {repetition}"),
        None => "a warm-up".into(),
    };
    let outcome = match run.outcome {
        Outcome::TimedOut => PartOutcome::TimedOut,
        Outcome::Unknown => PartOutcome::Error,
        Outcome::Succeeded | Outcome::Failed | Outcome::Signalled | Outcome::OomKilled => {
            PartOutcome::Failed
        }
    };
    (outcome, Some(format!("{what}: {why}")))
}

/// Why the first repetition without a quiet run has none.
fn reasons(status: &RunStatus, verdict: Verdict) -> Option<String> {
    let quiet: Vec<Option<u32>> = status
        .attempts
        .iter()
        .filter(|run| run.verdict == Some(Verdict::Quiet))
        .map(|run| run.repetition)
        .collect();
    let run = status
        .attempts
        .iter()
        .rfind(|run| run.verdict == Some(verdict) && !quiet.contains(&run.repetition))?;
    let repetition = run.repetition.unwrap_or_default();
    Some(format!(
        "repetition {repetition} is {verdict}: {}",
        quiet::brief(&run.reasons).join("; ")
    ))
}

fn unproven(status: &RunStatus) -> Option<String> {
    match status.state {
        RunState::Unproven => reasons(status, Verdict::Unproven),
        _ => None,
    }
}

fn noisy(status: &RunStatus) -> String {
    reasons(status, Verdict::Noisy).unwrap_or_else(|| "not every repetition is quiet".into())
}

fn interrupted(status: &RunStatus) -> String {
    let why = status.error.as_deref().unwrap_or("the series died");
    let mut done: Vec<u32> = status
        .attempts
        .iter()
        .filter_map(|run| run.repetition)
        .collect();
    done.dedup();
    format!(
        "{why} (after {} of {} repetitions)",
        done.len(),
        status.request.repetitions
    )
}

fn figures(status: &RunStatus) -> BTreeMap<String, String> {
    let mut figures = BTreeMap::new();
    let mut add = |name: &str, value: String| {
        figures.insert(name.to_owned(), value);
    };
    add("runs", status.attempts.len().to_string());
    if let Some(durations) = status.duration_ns {
        let seconds = |ns: f64| format!("{:.9} s", ns / 1e9);
        add("quiet_runs", durations.samples.to_string());
        add("median", seconds(durations.median));
        add("median_absolute_deviation", seconds(durations.mad));
        add("shortest", seconds(durations.min));
        add("longest", seconds(durations.max));
        if let Some(interval) = durations.interval {
            let percent = interval.confidence * 100.0;
            add("interval_confidence", format!("{percent:.0} %"));
            add("interval_low", seconds(interval.low));
            add("interval_high", seconds(interval.high));
        }
    }
    for (name, metric) in &status.metrics {
        let values = &metric.values;
        let with_unit = |value: f64| with_unit(value, &metric.unit);
        let mut line = if values.samples == 1 {
            format!("{} (one run)", with_unit(values.median))
        } else {
            format!(
                "median {}, median deviation {}, {} to {}",
                with_unit(values.median),
                with_unit(values.mad),
                with_unit(values.min),
                with_unit(values.max)
            )
        };
        line.push_str(&format!(", {} is better", metric.direction.as_str()));
        figures.insert(metric_key(name), line);
    }
    figures
}

/// The figures of a job have names of their own.
fn metric_key(name: &str) -> String {
    format!("metric {name}")
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => value.to_string(),
        unit => format!("{value} {unit}"),
    }
}

/// Why a program was ended by this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    /// At its time limit, seconds.
    Late(u32),
    /// It wrote more than this to one stream, bytes.
    Floods(u64),
}

/// Of a program that is over, without documents and times; `lack`: a metric that it did not write.
pub(super) fn of_process(status: &ProcessStatus, stop: Option<Stop>, lack: Option<Lack>) -> Ending {
    let failed = |why: String| (PartOutcome::Failed, Some(why));
    let (outcome, reason) = match (stop, status.exit_code, status.signal) {
        (Some(Stop::Cancelled), ..) => (PartOutcome::Cancelled, None),
        (Some(Stop::Late(seconds)), ..) => (
            PartOutcome::TimedOut,
            Some(format!(
                "it still ran after {seconds} s (run_seconds), and was killed"
            )),
        ),
        (Some(Stop::Floods(bytes)), ..) => failed(format!(
            "it wrote more than {} MiB to one stream, and was killed: the node's memory is not for \
             that",
            bytes >> 20
        )),
        (None, Some(0), _) => match lack {
            None => (PartOutcome::Done, None),
            Some(Lack { why, fault }) => match fault {
                Fault::Benchmark => failed(why),
                Fault::Node => (PartOutcome::Error, Some(why)),
            },
        },
        (None, ..) if status.oom_killed == Some(true) => {
            failed("it ran out of memory and was killed".into())
        }
        (None, Some(code), _) => failed(format!("it exited with {code}")),
        (None, None, Some(signal)) => failed(format!("signal {signal} ended it")),
        (None, None, None) => {
            let why = status.error.clone();
            let why = why.unwrap_or_else(|| "nobody saw how it ended".into());
            (PartOutcome::Error, Some(why))
        }
    };
    let mut figures = BTreeMap::new();
    if let Some(usec) = status.cpu_usec {
        let (whole, part) = (usec / 1_000_000, usec % 1_000_000);
        figures.insert("cpu_time".into(), format!("{whole}.{part:06} s"));
    }
    if let Some(bytes) = status.memory_peak_bytes {
        figures.insert("memory_peak".into(), format!("{bytes} bytes"));
    }
    for (name, reading) in &status.metrics {
        if let Reading::Found {
            value,
            unit,
            direction,
        } = reading
        {
            let line = format!(
                "{}, {} is better",
                with_unit(*value, unit),
                direction.as_str()
            );
            figures.insert(metric_key(name), line);
        }
    }
    for (name, result) in &status.tools {
        let line = match result {
            ToolResult::Collected { samples, .. } if name == "perf" => format!("{samples} counts"),
            ToolResult::Collected { samples, .. } => format!("{samples} samples"),
            ToolResult::Missing { missing } => format!("nothing: {missing}"),
        };
        figures.insert(format!("tool {name}"), line);
    }
    Ending {
        exit_code: status.exit_code,
        signal: status.signal,
        figures,
        ..Task::ending(outcome, reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(repetition: Option<u32>, verdict: Option<Verdict>, outcome: Outcome) -> Attempt {
        Attempt {
            number: 1,
            repetition,
            container: "c".into(),
            verdict,
            reasons: vec!["interrupts".into()],
            outcome,
            failure: (outcome != Outcome::Succeeded).then(|| "the job exited with 3".into()),
            exit_code: Some(if outcome == Outcome::Succeeded { 0 } else { 3 }),
            signal: None,
            duration_ns: Some(5),
            metrics: api::metric::Readings::new(),
            artifacts: std::collections::BTreeMap::new(),
            tools: api::tool::ToolResults::new(),
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
        }
    }

    fn series(state: RunState, attempts: Vec<Attempt>) -> RunStatus {
        let request = json!({"image": "b", "cpus": 1, "repetitions": 3});
        RunStatus {
            id: "1".into(),
            state,
            error: None,
            request: serde_json::from_value(request).unwrap(),
            image: "sha256:1".into(),
            cpus: None,
            attempts,
            duration_ns: stats::Dispersion::of(&[1e9, 2e9, 3e9]),
            metrics: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn each_state_of_a_series_has_its_outcome() {
        use Outcome::{Failed, OomKilled, Signalled, Succeeded, TimedOut, Unknown};
        use Verdict::{Noisy, Quiet, Unproven};
        for (state, last, outcome, verdict) in [
            (RunState::Done, (Quiet, Succeeded), PartOutcome::Done, Quiet),
            (
                RunState::Unproven,
                (Unproven, Succeeded),
                PartOutcome::Done,
                Unproven,
            ),
            (
                RunState::Noisy,
                (Noisy, Succeeded),
                PartOutcome::Noisy,
                Noisy,
            ),
            (
                RunState::Failed,
                (Quiet, Failed),
                PartOutcome::Failed,
                Quiet,
            ),
            (
                RunState::Failed,
                (Noisy, Signalled),
                PartOutcome::Failed,
                Noisy,
            ),
            (
                RunState::Failed,
                (Quiet, OomKilled),
                PartOutcome::Failed,
                Quiet,
            ),
            (
                RunState::Failed,
                (Quiet, TimedOut),
                PartOutcome::TimedOut,
                Quiet,
            ),
            (
                RunState::Failed,
                (Unproven, Unknown),
                PartOutcome::Error,
                Unproven,
            ),
            (
                RunState::Cancelled,
                (Quiet, Signalled),
                PartOutcome::Cancelled,
                Quiet,
            ),
            (
                RunState::Error,
                (Quiet, Succeeded),
                PartOutcome::Error,
                Quiet,
            ),
        ] {
            let runs = vec![run(Some(1), Some(last.0), last.1)];
            let ending = of_series(&series(state, runs));
            assert_eq!(ending.outcome, outcome, "{state:?} {last:?}");
            assert_eq!(ending.verdict, Some(verdict), "{state:?} {last:?}");
        }
        let ending = of_series(&series(RunState::Error, Vec::new()));
        assert_eq!(ending.verdict, None, "nothing was measured");
        assert!(ending.reason.unwrap().contains("after 0 of 3 repetitions"));
    }

    #[test]
    fn the_verdict_is_the_worst_repetition_at_its_best() {
        use Verdict::{Noisy, Quiet, Unproven};
        for (verdicts, worst) in [
            (vec![(1, Noisy), (1, Quiet), (2, Quiet)], Quiet),
            (vec![(1, Quiet), (2, Noisy), (2, Noisy)], Noisy),
            (vec![(1, Unproven), (2, Quiet)], Unproven),
            // as in the series: noisy once and never quiet is noisy
            (vec![(1, Noisy), (1, Unproven)], Noisy),
            (vec![(1, Unproven), (1, Noisy)], Noisy),
        ] {
            let mut runs: Vec<Attempt> = verdicts
                .iter()
                .map(|(repetition, verdict)| {
                    run(Some(*repetition), Some(*verdict), Outcome::Succeeded)
                })
                .collect();
            runs.insert(0, run(None, None, Outcome::Succeeded));
            let ending = of_series(&series(RunState::Done, runs));
            assert_eq!(ending.verdict, Some(worst), "{verdicts:?}");
        }
    }

    #[test]
    fn reasons_are_those_of_what_was_not_quiet() {
        let runs = vec![
            run(Some(1), Some(Verdict::Noisy), Outcome::Succeeded),
            run(Some(1), Some(Verdict::Quiet), Outcome::Succeeded),
            run(Some(2), Some(Verdict::Noisy), Outcome::Succeeded),
        ];
        let ending = of_series(&series(RunState::Noisy, runs));
        assert_eq!(
            ending.reason.as_deref(),
            Some("repetition 2 is noisy: interrupts")
        );
        let failed = vec![run(None, None, Outcome::Failed)];
        let ending = of_series(&series(RunState::Failed, failed));
        assert_eq!(
            ending.reason.as_deref(),
            Some("a warm-up: the job exited with 3")
        );
        assert_eq!(ending.exit_code, Some(3));
    }

    #[test]
    fn figures_have_units() {
        let quiet = vec![run(Some(1), Some(Verdict::Quiet), Outcome::Succeeded)];
        let figures = of_series(&series(RunState::Done, quiet)).figures;
        assert_eq!(figures["median"], "2.000000000 s");
        assert_eq!(figures["quiet_runs"], "3");
    }

    #[test]
    fn metrics_are_figures_with_unit_and_direction() {
        let quiet = vec![run(Some(1), Some(Verdict::Quiet), Outcome::Succeeded)];
        let mut status = series(RunState::Done, quiet);
        let figures = |values: &[f64], unit: &str| api::metric::MetricFigures {
            unit: unit.into(),
            direction: api::metric::Direction::Higher,
            values: stats::Dispersion::of(values).unwrap(),
        };
        let rate = figures(&[10.0, 20.5, 30.0], "req/s");
        status.metrics.insert("rate".into(), rate);
        status.metrics.insert("median".into(), figures(&[7.0], ""));
        let figures = of_series(&status).figures;
        assert_eq!(
            figures["metric rate"],
            "median 20.5 req/s, median deviation 9.5 req/s, 10 req/s to 30 req/s, higher is better"
        );
        assert_eq!(figures["metric median"], "7 (one run), higher is better");
        assert_eq!(figures["median"], "2.000000000 s", "its own figures stay");
    }

    #[test]
    fn what_tools_came_to_is_among_the_figures_of_a_program() {
        let request = serde_json::from_value(json!({"argv": ["/x"]})).unwrap();
        let tools = json!({
            "cpu": {"document": "tools/1/cpu.jsonl", "samples": 7},
            "perf": {"document": "tools/1/perf.json", "samples": 2},
            "energy": {"missing": "no RAPL"},
        });
        let status = ProcessStatus {
            exit_code: Some(0),
            tools: serde_json::from_value(tools).unwrap(),
            ..ProcessStatus::starting(1, &request)
        };
        let figures = of_process(&status, None, None).figures;
        assert_eq!(figures["tool cpu"], "7 samples");
        assert_eq!(figures["tool perf"], "2 counts");
        assert_eq!(figures["tool energy"], "nothing: no RAPL");
    }

    #[test]
    fn a_program_without_its_metric_has_failed() {
        let request = json!({"argv": ["/x"]});
        let request = serde_json::from_value(request).unwrap();
        let reading = json!({"rate": {"value": 2.5, "unit": "1/s", "direction": "lower"}});
        let status = |exit_code| ProcessStatus {
            exit_code,
            metrics: serde_json::from_value(reading.clone()).unwrap(),
            ..ProcessStatus::starting(1, &request)
        };
        let ending = of_process(&status(Some(0)), None, None);
        assert_eq!(ending.outcome, PartOutcome::Done);
        assert_eq!(ending.figures["metric rate"], "2.5 1/s, lower is better");
        for (fault, outcome) in [
            (Fault::Benchmark, PartOutcome::Failed),
            (Fault::Node, PartOutcome::Error),
        ] {
            let why = "metric m: nothing matches".to_owned();
            let lack = Some(Lack {
                why: why.clone(),
                fault,
            });
            let ending = of_process(&status(Some(0)), None, lack.clone());
            assert_eq!((ending.outcome, ending.reason), (outcome, Some(why)));
            let ending = of_process(&status(Some(3)), None, lack);
            assert_eq!(ending.reason.as_deref(), Some("it exited with 3"));
        }
    }

    #[test]
    fn each_end_of_a_program_has_its_outcome() {
        let request = json!({"argv": ["/x"]});
        let request = serde_json::from_value(request).unwrap();
        let status = |exit_code, signal, oom_killed| ProcessStatus {
            exit_code,
            signal,
            oom_killed,
            cpu_usec: Some(1_500_000),
            ..ProcessStatus::starting(1, &request)
        };
        for (status, stop, outcome, why) in [
            (status(Some(0), None, None), None, PartOutcome::Done, None),
            (
                status(Some(0), None, Some(true)),
                None,
                PartOutcome::Done,
                None,
            ),
            (
                status(Some(3), None, None),
                None,
                PartOutcome::Failed,
                Some("exited with 3"),
            ),
            (
                status(None, Some(11), None),
                None,
                PartOutcome::Failed,
                Some("signal 11"),
            ),
            (
                status(None, Some(9), Some(true)),
                None,
                PartOutcome::Failed,
                Some("memory"),
            ),
            (
                status(None, None, None),
                None,
                PartOutcome::Error,
                Some("nobody saw"),
            ),
            (
                status(None, Some(9), None),
                Some(Stop::Late(5)),
                PartOutcome::TimedOut,
                Some("after 5 s"),
            ),
            (
                status(None, Some(9), None),
                Some(Stop::Floods(64 << 20)),
                PartOutcome::Failed,
                Some("more than 64 MiB"),
            ),
            (
                status(None, Some(9), None),
                Some(Stop::Cancelled),
                PartOutcome::Cancelled,
                None,
            ),
        ] {
            let ending = of_process(&status, stop, None);
            assert_eq!(ending.outcome, outcome, "{status:?} {stop:?}");
            assert_eq!(ending.verdict, None, "nobody measured it");
            assert_eq!(ending.figures["cpu_time"], "1.500000 s");
            let reason = ending.reason.unwrap_or_default();
            assert!(reason.contains(why.unwrap_or_default()), "{reason}");
            assert_eq!(reason.is_empty(), why.is_none(), "{reason}");
        }
    }
}
