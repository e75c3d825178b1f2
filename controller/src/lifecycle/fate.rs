//! What becomes of a job whose attempt ends before its time, or is over.

use api::job::{JobState, JobStatus};
use api::work::{Ending, PartOutcome};
use serde::{Deserialize, Serialize};

/// What follows when the attempt has been ended everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "kebab-case")]
pub enum Fate {
    /// Back to its queue, or `otherwise` if it has been tried often enough.
    Again { otherwise: JobState, reason: String },
    /// Its end.
    Over { state: JobState, reason: String },
}

impl Fate {
    /// Whether `self`, which is decided, gives way to `other`. What a person asked for comes first.
    pub(super) fn yields_to(&self, other: &Self) -> bool {
        let cancelled = |fate: &Self| {
            matches!(
                fate,
                Self::Over {
                    state: JobState::Cancelled,
                    ..
                }
            )
        };
        cancelled(other) && !cancelled(self)
    }
}

/// The end of a job whose parts have all ended by themselves.
pub(super) fn verdict(status: &JobStatus) -> (JobState, Option<String>) {
    let endings = status.parts.iter().filter_map(|part| {
        let ending = part.ending.as_ref()?;
        Some((severity(ending.outcome), &part.node_name, ending))
    });
    let worst = endings.max_by_key(|(severity, ..)| *severity);
    let Some((_, node, ending)) = worst else {
        return (
            JobState::Failed,
            Some("no node reported how it ended".into()),
        );
    };
    let reason = (ending.outcome != PartOutcome::Done).then(|| words(status, node, ending));
    (state(ending.outcome), reason)
}

fn words(status: &JobStatus, node: &str, ending: &Ending) -> String {
    let why = ending
        .reason
        .as_deref()
        .unwrap_or("the node gave no reason");
    if status.parts.len() > 1 {
        format!("{node}: {why}")
    } else {
        why.to_owned()
    }
}

/// What a part's outcome makes of the job. A node that could not run it is no success of anybody's.
pub(super) fn state(outcome: PartOutcome) -> JobState {
    match outcome {
        PartOutcome::Done => JobState::Done,
        PartOutcome::Noisy => JobState::Noisy,
        PartOutcome::Cancelled => JobState::Cancelled,
        PartOutcome::TimedOut => JobState::TimedOut,
        PartOutcome::Failed | PartOutcome::Error => JobState::Failed,
    }
}

fn severity(outcome: PartOutcome) -> u8 {
    match outcome {
        PartOutcome::Done => 0,
        PartOutcome::Noisy => 1,
        // the others of a gang are cancelled when one fails: that one says why
        PartOutcome::Cancelled => 2,
        PartOutcome::TimedOut => 3,
        PartOutcome::Failed => 4,
        PartOutcome::Error => 5,
    }
}
