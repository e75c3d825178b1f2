//! Waiting for a job.

use api::job::JobState;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn it_answers_at_once_what_is_already_so() {
    let bench = Bench::new();
    let (id, _) = bench.placed(&["n1"]).await;
    let got = soon(bench.get(&format!("/v1/jobs/{id}?wait=60&seen=preparing"))).await;
    assert_eq!(got.job(200).state, JobState::Queued);
    bench.fake.advance(id, JobState::Done);
    for query in ["wait=60", "wait=60&seen=done", "wait=0", "seen=queued"] {
        let got = soon(bench.get(&format!("/v1/jobs/{id}?{query}"))).await;
        assert_eq!(got.job(200).state, JobState::Done, "{query}");
    }
    let got = soon(bench.get("/v1/jobs/99?wait=60")).await;
    got.problem(404, "no-such-job");
}

/// Until the call is waiting; then `act`; then its answer.
async fn meanwhile(bench: &Bench, uri: &str, act: impl FnOnce()) -> Got {
    let mut call = std::pin::pin!(bench.get(uri));
    let busy = tokio::time::timeout(Duration::from_millis(50), &mut call).await;
    assert!(busy.is_err(), "it answered at once: {busy:?}");
    act();
    soon(call).await
}

#[tokio::test]
async fn it_answers_when_the_job_is_over() {
    let bench = Bench::new();
    let (id, _) = bench.placed(&["n1"]).await;
    let other = bench.job().await;
    let got = meanwhile(&bench, &format!("/v1/jobs/{id}?wait=60"), || {
        // neither of these is what it waits for
        bench.fake.advance(id, JobState::Measuring);
        bench.fake.advance(other, JobState::Failed);
        bench.fake.note("queue.set");
        bench.fake.advance(id, JobState::Noisy);
    })
    .await;
    assert_eq!(got.job(200).state, JobState::Noisy);
}

#[tokio::test]
async fn it_answers_when_the_job_goes_on() {
    let bench = Bench::new();
    let (id, _) = bench.placed(&["n1"]).await;
    let uri = format!("/v1/jobs/{id}?wait=60&seen=queued");
    let got = meanwhile(&bench, &uri, || bench.fake.advance(id, JobState::Preparing)).await;
    assert_eq!(got.job(200).state, JobState::Preparing);
}

#[tokio::test(start_paused = true)]
async fn it_answers_when_the_time_is_over() {
    let bench = Bench::new();
    let id = bench.job().await;
    let begun = Instant::now();
    let got = bench.get(&format!("/v1/jobs/{id}?wait=30")).await;
    assert_eq!(got.job(200).state, JobState::Queued);
    let took = begun.elapsed();
    assert!((30..31).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn it_answers_when_the_controller_goes_down() {
    let bench = Bench::new();
    let id = bench.job().await;
    let uri = format!("/v1/jobs/{id}?wait=60");
    let got = meanwhile(&bench, &uri, || bench.stop.cancel()).await;
    assert_eq!(got.job(200).state, JobState::Queued);
    bench.tracker.close();
    soon(bench.tracker.wait()).await;
}

#[tokio::test]
async fn many_wait_for_one_job() {
    let bench = Arc::new(Bench::new());
    let id = bench.job().await;
    let waits: Vec<_> = (0..200)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.get(&format!("/v1/jobs/{id}?wait=60")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.fake.advance(id, JobState::Done);
    for wait in waits {
        assert_eq!(soon(wait).await.unwrap().job(200).state, JobState::Done);
    }
}
