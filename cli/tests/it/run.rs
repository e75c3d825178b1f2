//! `still run`: from submission to exit code.

use std::collections::BTreeMap;
use std::time::Duration;

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::work::{Ending, PartOutcome};
use client::Why;
use client::fake::{FakeController, Fault, ending};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quiet::Verdict;
use serde_json::json;
use tokio::process::Child;

use crate::program::{Home, PATIENCE, Ran, ended};

const FIRST: JobId = JobId(1);

async fn start() -> (FakeController, Home) {
    let fake = FakeController::start().await.unwrap();
    let home = Home::with(&fake);
    (fake, home)
}

fn node(name: &str) -> NodeId {
    NodeId::try_from(name.to_owned()).unwrap()
}

/// A series as a node reports it.
fn result(verdict: &str) -> Vec<u8> {
    let attempt = |number: u32,
                   repetition: Option<u32>,
                   verdict: Option<&str>,
                   reasons: &[&str]| {
        json!({
            "number": number, "repetition": repetition, "container": "c", "verdict": verdict,
            "reasons": reasons, "outcome": "succeeded", "failure": null, "exit_code": 0, "signal": null,
            "duration_ns": 12_345_678, "stdout": "", "stderr": "", "truncated": false,
        })
    };
    serde_json::to_vec(&json!({
        "id": "r", "state": "done", "error": null,
        "request": { "image": "x", "cpus": 1, "repetitions": 2, "warmups": 1 },
        "image": "sha256:abc", "cpus": "1",
        "attempts": [
            attempt(1, None, None, &[]),
            attempt(2, Some(1), Some("noisy"), &["CPU 1: 3 interrupts"]),
            attempt(3, Some(1), Some("quiet"), &[]),
            attempt(4, Some(2), Some(verdict), &[]),
        ],
        "duration_ns": {
            "samples": 2, "median": 12_345_678.0, "mad": 1_000.0, "min": 12_344_678.0, "max": 12_346_678.0,
            "interval": { "low": 12_344_678.0, "high": 12_346_678.0, "confidence": 0.95 },
        },
        "left_out": [2],
    }))
    .unwrap()
}

/// Waits until the first job is there.
async fn submitted(fake: &FakeController) {
    let there = |state: &client::fake::State| state.jobs.contains_key(&FIRST).then_some(());
    fake.wait(PATIENCE, there)
        .await
        .expect("a job is submitted");
}

async fn asked(fake: &FakeController, what: &str) {
    let wait = async {
        while !fake.calls().iter().any(|call| call.contains(what)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} in {:?}", fake.calls()));
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
}

fn with(outcome: PartOutcome, verdict: Option<Verdict>) -> Ending {
    Ending {
        verdict,
        ..ending(outcome)
    }
}

/// Ends the first job with some output.
async fn finish(fake: &FakeController, state: JobState, ending: &Ending) {
    submitted(fake).await;
    fake.change(|all| {
        all.assign(FIRST, &node("n1"), "1");
        let job = all.jobs.get_mut(&FIRST).unwrap();
        job.stdout = b"42 ops\n".to_vec();
        job.stderr = b"a warning\n".to_vec();
        if state == JobState::Done {
            all.store(FIRST, &node("n1"), "result.json", &result("quiet"));
        }
        all.end(FIRST, state, ending);
    });
}

#[tokio::test]
async fn a_job_from_queue_to_verdict() {
    let (fake, home) = start().await;
    fake.change(|state| {
        state.why = Why {
            reasons: Vec::new(),
            could_start_ms: None,
            text: vec!["job 3 runs where it could".into()],
        };
    });
    let child = home
        .command("run --cpus 1 --repeat 2 --warmup 1 --timeout 5m --env A=1 busybox sh -c true")
        .spawn()
        .unwrap();
    let script = async {
        submitted(&fake).await;
        asked(&fake, "/v1/jobs/1/why").await;
        fake.change(|state| state.assign(FIRST, &node("n1"), "1"));
        // each stage is seen before the next one comes
        for state in [
            JobState::Preparing,
            JobState::Measuring,
            JobState::Collecting,
        ] {
            let before = fake.calls().len();
            fake.change(|all| all.advance(FIRST, state));
            let looked = async {
                while fake.calls()[before..]
                    .iter()
                    .all(|it| it != "GET /v1/jobs/1")
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, looked).await.unwrap();
        }
        let ending = with(PartOutcome::Done, Some(Verdict::Quiet));
        fake.change(|all| {
            let job = all.jobs.get_mut(&FIRST).unwrap();
            job.stdout = b"42 ops\n".to_vec();
            job.stderr = b"a warning\n".to_vec();
            all.store(FIRST, &node("n1"), "result.json", &result("quiet"));
            all.end(FIRST, JobState::Done, &ending);
        });
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    let ran = ran.ok();
    let block = "42 ops
job 1: done, quiet
  node       n1, CPU 1
  image      sha256:abc
  runs       2 quiet of 3 for 2 repetitions, after 1 warm-up
  duration   median 12.346 ms, median deviation 1.000 µs, 12.345 ms to 12.347 ms
             95 % interval of the median 12.345 ms to 12.347 ms
  not quiet  CPU 1: 3 interrupts (run 2)
";
    assert_eq!(ran.stdout, block);
    let said = &ran.stderr;
    let mut rest = &said[..];
    for line in [
        "job 1: queued in default\n",
        "  job 3 runs where it could\n",
        "job 1: measuring on n1 (CPUs 1)\n",
        "a warning\n",
    ] {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("{line} in {said}"));
        rest = &rest[at + line.len()..];
    }
    let request = fake.read(|state| state.jobs[&FIRST].status.request.clone());
    assert_eq!(request.argv, ["sh", "-c", "true"]);
    assert_eq!(request.limits.run_seconds, 300);
    assert_eq!(request.env, BTreeMap::from([("A".into(), "1".into())]));
    assert_eq!(fake.read(|state| state.keys.len()), 1);
}

#[tokio::test]
async fn every_end_has_its_code() {
    let failed = Ending {
        exit_code: Some(3),
        reason: Some("the benchmark ended with code 3".into()),
        ..with(PartOutcome::Failed, None)
    };
    let error = Ending {
        reason: Some("no such image".into()),
        ..ending(PartOutcome::Error)
    };
    let done = with(PartOutcome::Done, Some(Verdict::Unproven));
    for (state, ending, code, said) in [
        (JobState::Done, done, 0, "job 1: done, unproven\n"),
        (JobState::Failed, failed, 1, "code 3"),
        (
            JobState::Noisy,
            with(PartOutcome::Noisy, Some(Verdict::Noisy)),
            1,
            "job 1: noisy, noisy\n",
        ),
        (
            JobState::TimedOut,
            ending(PartOutcome::TimedOut),
            1,
            "job 1: timed-out\n",
        ),
        (
            JobState::Cancelled,
            self::ending(PartOutcome::Cancelled),
            1,
            "job 1: cancelled\n",
        ),
        (
            JobState::Lost,
            self::ending(PartOutcome::Cancelled),
            1,
            "job 1: lost\n",
        ),
        (JobState::Failed, error, 3, "job 1: failed\n"),
    ] {
        let (fake, home) = start().await;
        let child = home.command("run x").spawn().unwrap();
        let (ran, ()) = tokio::join!(ended(child), finish(&fake, state, &ending));
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
        assert!(ran.stdout.starts_with("42 ops\n"), "{ran:?}");
        if code == 3 {
            assert!(ran.stderr.contains("no such image"), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn json_is_one_document() {
    let (fake, home) = start().await;
    let child = home.command("run --json x").spawn().unwrap();
    let ending = with(PartOutcome::Done, Some(Verdict::Quiet));
    let (ran, ()) = tokio::join!(ended(child), finish(&fake, JobState::Done, &ending));
    let json = ran.ok().json();
    assert_eq!(json["job"]["state"], "done");
    assert_eq!(json["verdict"], "quiet");
    assert_eq!(json["results"][0]["runs"]["duration_ns"]["samples"], 2);
}

#[tokio::test]
async fn detached_it_only_says_the_number() {
    let (fake, home) = start().await;
    let ran = home.run("run --detach x").await.ok();
    assert_eq!(ran.stdout, "1\n");
    assert!(fake.read(|state| !state.jobs[&FIRST].status.state.is_over()));
}

#[tokio::test]
async fn followed_output_comes_once() {
    let (fake, home) = start().await;
    let child = home.command("run --follow x").spawn().unwrap();
    let script = async {
        submitted(&fake).await;
        fake.change(|state| {
            state.assign(FIRST, &node("n1"), "1");
            state.advance(FIRST, JobState::Measuring);
        });
        asked(&fake, "stream=stdout&node=n1&follow=true").await;
        asked(&fake, "stream=stderr&node=n1&follow=true").await;
        for line in ["one\n", "two\n"] {
            fake.change(|state| {
                let job = state.jobs.get_mut(&FIRST).unwrap();
                job.stdout.extend_from_slice(line.as_bytes());
                job.stderr.extend_from_slice(b"e\n");
            });
        }
        let ending = with(PartOutcome::Done, Some(Verdict::Quiet));
        fake.change(|state| state.end(FIRST, JobState::Done, &ending));
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    let ran = ran.ok();
    assert!(
        ran.stdout.starts_with("one\ntwo\njob 1: done, quiet\n"),
        "{ran:?}"
    );
    assert_eq!(
        ran.stderr.matches("e\n").filter(|_| true).count(),
        ran.stderr.matches("e\n").count()
    );
    let own: Vec<_> = ran.stderr.lines().filter(|line| *line == "e").collect();
    assert_eq!(own.len(), 2, "{ran:?}");
}

#[tokio::test]
async fn a_broken_stream_is_completed_at_the_end() {
    let (fake, home) = start().await;
    let child = home.command("run --follow x").spawn().unwrap();
    let script = async {
        submitted(&fake).await;
        // three bytes of the output, then nothing
        fake.break_once(Fault::Cut {
            path: "/v1/jobs/1/logs".into(),
            after: 3,
        });
        fake.change(|state| {
            state.assign(FIRST, &node("n1"), "1");
            state.jobs.get_mut(&FIRST).unwrap().stdout = b"one\n".to_vec();
            state.advance(FIRST, JobState::Measuring);
        });
        asked(&fake, "stream=stderr&node=n1&follow=true").await;
        let ending = with(PartOutcome::Done, Some(Verdict::Quiet));
        fake.change(|state| {
            let job = state.jobs.get_mut(&FIRST).unwrap();
            job.stdout = b"one\ntwo\n".to_vec();
            state.end(FIRST, JobState::Done, &ending);
        });
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    let ran = ran.ok();
    assert!(ran.stdout.starts_with("one\ntwo\njob 1"), "{ran:?}");
}

#[tokio::test]
async fn control_c_ends_the_job_and_waits_for_its_end() {
    let (fake, home) = start().await;
    fake.change(|state| state.cancel_ends = false);
    let child = home.command("run x").spawn().unwrap();
    let pid = child.id();
    let script = async {
        submitted(&fake).await;
        asked(&fake, "/v1/jobs/1").await;
        fake.change(|state| {
            state.assign(FIRST, &node("n1"), "1");
            state.advance(FIRST, JobState::Measuring);
        });
        let pid = i32::try_from(pid.unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
        asked(&fake, "POST /v1/jobs/1/cancel").await;
        let cancelled = Ending {
            reason: Some("interrupted by its submitter".into()),
            ..ending(PartOutcome::Cancelled)
        };
        fake.change(|state| state.end(FIRST, JobState::Cancelled, &cancelled));
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    let ran = ran.failed(1, "asking the controller to end it");
    assert!(ran.stdout.contains("job 1: cancelled\n"), "{ran:?}");
}

#[tokio::test]
async fn control_c_twice_leaves_and_says_how_to_go_on() {
    let (fake, home) = start().await;
    // it hears nothing, and goes on
    fake.change(|state| state.cancel_ends = false);
    fake.break_once(Fault::Silence {
        path: "/v1/jobs/1/cancel".into(),
    });
    let child = home.command("run x").spawn().unwrap();
    submitted(&fake).await;
    asked(&fake, "/v1/jobs/1").await;
    interrupt(&child);
    asked(&fake, "POST /v1/jobs/1/cancel").await;
    interrupt(&child);
    ended(child).await.failed(3, "still job cancel 1");
}

#[tokio::test]
async fn control_c_before_the_answer_ends_the_job_as_soon_as_it_is_there() {
    let (fake, home) = start().await;
    for _ in 0..2 {
        fake.break_once(Fault::Refuse {
            path: "/v1/jobs".into(),
            problem: api::problem::Problem {
                kind: "stillmetal:store-unavailable".into(),
                title: "t".into(),
                status: 503,
                detail: "d".into(),
                instance: None,
                next: None,
            },
            retry_after_seconds: Some(1),
        });
    }
    let child = home.command("run x").spawn().unwrap();
    asked(&fake, "POST /v1/jobs").await;
    interrupt(&child);
    let ran: Ran = ended(child).await;
    let ran = ran.failed(1, "as soon as the controller has it");
    assert!(ran.stdout.contains("job 1: cancelled\n"), "{ran:?}");
    assert_eq!(fake.read(|state| state.jobs.len()), 1);
}

#[tokio::test]
async fn a_result_that_was_changed_is_not_told() {
    let (fake, home) = start().await;
    let child = home.command("run x").spawn().unwrap();
    let script = async {
        submitted(&fake).await;
        fake.change(|all| {
            all.assign(FIRST, &node("n1"), "1");
            all.store(FIRST, &node("n1"), "result.json", &result("quiet"));
            let job = all.jobs.get_mut(&FIRST).unwrap();
            for bytes in job.documents.values_mut() {
                bytes[10] ^= 1;
            }
            all.end(FIRST, JobState::Done, &ending(PartOutcome::Done));
        });
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    ran.failed(3, "SHA-256");
}

#[tokio::test]
async fn a_lost_controller_is_told_and_a_restarted_one_is_not_noticed() {
    let (fake, home) = start().await;
    let child = home.command("run x").spawn().unwrap();
    let script = async {
        submitted(&fake).await;
        asked(&fake, "/v1/events").await;
        // events and looks fail for a while
        for path in ["/v1/events", "/v1/jobs/1", "/v1/jobs/1"] {
            fake.break_once(Fault::LoseAnswer { path: path.into() });
        }
        finish(&fake, JobState::Done, &with(PartOutcome::Done, None)).await;
    };
    let (ran, ()) = tokio::join!(ended(child), script);
    assert!(ran.ok().stdout.contains("job 1: done\n"));
}
