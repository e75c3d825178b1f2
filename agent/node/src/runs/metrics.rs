//! What a run came to in the metrics that its series declares. A run without one of them is a failed
//! one, as is one whose program says so itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::time::Duration;

use api::metric::{Metric, MetricFigures, Reading, Readings, Source};
use api::run::Attempt;
use metric::{Extractor, Tail};
use quiet::{Outcome, Verdict};
use stats::Dispersion;
use tokio::time::Instant;

use crate::engine::archive::{ArchiveError, Kind};
use crate::engine::client::EngineClient;
use crate::engine::output::Tails;

/// Longest file that is read for its end.
const FILE: u64 = 1 << 30;
/// For all searches in one text.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that a run was to leave, and did not, or that the node could not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    /// What, and why.
    pub(crate) why: String,
    pub(crate) fault: Fault,
}

/// Whose fault it is that something is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The benchmark has failed.
    Benchmark,
    /// Nobody knows what the benchmark left.
    Node,
}

/// A text that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoText {
    pub(crate) why: String,
    pub(crate) fault: Fault,
}

impl NoText {
    pub(crate) fn node(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fault: Fault::Node,
        }
    }

    pub(crate) fn benchmark(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fault: Fault::Benchmark,
        }
    }
}

impl From<ArchiveError> for NoText {
    fn from(error: ArchiveError) -> Self {
        let fault = match error {
            ArchiveError::NotThere | ArchiveError::Links => Fault::Benchmark,
            ArchiveError::Engine { .. }
            | ArchiveError::Silent
            | ArchiveError::Read { .. }
            | ArchiveError::Died => Fault::Node,
        };
        let why = crate::chain(&error);
        Self { why, fault }
    }
}

/// What was found, and the first that was not.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) readings: Readings,
    pub(crate) lack: Option<Lack>,
}

/// The streams that metrics are read from.
pub(super) fn streams(metrics: &[Metric]) -> Tails {
    let from = |source: Source| metrics.iter().any(|metric| metric.from == source);
    Tails {
        stdout: from(Source::Stdout).then(Tail::default),
        stderr: from(Source::Stderr).then(Tail::default),
    }
}

/// Reads the metrics of a container that has ended; `tails` are what it wrote, or why that is not known.
pub(super) async fn of_container(
    client: &EngineClient,
    container: &str,
    metrics: &[Metric],
    tails: Result<Tails, String>,
) -> Found {
    let mut tails = tails;
    let mut reader = Reader::new(metrics);
    for source in reader.sources() {
        let text = match (&source, tails.as_mut()) {
            (Source::File(path), _) => file(client, container, path).await,
            (_, Err(why)) => Err(NoText::node(why.as_str())),
            (Source::Stdout, Ok(tails)) => Ok(tails.stdout.take().unwrap_or_default()),
            (Source::Stderr, Ok(tails)) => Ok(tails.stderr.take().unwrap_or_default()),
        };
        reader.look(&source, text).await;
    }
    reader.found()
}

/// The end of a file of a container.
async fn file(client: &EngineClient, container: &str, path: &str) -> Result<Tail, NoText> {
    let taken = client.take(container, path, |kind, content| match kind {
        Kind::File { bytes } if bytes > FILE => Ok(Err(NoText::benchmark(too_long(bytes)))),
        Kind::File { .. } => end(content).map(Ok),
        Kind::Folder => Ok(Err(NoText::benchmark("is a folder"))),
        Kind::Other => Ok(Err(NoText::benchmark("is no regular file"))),
    });
    taken
        .await
        .map_err(NoText::from)
        .flatten()
        .map_err(|no| NoText {
            why: format!("file {path}: {}", no.why),
            ..no
        })
}

pub(crate) fn too_long(bytes: u64) -> String {
    format!("has {bytes} bytes, and {FILE} are the limit")
}

/// The end of all that can be read.
pub(crate) fn end(content: &mut (impl Read + ?Sized)) -> io::Result<Tail> {
    let mut tail = Tail::default();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(tail),
            Ok(count) => tail.push(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads metrics, one source after the other: only one text is in memory at a time.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    metrics: &'a [Metric],
    extractors: Vec<Extractor>,
    values: BTreeMap<String, Result<f64, NoText>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(metrics: &'a [Metric]) -> Self {
        let mut values = BTreeMap::new();
        let extractors = metric::extractors(metrics).unwrap_or_else(|fault| {
            // it was checked before anything began
            let no = NoText::node(fault.why);
            let all = metrics
                .iter()
                .map(|one| (one.name.clone(), Err(no.clone())));
            values.extend(all);
            Vec::new()
        });
        Self {
            metrics,
            extractors,
            values,
        }
    }

    /// Each once.
    pub(crate) fn sources(&self) -> BTreeSet<Source> {
        let sources = self.extractors.iter().map(|one| one.metric().from.clone());
        sources.collect()
    }

    /// Looks into the text of a source, or notes why there is none.
    pub(crate) async fn look(&mut self, source: &Source, text: Result<Tail, NoText>) {
        let own = self.extractors.iter();
        let own = own.filter(|one| one.metric().from == *source);
        let own: Vec<Extractor> = own.cloned().collect();
        let names: Vec<String> = own.iter().map(|one| one.metric().name.clone()).collect();
        let found = match text {
            Ok(tail) => {
                let search = tokio::task::spawn_blocking(move || search(&own, tail));
                let died = NoText::node("the thread that looked for it died");
                search
                    .await
                    .unwrap_or_else(|_| vec![Err(died); names.len()])
            }
            Err(no) => vec![Err(no); names.len()],
        };
        self.values.extend(names.into_iter().zip(found));
    }

    /// All that was found, and the first that was not.
    pub(crate) fn found(mut self) -> Found {
        let mut found = Found::default();
        for metric in self.metrics {
            let value = self.values.remove(&metric.name);
            let value = value.unwrap_or_else(|| Err(NoText::node("it was not looked for")));
            let reading = match value {
                Ok(value) => Reading::Found {
                    value,
                    unit: metric.unit.clone(),
                    direction: metric.direction,
                },
                Err(NoText { why, fault }) => {
                    found.lack.get_or_insert_with(|| Lack {
                        why: format!("metric {}: {why}", metric.name),
                        fault,
                    });
                    Reading::Missing { missing: why }
                }
            };
            found.readings.insert(metric.name.clone(), reading);
        }
        found
    }
}

fn search(extractors: &[Extractor], mut tail: Tail) -> Vec<Result<f64, NoText>> {
    let until = Instant::now() + PATIENCE;
    let patience = || Instant::now() < until;
    let found = extractors.iter().map(|extractor| {
        let value = extractor.extract(&mut tail, &patience);
        value.map_err(|missing| NoText::benchmark(missing.to_string()))
    });
    found.collect()
}

/// A run that lacks something has failed, unless it had anyway.
pub(super) fn judge(run: &mut Attempt, lack: Option<Lack>) {
    let Some(Lack { why, fault }) = lack else {
        return;
    };
    if run.outcome == Outcome::Succeeded {
        run.outcome = match fault {
            Fault::Benchmark => Outcome::Failed,
            Fault::Node => Outcome::Unknown,
        };
        run.failure = Some(why);
    }
}

/// What the quiet runs that count came to, of the same runs as their durations.
pub(super) fn figures(metrics: &[Metric], done: &[Attempt]) -> BTreeMap<String, MetricFigures> {
    let counted = || {
        done.iter().filter(|run| {
            run.repetition.is_some()
                && run.verdict == Some(Verdict::Quiet)
                && run.outcome == Outcome::Succeeded
                && run.duration_ns.is_some()
        })
    };
    let figures = metrics.iter().filter_map(|metric| {
        let values = counted().filter_map(|run| run.metrics.get(&metric.name)?.value());
        let values: Vec<f64> = values.collect();
        let figures = MetricFigures {
            unit: metric.unit.clone(),
            direction: metric.direction,
            values: Dispersion::of(&values)?,
        };
        Some((metric.name.clone(), figures))
    });
    figures.collect()
}

#[cfg(test)]
mod tests;
