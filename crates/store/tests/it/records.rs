//! Records to store.

use std::sync::Arc;

use api::fleet::{MachineHints, NodeFacts, NodeId};
use api::job::{JobId, JobPart, JobState, JobStatus};
use api::work::{Document, Ending, Key, PartOutcome};
use serde_json::{Value, json};
use store::{
    Change, Digest, JobRecord, NewEvent, NodeRecord, OrphanRecord, Revocation, Submission,
    TokenRecord,
};

pub(crate) fn node_id(name: &str) -> NodeId {
    NodeId::try_from(name.to_owned()).expect("a node's id")
}

pub(crate) fn job(id: u64, state: JobState) -> JobRecord {
    let request = json!({
        "image": "bench@sha256:00", "argv": ["--size", "4k"], "queue": "quiet",
        "env": {"A": "ä\n\u{0}"},
    });
    JobRecord {
        status: JobStatus {
            id: JobId(id),
            user: "ann".into(),
            request: serde_json::from_value(request).expect("a request"),
            state,
            submitted_ms: 1_000 + id,
            started_ms: None,
            ended_ms: state.is_over().then_some(2_000 + id),
            attempts: 0,
            fence: None,
            parts: Vec::new(),
            reason: None,
            cancelling: false,
        },
        role: "user".into(),
        deadline_ms: Some(5_000),
        placement: json!({"slots": [1, 2]}),
        extra: Value::Null,
    }
}

/// On these nodes, under this fence.
pub(crate) fn placed(id: u64, fence: u64, nodes: &[&str]) -> JobRecord {
    let mut record = job(id, JobState::Measuring);
    record.status.attempts = 1;
    record.status.fence = Some(fence);
    record.status.parts = nodes
        .iter()
        .map(|node| JobPart {
            node: node_id(node),
            node_name: (*node).into(),
            cpus: "2-3".into(),
            ending: None,
            documents: Vec::new(),
        })
        .collect();
    record
}

pub(crate) fn node(id: &str) -> NodeRecord {
    NodeRecord {
        id: node_id(id),
        name: format!("{id}.lab"),
        enrolled_ms: 17,
        draining: false,
        quarantine: Some("drift".into()),
        labels: [("rack".into(), "4".into())].into(),
        machine: MachineHints {
            hostname: "lab".into(),
            ..MachineHints::default()
        },
        serial: Some(format!("serial of {id}")),
        revoked: false,
        facts: Some(NodeFacts::default()),
        highest_fence: 3,
        extra: json!({"seen": 1}),
    }
}

pub(crate) fn token(id: &str) -> TokenRecord {
    TokenRecord {
        id: id.into(),
        verifier: "a hash".into(),
        machine: None,
        made_by: "ann".into(),
        made_ms: 1,
        expires_ms: FAR,
        used_by: None,
    }
}

/// A time that no test sees.
pub(crate) const FAR: u64 = 32_503_680_000_000;

pub(crate) fn submission(user: &str, key: &str, jobs: &[u64]) -> Submission {
    Submission {
        user: user.into(),
        key: key.into(),
        fingerprint: Digest([0xa5; 32]),
        jobs: jobs.iter().map(|id| JobId(*id)).collect(),
        at_ms: 1_000,
    }
}

pub(crate) fn revocation(serial: &str) -> Revocation {
    Revocation {
        serial: serial.into(),
        node: Some(node_id("n1")),
        at_ms: 5,
        expires_ms: 50,
        why: Some("stolen".into()),
    }
}

pub(crate) fn orphan(job: u64, attempt: u32) -> OrphanRecord {
    OrphanRecord {
        key: Key {
            job: JobId(job),
            attempt,
            fence: 40 + u64::from(attempt),
        },
        node: node_id("n1"),
        at_ms: 9,
        why: "attempt 2 took its place".into(),
        ending: Ending {
            outcome: PartOutcome::Done,
            reason: None,
            exit_code: Some(0),
            signal: None,
            verdict: None,
            started_ms: Some(1),
            ended_ms: Some(2),
            documents: Vec::new(),
            figures: [("median".into(), "3 ms".into())].into(),
        },
        documents: vec![Document {
            name: "result.json".into(),
            bytes: 3,
            sha256: "00".into(),
        }],
    }
}

pub(crate) fn event(kind: &str) -> NewEvent {
    NewEvent {
        at_ms: 77,
        kind: kind.into(),
        job: None,
        node: None,
        user: None,
        data: Value::Null,
    }
}

pub(crate) fn job_change(record: JobRecord) -> Change {
    Change::Job(Arc::new(record))
}

pub(crate) fn node_change(record: NodeRecord) -> Change {
    Change::Node(Box::new(record))
}

pub(crate) fn orphan_change(record: OrphanRecord) -> Change {
    Change::Orphan(Box::new(record))
}

/// A new job and the event that tells of it.
pub(crate) fn queued(id: u64) -> Vec<Change> {
    let mut told = event("job.queued");
    told.job = Some(JobId(id));
    vec![job_change(job(id, JobState::Queued)), Change::Event(told)]
}
