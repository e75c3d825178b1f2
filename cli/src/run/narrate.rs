//! What is said of a job while it goes its way: a line whenever there is news. Pure.

use api::job::{JobState, JobStatus};
use client::Why;

use crate::job::why_lines;

/// Remembers what it has said.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    state: Option<JobState>,
    stage: String,
    why: Vec<String>,
}

impl Narrator {
    /// A line for a job as it stands now; none if that is no news, or its end, which has a block of its
    /// own.
    pub(crate) fn job(&mut self, job: &JobStatus) -> Option<String> {
        let stage = stage(job);
        let before = self.state.replace(job.state);
        if stage == self.stage {
            return None;
        }
        if job.state != JobState::Queued {
            self.why.clear();
        }
        self.stage = stage;
        if job.state.is_over() {
            return None;
        }
        let mut line = format!("job {}: {}", job.id, self.stage);
        let returned = job.state == JobState::Queued && before.is_some_and(|it| it != job.state);
        if returned {
            line.push_str(", again");
            if let Some(reason) = &job.reason {
                line.push_str(&format!(": {reason}"));
            }
        }
        Some(line)
    }

    /// Lines for what it waits for; none if that is no news.
    pub(crate) fn why(&mut self, why: &Why) -> Vec<String> {
        // the moment it could start moves all the time, and is no news by itself
        let words: Vec<String> = match &why.text[..] {
            [] => why
                .reasons
                .iter()
                .map(|reason| reason.code.clone())
                .collect(),
            text => text.to_vec(),
        };
        if words == self.why {
            return Vec::new();
        }
        self.why = words;
        why_lines(why)
    }

    /// For the moving line.
    pub(crate) fn now(&self) -> &str {
        &self.stage
    }
}

/// Where it stands, in words.
fn stage(job: &JobStatus) -> String {
    let places: Vec<_> = job
        .parts
        .iter()
        .map(|part| format!("{} (CPUs {})", part.node_name, part.cpus))
        .collect();
    let mut text = match (job.state, &places[..]) {
        (JobState::Queued, _) => format!("queued in {}", job.request.queue),
        (state, []) => state.to_string(),
        (state, places) => format!("{state} on {}", places.join(", ")),
    };
    if job.attempts > 1 && job.state != JobState::Queued {
        text.push_str(&format!(", attempt {}", job.attempts));
    }
    if job.cancelling {
        text.push_str(", to be cancelled");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(state: &str, attempts: u32, placed: bool) -> JobStatus {
        let part = json!({ "node": "n", "node_name": "node1", "cpus": "1", "ending": null, "documents": [] });
        let parts = if placed { vec![part] } else { Vec::new() };
        serde_json::from_value(json!({
            "id": 7, "user": "u", "request": { "image": "x" }, "state": state, "submitted_ms": 0,
            "started_ms": null, "ended_ms": null, "attempts": attempts, "fence": null, "parts": parts,
            "reason": null, "cancelling": false,
        }))
        .unwrap()
    }

    fn why(text: &[&str], could_start_ms: Option<u64>) -> Why {
        Why {
            reasons: Vec::new(),
            could_start_ms,
            text: text.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn each_change_once() {
        let mut narrator = Narrator::default();
        let mut all = Vec::new();
        for (state, attempts, placed) in [
            ("queued", 0, false),
            ("queued", 0, false),
            ("assigned", 1, true),
            ("measuring", 1, true),
            ("measuring", 1, true),
            ("queued", 1, false),
            ("queued", 1, false),
            ("assigned", 2, true),
            ("done", 2, true),
        ] {
            let mut job = job(state, attempts, placed);
            if attempts > 0 && state == "queued" {
                job.reason = Some("node1 was lost".into());
            }
            all.extend(narrator.job(&job));
        }
        assert_eq!(
            all,
            [
                "job 7: queued in default",
                "job 7: assigned on node1 (CPUs 1)",
                "job 7: measuring on node1 (CPUs 1)",
                "job 7: queued in default, again: node1 was lost",
                "job 7: assigned on node1 (CPUs 1), attempt 2",
            ]
        );
    }

    #[test]
    fn reasons_are_told_when_they_change() {
        let mut narrator = Narrator::default();
        assert!(narrator.job(&job("queued", 0, false)).is_some());
        let lines = narrator.why(&why(&["job 3 runs where it could"], Some(0)));
        assert_eq!(
            lines,
            ["  job 3 runs where it could", "  it could start now"]
        );
        assert!(
            narrator
                .why(&why(&["job 3 runs where it could"], Some(9)))
                .is_empty()
        );
        assert_eq!(narrator.why(&why(&["it can start"], None)).len(), 1);
        let mut cancelling = job("queued", 0, false);
        cancelling.cancelling = true;
        let line = narrator.job(&cancelling);
        assert_eq!(
            line.as_deref(),
            Some("job 7: queued in default, to be cancelled")
        );
    }
}
