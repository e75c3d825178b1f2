//! `still up` and `still down`, with a controller that this very program plays and without machines
//! (those are the VM lane's).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use client::fake::FakeController;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pki::Authority;
use tokio::process::Command;

use crate::program::{Home, PATIENCE, Ran, ended};

/// Set in the process that plays the controller: its arguments.
const PLAY: &str = "STILLMETAL_TEST_CONTROLLER";
/// What the controller does instead of serving, by a file in the home.
const TROUBLE: &str = "trouble";

fn argument<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).unwrap()
}

/// As the real one does: serves on the port it is told, with an authority that outlives it.
async fn play(line: &str) {
    let state = Path::new(argument(line, "--state"));
    let home = state.ancestors().nth(4).unwrap();
    if let Ok(words) = fs::read_to_string(home.join(TROUBLE)) {
        eprintln!("{words}");
        // a panic would have more to say, and these are to be its last words
        kill(Pid::this(), Signal::SIGKILL).unwrap();
    }
    fs::create_dir_all(state).unwrap();
    let (cert, key) = (state.join("ca.pem"), state.join("ca.key"));
    if !key.exists() {
        let authority = Authority::generate("lab").unwrap();
        fs::write(&cert, authority.cert_pem()).unwrap();
        fs::write(&key, authority.key_pem()).unwrap();
    }
    let read = |path| fs::read_to_string(path).unwrap();
    let authority = Authority::from_pem(&read(&cert), &read(&key)).unwrap();
    let port = argument(line, "--listen")
        .strip_prefix("127.0.0.1:")
        .unwrap();
    let fake = FakeController::start_with(authority, port.parse().unwrap());
    let fake = fake.await.unwrap();
    let bundle = Path::new(argument(line, "--admin-bundle"));
    fs::create_dir_all(bundle).unwrap();
    let context = fake.context();
    for (name, text) in [
        ("ca.pem", context.ca_pem),
        ("cert.pem", context.cert_pem),
        ("key.pem", context.key_pem),
    ] {
        fs::write(bundle.join(name), text).unwrap();
    }
    std::future::pending().await
}

/// Plays the controller if it was called for that.
async fn play_if_asked() {
    if let Ok(line) = std::env::var(PLAY) {
        play(&line).await;
    }
}

/// A home whose labs have this program as their controller.
struct LabHome(Home);

impl LabHome {
    fn new() -> Self {
        let home = Home::new();
        let script = home.path().join("controller");
        let own = std::env::current_exe().unwrap();
        let text = format!(
            "#!/bin/sh\n{PLAY}=\"$*\" exec '{}' --exact lab::a_lab_comes_and_goes --nocapture\n",
            own.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self(home)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.0.command(line);
        command.env("STILLMETAL_CONTROLLER", self.0.path().join("controller"));
        command
    }

    async fn run(&self, line: &str) -> Ran {
        ended(self.command(line).spawn().unwrap()).await
    }

    fn record(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.0.state().join("lab/record.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What is below the home, without what this test put there.
    fn left(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name != "controller" && name != TROUBLE)
            .collect()
    }
}

impl Drop for LabHome {
    fn drop(&mut self) {
        // a test that failed must not leave a lab
        let supervisor = self.0.state().join("lab/record.json");
        if supervisor.exists() {
            let pid = pid(&self.record(), "supervisor");
            drop(
                std::process::Command::new("kill")
                    .arg("-9")
                    .arg(pid.to_string())
                    .status(),
            );
        }
    }
}

fn pid(record: &serde_json::Value, whose: &str) -> i32 {
    let process = match whose {
        "controller" => &record["controller"]["process"],
        whose => &record[whose],
    };
    i32::try_from(process["pid"].as_i64().unwrap()).unwrap()
}

/// Also of one that has ended and was not waited for.
fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let (_, rest) = stat.rsplit_once(')').unwrap();
        !rest.trim_start().starts_with('Z')
    })
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    seen.unwrap_or_else(|_| panic!("not seen: {what}"));
}

#[tokio::test]
async fn a_lab_comes_and_goes() {
    play_if_asked().await;
    let home = LabHome::new();
    let up = home.run("up --nodes 0").await.ok();
    assert!(up.stdout.starts_with("A lab runs: 0 nodes"), "{up:?}");
    assert!(up.stderr.contains("controller: ready"), "{up:?}");
    let record = home.record();
    assert_eq!(record["phase"], "running");

    // it is the context in use, and its controller answers
    let shown = home.run("context show --json").await.ok().json();
    assert_eq!(shown["name"], "lab");
    home.run("queue list").await.ok();
    let again = home.run("up --nodes 0 --json").await.ok().json();
    assert_eq!(again["already"], true);
    home.run("up --nodes 3")
        .await
        .failed(2, "a lab with 0 nodes of 2 CPUs and 1024 MiB runs already");

    let down = home.run("down").await.ok();
    assert_eq!(down.stdout, "the lab is gone\n");
    assert!(!lives(pid(&record, "supervisor")));
    assert!(!lives(pid(&record, "controller")));
    assert_eq!(
        home.left(),
        BTreeSet::from(["config".into(), "state".into()])
    );
    for empty in ["config", "state"] {
        assert_eq!(fs::read_dir(home.0.path().join(empty)).unwrap().count(), 0);
    }
    let address = record["controller"]["address"].as_str().unwrap();
    tokio::net::TcpListener::bind(address).await.unwrap();
    assert_eq!(home.run("down").await.ok().stdout, "no lab runs\n");
}

#[tokio::test]
async fn a_killed_supervisor_takes_all_with_it_and_down_cleans_up() {
    let home = LabHome::new();
    home.run("up --nodes 0").await.ok();
    let record = home.record();
    kill(Pid::from_raw(pid(&record, "supervisor")), Signal::SIGKILL).unwrap();
    let controller = pid(&record, "controller");
    until("the controller's end", async || !lives(controller)).await;
    let down = home.run("down").await.ok();
    assert_eq!(down.stdout, "the lab had ended already\n");
    assert!(!home.0.state().exists());
    assert!(!home.0.config().exists());

    // and so does up
    home.run("up --nodes 0").await.ok();
    let record = home.record();
    kill(Pid::from_raw(pid(&record, "supervisor")), Signal::SIGKILL).unwrap();
    let up = home.run("up --nodes 0").await.ok();
    assert!(up.stdout.starts_with("A lab runs: "), "{up:?}");
    home.run("queue list").await.ok();
    home.run("down").await.ok();
}

#[tokio::test]
async fn a_number_that_is_somebody_elses_is_not_killed() {
    let home = LabHome::new();
    home.run("up --nodes 0").await.ok();
    let mut record = home.record();
    let supervisor = Pid::from_raw(pid(&record, "supervisor"));
    kill(supervisor, Signal::SIGKILL).unwrap();
    let controller = pid(&record, "controller");
    until("the controller's end", async || !lives(controller)).await;
    // the numbers were given to another process meanwhile
    let mut other = Command::new("sleep")
        .arg("1000")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for process in ["/supervisor/pid", "/controller/process/pid"] {
        *record.pointer_mut(process).unwrap() = other.id().unwrap().into();
    }
    let file = home.0.state().join("lab/record.json");
    fs::write(&file, record.to_string()).unwrap();
    home.run("down").await.ok();
    assert!(other.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn a_controller_that_dies_is_started_again() {
    let home = LabHome::new();
    home.run("up --nodes 0").await.ok();
    let before = pid(&home.record(), "controller");
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    until("a restart", async || {
        home.record()["controller"]["restarts"] == 1
    })
    .await;
    // the context that was written still leads to it
    until("an answer", async || {
        home.run("queue list").await.code == Some(0)
    })
    .await;
    assert_ne!(pid(&home.record(), "controller"), before);
    home.run("down").await.ok();
}

#[tokio::test]
async fn one_that_does_not_come_up_is_explained_and_leaves_only_logs() {
    let home = LabHome::new();
    fs::write(home.0.path().join(TROUBLE), "the store is on fire").unwrap();
    let up = home.run("up --nodes 0").await;
    let up = up.failed(3, "the lab did not come up");
    assert!(up.stderr.contains("the store is on fire"), "{up:?}");
    assert!(!home.0.config().exists());
    assert!(home.0.state().join("lab/controller.log").is_file());
    assert!(!lives(pid(&home.record(), "supervisor")));
    fs::remove_file(home.0.path().join(TROUBLE)).unwrap();
    home.run("up --nodes 0").await.ok();
    home.run("down").await.ok();
    assert!(!home.0.state().exists());
}

#[tokio::test]
async fn what_is_missing_is_named_before_anything_starts() {
    let home = LabHome::new();
    let image = home.0.path().join("nowhere");
    let line = format!("up --image {}", image.display());
    home.run(&line).await.failed(3, "nowhere/stillmetal-kernel");
    let mut command = home.0.command("up --nodes 0");
    command.env("STILLMETAL_CONTROLLER", "/nonexistent/controller");
    let ran = ended(command.spawn().unwrap()).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("/nonexistent/controller"), "{ran:?}");
    home.run("down").await.ok();
    assert!(!home.0.state().exists());
}

#[tokio::test]
async fn control_c_takes_down_what_was_begun() {
    let home = LabHome::new();
    // a controller that never gets ready
    fs::write(
        home.0.path().join("controller"),
        "#!/bin/sh\nexec sleep 1000\n",
    )
    .unwrap();
    let child = home.command("up --nodes 0").spawn().unwrap();
    until("a controller", async || {
        home.0.state().join("lab/record.json").exists()
            && home.record()["controller"]["process"].is_object()
    })
    .await;
    let record = home.record();
    let own = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(own), Signal::SIGINT).unwrap();
    ended(child).await.failed(3, "interrupted");
    assert!(!lives(pid(&record, "controller")));
    assert!(!lives(pid(&record, "supervisor")));
    home.run("down").await.ok();
}

#[tokio::test]
async fn somebodys_own_context_of_that_name_is_kept() {
    let fake = FakeController::start().await.unwrap();
    let home = LabHome::new();
    let context = fake.context();
    for (name, text) in [
        ("ca", &context.ca_pem),
        ("cert", &context.cert_pem),
        ("key", &context.key_pem),
    ] {
        fs::write(home.0.path().join(name), text).unwrap();
    }
    let top = home.0.path().display();
    for name in ["lab", "work"] {
        let add = format!(
            "context add {name} --controller {} --ca {top}/ca --cert {top}/cert --key {top}/key",
            context.authority()
        );
        home.run(&add).await.ok();
    }
    home.run("up --nodes 0")
        .await
        .failed(2, "there is a context \"lab\" already");
    home.run("context remove lab").await.ok();
    // what was in use before is in use again
    home.run("up --nodes 0").await.ok();
    let shown = home.run("context show --json").await.ok().json();
    assert_eq!(shown["name"], "lab");
    home.run("down").await.ok();
    let shown = home.run("context show --json").await.ok().json();
    assert_eq!(shown["name"], "work");
}
