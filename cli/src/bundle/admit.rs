//! Whether a job's result may be handed on: it is over, whole, and says where it was measured. Pure.

use std::collections::BTreeMap;

use api::job::{JobId, JobPart, JobState, JobStatus};
use api::provenance;
use api::work::Document;
use serde_json::Value;

/// A result that is not handed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Blocked {
    #[error(
        "job {job} is {state}: it has no result before it is over; still job why {job} says what it waits for"
    )]
    NotOver { job: JobId, state: JobState },
    #[error("job {job} ({state}) has no documents: it never began on a node{}", because(.reason.as_deref()))]
    NoPart {
        job: JobId,
        state: JobState,
        reason: Option<String>,
    },
    #[error(
        "job {job}, part on {node}: nobody knows how it ended, so nobody knows whether its documents are all there"
    )]
    NoEnding { job: JobId, node: String },
    #[error("job {job}, part on {node}: it has no documents{}", because(.reason.as_deref()))]
    NoDocuments {
        job: JobId,
        node: String,
        reason: Option<String>,
    },
    #[error(
        "job {job}, part on {node}: its documents are not those that its ending names: {}", differences.join(", ")
    )]
    Differs {
        job: JobId,
        node: String,
        differences: Vec<String>,
    },
    #[error("job {job}, part on {node}: {name:?} is no name of a document")]
    Name {
        job: JobId,
        node: String,
        name: String,
    },
    #[error("job {job}, part on {node}: it has no {document}, so nobody knows what it was measured on", document = provenance::DOCUMENT)]
    NoProvenance { job: JobId, node: String },
    #[error("job {job}, part on {node}: its {document} is no JSON: {why}", document = provenance::DOCUMENT)]
    BadProvenance {
        job: JobId,
        node: String,
        why: String,
    },
    #[error("job {job}, part on {node}: its {document} lacks {}", fields.join(", "), document = provenance::DOCUMENT)]
    Missing {
        job: JobId,
        node: String,
        fields: Vec<String>,
    },
}

fn because(reason: Option<&str>) -> String {
    reason
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default()
}

/// Whether a job is over and has all of its documents.
pub(crate) fn check_job(job: &JobStatus) -> Result<(), Blocked> {
    if !job.state.is_over() {
        return Err(Blocked::NotOver {
            job: job.id,
            state: job.state,
        });
    }
    if job.parts.is_empty() {
        return Err(Blocked::NoPart {
            job: job.id,
            state: job.state,
            reason: job.reason.clone(),
        });
    }
    job.parts.iter().try_for_each(|part| check_part(job, part))
}

fn check_part(job: &JobStatus, part: &JobPart) -> Result<(), Blocked> {
    let (job, node) = (job.id, part.node_name.clone());
    let Some(ending) = &part.ending else {
        return Err(Blocked::NoEnding { job, node });
    };
    if ending.documents.is_empty() && part.documents.is_empty() {
        let reason = ending.reason.clone();
        return Err(Blocked::NoDocuments { job, node, reason });
    }
    let differences = differences(&part.documents, &ending.documents);
    if !differences.is_empty() {
        return Err(Blocked::Differs {
            job,
            node,
            differences,
        });
    }
    let names = || part.documents.iter().map(|document| &document.name);
    if let Some(name) = names().find(|name| !super::listing::is_sound(name)) {
        let name = name.clone();
        return Err(Blocked::Name { job, node, name });
    }
    if !names().any(|name| name == provenance::DOCUMENT) {
        return Err(Blocked::NoProvenance { job, node });
    }
    Ok(())
}

/// In what way documents are others than those that are named, each on its own.
pub(crate) fn differences(there: &[Document], named: &[Document]) -> Vec<String> {
    let mut all: BTreeMap<&str, [Vec<&Document>; 2]> = BTreeMap::new();
    for (side, documents) in [there, named].into_iter().enumerate() {
        for document in documents {
            all.entry(&document.name).or_default()[side].push(document);
        }
    }
    let differences =
        all.into_iter()
            .filter_map(|(name, [there, named])| match (&there[..], &named[..]) {
                ([is], [named]) if is == named => None,
                ([_], [_]) => Some(format!("{name} is another one")),
                ([_], []) => Some(format!("{name} is not named")),
                ([], [_]) => Some(format!("{name} is missing")),
                _ => Some(format!("{name} is there twice")),
            });
    differences.collect()
}

/// The provenance of a part, if it lacks nothing.
pub(crate) fn check_provenance(job: JobId, part: &JobPart, text: &[u8]) -> Result<Value, Blocked> {
    let node = || part.node_name.clone();
    let value: Value = serde_json::from_slice(text).map_err(|error| Blocked::BadProvenance {
        job,
        node: node(),
        why: error.to_string(),
    })?;
    let fields = provenance::missing(&value);
    if fields.is_empty() {
        Ok(value)
    } else {
        let node = node();
        Err(Blocked::Missing { job, node, fields })
    }
}

/// Which agent measured, as the provenance says.
pub(crate) fn agent_version(provenance: &Value) -> String {
    let version = &provenance["agent_version"];
    version
        .as_str()
        .map_or_else(|| version.to_string(), str::to_owned)
}
