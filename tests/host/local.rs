//! `still up --provider local`: a lab of processes.

use std::path::Path;

use testkit::Output;

use crate::engine::Engine;
use stillmetal_tests::people::{program, still};

/// Processes of this build's agent and controller that somebody's home is named in.
fn processes_of(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let home = home.display().to_string();
    lines
        .filter(|line| line.contains("stillmetal-") && line.contains(&home))
        .collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

/// Somebody's home. Dropped, the lab in it is taken down.
struct Home(tempfile::TempDir);

impl Home {
    fn still(&self, words: &[&str]) -> Output {
        let words = words.iter().copied();
        still(program, self.0.path(), words).run().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // of a test that failed; the other one has done it already
        drop(still(program, self.0.path(), ["down"]).run());
    }
}

#[test]
#[ignore = "needs root and docker.io: root lane"]
fn a_lab_of_processes_comes_runs_and_leaves_nothing() {
    let engine = Engine::start();
    let lab = Home(testkit::scratch_folder("local").unwrap());
    let home = &lab.0;
    let still = |words: &[&str]| lab.still(words);
    let socket = engine.socket().display().to_string();
    let up = ["--json", "up", "--provider", "local", "--engine", &socket];
    let output = still(&up).ok().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["nodes"][0]["state"], "ready", "{said:#}");
    assert!(!processes_of(home.path()).is_empty());
    let archive = testkit::images::busybox().unwrap();
    still(&["image", "push", archive.to_str().unwrap()])
        .ok()
        .unwrap();
    let run = still(&["run", "--unproven", "busybox", "echo", "here"])
        .ok()
        .unwrap();
    let said = run.text();
    assert!(
        said.contains("here") && said.contains("done, unproven"),
        "{said}"
    );
    assert!(said.contains("the host has no isolated CPU"), "{said}");

    // with a job under way, and once with the supervisor killed before
    let long = ["run", "--unproven", "--detach", "busybox", "sleep", "1000"];
    let begun = || {
        still(&long).ok().unwrap();
        stillmetal_tests::people::eventually("it runs", || {
            engine.containers().starts_with("stillmetal-run-")
        });
    };
    let nothing_is_left = || {
        still(&["down"]).ok().unwrap();
        assert_eq!(engine.containers(), "");
        assert_eq!(engine.text(["images", "-q"]), "");
        assert_eq!(
            files_below(home.path()),
            [""; 0].map(std::path::PathBuf::from)
        );
        assert_eq!(processes_of(home.path()), [""; 0]);
    };
    begun();
    nothing_is_left();
    still(&up).ok().unwrap();
    still(&["image", "push", archive.to_str().unwrap()])
        .ok()
        .unwrap();
    begun();
    let record = home.path().join(".local/state/stillmetal/lab/record.json");
    let record = std::fs::read_to_string(record).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let supervisor = i32::try_from(record["supervisor"]["pid"].as_i64().unwrap()).unwrap();
    let killed = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    nothing_is_left();
}

#[test]
#[ignore = "needs root and docker.io: root lane"]
fn a_lab_without_an_engine_is_told_where_it_was_looked_for() {
    let home = testkit::scratch_folder("local").unwrap();
    assert!(program("stillmetal-agent").is_file());
    let words = ["up", "--provider", "local", "--engine", "/nowhere.sock"];
    let output = still(program, home.path(), words).run().unwrap();
    assert_eq!(output.code, Some(3), "{}", output.error_text());
    let said = output.error_text();
    assert!(
        said.contains("/nowhere.sock") && said.contains("--engine"),
        "{said}"
    );
    assert_eq!(
        files_below(home.path()),
        [""; 0].map(std::path::PathBuf::from)
    );
}
