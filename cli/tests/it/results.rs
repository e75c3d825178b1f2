//! `still results`, and `still verify` of what it exports.

use std::path::Path;
use std::time::Duration;

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::work::PartOutcome;
use client::fake::papers::{self, papers};
use client::fake::{FakeController, Fault, ending};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pki::Validity;
use serde_json::json;
use tokio::process::Command;

use crate::program::{Home, PATIENCE, Ran, ended};

async fn start() -> (FakeController, Home) {
    let fake = FakeController::start().await.unwrap();
    let home = Home::with(&fake);
    std::fs::create_dir(home.path().join("work")).unwrap();
    (fake, home)
}

fn node(name: &str) -> NodeId {
    NodeId::try_from(name.to_owned()).unwrap()
}

/// A job that has run on a node, with everything that belongs to it.
fn finished(fake: &FakeController) -> JobId {
    finished_with(fake, &[])
}

/// And with these documents besides.
fn finished_with(fake: &FakeController, more: &[(&str, &[u8])]) -> JobId {
    let signer = fake.authority().issue_node(&["n1"], Validity::days(1));
    let signer = signer.unwrap();
    let request = serde_json::from_value(json!({ "image": "bench:1", "argv": ["spin"] })).unwrap();
    fake.change(|state| {
        let id = state.submit(None, &[request])[0].id;
        state.assign(id, &node("n1"), "1");
        let job = state.jobs[&id].status.clone();
        let papers = papers(&job, &papers::part(&node("n1"), "1"), &signer, |_| {}).unwrap();
        for (name, bytes) in &papers.documents {
            state.store(id, &node("n1"), name, bytes);
        }
        for (name, bytes) in more {
            state.store(id, &node("n1"), name, bytes);
        }
        state.end(id, JobState::Done, &papers.ending);
        id
    })
}

/// In the folder where nothing but bundles lies.
fn command(home: &Home, line: &str) -> Command {
    let mut command = home.command(line);
    command.current_dir(home.path().join("work"));
    command
}

async fn run(home: &Home, line: &str) -> Ran {
    ended(command(home, line).spawn().unwrap()).await
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn results_are_the_jobs_that_are_over() {
    let (fake, home) = start().await;
    assert_eq!(run(&home, "results list").await.ok().stdout, "no jobs\n");
    let first = finished(&fake);
    run(&home, "run --detach --name waits x").await.ok();
    let last = finished(&fake);
    let listed = run(&home, "results list").await.ok().stdout;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[0].starts_with("JOB  VERDICT   STATE  IMAGE    NODE  MEDIAN"),
        "{listed}"
    );
    assert!(
        lines[1].starts_with("3    unproven  done   bench:1  n1    0.012345678 s"),
        "{listed}"
    );
    let json = run(&home, "results list --json").await.ok().json();
    assert_eq!(json[0]["id"], last.0);
    assert_eq!(json[1]["id"], first.0);
    assert_eq!(json[1]["verdict"], "unproven");
    assert_eq!(json[1]["nodes"], json!(["n1"]));
    let one = run(&home, "results list --limit 1 --json")
        .await
        .ok()
        .json();
    assert_eq!(one.as_array().unwrap().len(), 1);

    let shown = run(&home, "results show 1").await.ok().stdout;
    assert!(shown.starts_with("job 1: done, unproven\n"), "{shown}");
    assert!(shown.contains("n1: provenance.json"), "{shown}");
    assert_eq!(shown, run(&home, "job show 1").await.ok().stdout);
    run(&home, "results show 2")
        .await
        .failed(2, "job 2 is queued: it has no result before it is over");
    run(&home, "results show 9")
        .await
        .failed(2, "no job is called 9");
}

#[tokio::test]
async fn a_bundle_has_what_tools_saw() {
    let (fake, home) = start().await;
    let series: &[u8] = b"{\"schema\":\"stillmetal-series/1\"}\n[0]\n";
    finished_with(&fake, &[("tools/1/cpu.jsonl", series)]);
    let said = run(&home, "results export 1").await.ok().stdout;
    assert!(said.starts_with("wrote job-1.tar: 9 files, "), "{said}");
    let work = home.path().join("work");
    let bundle = work.join("job-1.tar");
    let mut archive = tar::Archive::new(std::fs::File::open(&bundle).unwrap());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let found = names
        .iter()
        .any(|name| name == "job-1/n1/tools/1/cpu.jsonl");
    assert!(found, "{names:?}");
    run(&home, "verify job-1.tar").await.ok();
    // one digit of it
    let mut bytes = std::fs::read(&bundle).unwrap();
    let at = bytes.windows(3).position(|part| part == b"[0]").unwrap();
    bytes[at + 1] = b'1';
    std::fs::write(&bundle, bytes).unwrap();
    let broken = run(&home, "verify job-1.tar").await;
    assert_eq!(broken.code, Some(1));
    let said = &broken.stdout;
    assert!(said.contains("tools/1/cpu.jsonl: its SHA-256"), "{said}");
}

#[tokio::test]
async fn a_bundle_is_checked_without_the_controller() {
    let (fake, home) = start().await;
    let id = finished(&fake);
    let said = run(&home, "results export 1").await.ok().stdout;
    assert!(said.starts_with("wrote job-1.tar: 8 files, "), "{said}");
    let work = home.path().join("work");
    assert_eq!(names(&work), ["job-1.tar"]);
    let ca = home.path().join("ca.pem");
    std::fs::write(&ca, fake.context().ca_pem).unwrap();
    let stored: Vec<_> = fake.read(|state| {
        let documents = &state.jobs[&id].documents;
        let all = documents
            .iter()
            .map(|((node, name), bytes)| (format!("job-1/{node}/{name}"), bytes.clone()));
        all.collect()
    });
    drop(fake);

    let verified = run(&home, "verify job-1.tar").await.ok().stdout;
    let expected = "intact job-1.tar: 8 files
  job 1: done, unproven, 1 certificate
  signed by n1 of the authority in the bundle; give --ca to check that it is yours
";
    assert_eq!(verified, expected);
    let with_ca = format!("verify --ca {} .", ca.display());
    let trusted = run(&home, &with_ca).await.ok().stdout;
    assert!(
        trusted.ends_with("  signed by n1 of the given authority\n"),
        "{trusted}"
    );
    let json = run(&home, &format!("{with_ca} --json")).await.ok().json();
    assert_eq!(json[0]["trusted"], true);
    assert_eq!(json[0]["bundle"]["jobs"][0]["id"], 1);

    // by hand, as docs/results.md says, and byte by byte what the controller had
    let by_hand = r#"set -e; tar -xf job-1.tar
        awk -F'"' '$2=="name"{name=$4} $2=="sha256" && name{print $4 "  " name; name=""}' bundle.json | sha256sum --check --quiet
        test "$(head -n -2 bundle.json | sha256sum | cut -c 1-64)" = "$(tail -n 2 bundle.json | cut -d '"' -f 4 -s)""#;
    let by_hand = Command::new("sh")
        .arg("-c")
        .arg(by_hand)
        .current_dir(&work)
        .output();
    let by_hand: Ran = by_hand.await.unwrap().into();
    by_hand.ok();
    assert_eq!(stored.len(), 5);
    for (name, bytes) in stored {
        assert_eq!(std::fs::read(work.join(&name)).unwrap(), bytes, "{name}");
    }

    let mut bytes = std::fs::read(work.join("job-1.tar")).unwrap();
    let at = bytes.windows(7).position(|it| it == b"42 ops\n").unwrap();
    bytes[at] = b'9';
    std::fs::write(work.join("job-1.tar"), &bytes).unwrap();
    let changed = run(&home, "verify job-1.tar").await;
    assert_eq!(changed.code, Some(1), "{changed:?}");
    assert!(
        changed
            .stdout
            .starts_with("BROKEN job-1.tar: job-1/n1/stdout: its SHA-256 is "),
        "{changed:?}"
    );
    std::fs::write(work.join("job-1.tar"), &bytes[..5000]).unwrap();
    let cut = run(&home, "verify job-1.tar").await;
    assert_eq!(cut.code, Some(1), "{cut:?}");
    assert!(
        cut.stdout.contains("after 5000 bytes in all: it was cut"),
        "{cut:?}"
    );
    std::fs::write(work.join("job-1.tar"), "no tar").unwrap();
    let none = run(&home, "verify job-1.tar").await;
    assert_eq!(none.code, Some(1), "{none:?}");
    run(&home, "verify --ca job-1.tar job-1.tar")
        .await
        .failed(2, "holds no certificate (PEM) of an authority");
}

#[tokio::test]
async fn the_same_results_are_the_same_bytes() {
    let (fake, home) = start().await;
    finished(&fake);
    finished(&fake);
    run(&home, "results export 1 2 --out a.tar").await.ok();
    run(&home, "results export 2 1 1 --out b.tar").await.ok();
    let work = home.path().join("work");
    let read = |name: &str| std::fs::read(work.join(name)).unwrap();
    assert_eq!(read("a.tar"), read("b.tar"));
    let verified = run(&home, "verify a.tar").await.ok().stdout;
    assert!(
        verified.contains("  job 2: done, unproven, 1 certificate\n"),
        "{verified}"
    );
    run(&home, "results export 1 1").await.ok();
    assert_ne!(read("job-1.tar"), read("a.tar"));
}

#[tokio::test]
async fn wrong_use_is_told_before_anything_is_fetched() {
    let (fake, home) = start().await;
    finished(&fake);
    let work = home.path().join("work");
    std::fs::write(work.join("job-1.tar"), "mine").unwrap();
    let before = fake.calls().len();
    run(&home, "results export 1")
        .await
        .failed(2, "job-1.tar is there already: --force");
    run(&home, "results export 1 2")
        .await
        .failed(2, "name it, with --out FILE");
    run(&home, "results export 1 --out .")
        .await
        .failed(2, ". is a folder");
    run(&home, "results export").await.failed(2, "<ID>...");
    assert_eq!(fake.calls().len(), before);
    assert_eq!(std::fs::read(work.join("job-1.tar")).unwrap(), b"mine");
    run(&home, "results export 9")
        .await
        .failed(2, "no job is called 9");
    run(&home, "results export 1 --out nowhere/x.tar")
        .await
        .failed(3, "write nowhere/x.tar");
    run(&home, "results export 1 --force").await.ok();
    run(&home, "verify job-1.tar").await.ok();
}

#[tokio::test]
async fn what_lacks_something_is_not_exported() {
    let (fake, home) = start().await;
    let id = finished(&fake);
    let work = home.path().join("work");
    let lacks = |code: i32, said: &'static str| {
        let home = &home;
        let work = &work;
        async move {
            run(home, "results export 1").await.failed(code, said);
            assert_eq!(names(work), Vec::<String>::new());
        }
    };
    // a field of the provenance
    let place = ("n1".to_owned(), "provenance.json".to_owned());
    let whole = fake.read(|state| state.jobs[&id].clone());
    fake.change(|state| {
        let mut value: serde_json::Value =
            serde_json::from_slice(&whole.documents[&place]).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.remove("microcode");
        fields.remove("kernel");
        fields.remove("firmware");
        let bytes = serde_json::to_vec(&value).unwrap();
        let part = &mut state.jobs.get_mut(&id).unwrap().status.parts[0];
        part.documents
            .retain(|document| document.name != "provenance.json");
        state.store(id, &node("n1"), "provenance.json", &bytes);
        let ending = whole.status.parts[0].ending.clone().unwrap();
        state.end(id, JobState::Done, &ending);
    });
    lacks(
        1,
        "job 1, part on n1: its provenance.json lacks kernel, firmware",
    )
    .await;
    let restore = || fake.change(|state| drop(state.jobs.insert(id, whole.clone())));

    restore();
    fake.change(|state| {
        drop(
            state.jobs.get_mut(&id).unwrap().status.parts[0]
                .documents
                .pop(),
        )
    });
    lacks(1, "not those that its ending names: stderr is missing").await;
    restore();
    fake.change(|state| state.jobs.get_mut(&id).unwrap().status.parts[0].ending = None);
    lacks(1, "nobody knows how it ended").await;
    restore();
    fake.change(|state| state.jobs.get_mut(&id).unwrap().status.parts.clear());
    lacks(1, "job 1 (done) has no documents: it never began on a node").await;
    restore();
    fake.change(|state| {
        let job = state.jobs.get_mut(&id).unwrap();
        job.status.parts[0].documents.clear();
        let mut refused = ending(PartOutcome::Error);
        refused.reason = Some("no such image".into());
        state.end(id, JobState::Failed, &refused);
    });
    lacks(1, "it has no documents (no such image)").await;
    restore();
    fake.change(|state| state.jobs.get_mut(&id).unwrap().status.state = JobState::Measuring);
    lacks(2, "job 1 is measuring").await;
    // a document that is not what it was
    restore();
    fake.change(|state| {
        let job = state.jobs.get_mut(&id).unwrap();
        job.documents
            .get_mut(&("n1".into(), "stdout".into()))
            .unwrap()[0] ^= 1;
    });
    lacks(3, "its SHA-256 is").await;
    restore();
    fake.break_once(Fault::Cut {
        path: "/v1/jobs/1/documents/n1/certificate-1.json".into(),
        after: 1500,
    });
    // a connection that breaks is no reason: it goes on from there
    run(&home, "results export 1").await.ok();
    run(&home, "verify job-1.tar").await.ok();
    assert_eq!(fake.faults_left(), 0);
}

#[tokio::test]
async fn control_c_leaves_nothing_behind() {
    let (fake, home) = start().await;
    finished(&fake);
    fake.break_once(Fault::Silence {
        path: "/v1/jobs/1/documents/n1/stdout".into(),
    });
    let child = command(&home, "results export 1").spawn().unwrap();
    let work = home.path().join("work");
    let begun = async {
        while fake.faults_left() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    assert_eq!(names(&work).len(), 1, "half of it is there");
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    ended(child)
        .await
        .failed(3, "interrupted: nothing was written");
    assert_eq!(names(&work), Vec::<String>::new());
}
