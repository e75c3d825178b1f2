//! `serve`: the node's long-running process. It puts the parts together and takes them down in
//! order; each part's own work is in its own package.
//!
//! Order of start: housekeeping CPUs → engine (it takes longest) → API → tuning. The API answers
//! before the engine is ready and before tuning has finished, and says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use api::report::{Status, UnmovableIrq};
use clap::Args;
use cpulist::CpuSet;
use host::perf::KernelPerf;
use host::{DevCpu, RealTree, Tree};
use stillmetal_init::cmdline::{BootConfig, Smt};
use stillmetal_node::certify::{self, Certifier};
use stillmetal_node::engine::client::EngineClient;
use stillmetal_node::engine::{Engine, EngineOptions, EngineSpec, EngineState};
use stillmetal_node::placement::Placer;
use stillmetal_node::placement::ledger::Token;
use stillmetal_node::placement::spread::Spreader;
use stillmetal_node::runs::{self, Runs};
use stillmetal_node::selftest::SelfTester;
use stillmetal_node::tools::{self, Toolbox};
use stillmetal_node::unproven::Unproven;
use stillmetal_node::{Host, Http, Node, Parts, Processes, SharedReport, cgroups, since_boot};
use stillmetal_proxy::Service;
use stillmetal_tune::irqs::Steering;
use stillmetal_tune::{Applied, LatencyHold, Plan};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::{Membership, Papers};
use crate::kmsg::Kmsg;
use crate::say::marker;

/// What each container gets between SIGTERM and SIGKILL when the node goes down.
const CONTAINER_GRACE_SECONDS: i32 = 10;
/// Later-appearing interrupts are moved away within this time.
const IRQ_PERIOD: Duration = Duration::from_secs(5);
/// Threads that share a CPU are noticed at the second look.
const SPREAD_PERIOD: Duration = Duration::from_millis(200);
/// Claims are checked against the engine this often even if no event came.
const RECONCILE_PERIOD: Duration = Duration::from_secs(60);
/// Everything this process still has to do at its end fits in here (PID 1 waits for 40 s).
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Where the API listens.
    #[arg(long, default_value = "0.0.0.0:2376")]
    listen: SocketAddr,
    /// State that lives until power-off; `config/` below it holds ca.pem, node.pem and node.key.
    #[arg(long, default_value = "/run/stillmetal")]
    run_dir: PathBuf,
}

pub(crate) fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(Kmsg)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_max_level(tracing::Level::INFO)
        .init();
    let boot = BootConfig::read().context("read the kernel command line")?;
    let tree: Arc<dyn Tree> = Arc::new(RealTree::live());
    let topology = stillmetal_tune::topology::read(&*tree);
    let housekeeping = topology.housekeeping;
    // before any thread exists: all of them inherit it
    pin_to(&housekeeping)
        .with_context(|| format!("run on the housekeeping CPUs {housekeeping}"))?;
    cgroups::set_up(&*tree, &housekeeping).context("confine agent and engine")?;
    certify::mount_desks(&arguments.run_dir).context("mount the place where runs are prepared")?;
    let threads = housekeeping.len().clamp(1, 4);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("start the async runtime")?
        .block_on(serve(arguments, &boot, tree, housekeeping))
}

async fn serve(
    arguments: &ServeArguments,
    boot: &BootConfig,
    tree: Arc<dyn Tree>,
    housekeeping: CpuSet,
) -> anyhow::Result<ExitCode> {
    let stop = stop_on_sigterm()?;
    let serving = CancellationToken::new();
    let engine_stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let run_dir = arguments.run_dir.as_path();
    let agent = std::env::current_exe().context("find this program")?;

    // the join token leaves the file system before there is any container
    let papers = Papers::of_boot(boot, run_dir, &*tree);
    let membership = papers.and_then(|papers| papers.map(Membership::open).transpose());
    let membership = membership.unwrap_or_else(|error| {
        marker(&format!("no controller is joined: {error:#}"));
        None
    });
    let memory_low = std::fs::read_to_string(run_dir.join("memory-low"))
        .ok()
        .map(|message| message.trim().to_owned());
    let spec = engine_spec(run_dir, &agent, housekeeping.len());
    let client = EngineClient::new(&spec.socket);
    let (engine, engine_task) = match &memory_low {
        Some(why) => (Engine::off(why.clone()), None),
        None => {
            let (engine, task) = Engine::start(spec, engine_stop.clone());
            (engine, Some(task))
        }
    };
    let Assembled { node, plan } = assemble(Ground {
        tree: Arc::clone(&tree),
        engine,
        client: client.clone(),
        run_dir,
        join_dir: run_dir.join("join"),
        agent,
        tasks: tasks.clone(),
        stop: serving.clone(),
        memory_low,
        host: None,
    })?;

    let router = router(&node);
    let api = match listen(
        arguments.listen,
        run_dir,
        &router,
        boot.controller.is_some(),
    )
    .await
    {
        Ok(Some(server)) => {
            marker(&format!("api listening on {}", server.local_addr()));
            Some(tokio::spawn(server.run(serving.clone())))
        }
        Ok(None) => {
            marker("api served through the controller only");
            None
        }
        Err(error) => {
            // without an API the node is still there to be looked at on its console
            marker(&format!("api not served: {error:#}"));
            None
        }
    };
    tasks.spawn(watch_engine(Arc::clone(&node), serving.clone()));
    tasks.spawn(watch_containers(
        Arc::clone(&node),
        Arc::clone(&plan),
        serving.clone(),
    ));
    let options = stillmetal_tune::Options {
        smt: match boot.smt {
            Smt::Off => stillmetal_tune::Smt::Off,
            Smt::Keep => stillmetal_tune::Smt::Keep,
        },
        latency: stillmetal_tune::Latency::Hold,
    };
    let tuned = {
        let tree = Arc::clone(&tree);
        tokio::task::spawn_blocking(move || {
            let topology = stillmetal_tune::topology::read(&*tree);
            let plan = stillmetal_tune::plan(&topology, &options);
            let applied = stillmetal_tune::apply(&plan, &*tree);
            (plan, applied)
        })
    };
    let (tuned, applied) = tuned.await.context("tuning died")?;
    let latency_hold = tell_tuning(&node, applied);
    plan.get_or_init(|| tuned);
    tasks.spawn(show_report(Arc::clone(&node), serving.clone()));
    tasks.spawn(steer_interrupts(
        Arc::clone(&node),
        Arc::clone(&tree),
        serving.clone(),
    ));
    tasks.spawn(spread_threads(
        Arc::clone(&node),
        Arc::clone(&tree),
        serving.clone(),
    ));
    if let Some(membership) = membership {
        let started = membership
            .start(run_dir, &node, &tree, router.clone(), &tasks, &serving)
            .await;
        if let Err(error) = started {
            marker(&format!("no controller is joined: {error:#}"));
        }
    }
    let lease_stop = Arc::new(AtomicBool::new(false));
    let lease_keeper = {
        let stop = Arc::clone(&lease_stop);
        std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || stillmetal_init::dhcp::keep_lease(&stop))
            .context("start the lease keeper")?
    };

    stop.cancelled().await;
    tracing::info!("going down: containers first");
    serving.cancel();
    lease_stop.store(true, Ordering::Relaxed);
    let unconfirmed = client.stop_all(CONTAINER_GRACE_SECONDS).await;
    if unconfirmed > 0 {
        tracing::warn!(unconfirmed, "containers did not confirm their end");
    }
    engine_stop.cancel();
    tasks.close();
    let drained = async {
        if let Some(task) = engine_task {
            drop(task.await);
        }
        if let Some(task) = api {
            drop(task.await);
        }
        router.end().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(DRAIN + Duration::from_secs(16), drained)
        .await
        .is_err()
    {
        tracing::warn!("not everything ended in time; PID 1 ends the rest");
    }
    drop(latency_hold);
    // the thread wakes from its timers by itself; the process ends without it
    drop(lease_keeper);
    Ok(ExitCode::SUCCESS)
}

/// What the parts of a node stand on.
pub(crate) struct Ground<'a> {
    pub(crate) tree: Arc<dyn Tree>,
    pub(crate) engine: Engine,
    pub(crate) client: EngineClient,
    pub(crate) run_dir: &'a Path,
    pub(crate) join_dir: PathBuf,
    /// This program.
    pub(crate) agent: PathBuf,
    /// Of whatever runs for somebody.
    pub(crate) tasks: TaskTracker,
    /// Ends whatever runs for somebody.
    pub(crate) stop: CancellationToken,
    pub(crate) memory_low: Option<String>,
    /// `None`: the appliance.
    pub(crate) host: Option<OnHost>,
}

/// What is different on an ordinary host.
pub(crate) struct OnHost {
    pub(crate) host: Host,
    pub(crate) unproven: Option<Arc<Unproven>>,
    /// Marks this agent's containers.
    pub(crate) owner: String,
    /// Where the images that it runs are noted.
    pub(crate) images_used: Option<PathBuf>,
}

/// A node, and what tuning will have set.
pub(crate) struct Assembled {
    pub(crate) node: Arc<Node>,
    pub(crate) plan: Arc<OnceLock<Plan>>,
}

/// Puts the parts of a node together; nothing of it runs yet.
pub(crate) fn assemble(ground: Ground<'_>) -> anyhow::Result<Assembled> {
    let Ground {
        tree,
        engine,
        client,
        run_dir,
        join_dir,
        agent,
        tasks,
        stop,
        memory_low,
        host,
    } = ground;
    let (host, unproven, owner, images_used) = match host {
        Some(on) => (Some(on.host), on.unproven, Some(on.owner), on.images_used),
        None => (None, None, None, None),
    };
    let mut placer = Placer::open(
        &run_dir.join("claims"),
        Arc::clone(&tree),
        Arc::new(client.clone()),
        since_boot,
        Token::random,
    )
    .context("read the claims that are kept")?;
    if unproven.is_some() {
        placer = placer.without_partitions();
    }
    let placer = Arc::new(placer);
    let processes = Processes::new(
        Arc::clone(&placer),
        Arc::clone(&tree),
        agent.clone(),
        tasks.clone(),
        stop.clone(),
    );
    let (report, plan) = (SharedReport::default(), Arc::new(OnceLock::new()));
    let proven = unproven.is_none();
    let measuring = certify::Parts {
        placer: Arc::clone(&placer),
        tree: Arc::clone(&tree),
        msrs: Arc::new(DevCpu::live()),
        client: client.clone(),
        run_dir: run_dir.to_path_buf(),
        agent,
        tasks: tasks.clone(),
        stop: stop.clone(),
        report: Arc::clone(&report),
        plan: Arc::clone(&plan),
        unproven,
        join_dir,
    };
    let selftest = SelfTester::new(measuring.clone());
    if proven {
        // nothing else is done before, so it may block
        tokio::task::block_in_place(|| selftest.clear_up());
    }
    let certifier = Arc::new(Certifier::new(measuring));
    let runs = Runs::new(runs::Parts {
        certifier: Arc::clone(&certifier),
        placer: Arc::clone(&placer),
        client: client.clone(),
        tasks,
        stop,
        owner,
        images_used,
        tools: Arc::new(Toolbox::new(tools::Parts {
            tree: Arc::clone(&tree),
            perf: Arc::new(KernelPerf),
            placer: Arc::clone(&placer),
            report: Arc::clone(&report),
        })),
    });
    let node = Arc::new(Node::new(Parts {
        tree,
        engine,
        client,
        placer,
        processes,
        certifier,
        runs,
        selftest,
        report,
        memory_low,
        host,
    }));
    Ok(Assembled { node, plan })
}

fn engine_spec(run_dir: &Path, agent: &Path, housekeeping_cpus: usize) -> EngineSpec {
    let own_tls = run_dir.join("config/engine");
    EngineSpec::new(&EngineOptions {
        run_dir,
        agent,
        housekeeping_cpus,
        own_tls: own_tls
            .join("key.pem")
            .exists()
            .then_some(own_tls.as_path()),
    })
}

/// The one router of this node, wherever its requests come from.
pub(crate) fn router(node: &Arc<Node>) -> Service {
    let parts = stillmetal_proxy::Parts {
        placement: Arc::clone(node.certifier()) as _,
        node_api: Arc::new(Http::new(Arc::clone(node))),
        engine: Arc::new(node.engine().clone()),
        events: node.certifier().events().clone(),
    };
    Service::new(parts, stillmetal_proxy::Limits::default())
}

/// `None`: the node was given no certificate to serve with, and needs none, because it has a
/// controller.
pub(crate) async fn listen(
    address: SocketAddr,
    run_dir: &Path,
    router: &Service,
    has_controller: bool,
) -> anyhow::Result<Option<stillmetal_proxy::Server>> {
    let config = run_dir.join("config");
    if has_controller && !config.join("node.pem").exists() {
        return Ok(None);
    }
    let read = |name: &str| {
        std::fs::read_to_string(config.join(name)).with_context(|| {
            format!(
                "{name} is missing: boot with an extra initramfs that carries /stillmetal/{name} \
                 (`make config` writes one)"
            )
        })
    };
    let tls = pki::server_config(&read("ca.pem")?, &read("node.pem")?, &read("node.key")?)
        .context("use the node's certificate")?;
    Ok(Some(router.listen(address, tls).await?))
}

/// Tells console and API what came of tuning.
pub(crate) fn tell_tuning(node: &Arc<Node>, applied: Applied) -> Option<LatencyHold> {
    let Applied { report, hold } = applied;
    let sets = report.cpus.clone();
    node.set_report(report);
    match &node.status().state {
        api::report::NodeState::Fit => marker(&format!(
            "node fit isolated={} housekeeping={}",
            sets.isolated, sets.housekeeping
        )),
        api::report::NodeState::Unfit { reason } => marker(&format!("node unfit: {reason}")),
    }
    hold
}

/// The report on the console, for whoever stands before the machine; once, and only when the engine
/// has come up or has not, because a serial line is slow.
async fn show_report(node: Arc<Node>, stop: CancellationToken) {
    let mut states = node.engine().watch();
    let settled = states.wait_for(|state| !matches!(state, EngineState::Starting { .. }));
    tokio::select! {
        () = stop.cancelled() => return,
        _state = settled => {}
    }
    if let Some(report) = node.status().tuning {
        let show = move || stillmetal_init::log::screen(&stillmetal_tune::text::report(&report));
        if tokio::task::spawn_blocking(show).await.is_err() {
            tracing::error!("showing the report died");
        }
    }
}

pub(crate) async fn watch_engine(node: Arc<Node>, stop: CancellationToken) {
    let mut states = node.engine().watch();
    loop {
        let ready = matches!(*states.borrow_and_update(), EngineState::Ready { .. });
        if ready {
            marker("engine ready");
            node.placer().reconcile().await;
            node.certifier().settle_interrupted().await;
            node.runs().clear().await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

/// Frees CPUs soon after their container ended, and looks whether they stayed as they were tuned.
pub(crate) async fn watch_containers(
    node: Arc<Node>,
    plan: Arc<OnceLock<Plan>>,
    stop: CancellationToken,
) {
    let ended = tokio::sync::Notify::new();
    let settle = async {
        loop {
            // the time limit is a reason to look, too
            drop(tokio::time::timeout(RECONCILE_PERIOD, ended.notified()).await);
            node.placer().reconcile_if_claimed().await;
            let (node, plan) = (Arc::clone(&node), Arc::clone(&plan));
            let look = move || plan.get().map(|plan| node.look_for_drift(plan));
            if tokio::task::spawn_blocking(look).await.is_err() {
                tracing::error!("looking for drift died");
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = node.client().notify_ends(&ended) => {}
        () = settle => {}
    }
}

/// Moves threads apart that share a CPU of their claim.
pub(crate) async fn spread_threads(node: Arc<Node>, tree: Arc<dyn Tree>, stop: CancellationToken) {
    let mut spreader = Spreader::default();
    let mut period = tokio::time::interval(SPREAD_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _instant = period.tick() => {}
        }
        let (node, tree) = (Arc::clone(&node), Arc::clone(&tree));
        let look = move || {
            spreader.look(node.placer(), &*tree);
            spreader
        };
        spreader = match tokio::task::spawn_blocking(look).await {
            Ok(spreader) => spreader,
            Err(error) => {
                tracing::error!(%error, "looking for threads that share a CPU died");
                return;
            }
        };
    }
}

/// Moves interrupts that appear later; what refuses to move goes into the report.
pub(crate) async fn steer_interrupts(
    node: Arc<Node>,
    tree: Arc<dyn Tree>,
    stop: CancellationToken,
) {
    let Some(report) = node.status().tuning else {
        return;
    };
    let mut steering = Steering::new(report.cpus.housekeeping);
    let mut period = tokio::time::interval(IRQ_PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _instant = period.tick() => {}
        }
        for entry in steering.run(&*tree) {
            let reason = entry.reason.clone().unwrap_or_default();
            tracing::info!(irq = entry.irq, before = %entry.before, after = %entry.after, reason, "interrupt steered");
            let what = format!(
                "interrupt {} sent from CPUs {} to {}",
                entry.irq, entry.before, entry.after
            );
            node.placer().note_on(&entry.before, &what);
            node.update_report(|report| {
                let known = report.irqs_unmovable.iter().any(|irq| irq.irq == entry.irq);
                if entry.status == Status::Refused && !known {
                    report.irqs_unmovable.push(UnmovableIrq {
                        irq: entry.irq,
                        name: String::new(),
                        affinity: entry.after.to_string(),
                        effective: String::new(),
                        counts: BTreeMap::new(),
                        reason,
                    });
                }
            });
        }
    }
}

pub(crate) fn stop_on_sigterm() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

pub(crate) fn pin_to(cpus: &CpuSet) -> nix::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in cpus.iter() {
        set.set(cpu as usize)?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
}
