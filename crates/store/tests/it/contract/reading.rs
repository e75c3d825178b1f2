//! Lists and counts, against the same done by hand.

use api::job::{JobId, JobState};
use store::{Change, JobCount, JobFilter, JobRecord, Order};

use crate::place::{Place, on_both};
use crate::records::{job_change, node_id, placed};

on_both!(jobs_are_filtered_and_paged, counts_are_of_all_jobs);

/// Of every mixture.
fn jobs() -> Vec<JobRecord> {
    (1..=240)
        .map(|id| {
            let nodes: &[&str] = match id % 4 {
                0 => &[],
                1 => &["n1"],
                2 => &["n2"],
                _ => &["n1", "n2"],
            };
            let mut record = placed(id, id, nodes);
            record.status.state = JobState::ALL[(id % 11) as usize];
            record.status.user = ["ann", "bob", "cid"][(id % 3) as usize].into();
            record.status.request.queue = ["quiet", "loud"][(id / 7 % 2) as usize].into();
            record
        })
        .collect()
}

fn fits(record: &JobRecord, filter: &JobFilter) -> bool {
    let status = &record.status;
    let JobFilter {
        states,
        user,
        queue,
        node,
    } = filter;
    (states.is_empty() || states.contains(&status.state))
        && user.as_ref().is_none_or(|user| *user == status.user)
        && queue
            .as_ref()
            .is_none_or(|queue| *queue == status.request.queue)
        && node
            .as_ref()
            .is_none_or(|node| status.parts.iter().any(|part| part.node == *node))
}

async fn jobs_are_filtered_and_paged(place: Place) {
    let (store, lease) = place.led().await;
    let jobs = jobs();
    let changes = jobs.iter().cloned().map(job_change).collect();
    store.commit(lease.term, changes).await.expect("commits");
    let some = |name: &str| Some(name.to_owned());
    for states in [
        vec![],
        vec![JobState::Queued],
        vec![JobState::Done, JobState::Noisy, JobState::Lost],
        JobState::ALL.to_vec(),
    ] {
        for user in [None, some("bob"), some("nobody")] {
            for queue in [None, some("loud")] {
                for node in [None, Some(node_id("n2"))] {
                    let filter = JobFilter {
                        states: states.clone(),
                        user: user.clone(),
                        queue: queue.clone(),
                        node,
                    };
                    for order in [Order::OldestFirst, Order::NewestFirst] {
                        let mut want: Vec<JobRecord> = jobs
                            .iter()
                            .filter(|job| fits(job, &filter))
                            .cloned()
                            .collect();
                        if order == Order::NewestFirst {
                            want.reverse();
                        }
                        let mut found: Vec<JobRecord> = Vec::new();
                        loop {
                            let after = found.last().map(|job| job.status.id);
                            let page = store.jobs(&filter, after, 50, order).await.expect("reads");
                            assert!(page.len() <= 50);
                            if page.is_empty() {
                                break;
                            }
                            found.extend(page);
                        }
                        assert_eq!(found, want, "{filter:?}");
                    }
                }
            }
        }
    }
    // a job that has left a node is still one that was there
    let mut moved = placed(1, 300, &["n3"]);
    moved.status.state = JobState::Done;
    store
        .commit(lease.term, vec![job_change(moved.clone())])
        .await
        .expect("commits");
    for node in ["n1", "n3"] {
        let filter = JobFilter {
            node: Some(node_id(node)),
            ..JobFilter::default()
        };
        let found = store.jobs(&filter, None, 1, Order::OldestFirst).await;
        assert_eq!(found.expect("reads"), [moved.clone()]);
    }
    let none = store
        .jobs(&JobFilter::default(), None, 0, Order::OldestFirst)
        .await;
    assert!(none.expect("reads").is_empty());
    let beyond = Some(JobId(u64::MAX));
    let last = store
        .jobs(&JobFilter::default(), beyond, 1, Order::NewestFirst)
        .await;
    assert_eq!(last.expect("reads")[0].status.id, JobId(240));
}

async fn counts_are_of_all_jobs(place: Place) {
    let (store, lease) = place.led().await;
    let mut jobs = jobs();
    let changes: Vec<Change> = jobs.iter().cloned().map(job_change).collect();
    store.commit(lease.term, changes).await.expect("commits");
    for job in &mut jobs[..20] {
        job.status.state = JobState::TimedOut;
        let changes = vec![job_change(job.clone())];
        store.commit(lease.term, changes).await.expect("commits");
    }
    let mut want = std::collections::BTreeMap::new();
    for job in &jobs {
        let key = (job.status.request.queue.clone(), job.status.state);
        *want.entry(key).or_insert(0) += 1;
    }
    let want: Vec<JobCount> = want
        .into_iter()
        .map(|((queue, state), jobs)| JobCount { queue, state, jobs })
        .collect();
    let mut found = store.counts().await.expect("reads");
    found.sort();
    assert_eq!(found, want);
}
