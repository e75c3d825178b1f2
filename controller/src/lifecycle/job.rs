//! A job that is not over.

use api::fleet::NodeId;
use api::job::{JobState, JobStatus, OnLoss};
use api::work::Key;
use serde::{Deserialize, Serialize};

use super::Millis;
use super::attempt::Attempt;

/// Everything that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub status: JobStatus,
    /// The submitter's, `admin` or `user`: the nodes' policy goes by it.
    pub role: String,
    /// What its image's name stood for when it was submitted, by digest; `None`: the nodes' own images
    /// go by that name.
    pub image: Option<String>,
    /// While it has a place.
    pub attempt: Option<Attempt>,
}

/// Attempts of a job that is not to be repeated when its node is lost, in case nodes cannot take it.
const ATTEMPTS: u32 = 3;

impl Job {
    /// It is not started any more after this.
    pub(super) fn queued_until(&self) -> Option<Millis> {
        let seconds = self.status.request.limits.queued_seconds?;
        (self.status.state == JobState::Queued).then(|| {
            self.status
                .submitted_ms
                .saturating_add(u64::from(seconds) * 1000)
        })
    }

    /// Whether what the node says of this attempt's end is part of the job's result already, with all
    /// of its documents.
    #[must_use]
    pub fn counts(&self, node: &NodeId, key: Key) -> bool {
        counts(&self.status, node, key)
    }

    /// Whether it may be assigned once more.
    pub(super) fn may_try_again(&self) -> bool {
        let most = match self.status.request.on_loss {
            OnLoss::Requeue { attempts } => attempts,
            OnLoss::Fail => ATTEMPTS,
        };
        self.status.attempts < most
    }
}

/// As [`Job::counts`], of a job that may be over.
#[must_use]
pub fn counts(status: &JobStatus, node: &NodeId, key: Key) -> bool {
    let whole = |part: &api::job::JobPart| {
        let ending = part.ending.as_ref();
        part.node == *node && ending.is_some_and(|it| it.documents == part.documents)
    };
    status.fence == Some(key.fence) && status.parts.iter().any(whole)
}
