//! Changes as rows, checked before anybody waits for them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::{
    Change, CommitError, JobRecord, NewEvent, NodeRecord, OrphanRecord, Refusal, Submission,
};

/// Changes that one call may have.
pub(crate) const CHANGES: usize = 65_536;

/// Changes as the store writes them: checked, and in the form of rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes(pub(crate) Arc<Prepared>);

impl Changes {
    /// Puts changes into the form of rows.
    ///
    /// # Errors
    /// [`CommitError::Invalid`]: one of them can never be stored, or there are too many.
    pub fn prepare(changes: Vec<Change>) -> Result<Self, CommitError> {
        let prepared = prepare(changes).map_err(|source| CommitError::Invalid { source })?;
        Ok(Self(Arc::new(prepared)))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.changes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The changes of one call.
///
/// What there are many of is kept apart, to be written many rows at a time.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) jobs: Vec<JobRow>,
    pub(crate) submissions: Vec<SubmissionRow>,
    pub(crate) events: Vec<EventRow>,
    /// The rest, in its order.
    pub(crate) steps: Vec<Step>,
    pub(crate) changes: usize,
    pub(crate) highest_job: i64,
    pub(crate) highest_fence: i64,
}

#[derive(Debug)]
pub(crate) struct JobRow {
    pub(crate) id: i64,
    pub(crate) submitter: String,
    pub(crate) queue: String,
    pub(crate) state: &'static str,
    pub(crate) submitted_ms: i64,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) body: String,
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct SubmissionRow {
    pub(crate) submitter: String,
    pub(crate) name: String,
    pub(crate) fingerprint: String,
    pub(crate) jobs: String,
    pub(crate) at_ms: i64,
}

#[derive(Debug)]
pub(crate) struct EventRow {
    pub(crate) at_ms: i64,
    pub(crate) kind: String,
    pub(crate) job: Option<i64>,
    pub(crate) node: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) body: Option<String>,
}

/// One statement's worth.
#[derive(Debug)]
pub(crate) enum Step {
    ForgetSubmissions {
        before_ms: i64,
    },
    Node {
        id: String,
        name: String,
        serial: Option<String>,
        body: String,
    },
    NodeRemoved {
        id: String,
    },
    Queue {
        name: String,
        body: String,
    },
    QueueRemoved {
        name: String,
    },
    Token {
        id: String,
        expires_ms: i64,
        used_by: Option<String>,
        body: String,
    },
    TokenRemoved {
        id: String,
    },
    ForgetTokens {
        before_ms: i64,
    },
    Revoked {
        serial: String,
        node: Option<String>,
        at_ms: i64,
        expires_ms: i64,
        why: Option<String>,
    },
    ForgetRevocations {
        before_ms: i64,
    },
    Setting {
        name: String,
        body: String,
    },
    SettingRemoved {
        name: String,
    },
    Orphan {
        job: i64,
        attempt: i64,
        fence: i64,
        node: String,
        body: String,
    },
}

/// All changes of one call.
pub(crate) fn prepare(changes: Vec<Change>) -> Result<Prepared, Refusal> {
    if changes.len() > CHANGES {
        return Err(Refusal::Changes {
            changes: changes.len(),
            limit: CHANGES,
        });
    }
    let mut prepared = Prepared {
        changes: changes.len(),
        ..Prepared::default()
    };
    for change in changes {
        prepared.add(change)?;
    }
    Ok(prepared)
}

impl Prepared {
    fn add(&mut self, change: Change) -> Result<(), Refusal> {
        let time = |ms| int("a time", ms);
        let step = match change {
            Change::Job(record) => return self.add_job(&record),
            Change::Submission(submission) => return self.add_submission(submission),
            Change::Event(event) => return self.add_event(event),
            Change::Node(record) => return self.add_node(*record),
            Change::Orphan(record) => return self.add_orphan(&record),
            Change::ForgetSubmissions { before_ms } => Step::ForgetSubmissions {
                before_ms: time(before_ms)?,
            },
            Change::NodeRemoved(id) => Step::NodeRemoved { id: id.into() },
            Change::Queue { name, settings } => Step::Queue {
                body: json("a queue", &settings)?,
                name: text("a queue's name", name)?,
            },
            Change::QueueRemoved { name } => Step::QueueRemoved {
                name: text("a queue's name", name)?,
            },
            Change::Token(record) => Step::Token {
                body: json("a token", &record)?,
                id: text("a token's id", record.id)?,
                expires_ms: time(record.expires_ms)?,
                used_by: record.used_by.map(String::from),
            },
            Change::TokenRemoved { id } => Step::TokenRemoved {
                id: text("a token's id", id)?,
            },
            Change::ForgetTokens { before_ms } => Step::ForgetTokens {
                before_ms: time(before_ms)?,
            },
            Change::Revoked(revocation) => Step::Revoked {
                serial: text("a certificate's serial", revocation.serial)?,
                node: revocation.node.map(String::from),
                at_ms: time(revocation.at_ms)?,
                expires_ms: time(revocation.expires_ms)?,
                why: maybe_text("a reason", revocation.why)?,
            },
            Change::ForgetRevocations { before_ms } => Step::ForgetRevocations {
                before_ms: time(before_ms)?,
            },
            Change::Setting {
                name,
                value: Value::Null,
            } => Step::SettingRemoved {
                name: text("a setting's name", name)?,
            },
            Change::Setting { name, value } => Step::Setting {
                name: text("a setting's name", name)?,
                body: json("a setting", &value)?,
            },
        };
        self.steps.push(step);
        Ok(())
    }

    fn add_job(&mut self, record: &JobRecord) -> Result<(), Refusal> {
        let status = &record.status;
        let id = int("a job's id", status.id.0)?;
        self.highest_job = self.highest_job.max(id);
        self.saw_fence(status.fence.unwrap_or(0))?;
        self.jobs.push(JobRow {
            id,
            submitter: text("a job's user", status.user.clone())?,
            queue: text("a job's queue", status.request.queue.clone())?,
            state: status.state.as_str(),
            submitted_ms: int("a job's submission", status.submitted_ms)?,
            ended_ms: maybe_int("a job's end", status.ended_ms)?,
            body: json("a job", record)?,
            nodes: status
                .parts
                .iter()
                .map(|part| part.node.as_str().into())
                .collect(),
        });
        Ok(())
    }

    fn add_node(&mut self, record: NodeRecord) -> Result<(), Refusal> {
        self.saw_fence(record.highest_fence)?;
        let body = json("a node", &record)?;
        self.steps.push(Step::Node {
            id: record.id.into(),
            name: text("a node's name", record.name)?,
            serial: maybe_text("a certificate's serial", record.serial)?,
            body,
        });
        Ok(())
    }

    fn add_orphan(&mut self, record: &OrphanRecord) -> Result<(), Refusal> {
        let key = record.key;
        self.saw_fence(key.fence)?;
        self.steps.push(Step::Orphan {
            job: int("a job's id", key.job.0)?,
            attempt: key.attempt.into(),
            fence: int("a fence", key.fence)?,
            node: record.node.as_str().into(),
            body: json("an orphaned result", record)?,
        });
        Ok(())
    }

    fn add_submission(&mut self, submission: Submission) -> Result<(), Refusal> {
        self.submissions.push(SubmissionRow {
            submitter: text("a user", submission.user)?,
            name: text("an idempotency key", submission.key)?,
            fingerprint: submission.fingerprint.to_string(),
            jobs: json("the jobs of a submission", &submission.jobs)?,
            at_ms: int("a submission's time", submission.at_ms)?,
        });
        Ok(())
    }

    fn add_event(&mut self, event: NewEvent) -> Result<(), Refusal> {
        self.events.push(EventRow {
            at_ms: int("an event's time", event.at_ms)?,
            kind: text("an event's kind", event.kind)?,
            job: maybe_int("a job's id", event.job.map(|job| job.0))?,
            node: event.node.map(String::from),
            actor: maybe_text("a user", event.user)?,
            body: match event.data {
                Value::Null => None,
                data => Some(json("an event", &data)?),
            },
        });
        Ok(())
    }

    fn saw_fence(&mut self, fence: u64) -> Result<(), Refusal> {
        self.highest_fence = self.highest_fence.max(int("a fence", fence)?);
        Ok(())
    }
}

/// PostgreSQL takes no NUL in a text; for both to take the same, SQLite is given none either.
pub(crate) fn text(field: &'static str, value: String) -> Result<String, Refusal> {
    if value.contains('\0') {
        return Err(Refusal::Nul { field });
    }
    Ok(value)
}

fn maybe_text(field: &'static str, value: Option<String>) -> Result<Option<String>, Refusal> {
    value.map(|value| text(field, value)).transpose()
}

pub(crate) fn int(field: &'static str, value: u64) -> Result<i64, Refusal> {
    i64::try_from(value).map_err(|_| Refusal::Number { field, value })
}

fn maybe_int(field: &'static str, value: Option<u64>) -> Result<Option<i64>, Refusal> {
    value.map(|value| int(field, value)).transpose()
}

fn json<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|source| Refusal::Json { what, source })
}
