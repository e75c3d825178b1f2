//! `daemon`: a node beside other work, on an ordinary host or in a container.
//!
//! It has no engine of its own, and touches nothing that is the host's: no network, no clock, no
//! module, no power. Where the host has isolated CPUs that can be given away it works as on the
//! appliance; elsewhere jobs that accept it run unproven ([`footing`]). At SIGTERM what runs goes on, and
//! the next agent adopts it.
//!
//! ```text
//! RUN_DIR      what ends with the boot: claims, the journal of work, certificates, tuning to undo
//! STATE_DIR    what outlives it: the identity at the controller
//! ```

mod footing;
mod probe;
mod sweep;

use std::fs::{DirBuilder, File, TryLockError};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use cpulist::CpuSet;
use host::{RealTree, Tree};
use stillmetal_init::cmdline::ControllerAddress;
use stillmetal_join::{Controller, machine};
use stillmetal_node::engine::Engine;
use stillmetal_node::engine::client::EngineClient;
use stillmetal_node::power::Power;
use stillmetal_node::unproven::Unproven;
use stillmetal_node::{Host, Node};
use stillmetal_tune::kept::{self, Undone};
use stillmetal_tune::{Applied, Latency, LatencyHold, Options, Plan, Smt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::{Membership, Papers};
use crate::say::{self, marker};
use crate::serve::{self, Assembled, Ground, OnHost};
use footing::Footing;
pub(crate) use sweep::{SweepArguments, sweep};

/// The rest of what it does ends within this time.
const DRAIN: Duration = Duration::from_secs(5);
/// When its runs are to end with it: containers are killed and taken away.
const END_RUNS: Duration = Duration::from_secs(15);
/// What a blocking call that does not return gets.
const LEAVE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Each option can be given by its environment variable, as in /etc/stillmetal/agent.env.

Example:
  stillmetal-agent daemon --controller lab.example:7443 --ca sha256:… --token-file /root/join-token"
)]
pub(crate) struct DaemonArguments {
    /// The controller that it works for.
    #[arg(
        long,
        env = "STILLMETAL_CONTROLLER",
        value_name = "HOST:PORT",
        requires = "ca"
    )]
    controller: Option<ControllerAddress>,
    /// Hash of the controller's authority; the controller prints it when it starts.
    #[arg(long, env = "STILLMETAL_CA", value_name = "sha256:…")]
    ca: Option<pki::Pin>,
    /// A join token, removed once it is read [default: join-token in the state directory].
    #[arg(long, env = "STILLMETAL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The engine's socket.
    #[arg(
        long,
        env = "STILLMETAL_ENGINE",
        value_name = "SOCKET",
        default_value = "/run/docker.sock"
    )]
    engine: PathBuf,
    /// CPUs for jobs, where none is isolated [default: all that it may use but the first].
    #[arg(long, env = "STILLMETAL_CPUS", value_name = "LIST")]
    cpus: Option<CpuSet>,
    /// Whether to quiet the host as `stillmetal-agent tune` does, and undo that at the end. `auto`: where
    /// runs can be proven.
    #[arg(
        long,
        env = "STILLMETAL_TUNE",
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    tune: Tune,
    /// Leave SMT siblings online when tuning.
    #[arg(long, env = "STILLMETAL_KEEP_SMT")]
    keep_smt: bool,
    /// Let the controller's administrators reboot this host and switch it off.
    #[arg(long, env = "STILLMETAL_ALLOW_POWER")]
    allow_power: bool,
    /// Also serve the node's API here; ca.pem, node.pem and node.key are in config/ of the run directory.
    #[arg(long, env = "STILLMETAL_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Its name, instead of the host's.
    #[arg(long, env = "STILLMETAL_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Its identity, where several agents share a machine: a UUID that no other has.
    #[arg(long, env = "STILLMETAL_INSTANCE", value_name = "UUID", requires = "name", value_parser = uuid)]
    instance: Option<String>,
    /// What outlives a reboot: the identity at the controller.
    #[arg(
        long,
        env = "STILLMETAL_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/stillmetal"
    )]
    state_dir: PathBuf,
    /// What ends with the boot: must be empty after one.
    #[arg(
        long,
        env = "STILLMETAL_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/stillmetal"
    )]
    run_dir: PathBuf,
    /// End what runs when the agent ends, instead of leaving it to the next one.
    #[arg(long, env = "STILLMETAL_END_RUNS")]
    end_runs: bool,
    /// Add the digest of each image that is run to this file; `still up` does.
    #[arg(long, value_name = "FILE", hide = true)]
    images_used: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tune {
    Auto,
    Yes,
    No,
}

fn uuid(text: &str) -> Result<String, String> {
    let sound = text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let small = || text.to_ascii_lowercase();
    sound
        .then(small)
        .ok_or_else(|| "32 hexadecimal digits in groups of 8, 4, 4, 4 and 12".into())
}

pub(crate) fn run(arguments: &DaemonArguments) -> anyhow::Result<ExitCode> {
    log();
    say::on_host();
    if arguments.controller.is_none() && arguments.listen.is_none() {
        bail!("nobody could use this node: give --controller and --ca, or --listen");
    }
    for folder in [&arguments.run_dir, &arguments.state_dir] {
        make(folder)?;
    }
    let _alone = alone(&arguments.run_dir)?;
    let tree: Arc<dyn Tree> = Arc::new(RealTree::live());
    let client = EngineClient::new(&arguments.engine);
    let probe = probe::look(&*tree, &client, &arguments.engine, arguments.allow_power)
        .context("look at this host")?;
    let footing = footing::decide(&probe, arguments.cpus.as_ref()).map_err(anyhow::Error::msg)?;
    let housekeeping = probe.online.difference(&probe.isolated);
    if footing.unproven.is_none() {
        // before any thread exists: all of them inherit it
        serve::pin_to(&housekeeping)
            .with_context(|| format!("run on the housekeeping CPUs {housekeeping}"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(housekeeping.len().clamp(1, 4))
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let ended = runtime.block_on(daemon(arguments, footing, tree, client));
    // what runs goes on without us: nothing is waited for
    runtime.shutdown_timeout(LEAVE);
    ended
}

fn log() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .init();
}

fn make(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make {}", folder.display()))
}

/// Keeps a second agent with the same files out, until dropped.
fn alone(run_dir: &Path) -> anyhow::Result<File> {
    let path = run_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another agent works in {}: end it, or give this one directories and an --instance of its own",
            run_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// `None`: it has no controller.
fn papers(arguments: &DaemonArguments, tree: &dyn Tree) -> anyhow::Result<Option<Papers>> {
    let (Some(address), Some(pin)) = (&arguments.controller, arguments.ca) else {
        return Ok(None);
    };
    let state = arguments.state_dir.join("join");
    make(&state)?;
    let machine = match (&arguments.instance, &arguments.name) {
        (Some(uuid), Some(name)) => machine::instance(tree, name, uuid),
        (_, name) => {
            let mut machine = machine::read(tree, &arguments.state_dir)
                .context("tell this machine from others")?;
            machine.hostname = name.clone().unwrap_or(machine.hostname);
            machine
        }
    };
    let token = arguments.token_file.clone();
    Ok(Some(Papers {
        controller: Controller {
            host: address.host.clone(),
            port: address.port,
        },
        pin,
        state,
        token: Some(token.unwrap_or_else(|| arguments.state_dir.join("join-token"))),
        machine,
    }))
}

/// Marks this agent's containers: others may be at the same engine.
fn owner(arguments: &DaemonArguments) -> anyhow::Result<String> {
    match &arguments.instance {
        Some(uuid) => Ok(uuid.clone()),
        None => machine::own(&arguments.state_dir).context("draw a name for this agent"),
    }
}

async fn daemon(
    arguments: &DaemonArguments,
    footing: Footing,
    tree: Arc<dyn Tree>,
    client: EngineClient,
) -> anyhow::Result<ExitCode> {
    let stop = serve::stop_on_sigterm()?;
    let (serving, ending) = (CancellationToken::new(), CancellationToken::new());
    let (tasks, work) = (TaskTracker::new(), TaskTracker::new());
    let run_dir = arguments.run_dir.as_path();
    let papers = papers(arguments, &*tree)?;
    let membership = papers.map(Membership::open).transpose()?;
    let Footing { unproven, lacks } = footing;
    let unproven = unproven.map(|(why, cpus)| Arc::new(Unproven::new(why, cpus)));
    let engine = {
        let unproven = unproven.clone();
        let learnt = move |abilities| {
            if let Some(unproven) = &unproven {
                unproven.set_engine(abilities);
            }
        };
        let (engine, _task) = Engine::attach(arguments.engine.clone(), learnt, serving.clone());
        engine
    };
    let Assembled { node, plan } = serve::assemble(Ground {
        tree: Arc::clone(&tree),
        engine,
        client,
        run_dir,
        join_dir: arguments.state_dir.join("join"),
        agent: std::env::current_exe().context("find this program")?,
        tasks: work.clone(),
        stop: ending.clone(),
        memory_low: None,
        host: Some(OnHost {
            host: Host {
                name: arguments.name.clone(),
                lacks,
                power: match arguments.allow_power {
                    true => Power::Systemd,
                    false => Power::Host,
                },
            },
            unproven: unproven.clone(),
            owner: owner(arguments)?,
            images_used: arguments.images_used.clone(),
        }),
    })?;
    let router = serve::router(&node);
    if let Some(address) = arguments.listen {
        let server = serve::listen(address, run_dir, &router, false).await;
        let server = server.context("serve the API (--listen)")?;
        if let Some(server) = server {
            marker(&format!("api listening on {}", server.local_addr()));
            tasks.spawn(server.run(serving.clone()));
        }
    }
    let tuned = wants_tuning(arguments.tune, unproven.is_some());
    let kept = run_dir.join("tune-state.json");
    let latency_hold = quiet(
        arguments,
        &node,
        &tree,
        &plan,
        tuned.then_some(kept.as_path()),
    )
    .await?;
    tasks.spawn(serve::watch_engine(Arc::clone(&node), serving.clone()));
    tasks.spawn(serve::watch_containers(
        Arc::clone(&node),
        Arc::clone(&plan),
        serving.clone(),
    ));
    if tuned {
        tasks.spawn(serve::steer_interrupts(
            Arc::clone(&node),
            Arc::clone(&tree),
            serving.clone(),
        ));
    }
    if unproven.is_none() {
        tasks.spawn(serve::spread_threads(
            Arc::clone(&node),
            Arc::clone(&tree),
            serving.clone(),
        ));
    }
    if let Some(membership) = membership {
        let started = membership.start(run_dir, &node, &tree, router.clone(), &tasks, &serving);
        started.await.context("work for the controller")?;
    }
    tell_manager(&[
        sd_notify::NotifyState::Ready,
        status_line(unproven.as_deref()).as_state(),
    ]);

    stop.cancelled().await;
    tell_manager(&[sd_notify::NotifyState::Stopping]);
    serving.cancel();
    if arguments.end_runs {
        ending.cancel();
        work.close();
        if tokio::time::timeout(END_RUNS, work.wait()).await.is_err() {
            tracing::warn!(
                "not every run could be ended: `stillmetal-agent sweep` removes what is left"
            );
        }
    }
    tasks.close();
    let drained = async {
        router.end().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    drop(latency_hold);
    if tuned {
        undo(&node, &tree, kept).await;
    }
    marker("agent ended");
    Ok(ExitCode::SUCCESS)
}

fn wants_tuning(tune: Tune, unproven: bool) -> bool {
    match tune {
        Tune::Auto => !unproven,
        Tune::Yes => true,
        Tune::No => false,
    }
}

/// Tunes the host, if that is wanted, and tells what it is; `kept`: where what was there before is
/// written down first.
async fn quiet(
    arguments: &DaemonArguments,
    node: &Arc<Node>,
    tree: &Arc<dyn Tree>,
    plan: &Arc<OnceLock<Plan>>,
    kept: Option<&Path>,
) -> anyhow::Result<Option<LatencyHold>> {
    let options = Options {
        smt: match arguments.keep_smt {
            true => Smt::Keep,
            false => Smt::Off,
        },
        latency: Latency::Hold,
    };
    let (tree, kept) = (Arc::clone(tree), kept.map(Path::to_owned));
    let work = tokio::task::spawn_blocking(move || match kept {
        Some(path) => kept::tune(&path, &options, &*tree),
        None => Ok(untouched(&options, &*tree)),
    });
    let (planned, applied) = work
        .await
        .context("tuning died")?
        .context("tune this host (--tune no leaves it as it is)")?;
    plan.get_or_init(|| planned);
    Ok(serve::tell_tuning(node, applied))
}

/// What the host is, with no knob turned.
fn untouched(options: &Options, tree: &dyn Tree) -> (Plan, Applied) {
    let topology = stillmetal_tune::topology::read(tree);
    let plan = Plan {
        steps: Vec::new(),
        isolated: topology.isolated.clone(),
        housekeeping: topology.housekeeping.clone(),
        ..stillmetal_tune::plan(&topology, options)
    };
    let applied = stillmetal_tune::apply(&plan, tree);
    (plan, applied)
}

/// Puts the host back as it was, unless something is measured on it: then the next agent, or
/// `stillmetal-agent restore`, does.
async fn undo(node: &Arc<Node>, tree: &Arc<dyn Tree>, kept: PathBuf) {
    let measured = node
        .placer()
        .claims()
        .iter()
        .any(|(_, claim)| claim.holds());
    if measured {
        tracing::warn!(
            "something still runs: the host stays tuned; `stillmetal-agent restore` puts it back"
        );
        return;
    }
    let tree = Arc::clone(tree);
    let undone = tokio::task::spawn_blocking(move || kept::undo(&kept, &*tree)).await;
    match undone {
        Ok(Ok(Undone::Nothing | Undone::Stale)) => {}
        Ok(Ok(Undone::Restored(restored))) => {
            tracing::info!(knobs = restored.restored.len(), "the host is as it was");
            for left in restored.failed {
                tracing::error!(path = %left.path, why = %left.reason, "not put back");
            }
        }
        Ok(Err(error)) => {
            let error = stillmetal_node::chain(&error);
            tracing::error!(%error, "the host is not put back: `stillmetal-agent restore` tries again");
        }
        Err(error) => tracing::error!(%error, "putting the host back died"),
    }
}

/// What `systemctl status` shows.
struct StatusLine(String);

impl StatusLine {
    fn as_state(&self) -> sd_notify::NotifyState<'_> {
        sd_notify::NotifyState::Status(&self.0)
    }
}

fn status_line(unproven: Option<&Unproven>) -> StatusLine {
    StatusLine(match unproven {
        None => "runs can be proven quiet".into(),
        Some(host) => format!("unproven work only: {}", host.why()),
    })
}

/// The service manager, if one has started this.
fn tell_manager(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use host::fakes::FakeTree;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: DaemonArguments,
    }

    fn parse(words: &[&str]) -> Result<DaemonArguments, clap::Error> {
        let line = Line::try_parse_from(["daemon"].iter().chain(words))?;
        Ok(line.arguments)
    }

    const INSTANCE: &str = "6F1B9A52-2F0C-4A3E-9D38-6D3BB0A8FD10";

    #[test]
    fn an_instance_has_a_name_and_a_controller_its_hash() {
        for wrong in [
            &["--controller", "lab:7443"][..],
            &["--instance", INSTANCE],
            &["--instance", "x", "--name", "node1"],
            &["--cpus", "a"],
            &["--ca", "sha256:12"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let arguments = parse(&["--name", "node1", "--instance", INSTANCE]).unwrap();
        assert_eq!(owner(&arguments).unwrap(), INSTANCE.to_ascii_lowercase());
        assert!(!arguments.allow_power && !arguments.end_runs);
    }

    #[test]
    fn a_host_is_tuned_only_where_that_proves_something_or_on_request() {
        for (tune, unproven, tuned) in [
            (Tune::Auto, false, true),
            (Tune::Auto, true, false),
            (Tune::Yes, true, true),
            (Tune::No, false, false),
        ] {
            assert_eq!(wants_tuning(tune, unproven), tuned, "{tune:?} {unproven}");
        }
    }

    #[test]
    fn the_identity_stays_from_one_agent_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let state_text = state.display().to_string();
        let pin = format!("sha256:{}", "0".repeat(64));
        let words = [
            "--controller",
            "lab:7443",
            "--ca",
            &pin,
            "--state-dir",
            &state_text,
        ];
        let arguments = parse(&words).unwrap();
        make(&state).unwrap();
        let tree = FakeTree::default();
        let of = |arguments: &DaemonArguments| papers(arguments, &tree).unwrap().unwrap();
        let (first, second) = (of(&arguments), of(&arguments));
        assert!(first.machine.uuid.is_some(), "the fake machine has no mark");
        assert_eq!(first.machine, second.machine);
        assert_eq!(first.state, state.join("join"));
        assert_eq!(first.token, Some(state.join("join-token")));
        assert_eq!(owner(&arguments).unwrap(), owner(&arguments).unwrap());
    }

    #[test]
    fn one_agent_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = alone(folder.path()).unwrap();
        let error = alone(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another agent"), "{error}");
        drop(first);
        alone(folder.path()).unwrap();
    }
}
