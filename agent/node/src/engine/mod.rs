//! The container engine as a supervised pair of processes: containerd, then dockerd.
//!
//! Both live in the cgroup `/engine` on housekeeping CPUs and outlive the agent: an agent that
//! comes back adopts what still runs. dockerd's `live-restore` keeps containers when only the
//! engine dies. Nothing here decides about containers; that is [`crate::placement`].

pub mod client;
mod launch;
pub(crate) mod output;
mod process;
mod spec;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillmetal_proxy::{EngineGate, EngineStatus, StoreSpace};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use spec::{EngineOptions, EngineSpec, ServiceSpec};

/// How long a start may take before it counts as failed. Five seconds are usual under TCG
/// (appliance.md §2.3); a machine that swaps or is overloaded may need a minute.
const READY_DEADLINE: Duration = Duration::from_secs(120);

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
/// alive is kept when only dockerd died, and the other way round: `process::hold` adopts.
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
            Err(error) => return telemetry(&error),
        };
        tokio::select! {
            () = shutdown.cancelled() => return "shutdown".into(),
            end = process.ended() => return format!("{} ended: {end}", service.name),
            ready = (service.ready)(deadline) => if let Err(why) = ready {
                return format!("{} is not ready: {why}", service.name);
            }
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
        process::stop(service, Duration::from_secs(8)).await;
    }
}

/// An error with its causes, for a state text.
fn telemetry(error: &dyn std::error::Error) -> String {
    crate::chain(error)
}
