//! What the fake holds, and how a test moves it on.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use api::booking::BookingView;
use api::event::Event;
use api::fleet::{NodeId, NodeView, PendingNode, TokenView};
use api::health::HealthCheck;
use api::image::ImageView;
use api::job::{JobId, JobPart, JobRequest, JobState, JobStatus};
use api::queue::QueueSettings;
use api::work::{Document, Ending, PartOutcome};

use crate::answers::Why;
use crate::digest::Hasher;

/// A job and what it has.
#[derive(Debug, Clone)]
pub struct Job {
    pub status: JobStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// By node and name.
    pub documents: BTreeMap<(String, String), Vec<u8>>,
}

/// All that a fake controller knows.
#[derive(Debug)]
pub struct State {
    pub jobs: BTreeMap<JobId, Job>,
    /// By idempotency key.
    pub keys: BTreeMap<String, Vec<JobId>>,
    pub nodes: Vec<NodeView>,
    pub pending: Vec<PendingNode>,
    pub queues: BTreeMap<String, QueueSettings>,
    pub tokens: Vec<TokenView>,
    pub bookings: Vec<BookingView>,
    pub health: Option<HealthCheck>,
    pub images: Vec<ImageView>,
    pub events: Vec<Event>,
    /// The same for every job.
    pub why: Why,
    /// What a cancelled job does: ends at once, or goes on until the test ends it.
    pub cancel_ends: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            nodes: Vec::new(),
            pending: Vec::new(),
            queues: [("default".to_owned(), QueueSettings::default())].into(),
            tokens: Vec::new(),
            bookings: Vec::new(),
            health: None,
            images: Vec::new(),
            events: Vec::new(),
            why: Why {
                reasons: Vec::new(),
                could_start_ms: None,
                text: Vec::new(),
            },
            cancel_ends: true,
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

impl State {
    /// Takes a job; the same key again gives the same jobs.
    pub fn submit(&mut self, key: Option<&str>, requests: &[JobRequest]) -> Vec<JobStatus> {
        let known = key.and_then(|key| self.keys.get(key)).cloned();
        let ids = known.unwrap_or_else(|| {
            let ids: Vec<_> = requests.iter().map(|it| self.take(it)).collect();
            if let Some(key) = key {
                self.keys.insert(key.to_owned(), ids.clone());
            }
            ids
        });
        let jobs = ids.iter().filter_map(|id| self.jobs.get(id));
        jobs.map(|job| job.status.clone()).collect()
    }

    fn take(&mut self, request: &JobRequest) -> JobId {
        let id = JobId(self.jobs.len() as u64 + 1);
        let status = JobStatus {
            id,
            user: "tester".into(),
            request: request.clone(),
            state: JobState::Queued,
            submitted_ms: now_ms(),
            started_ms: None,
            ended_ms: None,
            attempts: 0,
            fence: None,
            parts: Vec::new(),
            reason: None,
            cancelling: false,
        };
        let job = Job {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
            documents: BTreeMap::new(),
        };
        self.jobs.insert(id, job);
        self.tell("job.queued", Some(id), None);
        id
    }

    /// Writes a line of the history.
    pub fn tell(&mut self, kind: &str, job: Option<JobId>, node: Option<NodeId>) {
        self.events.push(Event {
            seq: self.events.len() as u64 + 1,
            at_ms: now_ms(),
            kind: kind.to_owned(),
            job,
            node,
            user: None,
            data: serde_json::Value::Null,
        });
    }

    /// Gives a job its place on a node (not checked against [`State::nodes`]).
    pub fn assign(&mut self, id: JobId, node: &NodeId, cpus: &str) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status.attempts += 1;
            job.status.fence = Some(job.status.attempts.into());
            job.status.parts.push(JobPart {
                node: node.clone(),
                node_name: node.to_string(),
                cpus: cpus.to_owned(),
                ending: None,
                documents: Vec::new(),
            });
        }
        self.advance(id, JobState::Assigned);
    }

    /// Moves a job to another state.
    pub fn advance(&mut self, id: JobId, state: JobState) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status.state = state;
            if state >= JobState::Assigned {
                job.status.started_ms.get_or_insert_with(now_ms);
            }
            if state.is_over() {
                job.status.ended_ms.get_or_insert_with(now_ms);
            }
        }
        self.tell(&format!("job.{state}"), Some(id), None);
    }

    /// Stores a document of a job's part on a node.
    pub fn store(&mut self, id: JobId, node: &NodeId, name: &str, bytes: &[u8]) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        let document = Document {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: hasher.finish(),
        };
        let mut parts = job.status.parts.iter_mut();
        if let Some(part) = parts.find(|part| part.node == *node) {
            part.documents.push(document);
        }
        let place = (node.to_string(), name.to_owned());
        job.documents.insert(place, bytes.to_owned());
    }

    /// Ends a job and all its parts.
    pub fn end(&mut self, id: JobId, state: JobState, ending: &Ending) {
        if let Some(job) = self.jobs.get_mut(&id) {
            for part in &mut job.status.parts {
                let documents = part.documents.clone();
                part.ending = Some(Ending {
                    documents,
                    ..ending.clone()
                });
            }
            job.status.reason.clone_from(&ending.reason);
        }
        self.advance(id, state);
    }

    /// Asks for a job's end.
    pub fn cancel(&mut self, id: JobId, reason: Option<String>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.status.cancelling = true;
        job.status.reason = reason;
        if self.cancel_ends {
            self.advance(id, JobState::Cancelled);
        }
    }
}

/// The ending of a part of which nothing else is known.
#[must_use]
pub fn ending(outcome: PartOutcome) -> Ending {
    Ending {
        outcome,
        reason: None,
        exit_code: None,
        signal: None,
        verdict: None,
        started_ms: None,
        ended_ms: None,
        documents: Vec::new(),
        figures: BTreeMap::new(),
    }
}
