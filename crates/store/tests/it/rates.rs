//! How fast it is; for people, judged by nobody.
//!
//! `cargo test --release -p store -- --ignored --nocapture rates`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::job::{JobId, JobState};
use store::{EventFilter, JobFilter, Order};

use crate::place::{Backend, Place, block_on_two};
use crate::records::{job, job_change, queued};

#[test]
#[ignore = "prints figures, checks nothing"]
fn sqlite() {
    let place = Place::new(Backend::Sqlite);
    block_on_two(measure(&place));
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn postgres() {
    let place = Place::new(Backend::Postgres);
    block_on_two(measure(&place));
}

async fn measure(place: &Place) {
    const TASKS: u64 = 64;
    let (store, lease) = place.led().await;
    let backend = place.backend();

    let began = Instant::now();
    let mut alone = 0;
    while began.elapsed() < Duration::from_secs(2) {
        alone += 1;
        store
            .commit(lease.term, queued(alone))
            .await
            .expect("commits");
    }
    let rate = alone as f64 / began.elapsed().as_secs_f64();
    println!("{backend:?}: {rate:.0} commits/s from one task, a job and an event each");

    let before = store.stats();
    let next = Arc::new(AtomicU64::new(1_000_000));
    let began = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut done = 0;
                while began.elapsed() < Duration::from_secs(3) {
                    done += 1;
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    store.commit(lease.term, queued(id)).await.expect("commits");
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.expect("runs");
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    let after = store.stats();
    let transactions = after.transactions - before.transactions;
    let group = done as f64 / transactions as f64;
    let each = (after.busy - before.busy).as_secs_f64() * 1e3 / transactions as f64;
    println!(
        "{backend:?}: {rate:.0} commits/s from {TASKS} tasks, {group:.1} to a transaction of {each:.2} ms"
    );

    let began = Instant::now();
    let mut rows = 0;
    for batch in 1..=40 {
        let first = batch * 100_000_000;
        let changes: Vec<_> = (first..first + 1_000).flat_map(queued).collect();
        rows += changes.len();
        store.commit(lease.term, changes).await.expect("commits");
    }
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    println!("{backend:?}: {rate:.0} rows/s in calls of 1,000 jobs and events");

    let mut changes = Vec::new();
    for id in 10_000_000_000..10_000_100_000_u64 {
        changes.push(job_change(job(id, JobState::Done)));
        if changes.len() == 1_000 {
            let full = std::mem::take(&mut changes);
            store.commit(lease.term, full).await.expect("commits");
        }
    }
    let began = Instant::now();
    let counted: u64 = store
        .counts()
        .await
        .expect("reads")
        .iter()
        .map(|count| count.jobs)
        .sum();
    println!("{backend:?}: {:?} to count {counted} jobs", began.elapsed());
    for states in [vec![], vec![JobState::Done], vec![JobState::Lost]] {
        let filter = JobFilter {
            states,
            ..JobFilter::default()
        };
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let began = Instant::now();
            let page = store.jobs(&filter, None, 50, order).await.expect("reads");
            println!(
                "{backend:?}: {:?} for a page of {} jobs, {:?} {order:?}",
                began.elapsed(),
                page.len(),
                filter.states
            );
        }
    }
    let began = Instant::now();
    let filter = EventFilter {
        job: Some(JobId(alone)),
        node: None,
    };
    store.events(0, 50, &filter).await.expect("reads");
    println!("{backend:?}: {:?} for a job's events", began.elapsed());
    let began = Instant::now();
    let loaded = store.load().await.expect("loads").jobs.len();
    println!(
        "{backend:?}: {:?} to load {loaded} waiting jobs",
        began.elapsed()
    );
}
