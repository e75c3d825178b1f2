//! The container engine as a supervised pair of processes: containerd, then dockerd.
//!
//! Both live in the cgroup `/engine` on housekeeping CPUs and outlive the agent: an agent that
//! comes back adopts what still runs. dockerd's `live-restore` keeps containers when only the
//! engine dies. Nothing here decides about containers; that is [`crate::placement`].

pub(crate) mod archive;
pub mod client;
mod launch;
pub(crate) mod output;
mod process;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillmetal_proxy::{EngineGate, EngineStatus, StoreSpace};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use client::{Abilities, EngineClient};
use process::Process;
pub use spec::{EngineOptions, EngineSpec, ServiceSpec};

/// How long a start may take before it counts as failed. Five seconds are usual under TCG
/// (appliance.md §2.3); a machine that swaps or is overloaded may need a minute.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// How long each process may take to leave by itself, before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// On the file system with the images: `data-root` in daemon.json, and containerd's state.
const IMAGE_STORE: &str = "/var/lib";

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Not to be started on this node.
    Off {
        why: String,
    },
    Starting {
        step: &'static str,
        attempt: u32,
    },
    Ready {
        socket: PathBuf,
    },
    /// It ended or did not come up, and is started again after a pause.
    Failed {
        why: String,
        attempt: u32,
    },
    Stopping,
}

/// Read side: the state now, and waiting for it.
#[derive(Debug, Clone)]
pub struct Engine {
    state: watch::Receiver<EngineState>,
}

impl Engine {
    /// Starts supervising in the background until `shutdown`; returns at once.
    #[must_use]
    pub fn start(
        spec: EngineSpec,
        shutdown: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, state) = watch::channel(EngineState::Starting {
            step: "containerd",
            attempt: 1,
        });
        let task = tokio::spawn(supervise(Arc::new(spec), sender, shutdown));
        (Self { state }, task)
    }

    /// An engine that others start and stop: it is only waited for, and used. `abilities` is called
    /// each time that it has come up.
    #[must_use]
    pub fn attach(
        socket: PathBuf,
        abilities: impl Fn(Abilities) + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, state) = watch::channel(EngineState::Starting {
            step: "the host's engine",
            attempt: 1,
        });
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = look_after(&socket, &abilities, &sender) => {}
            }
        });
        (Self { state }, task)
    }

    /// An engine that this node does not start, and why.
    #[must_use]
    pub fn off(why: String) -> Self {
        let (_, state) = watch::channel(EngineState::Off { why });
        Self { state }
    }

    #[must_use]
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// A stream of changes for whoever must act on them (console marker, reconciliation).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }
}

impl EngineGate for Engine {
    fn engine(&self) -> EngineStatus {
        let why = match self.state() {
            EngineState::Ready { socket } => return EngineStatus::Ready(socket),
            EngineState::Off { why } => why,
            EngineState::Starting { step, attempt } => {
                format!("{step} is being started (attempt {attempt})")
            }
            EngineState::Failed { why, attempt } => {
                format!("{why}; attempt {} follows", attempt + 1)
            }
            EngineState::Stopping => "the node is going down".into(),
        };
        EngineStatus::NotReady { why }
    }

    fn store(&self) -> Option<StoreSpace> {
        let stat = nix::sys::statvfs::statvfs(IMAGE_STORE).ok()?;
        Some(StoreSpace {
            free: stat.blocks_available() * stat.fragment_size(),
            total: stat.blocks() * stat.fragment_size(),
        })
    }
}

/// For ever: waits for the engine, and then for its end.
async fn look_after(
    socket: &Path,
    abilities: &(impl Fn(Abilities) + Send + Sync),
    state: &watch::Sender<EngineState>,
) {
    let client = EngineClient::new(socket);
    let mut attempt = 1;
    loop {
        match client.abilities().await {
            Ok(able) => {
                abilities(able);
                state.send_replace(EngineState::Ready {
                    socket: socket.to_owned(),
                });
                client.until_gone().await;
                attempt = 1;
                let why = format!("the engine at {} went away", socket.display());
                state.send_replace(EngineState::Failed { why, attempt });
            }
            Err(error) => {
                let error = crate::chain(&error);
                let why = format!("no engine answers at {}: {error}", socket.display());
                state.send_replace(EngineState::Failed { why, attempt });
                attempt += 1;
            }
        }
        tokio::time::sleep(pause(attempt)).await;
    }
}

async fn supervise(
    spec: Arc<EngineSpec>,
    state: watch::Sender<EngineState>,
    shutdown: CancellationToken,
) {
    let mut attempt = 1;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let why = run_once(&spec, &state, attempt, &shutdown).await;
        if shutdown.is_cancelled() {
            break;
        }
        attempt = if started.elapsed() > Duration::from_secs(60) {
            1
        } else {
            attempt + 1
        };
        tracing::error!(%why, attempt, "engine ended");
        state.send_replace(EngineState::Failed { why, attempt });
        tokio::select! {
            () = tokio::time::sleep(pause(attempt)) => {}
            () = shutdown.cancelled() => {}
        }
    }
    state.send_replace(EngineState::Stopping);
    stop_both(&spec).await;
}

/// 0.25 s doubling to 8 s.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(250) * 2_u32.pow(attempt.clamp(1, 6) - 1)
}

/// Brings both up, reports ready, and returns why one of them ended. A containerd that is still
/// alive is kept when only dockerd died (`process::hold` adopts). With a new containerd comes a
/// new dockerd: one that lost its event stream is never told of the exits it missed, and would
/// call a dead container running for good; a new one looks at each container as it starts.
async fn run_once(
    spec: &EngineSpec,
    state: &watch::Sender<EngineState>,
    attempt: u32,
    shutdown: &CancellationToken,
) -> String {
    let deadline = Instant::now() + READY_DEADLINE;
    let mut held = Vec::new();
    for service in [&spec.containerd, &spec.dockerd] {
        state.send_replace(EngineState::Starting {
            step: service.name,
            attempt,
        });
        let mut process = match process::hold(service).await {
            Ok(process) => process,
            Err(error) => return crate::chain(&error),
        };
        let is_new = matches!(process, Process::Child(_));
        tokio::select! {
            () = shutdown.cancelled() => return "shutdown".into(),
            end = process.ended() => return format!("{} ended: {end}", service.name),
            ready = (service.ready)(deadline) => if let Err(why) = ready {
                return format!("{} is not ready: {why}", service.name);
            }
        }
        if is_new && service.name == spec.containerd.name {
            process::stop(&spec.dockerd, STOP_GRACE).await;
        }
        held.push((service.name, process));
    }
    state.send_replace(EngineState::Ready {
        socket: spec.socket.clone(),
    });
    let [(first_name, first), (second_name, second)] = &mut held[..] else {
        return "internal: the engine is two processes".into();
    };
    tokio::select! {
        () = shutdown.cancelled() => "shutdown".into(),
        end = first.ended() => format!("{first_name} ended: {end}"),
        end = second.ended() => format!("{second_name} ended: {end}"),
    }
}

/// dockerd first: it still needs containerd to leave cleanly.
async fn stop_both(spec: &EngineSpec) {
    for service in [&spec.dockerd, &spec.containerd] {
        process::stop(service, STOP_GRACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &'static str, folder: &Path) -> ServiceSpec {
        ServiceSpec {
            name,
            name_text: name.into(),
            command: ["sleep", "1000"].map(Into::into).to_vec(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            identity: folder.join(name),
            ready: Box::new(|_| Box::pin(std::future::ready(Ok(())))),
        }
    }

    fn pid(folder: &Path, name: &str) -> Option<i32> {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        let identity: serde_json::Value = serde_json::from_str(&text).ok()?;
        i32::try_from(identity["pid"].as_i64()?).ok()
    }

    /// Kills one of the two, and returns the pids before and after the engine is ready again.
    async fn after_killing(victim: &str) -> [(i32, i32); 2] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let names = ["containerd", "dockerd"];
        let spec = EngineSpec {
            containerd: service(names[0], at),
            dockerd: service(names[1], at),
            socket: at.join("socket"),
        };
        let shutdown = CancellationToken::new();
        let (engine, task) = Engine::start(spec, shutdown.clone());
        let mut states = engine.watch();
        let limit = Duration::from_secs(60);
        let mut ready = async || {
            let is_ready = |state: &EngineState| matches!(state, EngineState::Ready { .. });
            let waited = tokio::time::timeout(limit, states.wait_for(is_ready)).await;
            drop(waited.expect("ready in time").unwrap());
            names.map(|name| pid(at, name).unwrap())
        };
        let before = ready().await;
        let killed = nix::unistd::Pid::from_raw(pid(at, victim).unwrap());
        nix::sys::signal::kill(killed, nix::sys::signal::SIGKILL).unwrap();
        let mut failed = engine.watch();
        let left = failed.wait_for(|state| !matches!(state, EngineState::Ready { .. }));
        drop(tokio::time::timeout(limit, left).await.unwrap().unwrap());
        let after = ready().await;
        shutdown.cancel();
        tokio::time::timeout(limit, task).await.unwrap().unwrap();
        [(before[0], after[0]), (before[1], after[1])]
    }

    #[tokio::test]
    async fn a_containerd_outlives_its_dockerd() {
        let [containerd, dockerd] = after_killing("dockerd").await;
        assert_eq!(containerd.0, containerd.1);
        assert_ne!(dockerd.0, dockerd.1);
    }

    #[tokio::test]
    async fn a_new_containerd_gets_a_new_dockerd() {
        let [containerd, dockerd] = after_killing("containerd").await;
        assert_ne!(containerd.0, containerd.1);
        assert_ne!(dockerd.0, dockerd.1);
    }
}
