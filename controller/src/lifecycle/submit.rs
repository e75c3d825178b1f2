//! New jobs.

use api::job::{JobId, JobRequest, JobState, JobStatus};
use sched::Refused;

use super::job::Job;
use super::step::Mark;
use super::{Core, Millis};

/// A job to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub request: JobRequest,
    /// What its image's name stands for now, by digest.
    pub image: Option<String>,
}

impl Core {
    /// Adds jobs: all of them, or none and the number of the first that was refused.
    ///
    /// # Errors
    /// The scheduler's refusal, by the request's index.
    pub fn submit(
        &mut self,
        now: Millis,
        user: &str,
        role: &str,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<JobStatus>, (usize, Refused)> {
        let mut taken = Vec::with_capacity(wanted.len());
        let mut images = Vec::with_capacity(wanted.len());
        for (index, Wanted { request, image }) in wanted.into_iter().enumerate() {
            images.push(image);
            let mut status = JobStatus {
                id: JobId(0),
                user: user.to_owned(),
                request,
                state: JobState::Queued,
                submitted_ms: now,
                started_ms: None,
                ended_ms: None,
                attempts: 0,
                fence: None,
                parts: Vec::new(),
                reason: None,
                cancelling: false,
            };
            match self.sched.submit(now, self.request(&status)) {
                Ok(id) => status.id = JobId(id.0),
                Err(refused) => {
                    for status in taken {
                        self.forget(&status);
                    }
                    return Err((index, refused));
                }
            }
            taken.push(status);
        }
        for (status, image) in taken.iter().zip(images) {
            let id = status.id;
            let job = Job {
                status: status.clone(),
                role: role.to_owned(),
                image,
                attempt: None,
            };
            self.jobs.insert(id, job);
            self.changed(now, id);
            self.mark(id, Mark::Submitted);
        }
        self.stirred = true;
        Ok(taken)
    }

    /// One of a batch that was not taken as a whole.
    fn forget(&mut self, status: &JobStatus) {
        // it was added a moment ago, and waits
        self.sched
            .cancel(sched::JobId(status.id.0))
            .unwrap_or_default();
    }
}
