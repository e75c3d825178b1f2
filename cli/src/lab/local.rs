//! The lab's nodes as processes of this machine: agents that share its engine. Nothing can be proven
//! there, and each result says so.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::fleet::TokenRequest;
use client::Client;
use nix::sched::sched_getaffinity;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use stillmetal_node::engine::client::EngineClient;
use stillmetal_node::runs;

use super::folder::{LOOK, LabFolder};
use super::identity::ProcessIdentity;
use super::record::{MachineRecord, Record, Settings};
use crate::outcome::Misuse;

const PROGRAM: &str = "stillmetal-agent";
/// Instead of the program that is found.
const VARIABLE: &str = "STILLMETAL_AGENT";
/// As the docker client finds it.
const DOCKER_HOST: &str = "DOCKER_HOST";
const SOCKET: &str = "/run/docker.sock";
/// An agent ends its runs in half a minute, or leaves them.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// It starts at once.
const TOKEN_SECONDS: u32 = 600;

/// The engine's socket, unless it was named: that of the docker client, or the usual one.
pub(super) fn socket(asked: Option<&Path>) -> PathBuf {
    let host = std::env::var(DOCKER_HOST).ok();
    let host = host.and_then(|host| Some(PathBuf::from(host.strip_prefix("unix://")?)));
    asked
        .map(Path::to_owned)
        .or(host)
        .unwrap_or_else(|| SOCKET.into())
}

/// That there is an engine and a program.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    program()?;
    let engine = settings.engine.as_deref().unwrap_or(Path::new(SOCKET));
    UnixStream::connect(engine).with_context(|| {
        format!(
            "reach the container engine at {}: start it, or name its socket with --engine",
            engine.display()
        )
    })?;
    Ok(())
}

/// Where the program is: named by the variable, beside this one, in the build, or in `PATH`.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find this program")?;
    let places = [
        own.with_file_name(PROGRAM),
        testkit::places::build_dir().join(PROGRAM),
    ];
    let found = places.into_iter().find(|path| path.is_file());
    found
        .or_else(|| testkit::find_in_path(PROGRAM))
        .with_context(|| {
            format!(
                "find {PROGRAM}: it is neither beside {} nor in PATH; `make agent` builds it",
                own.display()
            )
        })
}

/// The CPUs of each node, no one's twice.
pub(super) fn shares(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("see which CPUs there are")?;
    let all = (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let all: Vec<usize> = all.collect();
    let (nodes, each) = (settings.nodes as usize, settings.cpus as usize);
    divide(&all, nodes, each).ok_or_else(|| {
        let there = all.len();
        Misuse::TooFewCpus { nodes, each, there }.into()
    })
}

/// From the last one on: the first has the machine's other work.
fn divide(all: &[usize], nodes: usize, each: usize) -> Option<Vec<String>> {
    if nodes.checked_mul(each)? > all.len() {
        return None;
    }
    let mut last: Vec<usize> = all.to_vec();
    last.reverse();
    let lists = last.chunks(each.max(1)).take(nodes).map(|cpus| {
        let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        cpus.join(",")
    });
    Some(lists.collect())
}

/// An agent that was started; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // one that is gone already is no news
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Makes a token and starts the agent with it. Call it from a thread that lives as long as this process.
pub(super) async fn start(
    client: &Client,
    folder: &LabFolder,
    settings: &Settings,
    number: usize,
    machine: &MachineRecord,
    port: u16,
    pin: &pki::Pin,
) -> anyhow::Result<Agent> {
    let cpus = shares(settings)?;
    let cpus = cpus.get(number).context("internal: a node without CPUs")?;
    let request = TokenRequest {
        valid_seconds: TOKEN_SECONDS,
        machine: Some(machine.uuid.clone()),
    };
    let token = client.create_token(&request).await?;
    let secret = token
        .token
        .context("the controller made a token without a secret")?;
    let home = folder.agent(&machine.name);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&home)
        .with_context(|| format!("make {}", home.display()))?;
    let token = home.join("join-token");
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&token)
        .and_then(|mut file| std::io::Write::write_all(&mut file, secret.as_bytes()))
        .with_context(|| format!("write {}", token.display()))?;
    if let Some(consoles) = machine.console.parent() {
        fs::create_dir_all(consoles).with_context(|| format!("make {}", consoles.display()))?;
    }
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(&machine.console)
    };
    let logs = open().and_then(|out| Ok((out, open()?)));
    let (out, err) = logs.with_context(|| format!("open {}", machine.console.display()))?;
    let program = program()?;
    let engine = socket(settings.engine.as_deref());
    let child = testkit::guarded(&program)
        .arg("daemon")
        .arg(format!("--controller=127.0.0.1:{port}"))
        .arg(format!("--ca={pin}"))
        .arg("--token-file")
        .arg(&token)
        .arg("--engine")
        .arg(&engine)
        .args(["--cpus", cpus])
        .args(["--tune", "no"])
        .args(["--name", &machine.name])
        .args(["--instance", &machine.uuid])
        .arg("--state-dir")
        .arg(home.join("state"))
        .arg("--run-dir")
        .arg(home.join("run"))
        .arg("--images-used")
        .arg(folder.images_used())
        .arg("--end-runs")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    Ok(Agent { child })
}

impl Agent {
    pub(super) fn identity(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.child.id())
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for an agent")
    }

    /// Asks it to end, with its runs.
    pub(super) fn tell(&self) {
        if let Some(Err(error)) = self.identity().map(|it| it.signal(Signal::SIGTERM)) {
            eprintln!("an agent cannot be told to end: {error}");
        }
    }

    /// Waits for the end, and brings it about.
    pub(super) fn stop(mut self) {
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        eprintln!("an agent does not end by itself: killed");
    }
}

/// Writes down which images were there before the lab, so that those are not taken away with it.
pub(super) async fn note_images(folder: &LabFolder, settings: &Settings) -> anyhow::Result<()> {
    let engine = EngineClient::new(&socket(settings.engine.as_deref()));
    let before = engine
        .image_ids()
        .await
        .context("list the engine's images")?;
    let path = folder.images_before();
    let text = before.into_iter().collect::<Vec<_>>().join("\n");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Removes from the engine what agents that were killed left there, and the images that the lab brought.
pub(super) async fn clean(folder: &LabFolder, record: &Record) -> anyhow::Result<()> {
    let engine = socket(record.settings.engine.as_deref());
    let client = EngineClient::new(&engine);
    let swept = async {
        for machine in &record.machines {
            runs::sweep(&client, &machine.uuid).await?;
        }
        // nothing is known of images if the lab never came so far
        let before = fs::read_to_string(folder.images_before()).ok();
        let used = fs::read_to_string(folder.images_used()).unwrap_or_default();
        if let Some(before) = before {
            for image in brought(&before, &used) {
                client.remove_image(image).await?;
            }
        }
        Ok::<(), stillmetal_node::placement::containers::ContainersError>(())
    };
    swept.await.with_context(|| {
        format!(
            "take the lab's containers and images out of the engine at {}: start it, then call still \
             down again",
            engine.display()
        )
    })
}

/// Images that jobs of the lab used and that had not been there before it.
fn brought<'a>(before: &str, used: &'a str) -> Vec<&'a str> {
    let mut new: Vec<&str> = used
        .lines()
        .filter(|image| !image.is_empty() && !before.lines().any(|known| known == *image))
        .collect();
    new.sort_unstable();
    new.dedup();
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_divided_from_the_last_on_and_never_twice() {
        let all = [0, 1, 2, 5];
        assert_eq!(divide(&all, 2, 1).unwrap(), ["5", "2"]);
        assert_eq!(divide(&all, 2, 2).unwrap(), ["5,2", "1,0"]);
        assert_eq!(divide(&all, 1, 4).unwrap(), ["5,2,1,0"]);
        assert_eq!(divide(&all, 0, 4).unwrap(), [""; 0]);
        assert_eq!(divide(&all, 3, 2), None);
    }

    #[test]
    fn only_images_that_the_lab_brought_go_with_it() {
        let used = "sha256:b\nsha256:a\nsha256:b\nsha256:c\n";
        assert_eq!(brought("sha256:a", used), ["sha256:b", "sha256:c"]);
        assert_eq!(brought("", ""), [""; 0]);
    }
}
