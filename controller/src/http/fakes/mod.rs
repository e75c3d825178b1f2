//! A controller without nodes and without a store: it keeps all in memory, and does what the API's
//! calls say, for tests of the API and of whatever talks to it.
//!
//! Jobs stay queued until [`FakeController::advance`] moves them; nodes are what
//! [`FakeController::add_node`] says.

mod desk;
mod history;
mod vault;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::booking::BookingView;
use api::event::Event;
use api::fleet::{NodeFacts, NodeId, NodeState, NodeView, PendingNode, TokenView};
use api::health::HealthCheck;
use api::image::ImageView;
use api::job::{JobId, JobPart, JobRequest, JobState, JobStatus};
use api::queue::QueueSettings;
use api::work::{Document, Ending, PartOutcome};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::refusal::{Kind, Refusal};

/// The fake. Clones are the same one.
#[derive(Debug, Clone)]
pub struct FakeController(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// The last event's number.
    seen: watch::Sender<u64>,
    /// Changes when some job wrote something.
    written: watch::Sender<u64>,
}

/// How calls are to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// All calls, with this.
    Refuse(Refusal),
    /// They never answer.
    Hang,
    Panic,
}

type Submitted = HashMap<(String, String), (Vec<JobRequest>, Vec<JobId>)>;

#[derive(Debug, Default)]
struct State {
    /// Milliseconds since the epoch; a second later with each change.
    now_ms: u64,
    jobs: BTreeMap<JobId, JobStatus>,
    submitted: Submitted,
    nodes: BTreeMap<NodeId, NodeView>,
    pending: BTreeMap<String, PendingNode>,
    approved: BTreeSet<String>,
    queues: BTreeMap<String, QueueSettings>,
    tokens: BTreeMap<String, TokenView>,
    bookings: BTreeMap<u64, BookingView>,
    last_booking: u64,
    health: Option<HealthCheck>,
    images: BTreeMap<String, ImageView>,
    documents: HashMap<(JobId, NodeId, String), Bytes>,
    output: HashMap<(JobId, NodeId, String), Vec<u8>>,
    events: Vec<Event>,
    trouble: Option<Trouble>,
}

impl Default for FakeController {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.now_ms += 1000;
        self.now_ms
    }

    fn event(&mut self, kind: &str, job: Option<JobId>, node: Option<NodeId>, user: Option<&str>) {
        let at_ms = self.tick();
        let seq = self.events.last().map_or(0, |event| event.seq) + 1;
        self.events.push(Event {
            seq,
            at_ms,
            kind: kind.to_owned(),
            job,
            node,
            user: user.map(str::to_owned),
            data: serde_json::Value::Null,
        });
    }

    fn job(&mut self, id: JobId) -> Result<&mut JobStatus, Refusal> {
        let job = self.jobs.get_mut(&id);
        job.ok_or_else(|| Refusal::new(Kind::NoSuchJob, format!("there is no job {id}")))
    }

    fn count(&self, queue: &str, waiting: bool) -> usize {
        let jobs = self.jobs.values().filter(|job| {
            let here = job.request.queue == queue && !job.state.is_over();
            here && (job.state == JobState::Queued) == waiting
        });
        jobs.count()
    }
}

/// What a node may call itself.
fn named(name: &str) -> NodeId {
    let known = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let name: String = name.chars().filter(known).take(64).collect();
    NodeId::try_from(name).unwrap_or_else(|_| {
        NodeId::try_from("nameless".to_owned()).expect("it is made of lower-case letters")
    })
}

impl FakeController {
    /// With a queue `default`, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State {
            now_ms: 1_700_000_000_000,
            ..State::default()
        };
        state
            .queues
            .insert("default".into(), QueueSettings::default());
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            seen: watch::Sender::new(0),
            written: watch::Sender::new(0),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // a test that panics has failed anyway
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then tells who waits for events.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (done, last) = {
            let mut state = self.state();
            let done = change(&mut state);
            (done, state.events.last().map_or(0, |event| event.seq))
        };
        self.0.seen.send_if_modified(|seen| {
            let news = last > *seen;
            *seen = last.max(*seen);
            news
        });
        done
    }

    async fn trouble(&self) -> Result<(), Refusal> {
        let trouble = self.state().trouble.clone();
        match trouble {
            None => Ok(()),
            Some(Trouble::Refuse(refusal)) => Err(refusal),
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Panic) => panic!("the fake was told to"),
        }
    }

    /// From now on; `None`: all is well again.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    /// A node that is connected. Its id is made from its name.
    pub fn add_node(&self, name: &str) -> NodeId {
        let id = named(name);
        self.change(|state| {
            let now = state.tick();
            let view = NodeView {
                id: id.clone(),
                name: name.to_owned(),
                state: NodeState::Ready,
                facts: Some(NodeFacts {
                    hostname: name.to_owned(),
                    ..NodeFacts::default()
                }),
                enrolled_ms: now,
                connected_ms: Some(now),
                seen_ms: Some(now),
                jobs: Vec::new(),
                labels: BTreeMap::new(),
                received: 0,
                sent: 0,
            };
            state.nodes.insert(id.clone(), view);
            state.event("node.connected", None, Some(id.clone()), None);
        });
        id
    }

    /// Gives a job a part on each of these nodes.
    pub fn place(&self, job: JobId, nodes: &[NodeId]) {
        self.change(|state| {
            let names: Vec<String> = nodes
                .iter()
                .map(|id| {
                    let node = state.nodes.get(id);
                    node.map_or_else(|| id.to_string(), |node| node.name.clone())
                })
                .collect();
            let now = state.tick();
            if let Ok(status) = state.job(job) {
                status.attempts += 1;
                status.started_ms = Some(now);
                status.parts = nodes
                    .iter()
                    .zip(names)
                    .map(|(id, name)| JobPart {
                        node: id.clone(),
                        node_name: name,
                        cpus: "1".into(),
                        ending: None,
                        documents: Vec::new(),
                    })
                    .collect();
            }
        });
    }

    /// Moves a job to `state`, with an event.
    pub fn advance(&self, job: JobId, to: JobState) {
        self.change(|state| {
            let now = state.tick();
            if let Ok(status) = state.job(job) {
                status.state = to;
                if to.is_over() {
                    status.ended_ms = Some(now);
                    for part in &mut status.parts {
                        part.ending.get_or_insert_with(|| ending(now));
                    }
                }
                state.event(&format!("job.{to}"), Some(job), None, None);
            }
        });
        self.0.written.send_modify(|count| *count += 1);
    }

    /// Something of a job's part is stored.
    pub fn store_document(&self, job: JobId, node: &NodeId, name: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let sha256: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.change(|state| {
            let document = Document {
                name: name.to_owned(),
                bytes: bytes.len() as u64,
                sha256,
            };
            if let Ok(status) = state.job(job)
                && let Some(part) = status.parts.iter_mut().find(|part| part.node == *node)
            {
                part.documents.push(document);
            }
            let key = (job, node.clone(), name.to_owned());
            state.documents.insert(key, bytes);
        });
    }

    /// A job's part writes something.
    pub fn write(&self, job: JobId, node: &NodeId, stream: &str, text: &str) {
        let key = (job, node.clone(), stream.to_owned());
        let mut state = self.state();
        let output = state.output.entry(key).or_default();
        output.extend_from_slice(text.as_bytes());
        drop(state);
        self.0.written.send_modify(|count| *count += 1);
    }

    /// An event of no job and no node.
    pub fn note(&self, kind: &str) {
        self.change(|state| state.event(kind, None, None, None));
    }

    /// So many at once.
    pub fn note_many(&self, kind: &str, count: usize) {
        self.change(|state| {
            for _ in 0..count {
                state.event(kind, None, None, None);
            }
        });
    }
}

fn ending(now: u64) -> Ending {
    Ending {
        outcome: PartOutcome::Done,
        reason: None,
        exit_code: Some(0),
        signal: None,
        verdict: None,
        started_ms: Some(now - 1000),
        ended_ms: Some(now),
        documents: Vec::new(),
        figures: BTreeMap::new(),
    }
}
