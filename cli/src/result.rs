//! A job's result: fetched, and told in a few lines.

use std::collections::{BTreeMap, BTreeSet};

use api::job::{JobPart, JobStatus};
use api::metric::MetricFigures;
use api::run::{Attempt, RunStatus};
use api::tool::ToolResult;
use client::Client;
use serde::Serialize;
use stats::Dispersion;

use crate::output::fields;
use crate::quantity::{figure, moment, nanoseconds, seconds};

/// The document with a series of runs.
const RESULT: &str = "result.json";
/// It holds the beginning of each run's output.
const LONGEST: u64 = 64 * 1024 * 1024;

/// What one node came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PartResult {
    pub(crate) node: String,
    /// `None`: there is none, or it is of another form.
    pub(crate) runs: Option<RunStatus>,
}

/// The results of all parts, each checked against its digest.
pub(crate) async fn fetch(client: &Client, job: &JobStatus) -> anyhow::Result<Vec<PartResult>> {
    let mut results = Vec::new();
    for part in &job.parts {
        let mut documents = part.documents.iter();
        let runs = match documents.find(|document| document.name == RESULT) {
            Some(document) => {
                let node = part.node.as_str();
                let bytes = client
                    .fetch_document(job.id, node, document, LONGEST)
                    .await?;
                serde_json::from_slice(&bytes).ok()
            }
            None => None,
        };
        let node = part.node_name.clone();
        results.push(PartResult { node, runs });
    }
    Ok(results)
}

/// The block at the end of a job: its state and verdict, then where, how often, how long, and why.
pub(crate) fn block(job: &JobStatus, results: &[PartResult]) -> String {
    let verdict = job.verdict().map(|verdict| format!(", {verdict}"));
    let mut text = format!(
        "job {}: {}{}\n",
        job.id,
        job.state,
        verdict.unwrap_or_default()
    );
    let mut pairs = Vec::new();
    let mut pair = |name: &'static str, value: Option<String>| pairs.push((name, value));
    pair("reason", job.reason.clone());
    for part in &job.parts {
        pair("node", Some(place(part)));
        let result = results.iter().find(|result| result.node == part.node_name);
        let runs = result.and_then(|result| result.runs.as_ref());
        let ending = part.ending.as_ref();
        // said already
        let reason = ending.and_then(|ending| ending.reason.clone());
        pair(
            "because",
            reason.filter(|it| Some(it) != job.reason.as_ref()),
        );
        pair("exit", ending.and_then(exit));
        match runs {
            Some(runs) => {
                pair(
                    "image",
                    Some(runs.image.clone()).filter(|it| !it.is_empty()),
                );
                pair("runs", count_runs(runs));
                pair("duration", runs.duration_ns.as_ref().map(duration));
                pair("metrics", metrics(runs));
                pair("seen by", tools(&runs.attempts));
                pair("not quiet", reasons(&runs.attempts));
            }
            None => {
                for (name, value) in ending.iter().flat_map(|ending| &ending.figures) {
                    pair("figure", Some(format!("{name}: {value}")));
                }
            }
        }
    }
    text.push_str(&fields(&pairs));
    text
}

fn place(part: &JobPart) -> String {
    let plural = if part.cpus.contains([',', '-']) {
        "CPUs"
    } else {
        "CPU"
    };
    format!("{}, {plural} {}", part.node_name, part.cpus)
}

/// Only what is no plain end.
fn exit(ending: &api::work::Ending) -> Option<String> {
    match (ending.exit_code, ending.signal) {
        (_, Some(signal)) => Some(format!("signal {signal}")),
        (Some(code), None) if code != 0 => Some(format!("code {code}")),
        _ => None,
    }
}

fn counted(attempts: &[Attempt]) -> impl Iterator<Item = &Attempt> {
    attempts
        .iter()
        .filter(|attempt| attempt.repetition.is_some())
}

fn count_runs(runs: &RunStatus) -> Option<String> {
    let all = counted(&runs.attempts).count();
    if all == 0 {
        return None;
    }
    let quiet = counted(&runs.attempts)
        .filter(|attempt| attempt.verdict == Some(quiet::Verdict::Quiet))
        .count();
    let warmups = runs.attempts.len() - all;
    let mut text = format!("{quiet} quiet of {all}");
    if runs.request.repetitions > 1 {
        text.push_str(&format!(" for {} repetitions", runs.request.repetitions));
    }
    match warmups {
        0 => {}
        1 => text.push_str(", after 1 warm-up"),
        many => text.push_str(&format!(", after {many} warm-ups")),
    }
    Some(text)
}

/// The metrics of the quiet runs, a line each, in the order of their declaration.
fn metrics(runs: &RunStatus) -> Option<String> {
    let lines: Vec<String> = runs
        .request
        .metrics
        .iter()
        .filter_map(|declared| {
            let figures = runs.metrics.get(&declared.name)?;
            Some(metric(&declared.name, figures))
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What each tool came to, a line each: how many samples of how many runs, or why there are none.
fn tools(attempts: &[Attempt]) -> Option<String> {
    let mut all: BTreeMap<&str, (Vec<u64>, BTreeSet<&str>)> = BTreeMap::new();
    for (name, result) in attempts.iter().flat_map(|attempt| &attempt.tools) {
        let (samples, lacks) = all.entry(name).or_default();
        match result {
            ToolResult::Collected {
                samples: count,
                lost,
                ..
            } => {
                samples.push(*count);
                lacks.extend(lost.iter().map(String::as_str));
            }
            ToolResult::Missing { missing } => {
                lacks.insert(missing);
            }
        }
    }
    let lines = all.into_iter().map(|(name, (samples, lacks))| {
        let mut line = match (samples.iter().min(), samples.iter().max()) {
            (Some(least), Some(most)) => {
                let count = match least == most {
                    true => least.to_string(),
                    false => format!("{least} to {most}"),
                };
                let what = match name {
                    "perf" => "counts",
                    _ => "samples",
                };
                let runs = match samples.len() {
                    1 => "1 run".to_owned(),
                    many => format!("{many} runs"),
                };
                format!("{name}: {count} {what} of {runs}")
            }
            _ => format!("{name}: nothing"),
        };
        for lack in lacks {
            line.push_str(&format!("\n  not seen: {lack}"));
        }
        line
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

fn metric(name: &str, figures: &MetricFigures) -> String {
    let of = &figures.values;
    let unit = match figures.unit.as_str() {
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    let better = figures.direction.as_str();
    if of.samples == 1 {
        let value = figure(of.median);
        return format!("{name}: {value}{unit} ({better} is better; one run: no spread is known)");
    }
    let mut text = format!(
        "{name}: median {}{unit}, median deviation {}, {} to {} ({better} is better)",
        figure(of.median),
        figure(of.mad),
        figure(of.min),
        figure(of.max)
    );
    if let Some(interval) = &of.interval {
        let percent = interval.confidence * 100.0;
        text.push_str(&format!(
            "\n  {percent} % interval of the median {} to {}",
            figure(interval.low),
            figure(interval.high)
        ));
    }
    text
}

fn duration(of: &Dispersion) -> String {
    if of.samples == 1 {
        return format!("{} (one run: no spread is known)", nanoseconds(of.median));
    }
    let mut text = format!(
        "median {}, median deviation {}, {} to {}",
        nanoseconds(of.median),
        nanoseconds(of.mad),
        nanoseconds(of.min),
        nanoseconds(of.max)
    );
    if let Some(interval) = &of.interval {
        let percent = interval.confidence * 100.0;
        text.push_str(&format!(
            "\n{percent} % interval of the median {} to {}",
            nanoseconds(interval.low),
            nanoseconds(interval.high)
        ));
    }
    text
}

/// Why runs were not quiet, each reason once, with the numbers of the runs.
fn reasons(attempts: &[Attempt]) -> Option<String> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for attempt in counted(attempts) {
        let number = attempt.number.to_string();
        let failure = attempt.failure.iter().cloned();
        for reason in quiet::brief(&attempt.reasons).into_iter().chain(failure) {
            match all.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, numbers)) => numbers.push(number.clone()),
                None => all.push((reason, vec![number.clone()])),
            }
        }
    }
    let lines = all.iter().map(|(reason, numbers)| match &numbers[..] {
        [one] => format!("{reason} (run {one})"),
        many => format!("{reason} (runs {})", many.join(", ")),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

/// When it was submitted, started and ended, and how long it waited and took.
pub(crate) fn times(job: &JobStatus) -> Vec<(&'static str, Option<String>)> {
    let after = |from: u64, to: u64| seconds(to.saturating_sub(from) / 1000);
    let started = job.started_ms.map(|start| {
        let waited = after(job.submitted_ms, start);
        format!("{}, after {waited}", moment(start))
    });
    let ended = job.ended_ms.map(|end| {
        let took = job.started_ms.map(|start| after(start, end));
        match took {
            Some(took) => format!("{}, after {took}", moment(end)),
            None => moment(end),
        }
    });
    vec![
        ("submitted", Some(moment(job.submitted_ms))),
        ("started", started),
        ("ended", ended),
    ]
}
