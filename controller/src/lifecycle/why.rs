//! What a job waits for, in words.

use api::job::{JobId, JobState};
use sched::{Health, Reason};

use super::{Core, Millis};
use crate::desk::Explanation;

impl Core {
    /// `None`: it is over, or never was.
    #[must_use]
    pub fn why(&self, now: Millis, id: JobId) -> Option<Explanation> {
        let job = self.jobs.get(&id)?;
        let why = self.sched.why(now, sched::JobId(id.0)).ok()?;
        let text = why
            .reasons
            .iter()
            .map(|reason| self.words(id, reason))
            .collect();
        Some(Explanation {
            state: job.status.state,
            reasons: why.reasons,
            could_start_ms: why.could_start,
            text,
        })
    }

    fn words(&self, id: JobId, reason: &Reason) -> String {
        let list = |jobs: &[sched::JobId]| {
            let jobs: Vec<String> = jobs.iter().map(|job| format!("{job}")).collect();
            jobs.join(", ")
        };
        match reason {
            Reason::Placed => self.placed_words(id),
            Reason::CanStart => "it starts at the next look".into(),
            Reason::QueueDraining { queue } => {
                format!("queue {queue} is draining: nothing starts from it")
            }
            Reason::NoSuchNodes {
                wanted, matching, ..
            } => format!(
                "it needs {wanted} node(s) at once, and {matching} match what it asks for \
                 (name, class, labels, isolation, tick mode)"
            ),
            Reason::NotIsolated {
                wanted,
                matching,
                others,
                ..
            } => {
                let others: Vec<String> = others
                    .iter()
                    .map(|name| self.unproven_words(name))
                    .collect();
                format!(
                    "it needs {wanted} node(s) with isolated CPUs at once, and {matching} match; without \
                     isolated CPUs, where nothing can be proven, there would be {}: a job that takes \
                     those as well says so (`still run --unproven`, `place.unisolated`)",
                    others.join(", ")
                )
            }
            Reason::NotReady {
                wanted,
                ready,
                others,
                ..
            } => {
                let others: Vec<String> = others
                    .iter()
                    .map(|(name, health)| format!("{name} {}", health_words(health)))
                    .collect();
                format!(
                    "it needs {wanted} node(s) at once, and {ready} take work: {}",
                    others.join(", ")
                )
            }
            Reason::TooLarge { .. } => {
                "no node that matches has so many CPUs, so much memory or such devices, even when \
                 idle"
                    .into()
            }
            Reason::Held { by } => format!("job(s) {} run where it could", list(by)),
            Reason::Reserved { by } => {
                format!(
                    "job(s) {} come before it and have the places reserved",
                    list(by)
                )
            }
            Reason::Booked { nodes } => format!("booked for others: {}", nodes.join(", ")),
            Reason::Behind { jobs } => format!("{jobs} job(s) come before it"),
        }
    }

    /// A node without isolated CPUs, with the reason if it has told one.
    fn unproven_words(&self, name: &str) -> String {
        let mut facts = self.nodes.values().filter(|node| node.row.name == name);
        let facts = facts.find_map(|node| node.row.facts.as_ref());
        match facts.and_then(|facts| facts.unproven.as_ref()) {
            Some(why) => format!("{name} ({why})"),
            None => name.to_owned(),
        }
    }

    fn placed_words(&self, id: JobId) -> String {
        let Some(job) = self.jobs.get(&id) else {
            return "it is over".into();
        };
        let nodes: Vec<&str> = job
            .status
            .parts
            .iter()
            .map(|it| it.node_name.as_str())
            .collect();
        let nodes = nodes.join(", ");
        match job.status.state {
            _ if job.status.cancelling => format!("it is being cancelled on {nodes}"),
            JobState::Assigned => format!("{nodes} has not taken it yet"),
            state => format!("it does not wait: {state} on {nodes}"),
        }
    }
}

fn health_words(health: &Health) -> String {
    match health {
        Health::Ready => "is ready".into(),
        Health::Draining => "is draining".into(),
        Health::Quarantined { cause } => format!("is in quarantine ({cause})"),
        Health::Lost => "is not connected".into(),
    }
}
