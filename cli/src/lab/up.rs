//! `still up`: starts the supervisor, and waits until all of its nodes take work.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use api::fleet::{NodeState, NodeView};
use clap::Args;
use client::{Client, Context};
use serde::Serialize;

use super::CONTEXT;
use super::controller::{self, context};
use super::down::{clean, stop};
use super::folder::{LOOK, LabFolder, Locked, tail};
use super::local;
use super::machine::artifacts;
use super::record::{MachineState, Phase, Provider, Record, Settings};
use crate::context::{ContextName, Contexts};
use crate::nodes::state;
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::progress::Progress;
use crate::quantity::{parse_limit, seconds};
use crate::text::count;

/// Start a controller and nodes on this machine, in the background, and wait until they take work.
#[derive(Debug, Args)]
#[command(
    after_help = "The nodes are virtual machines: good for trying things out and for tests; their timings mean nothing.
With --provider local they are processes of this machine, at its own container engine: that needs neither
an image nor root (but leave to use the engine), and takes a second. Jobs then need --unproven, and nothing
is proven of them.
All of it dies with `still down`, with a shutdown of this machine, or when its supervisor is killed.

Examples:
  still up
  still up --nodes 2 --cpus 4 --memory 2048
  still up --provider local
  still run --cpus 1 IMAGE CMD…"
)]
pub(crate) struct UpArguments {
    /// What the nodes are: virtual machines, or this machine itself.
    #[arg(long, value_enum, default_value_t = Provider::Vm)]
    provider: Provider,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    nodes: u32,
    /// CPUs of each. Of a virtual machine the first is for housekeeping, the others are isolated; of a
    /// local node all are for jobs [default: 2, or 1 of a local node].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: Option<u32>,
    /// Memory of each virtual machine [default: 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..))]
    memory: Option<u32>,
    /// The container engine of local nodes [default: that of DOCKER_HOST, or /run/docker.sock].
    #[arg(long, value_name = "SOCKET")]
    engine: Option<PathBuf>,
    /// Folder with stillmetal-kernel, stillmetal-initrd.img and stillmetal-cmdline [default: that of the build].
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,
    /// The controller's port [default: 7443 if it is free, else any].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Give up after so long.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_limit)]
    within: u32,
}

/// Between two looks at the controller's list of nodes.
const ASK: Duration = Duration::from_millis(500);
/// Lines of a console that are shown when a node does not come.
const TAIL: usize = 15;

/// What is printed at the end.
#[derive(Debug, Serialize)]
struct Lab {
    context: String,
    controller: String,
    nodes: Vec<NodeView>,
    /// It ran already.
    already: bool,
}

pub(crate) async fn up(arguments: UpArguments, output: Output) -> Ended {
    let settings = arguments.settings()?;
    let within = Duration::from_secs(arguments.within.into());
    let folder = LabFolder::of_user()?;
    let progress = Progress::stages();
    let (ours, supervisor) = match folder.lock()? {
        Locked::Ours(lock) => (true, Some(begin(&folder, lock, &settings).await?)),
        Locked::Held => (false, None),
    };
    let mut up = Up {
        folder: &folder,
        progress: &progress,
        supervisor,
        told: BTreeMap::new(),
    };
    let waited = tokio::select! {
        waited = up.wait(&settings, within) => waited,
        interrupted = tokio::signal::ctrl_c(), if ours => {
            interrupted.context("listen for control-C")?;
            progress.line("interrupted: the lab is taken down");
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    let ready = match waited {
        Ok(ready) => ready,
        Err(error) if ours => {
            // what was begun is not left half done; its logs are
            progress.now("taking the lab down");
            drop(stop(&folder).await?);
            let logs = folder.path().display();
            return Err(error.context(format!("the lab did not come up; its logs are in {logs}")));
        }
        Err(error) => return Err(error),
    };
    take_context(&folder, &ready.context)?;
    progress.clear();
    let lab = Lab {
        context: CONTEXT.into(),
        controller: ready.context.authority(),
        nodes: ready.nodes,
        already: !ours,
    };
    output.value(&lab, || told(&lab, settings.provider))?;
    Ok(Outcome::Done)
}

impl UpArguments {
    /// What they ask for.
    fn settings(&self) -> anyhow::Result<Settings> {
        let local = self.provider == Provider::Local;
        let others: &[(&'static str, bool)] = match self.provider {
            Provider::Vm => &[("--engine", self.engine.is_some())],
            Provider::Local => &[
                ("--memory", self.memory.is_some()),
                ("--image", self.image.is_some()),
            ],
        };
        if let Some((option, _)) = others.iter().find(|(_, given)| *given) {
            let provider = if local { "vm" } else { "local" };
            return Err(Misuse::OtherProvider { option, provider }.into());
        }
        let cpus = self.cpus.unwrap_or(if local { 1 } else { 2 });
        if !local && cpus < 2 {
            return Err(Misuse::OneCpu.into());
        }
        let image = self.image.as_ref().map(std::path::absolute).transpose();
        let engine = local.then(|| std::path::absolute(local::socket(self.engine.as_deref())));
        let settings = Settings {
            provider: self.provider,
            nodes: self.nodes,
            cpus,
            memory_mib: self.memory.unwrap_or(1024),
            image: image.context("find the image")?,
            engine: engine.transpose().context("find the engine")?,
            port: self.port,
        };
        if local {
            local::shares(&settings)?;
        }
        Ok(settings)
    }
}

/// Checks what can be checked, removes what an earlier lab left, and starts the supervisor, which holds
/// the lock from then on.
async fn begin(folder: &LabFolder, lock: File, settings: &Settings) -> anyhow::Result<Child> {
    if let Err(error) = check(folder, settings) {
        // nothing was begun: nothing stays
        clean(folder, lock).await?;
        return Err(error);
    }
    let mut lock = lock;
    if folder.record()?.is_some() {
        clean(folder, lock).await?;
        lock = match folder.lock()? {
            Locked::Ours(lock) => lock,
            Locked::Held => bail!("another `still up` was faster"),
        };
    }
    folder.empty()?;
    start(folder, lock, settings)
}

fn check(folder: &LabFolder, settings: &Settings) -> anyhow::Result<()> {
    controller::program()?;
    match settings.provider {
        Provider::Local => local::check(settings)?,
        Provider::Vm if settings.nodes > 0 => {
            artifacts(settings)?;
            testkit::accel::qemu()?;
        }
        Provider::Vm => {}
    }
    // somebody's own context of that name is not to be replaced
    let contexts = Contexts::of_user()?;
    let name = ContextName::parse(CONTEXT)?;
    if contexts.names()?.contains(&name) {
        let lab = folder.record()?.and_then(|record| record.controller);
        let lab = lab.and_then(|it| context(folder, &it.address).ok());
        let there = contexts.read(&name)?;
        if lab.is_none_or(|lab| lab.ca_pem != there.ca_pem) {
            return Err(Misuse::ContextExists(CONTEXT.into()).into());
        }
    }
    Ok(())
}

fn start(folder: &LabFolder, lock: File, settings: &Settings) -> anyhow::Result<Child> {
    let contexts = Contexts::of_user()?;
    if let Some(current) = contexts.current()? {
        let path = folder.previous_context();
        std::fs::write(&path, current.as_str())
            .with_context(|| format!("write {}", path.display()))?;
    }
    let log = folder.supervisor_log();
    let open = || File::options().create(true).append(true).open(&log);
    let logs = open().and_then(|out| Ok((out, open()?)));
    let (out, err) = logs.with_context(|| format!("open {}", log.display()))?;
    let own = std::env::current_exe().context("find this program")?;
    Command::new(&own)
        .arg("supervise")
        .arg("--folder")
        .arg(folder.path())
        .arg("--settings")
        .arg(serde_json::to_string(settings)?)
        .stdin(Stdio::from(lock))
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("start {}", own.display()))
}

/// A lab whose nodes all take work.
struct Ready {
    context: Context,
    nodes: Vec<NodeView>,
}

struct Up<'a> {
    folder: &'a LabFolder,
    progress: &'a Progress,
    /// `None`: somebody else's.
    supervisor: Option<Child>,
    /// What was said of each node last.
    told: BTreeMap<String, String>,
}

impl Up<'_> {
    async fn wait(&mut self, settings: &Settings, within: Duration) -> anyhow::Result<Ready> {
        let begun = Instant::now();
        let mut client = None;
        let mut last = None;
        loop {
            let late = begun.elapsed() >= within;
            let record = self.folder.record()?;
            if let Some(record) = &record {
                self.check(record, settings)?;
                if client.is_none() {
                    client = self.reach(record)?;
                }
            }
            self.check_supervisor()?;
            match (&record, &client) {
                (Some(record), Some((client, context))) => match self.look(record, client).await {
                    Ok(Some(nodes)) => {
                        let context = context.clone();
                        return Ok(Ready { context, nodes });
                    }
                    Ok(None) => {}
                    Err(error) => last = Some(error),
                },
                _ => self.say("controller", "starting"),
            }
            if late {
                return Err(self.late(record.as_ref(), within, last));
            }
            let pause = if client.is_some() { ASK } else { LOOK };
            tokio::time::sleep(pause).await;
        }
    }

    fn say(&mut self, whose: &str, what: &str) {
        let before = self.told.insert(whose.to_owned(), what.to_owned());
        if before.as_deref() != Some(what) {
            self.progress.line(&format!("{whose}: {what}"));
        }
        let others = self.told.iter().filter(|(_, what)| *what != "ready");
        let others: Vec<_> = others
            .map(|(name, what)| format!("{name} {what}"))
            .collect();
        self.progress.now(&others.join(", "));
    }

    /// That it is the lab that was asked for, and not one that failed.
    fn check(&self, record: &Record, settings: &Settings) -> anyhow::Result<()> {
        if let Phase::Failed { why } = &record.phase {
            bail!("{why}");
        }
        if self.supervisor.is_none() && record.settings != *settings {
            return Err(Misuse::OtherLab {
                wanted: settings.describe(),
                runs: record.settings.describe(),
            }
            .into());
        }
        Ok(())
    }

    fn check_supervisor(&mut self) -> anyhow::Result<()> {
        let ended = match &mut self.supervisor {
            Some(child) => child.try_wait().context("wait for the supervisor")?,
            None => return Ok(()),
        };
        if let Some(status) = ended {
            // its last record may be newer than the one that was read
            if let Some(Phase::Failed { why }) = self.folder.record()?.map(|it| it.phase) {
                bail!("{why}");
            }
            let log = tail(&self.folder.supervisor_log(), TAIL);
            bail!("the supervisor ended ({status}):\n{log}");
        }
        Ok(())
    }

    /// As soon as the controller is known to answer.
    fn reach(&mut self, record: &Record) -> anyhow::Result<Option<(Client, Context)>> {
        let Some(controller) = record.controller.as_ref() else {
            return Ok(None);
        };
        if record.phase == Phase::Starting {
            return Ok(None);
        }
        let context = context(self.folder, &controller.address)?;
        let client = Client::new(&context)?;
        self.say("controller", "ready");
        Ok(Some((client, context)))
    }

    /// All of its nodes, if all are ready.
    async fn look(
        &mut self,
        record: &Record,
        client: &Client,
    ) -> anyhow::Result<Option<Vec<NodeView>>> {
        let nodes = client.all_nodes().await?;
        for machine in &record.machines {
            let node = nodes.iter().find(|node| node.name == machine.name);
            let what = match (node, &machine.state) {
                (_, MachineState::Ended { how }) => {
                    bail!("{} ended: {how}", machine.name)
                }
                (Some(node), _) => state(&node.state),
                (None, MachineState::Running) => "booted, has not joined yet".into(),
                (None, _) => "booting".into(),
            };
            self.say(&machine.name, &what);
        }
        let ready = nodes
            .iter()
            .filter(|node| node.state == NodeState::Ready)
            .count();
        let wanted = usize::try_from(record.settings.nodes)?;
        let all = ready >= wanted && record.phase == Phase::Running;
        Ok(all.then_some(nodes))
    }

    /// Why it takes too long, with the last words of the machines that are not ready.
    fn late(
        &self,
        record: Option<&Record>,
        within: Duration,
        last: Option<anyhow::Error>,
    ) -> anyhow::Error {
        let told = self
            .told
            .iter()
            .map(|(name, what)| format!("{name} {what}"));
        let told: Vec<_> = told.collect();
        let within = seconds(within.as_secs());
        let mut text = format!("not all is ready after {within}: {}", told.join(", "));
        if let Some(error) = last {
            text.push_str(&format!("\nthe controller: {error:#}"));
        }
        for machine in record.iter().flat_map(|record| &record.machines) {
            if self
                .told
                .get(&machine.name)
                .is_some_and(|what| what == "ready")
            {
                continue;
            }
            let console = tail(&machine.console, TAIL);
            text.push_str(&format!("\n--- console of {}\n{console}", machine.name));
        }
        anyhow::Error::msg(text)
    }
}

/// Makes its context the one in use.
fn take_context(folder: &LabFolder, context: &Context) -> anyhow::Result<()> {
    let contexts = Contexts::of_user()?;
    let name = ContextName::parse(CONTEXT)?;
    contexts
        .write(&name, context)
        .and_then(|()| contexts.set_current(&name))
        .with_context(|| format!("make a context for {}", folder.path().display()))
}

fn told(lab: &Lab, provider: Provider) -> String {
    let node = lab.nodes.first().map_or("NODE", |node| node.name.as_str());
    let begin = match lab.already {
        true => "A lab runs already",
        false => "A lab runs",
    };
    let nodes = count(lab.nodes.len(), "node");
    let run = match provider {
        Provider::Vm => {
            "still run --cpus 1 IMAGE CMD…            on an isolated CPU, with a verdict"
        }
        Provider::Local => {
            "still run --unproven IMAGE CMD…          on this machine: nothing is proven of it"
        }
    };
    format!(
        "{begin}: {nodes}, controller at {} (context {}).

  still nodes
  still image push docker:IMAGE            an image of your docker client; or an archive
  {run}
  still node docker-context {node}          use the node with your own docker client
  still down                               nothing stays",
        lab.controller, lab.context
    )
}
