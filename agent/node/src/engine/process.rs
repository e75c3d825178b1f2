//! One long-lived process that outlives its supervisor: spawned by this agent, or adopted from an
//! earlier one through its identity on disk (pid and start time, since pids are reused).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ServiceSpec;

/// How often an adopted process, which is nobody's child here, is looked at.
const ADOPTED_POLL: Duration = Duration::from_millis(500);

/// A service could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("start {name} ({})", program.display())]
    Spawn {
        name: &'static str,
        program: PathBuf,
        source: io::Error,
    },
    #[error("write the identity of {name} to {}", path.display())]
    Identity {
        name: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Which process it is: a pid alone may be another one's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`.
    start_ticks: u64,
}

/// A running service.
#[derive(Debug)]
pub(super) enum Process {
    Child(tokio::process::Child),
    Adopted(Identity),
}

impl Process {
    /// Waits for its end; the text says how it ended as far as that can be known.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("its end could not be waited for: {error}"),
            },
            Self::Adopted(identity) => {
                while identity.is_alive() {
                    tokio::time::sleep(ADOPTED_POLL).await;
                }
                "it was adopted, so its exit status is not known".into()
            }
        }
    }
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
        (stat.state != 'Z').then_some(Self {
            pid,
            start_ticks: stat.starttime,
        })
    }

    fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }
}

/// Adopts the service if it runs, else starts it.
pub(super) async fn hold(service: &ServiceSpec) -> Result<Process, ProcessError> {
    if let Some(identity) = Identity::read(&service.identity).filter(|known| known.is_alive()) {
        tracing::info!(service = service.name, pid = identity.pid, "adopted");
        return Ok(Process::Adopted(identity));
    }
    let (program, arguments) = service
        .command
        .split_first()
        .unwrap_or((&service.name_text, &[]));
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(service.env.iter().cloned())
        .stdin(std::process::Stdio::null())
        .spawn()
        .map_err(|source| ProcessError::Spawn {
            name: service.name,
            program: program.into(),
            source,
        })?;
    if let Some(identity) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Identity::of)
    {
        let text = serde_json::to_string(&identity).expect("two numbers always serialise");
        fs::write(&service.identity, text).map_err(|source| ProcessError::Identity {
            name: service.name,
            path: service.identity.clone(),
            source,
        })?;
        tracing::info!(service = service.name, pid = identity.pid, "started");
    }
    Ok(Process::Child(child))
}

/// SIGTERM, and SIGKILL after `grace`. Returns when it is gone, at the latest 2 s after the kill.
pub(super) async fn stop(service: &ServiceSpec, grace: Duration) {
    let Some(identity) = Identity::read(&service.identity).filter(|known| known.is_alive()) else {
        return;
    };
    signal(identity, Signal::SIGTERM);
    if !is_gone_within(identity, grace).await {
        tracing::warn!(service = service.name, "did not end on SIGTERM: killed");
        signal(identity, Signal::SIGKILL);
        is_gone_within(identity, Duration::from_secs(2)).await;
    }
}

async fn is_gone_within(identity: Identity, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while identity.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

fn signal(identity: Identity, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(identity.pid), signal) {
        tracing::debug!(pid = identity.pid, %error, "a signal found nobody");
    }
}
