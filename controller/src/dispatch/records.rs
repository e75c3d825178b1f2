//! The lifecycle's rows as the store keeps them, and back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Change, JobRecord, Loaded, NewEvent, NodeRecord};

use super::commit::Deeds;
use crate::lifecycle::{
    Attempt, BOOKINGS, Bookings, Certificate, Checkup, HEALTH_CHECK, Inheritance, Job, NodeRow,
    Step,
};

/// What to write, and what to do when it is written.
pub(super) fn changes(step: Step, extra: Vec<Change>) -> (Vec<Change>, Deeds) {
    let mut changes = Vec::with_capacity(step.jobs.len() + step.events.len() + extra.len() + 4);
    // nodes first: what refers to them finds them
    let nodes = step.nodes.into_values();
    changes.extend(nodes.map(|row| Change::Node(Box::new(node_record(row)))));
    let queues = step.queues.into_iter();
    changes.extend(queues.map(|(name, settings)| match settings {
        Some(settings) => Change::Queue { name, settings },
        None => Change::QueueRemoved { name },
    }));
    let settings = step.settings.into_iter();
    changes.extend(settings.map(|(name, value)| Change::Setting {
        name: name.to_owned(),
        value,
    }));
    changes.extend(
        step.jobs
            .into_values()
            .map(|job| Change::Job(Arc::new(job_record(job)))),
    );
    changes.extend(extra);
    let events = step.events.into_iter();
    changes.extend(events.map(|event| {
        Change::Event(NewEvent {
            at_ms: event.at_ms,
            kind: event.kind,
            job: event.job,
            node: event.node,
            user: event.user,
            data: event.data,
        })
    }));
    let deeds = Deeds {
        orders: step.orders,
        collect: step.collect,
        dismiss: step.dismiss,
        conclusions: step.conclusions,
        marks: step.marks,
        late: step.orphans,
    };
    (changes, deeds)
}

fn job_record(job: Job) -> JobRecord {
    let placement = job.attempt.map(|attempt| {
        // plain data: nothing in it can fail to be written
        serde_json::to_value(attempt).unwrap_or_default()
    });
    JobRecord {
        status: job.status,
        role: job.role,
        deadline_ms: None,
        placement: placement.unwrap_or_default(),
        extra: serde_json::json!({ "image": job.image }),
    }
}

/// A node as the store keeps it.
#[must_use]
pub fn node_record(row: NodeRow) -> NodeRecord {
    NodeRecord {
        id: row.id,
        name: row.name,
        enrolled_ms: row.enrolled_ms,
        draining: row.draining,
        quarantine: row.quarantine,
        labels: row.labels,
        machine: row.machine,
        serial: row.certificate.as_ref().map(|it| it.serial.clone()),
        revoked: row.revoked,
        facts: row.facts,
        highest_fence: 0,
        extra: serde_json::json!(Papers {
            certificate: row.certificate,
            former: row.former,
            checkup: row.checkup,
        }),
    }
}

/// What the store does not look into.
#[derive(Default, Serialize, Deserialize)]
struct Papers {
    certificate: Option<Certificate>,
    former: Vec<Certificate>,
    #[serde(default)]
    checkup: Checkup,
}

fn node_row(record: NodeRecord) -> Result<NodeRow, serde_json::Error> {
    let papers: Option<Papers> = serde_json::from_value(record.extra)?;
    let papers = papers.unwrap_or_default();
    Ok(NodeRow {
        id: record.id,
        name: record.name,
        enrolled_ms: record.enrolled_ms,
        draining: record.draining,
        quarantine: record.quarantine,
        labels: record.labels,
        machine: record.machine,
        certificate: papers.certificate,
        former: papers.former,
        revoked: record.revoked,
        facts: record.facts,
        checkup: papers.checkup,
    })
}

/// What an earlier controller left.
///
/// # Errors
/// When the places of a job, the papers of a node, or a setting cannot be understood.
pub fn inheritance(mut loaded: Loaded) -> Result<Inheritance, serde_json::Error> {
    let job = |record: JobRecord| {
        let attempt: Option<Attempt> = serde_json::from_value(record.placement)?;
        let image = record.extra.get("image").and_then(Value::as_str);
        Ok(Job {
            status: record.status,
            role: record.role,
            image: image.map(str::to_owned),
            attempt,
        })
    };
    let mut setting = |name| loaded.settings.remove(name).unwrap_or_default();
    let bookings: Option<Bookings> = serde_json::from_value(setting(BOOKINGS))?;
    let health = serde_json::from_value(setting(HEALTH_CHECK))?;
    Ok(Inheritance {
        bookings: bookings.unwrap_or_default(),
        health,
        jobs: loaded.jobs.into_iter().map(job).collect::<Result<_, _>>()?,
        nodes: loaded
            .nodes
            .into_iter()
            .map(node_row)
            .collect::<Result<_, _>>()?,
        queues: loaded.queues,
        last_job: loaded.highest_job,
        last_fence: loaded.highest_fence,
    })
}
