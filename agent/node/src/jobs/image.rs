//! An image job: a certified series of containers, followed run by run, so that the next agent can go
//! on with it.
//!
//! Kept beside the documents of the attempt (notes): `series.json`, what runs or is to run now, and
//! `runs/N.json`, each run that is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::run::{Attempt, RunState, RunStatus};
use api::tool::ToolResults;
use api::work::{Document, Ending, PartOutcome};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use stillmetal_work::executor::{Output, Refused, Task};

use super::request::Image;
use super::{artifacts, log, now_ms, outcome, provenance};
use crate::Node;
use crate::runs::{Begun, Collected, Made, Next, Prepared, Watcher};
use crate::tools::{self, Outcomes};

const SERIES: &str = "series.json";
/// Between two looks whether a program has begun that has to write.
const LOOK: Duration = Duration::from_millis(500);
/// How often the CPUs of a job that waits are reserved again; a reservation lasts two minutes.
const RENEW: Duration = Duration::from_secs(30);

/// What a series is at.
#[derive(Debug, Serialize, Deserialize)]
struct Series {
    id: String,
    /// Digest of the image.
    image: String,
    started_ms: u64,
    /// Number of the run that is made, from 1.
    number: u32,
    made: Made,
}

/// A run that is over.
#[derive(Debug, Serialize, Deserialize)]
struct Over {
    run: Attempt,
    certificate: Option<Document>,
    /// And what its tools saw.
    #[serde(default)]
    artifacts: Vec<Document>,
}

/// Does all of it.
pub(super) async fn run(node: &Arc<Node>, task: Task, wanted: Image) -> Result<Ending, Refused> {
    let runs = node.runs();
    let prepared = runs.prepare(wanted.role, wanted.request, wanted.seat).await;
    let prepared = prepared.map_err(super::refused)?;
    let task = Arc::new(task);
    let watcher = Arc::new(Follower::new(node, &task, now_ms()));
    if let Err(why) = watcher.note(prepared.status(), prepared.made()).await {
        runs.give_up(&prepared).await;
        return Err(Refused::here(why));
    }
    if !ready(node, &task, &prepared).await {
        runs.give_up(&prepared).await;
        return Ok(Task::ending(PartOutcome::Cancelled, None));
    }
    watcher.began();
    let begun = runs.begin(prepared, Arc::clone(&watcher) as Arc<dyn Watcher>);
    Ok(finish(node, &task, &watcher, begun).await)
}

/// Waits for the order to begin, with the CPUs kept; false: it is to stop.
async fn ready(node: &Node, task: &Task, prepared: &Prepared) -> bool {
    let renew = async {
        loop {
            tokio::time::sleep(RENEW).await;
            node.runs().renew(prepared);
        }
    };
    tokio::select! {
        ready = task.ready() => ready.is_ok(),
        () = renew => unreachable!("it is renewed for ever"),
    }
}

/// Goes on where an earlier agent was.
pub(super) async fn adopt(node: &Arc<Node>, task: Task, wanted: Image) -> Ending {
    let task = Arc::new(task);
    let (series, over) = match recall(&task).await {
        Ok(found) => found,
        Err(why) => return Task::ending(PartOutcome::Error, Some(why)),
    };
    let watcher = Arc::new(Follower::new(node, &task, series.started_ms));
    for over in &over {
        let certificate = over.certificate.iter();
        let documents = certificate.chain(&over.artifacts).cloned();
        watcher.documents().extend(documents);
    }
    let done = over.len() >= usize::try_from(series.number).unwrap_or(usize::MAX);
    let status = RunStatus {
        id: series.id,
        state: RunState::Running,
        error: None,
        request: wanted.request,
        image: series.image,
        cpus: Some(series.made.cpus.clone()),
        attempts: over.into_iter().map(|over| over.run).collect(),
        duration_ns: None,
        metrics: std::collections::BTreeMap::new(),
        left_out: Vec::new(),
    };
    let follower = Arc::clone(&watcher) as Arc<dyn Watcher>;
    let begun = node.runs().adopt(
        wanted.role,
        wanted.seat,
        status,
        (series.made, done),
        follower,
    );
    finish(node, &task, &watcher, begun).await
}

async fn recall(task: &Task) -> Result<(Series, Vec<Over>), String> {
    let folder = task.folder();
    let read = async |name: &str| {
        let bytes = folder.noted(name).await;
        bytes.map_err(|error| crate::chain(&error))
    };
    let lost = "the node's agent was killed, and what it had noted of the job is lost";
    let series = read(SERIES).await?.ok_or(lost)?;
    let series = serde_json::from_slice(&series).map_err(|error| format!("{lost}: {error}"))?;
    let mut over = Vec::new();
    while let Some(text) = read(&note(over.len() + 1)).await? {
        let run = serde_json::from_slice(&text).map_err(|error| format!("{lost}: {error}"))?;
        over.push(run);
    }
    Ok((series, over))
}

fn note(number: usize) -> String {
    format!("runs/{number}.json")
}

/// Waits for the end of the series, and writes the documents.
async fn finish(node: &Arc<Node>, task: &Arc<Task>, watcher: &Follower, begun: Begun) -> Ending {
    let Begun { status, cancel } = begun;
    let mut changes = status.clone();
    let over = async {
        let ended = changes.wait_for(|status| status.state != RunState::Running);
        // when its task died, what it said last counts
        drop(ended.await);
    };
    tokio::pin!(over);
    tokio::select! {
        biased;
        () = &mut over => {}
        () = task.cancelled().cancelled() => {
            cancel.cancel();
            over.await;
        }
    }
    task.packing().await;
    let status = status.borrow().clone();
    let mut ending = outcome::of_series(&status);
    ending.started_ms = Some(watcher.started_ms);
    ending.ended_ms = Some(now_ms());
    let provenance = provenance::of_image(node, task.assignment(), &status.image).await;
    let written = async {
        let result = serde_json::to_vec_pretty(&status).map_err(|error| error.to_string())?;
        for (name, text) in [("result.json", result), ("provenance.json", provenance)] {
            let document = task.folder().put(name, text).await;
            watcher.keep(document.map_err(|error| crate::chain(&error))?);
        }
        Ok::<(), String>(())
    };
    if let Err(why) = written.await {
        let why = format!("its result could not be kept on the node: {why}");
        (ending.outcome, ending.reason) = (PartOutcome::Error, Some(why));
    }
    ending.documents = std::mem::take(&mut *watcher.documents());
    ending
}

/// Follows the series for its job.
struct Follower {
    node: Arc<Node>,
    task: Arc<Task>,
    started_ms: u64,
    /// The controller was told that it measures.
    measures: AtomicBool,
    documents: Mutex<Vec<Document>>,
}

impl Follower {
    fn new(node: &Arc<Node>, task: &Arc<Task>, started_ms: u64) -> Self {
        Self {
            node: Arc::clone(node),
            task: Arc::clone(task),
            started_ms,
            measures: AtomicBool::new(false),
            documents: Mutex::default(),
        }
    }

    fn began(&self) {
        let key = self.task.key();
        tracing::info!(job = %key.job, attempt = key.attempt, "job begins");
    }

    fn documents(&self) -> MutexGuard<'_, Vec<Document>> {
        // each change is one call: a panic leaves nothing half done
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, document: Document) {
        let mut documents = self.documents();
        // written again after a restart
        documents.retain(|other| other.name != document.name);
        documents.push(document);
    }

    async fn note(&self, series: &RunStatus, next: &Made) -> Result<(), String> {
        let number = u32::try_from(series.attempts.len()).unwrap_or(u32::MAX);
        let series = Series {
            id: series.id.clone(),
            image: series.image.clone(),
            started_ms: self.started_ms,
            number: number.saturating_add(1),
            made: next.clone(),
        };
        let text = serde_json::to_vec(&series).map_err(|error| error.to_string())?;
        let noted = self.task.folder().note(SERIES, text).await;
        noted.map_err(|error| format!("the node cannot keep the job: {}", crate::chain(&error)))
    }

    async fn certificate(&self, run: &Attempt, text: &str) -> Result<Document, String> {
        let name = format!("certificate-{}.json", run.number);
        let kept = self.task.folder().put(&name, text.to_owned()).await;
        kept.map_err(|error| {
            let error = crate::chain(&error);
            format!("the node cannot keep a certificate: {error}")
        })
    }

    /// Says when its program writes, from its beginning to its end.
    async fn watch_output(&self, made: &Made) {
        while !self.node.certifier().has_begun(&made.token) {
            tokio::time::sleep(LOOK).await;
        }
        self.task.output(Output::Expected).await;
        let client = self.node.client();
        if let Err(error) = log::watch(client, &made.container, &self.task).await {
            // its limit cannot be kept: better none than a wrong one
            let error = crate::chain(&error);
            tracing::warn!(%error, "whether a job writes cannot be seen");
        }
        self.task.output(Output::Over).await;
    }
}

impl Watcher for Follower {
    fn starting<'a>(
        &'a self,
        series: &'a RunStatus,
        next: &'a Made,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.note(series, next).await?;
            match next.next {
                Next::Repetition(_) if !self.measures.swap(true, Ordering::Relaxed) => {
                    let go = self.task.measuring().await;
                    go.map_err(|_cancelled| "cancelled".to_owned())?;
                }
                Next::Warmup => {
                    let number = series.attempts.len() + 1;
                    self.task.preparing(&format!("warm-up {number}")).await;
                }
                Next::Repetition(_) | Next::End(_) => {}
            }
            Ok(())
        })
    }

    fn attend<'a>(&'a self, made: &'a Made) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self
                .task
                .assignment()
                .request
                .limits
                .output_seconds
                .is_some()
            {
                self.watch_output(made).await;
            }
        })
    }

    fn collect<'a>(&'a self, run: &'a Attempt, paths: &'a [String]) -> BoxFuture<'a, Collected> {
        let folder = self.task.folder();
        Box::pin(artifacts::collect(self.node.client(), folder, run, paths))
    }

    fn keep_tools(
        &self,
        run: u32,
        outcomes: Outcomes,
    ) -> BoxFuture<'_, (ToolResults, Vec<Document>)> {
        Box::pin(tools::keep(self.task.folder(), run, outcomes))
    }

    fn over<'a>(
        &'a self,
        run: &'a Attempt,
        certificate: Option<&'a str>,
        documents: Vec<Document>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.task.output(Output::Over).await;
            let certificate = match certificate {
                Some(text) => Some(self.certificate(run, text).await?),
                None => None,
            };
            let over = Over {
                run: run.clone(),
                certificate: certificate.clone(),
                artifacts: documents.clone(),
            };
            let text = serde_json::to_vec(&over).map_err(|error| error.to_string())?;
            let number = usize::try_from(run.number).unwrap_or(usize::MAX);
            let noted = self.task.folder().note(&note(number), text).await;
            noted
                .map_err(|error| format!("the node cannot keep a run: {}", crate::chain(&error)))?;
            for document in certificate.into_iter().chain(documents) {
                self.keep(document);
            }
            Ok(())
        })
    }

    fn leaving<'a>(&'a self, made: &'a Made) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let kept = log::keep(self.node.client(), &made.container, self.task.folder()).await;
            match kept {
                Ok(documents) => documents.into_iter().for_each(|one| self.keep(one)),
                Err(error) => {
                    // the beginning of it is in the result all the same
                    let error = crate::chain(&error);
                    tracing::warn!(%error, "what a job wrote is not kept whole");
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_noted_with_its_metrics_and_artifacts_and_old_notes_are_read() {
        let mut note = json!({
            "run": {
                "number": 3, "repetition": 1, "container": "c1", "verdict": "quiet", "reasons": [],
                "outcome": "succeeded", "failure": null, "exit_code": 0, "signal": null,
                "duration_ns": 5, "stdout": "", "stderr": "", "truncated": false,
            },
            "certificate": null,
        });
        let old: Over = serde_json::from_value(note.clone()).unwrap();
        assert!(old.run.metrics.is_empty() && old.artifacts.is_empty());
        let document = json!({"name": "artifacts/3/1.tar", "bytes": 5, "sha256": "00"});
        note["run"]["metrics"] = json!({
            "rate": {"value": 0.1, "unit": "req/s", "direction": "higher"},
            "p99": {"missing": "nothing matches"},
        });
        note["run"]["artifacts"] = json!({"/out": "artifacts/3/1.tar"});
        note["artifacts"] = json!([document]);
        let over: Over = serde_json::from_value(note.clone()).unwrap();
        assert_eq!(over.run.metrics["rate"].value(), Some(0.1));
        assert_eq!(over.run.metrics["p99"].value(), None);
        assert_eq!(serde_json::to_value(&over).unwrap(), note);
    }
}
