//! Tools that look at a run while it is measured.
//!
//! ```text
//! place      where a run is, and which CPUs must not be interrupted
//! source     the files that a tool reads there, or why it cannot; what they say now
//! collector  a thread on the housekeeping CPUs that reads them; its series lie in bounded memory
//! meter      events of the run's program, counted by the kernel (`perf stat`)
//! ```
//! They begin before the container is started and end after its last canary. Nothing is written or sent
//! meanwhile. No file is read whose reading interrupts a CPU that is not the housekeeping's.

mod collector;
mod meter;
mod place;
mod source;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::tool::{ToolResult, ToolResults};
use collect::{Asked, Need, Tool, Zero};
use host::Tree;
use host::perf::Perf;
use nix::time::{ClockId, clock_gettime};

use crate::SharedReport;
use crate::certify::raw_ns;
use crate::placement::Placer;
use crate::placement::ledger::Token;
use collector::Collector;
use meter::Held;
pub(crate) use meter::Meter;
pub(crate) use place::Place;
use source::Source;

/// From the order to end to the series: a sample of each, and their texts.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// The kernel takes its last change of code back a second after the last counter was closed.
const CALM: Duration = Duration::from_millis(1500);

/// What tools need of their node.
#[derive(Clone)]
pub struct Parts {
    pub tree: Arc<dyn Tree>,
    pub perf: Arc<dyn Perf>,
    pub placer: Arc<Placer>,
    /// What tuning found, once it has finished.
    pub report: SharedReport,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// All tools of this node.
pub struct Toolbox {
    parts: Parts,
    held: Held,
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toolbox").finish_non_exhaustive()
    }
}

/// What one tool came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Collected {
        /// Of its document.
        text: String,
        samples: u64,
        dropped: u64,
        lost: Vec<String>,
    },
    /// Why there is nothing of it.
    Missing(String),
}

/// Why a tool cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unable {
    pub(crate) why: String,
    /// Later it may.
    pub(crate) for_now: bool,
}

impl Unable {
    fn ever(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            for_now: false,
        }
    }

    fn now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            for_now: true,
        }
    }
}

/// Of each tool that was asked for.
pub(crate) type Outcomes = Vec<(Tool, Outcome)>;

/// The measured window, `CLOCK_MONOTONIC_RAW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
}

impl Toolbox {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            held: Held::new(Arc::clone(&parts.perf)),
            parts,
        }
    }

    /// Whether all that is required can be had here. What is counted is made ready for it.
    ///
    /// # Errors
    /// Which tool cannot, and why.
    pub(crate) fn check(&self, asked: &[Asked]) -> Result<(), Unable> {
        let place = self.place(String::new());
        for one in asked {
            let found = match (one.tool, &place) {
                (_, Err(why)) => Err(why.clone()),
                (Tool::Perf, Ok(_)) => self.hold(one, None).map(drop),
                (tool, Ok(place)) => Source::find(tool, place).map(drop).map_err(Unable::ever),
            };
            match found {
                Ok(()) => {}
                Err(unable) if one.need == Need::Required => {
                    // nothing of it begins
                    self.held.release(|| self.parts.placer.measures_only(None));
                    let why = format!(
                        "tool {} cannot run on this node: {}; leave it out, or ask for `{}?` to go on without it",
                        one.tool, unable.why, one.tool
                    );
                    return Err(Unable { why, ..unable });
                }
                Err(unable) => {
                    tracing::info!(tool = %one.tool, why = unable.why, "optional tool cannot run here");
                }
            }
        }
        Ok(())
    }

    /// Begins to look at a run in a cgroup, by its path below the root of all; `own`: its claim, within
    /// none of whose windows this is. Blocks.
    pub(crate) fn begin(&self, asked: &[Asked], cgroup: String, own: Option<&Token>) -> Collecting {
        let begun = Clocks::now();
        let mut collecting = Collecting {
            asked: asked.to_vec(),
            begun,
            missing: Vec::new(),
            collector: None,
            meter: None,
        };
        let place = match self.place(cgroup) {
            Ok(place) => place,
            Err(unable) => {
                let all = asked.iter().map(|one| (one.tool, unable.why.clone()));
                collecting.missing = all.collect();
                return collecting;
            }
        };
        let mut sampled = Vec::new();
        for one in asked {
            match one.tool {
                Tool::Perf => match self.hold(one, own) {
                    Ok(meter) => collecting.meter = Some(Arc::new(meter)),
                    Err(unable) => collecting.missing.push((one.tool, unable.why)),
                },
                tool => match Source::find(tool, &place) {
                    Ok(source) => sampled.push((one.clone(), source)),
                    Err(why) => collecting.missing.push((tool, why)),
                },
            }
        }
        if sampled.is_empty() {
            return collecting;
        }
        let tools: Vec<Tool> = sampled.iter().map(|(one, _)| one.tool).collect();
        match Collector::start(place, sampled) {
            Ok(collector) => collecting.collector = Some(collector),
            Err(why) => {
                let all = tools.into_iter().map(|tool| (tool, why.clone()));
                collecting.missing.extend(all);
            }
        }
        collecting
    }

    fn place(&self, cgroup: String) -> Result<Place, Unable> {
        let report = self.parts.report.read();
        let report = report.unwrap_or_else(PoisonError::into_inner);
        let Some(report) = &*report else {
            return Err(Unable::now("the node has not finished tuning its CPUs"));
        };
        Ok(Place {
            tree: Arc::clone(&self.parts.tree),
            housekeeping: report.cpus.housekeeping.clone(),
            virtual_machine: report.hypervisor,
            cgroup,
        })
    }

    fn hold(&self, asked: &Asked, own: Option<&Token>) -> Result<Meter, Unable> {
        self.held.meter(&asked.events, &*self.parts.tree, || {
            self.parts.placer.measures_only(own)
        })
    }

    /// After the last run of a series: what was kept ready for counting goes, unless others are measured.
    pub(crate) async fn settle(&self) {
        let alone = || self.parts.placer.measures_only(None);
        if self.held.release(alone) {
            tokio::time::sleep(CALM).await;
        }
    }
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    monotonic_ns: i64,
    raw_ns: u64,
}

impl Clocks {
    fn now() -> Self {
        Self {
            monotonic_ns: monotonic_ns(),
            raw_ns: raw_ns(),
        }
    }

    /// A moment of the raw clock on the monotonic one, which may go up to 0.05 % faster or slower.
    fn monotonic_of(self, later: Self, raw_ns: u64) -> i64 {
        let span = |from: u64, to: u64| i128::from(to) - i128::from(from);
        let raw = span(self.raw_ns, later.raw_ns).max(1);
        let monotonic = i128::from(later.monotonic_ns) - i128::from(self.monotonic_ns);
        let passed = span(self.raw_ns, raw_ns) * monotonic / raw;
        i64::try_from(i128::from(self.monotonic_ns) + passed).unwrap_or(i64::MAX)
    }
}

pub(crate) fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .expect("CLOCK_MONOTONIC exists since Linux 2.6");
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Tools at work. Dropped, they end, and what they saw is lost.
#[derive(Debug)]
pub(crate) struct Collecting {
    asked: Vec<Asked>,
    begun: Clocks,
    missing: Vec<(Tool, String)>,
    collector: Option<Collector>,
    meter: Option<Arc<Meter>>,
}

impl Collecting {
    /// What counts the run's program, to be attached before that begins.
    pub(crate) fn meter(&self) -> Option<Arc<Meter>> {
        self.meter.clone()
    }

    /// Ends them. `window`: when the run was measured, if anybody saw it.
    pub(crate) async fn end(self, run: u32, window: Option<Window>) -> Outcomes {
        let ended = Clocks::now();
        let zero = window.map(|window| {
            let at_ns = self.begun.monotonic_of(ended, window.begin_ns);
            let end_ns = self.begun.monotonic_of(ended, window.end_ns);
            Zero {
                at_ns,
                window_ns: Some(end_ns.saturating_sub(at_ns)),
            }
        });
        let mut outcomes: Outcomes = self
            .missing
            .into_iter()
            .map(|(tool, why)| (tool, Outcome::Missing(why)))
            .collect();
        if let Some(meter) = &self.meter {
            outcomes.push((Tool::Perf, meter.outcome(run)));
        }
        if let Some(collector) = self.collector {
            let ended = tokio::time::timeout(END_DEADLINE, collector.end(run, zero));
            match ended.await {
                Ok(collected) => outcomes.extend(collected),
                Err(_elapsed) => tracing::error!("the thread that collects does not end"),
            }
        }
        for one in &self.asked {
            if !outcomes.iter().any(|(tool, _)| *tool == one.tool) {
                let why = "the node's thread that collected it did not answer";
                outcomes.push((one.tool, Outcome::Missing(why.into())));
            }
        }
        outcomes.sort_by_key(|(tool, _)| *tool);
        outcomes
    }
}

/// Of a run that an earlier agent had begun.
pub(crate) fn lost(asked: &[Asked]) -> Outcomes {
    let why = "the node's agent was restarted during the run: what it had seen is lost";
    let all = asked.iter();
    all.map(|one| (one.tool, Outcome::Missing(why.into())))
        .collect()
}

/// Name of a tool's document.
pub(crate) fn document(run: u32, tool: Tool) -> String {
    format!("tools/{run}/{}", tool.file())
}

/// Keeps the texts as documents, and says what came of each tool.
pub(crate) async fn keep(
    folder: &stillmetal_work::folder::Folder,
    run: u32,
    outcomes: Outcomes,
) -> (ToolResults, Vec<api::work::Document>) {
    let (mut results, mut documents) = (ToolResults::new(), Vec::new());
    for (tool, outcome) in outcomes {
        let result = match outcome {
            Outcome::Missing(missing) => ToolResult::Missing { missing },
            Outcome::Collected {
                text,
                samples,
                dropped,
                lost,
            } => match folder.put(&document(run, tool), text).await {
                Ok(document) => {
                    let name = document.name.clone();
                    documents.push(document);
                    ToolResult::Collected {
                        document: name,
                        samples,
                        dropped,
                        lost,
                    }
                }
                Err(error) => ToolResult::Missing {
                    missing: format!("the node cannot keep it: {}", crate::chain(&error)),
                },
            },
        };
        results.insert(tool.to_string(), result);
    }
    (results, documents)
}

#[cfg(test)]
mod tests;
