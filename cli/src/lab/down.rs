//! `still down`.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::Signal;

use super::CONTEXT;
use super::controller::context;
use super::folder::{LOOK, LabFolder, Locked};
use super::local;
use super::record::{Provider, Record};
use crate::context::{ContextName, Contexts};
use crate::docker;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;

/// End the lab of `still up`: controller, machines, certificates, state, context. Nothing stays.
#[derive(Debug, Args)]
#[command(after_help = "It also cleans up after a lab that was killed.")]
pub(crate) struct DownArguments {}

/// The supervisor ends the machines, and gives the controller a while.
const STOP_WITHIN: Duration = Duration::from_secs(45);
/// What was killed is gone after that, unless the kernel does not let it.
const GONE_WITHIN: Duration = Duration::from_secs(15);

pub(crate) async fn down(_arguments: DownArguments, output: Output) -> Ended {
    let folder = LabFolder::of_user()?;
    let (lock, was) = match folder.lock()? {
        Locked::Ours(lock) => {
            let was = match folder.record()?.is_some() {
                true => "the lab had ended already",
                false => "no lab runs",
            };
            (lock, was)
        }
        Locked::Held => (stop(&folder).await?, "the lab is gone"),
    };
    clean(&folder, lock).await?;
    output.value(&serde_json::json!({ "was": was }), || was.to_owned())?;
    Ok(Outcome::Done)
}

/// Ends the supervisor, and with it all that it owns; returns its lock.
pub(super) async fn stop(folder: &LabFolder) -> anyhow::Result<File> {
    for (signal, within) in [
        (Signal::SIGTERM, STOP_WITHIN),
        (Signal::SIGKILL, GONE_WITHIN),
    ] {
        let deadline = Instant::now() + within;
        let mut told = false;
        while Instant::now() < deadline {
            // one that has just begun has not written down who it is
            if !told && let Some(record) = folder.record()? {
                record
                    .supervisor
                    .signal(signal)
                    .context("end the supervisor")?;
                told = true;
            }
            if let Locked::Ours(lock) = folder.lock()? {
                return Ok(lock);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let lock = folder.path().join("lock");
    bail!(
        "somebody still holds {}: end that process, then call still down again",
        lock.display()
    );
}

/// Removes everything that a lab has made. Nobody uses it: its lock is ours.
pub(super) async fn clean(folder: &LabFolder, lock: File) -> anyhow::Result<()> {
    let record = folder.record().unwrap_or_else(|error| {
        // half of a record tells nothing, and must not keep the rest here
        eprintln!("still: {:#}", anyhow::Error::from(error));
        None
    });
    if let Some(record) = &record {
        kill_rest(record).await?;
        if record.settings.provider == Provider::Local {
            local::clean(folder, record).await?;
        }
        if let Some(controller) = &record.controller {
            let host = format!("tcp://{}/nodes/", controller.address);
            for name in docker::contexts_of(&host).await {
                docker::remove_context(&name).await;
            }
        }
    }
    forget_context(folder, record.as_ref())?;
    folder.remove(lock)?;
    Ok(())
}

/// The kernel kills what the supervisor owned when it dies; this is for the moment before that was
/// arranged.
async fn kill_rest(record: &Record) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    let alive = || {
        let mut processes = record.processes();
        processes.retain(|process| process.is_alive());
        processes
    };
    while Instant::now() < deadline {
        let left = alive();
        if left.is_empty() {
            return Ok(());
        }
        for process in left {
            process
                .signal(Signal::SIGKILL)
                .context("kill what is left")?;
        }
        tokio::time::sleep(LOOK).await;
    }
    let left: Vec<_> = alive().iter().map(|it| it.pid.to_string()).collect();
    bail!("killed, but still there: process {}", left.join(", "));
}

/// The context, if it is that lab's and not somebody's own of that name.
fn forget_context(folder: &LabFolder, record: Option<&Record>) -> anyhow::Result<()> {
    let contexts = Contexts::of_user()?;
    let name = ContextName::parse(CONTEXT)?;
    let controller = record.and_then(|record| record.controller.as_ref());
    let ours = controller.and_then(|it| context(folder, &it.address).ok());
    let (Some(ours), Ok(there)) = (ours, contexts.read(&name)) else {
        return Ok(());
    };
    if ours.ca_pem != there.ca_pem {
        return Ok(());
    }
    let current = contexts.current()?;
    contexts.remove(&name)?;
    if current.as_ref() == Some(&name) {
        let previous = std::fs::read_to_string(folder.previous_context());
        let previous = previous
            .ok()
            .and_then(|text| ContextName::parse(text.trim()).ok());
        if let Some(previous) = previous.filter(|it| contexts.read(it).is_ok()) {
            contexts.set_current(&previous)?;
        }
    }
    Ok(())
}
