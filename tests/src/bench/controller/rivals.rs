//! What the controller is compared with, fetched and run on this machine by the scripts in
//! `tests/rivals`. One that cannot be had has no figure, and says why.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use testkit::{Invocation, places};

/// How many jobs may run at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slots {
    /// As many as this machine has processors to run them.
    Two,
    /// More than it can use: what the scheduler can do.
    Many,
}

/// Jobs a second, and with which settings or why not.
pub(super) type Rival = (Option<f64>, String);

pub(super) fn hyperqueue(slots: Slots) -> Rival {
    let (slots, tasks) = match slots {
        Slots::Two => ("2", "4000"),
        Slots::Many => ("64", "4000"),
    };
    told("HyperQueue", || {
        let python = setup("hyperqueue")?.join("bin/python");
        let script = folder()?.join("hq.py");
        run(Invocation::new(python).args([script.as_os_str(), slots.as_ref(), tasks.as_ref()]))
    })
}

pub(super) fn slurm(slots: Slots) -> Rival {
    let (slots, jobs) = match slots {
        Slots::Two => ("2", "20"),
        Slots::Many => ("64", "600"),
    };
    told("Slurm", || {
        let root = setup("slurm")?;
        let script = folder()?.join("slurm.sh");
        run(Invocation::new(script).args([root.as_os_str(), slots.as_ref(), jobs.as_ref()]))
    })
}

fn told(name: &str, take: impl FnOnce() -> anyhow::Result<(f64, String)>) -> Rival {
    match take() {
        Ok((rate, settings)) => {
            eprintln!("bench: {rate:.1} jobs/s: {settings}");
            (Some(rate), format!("{settings}: {rate:.1} jobs/s"))
        }
        Err(error) => {
            let text = format!("{error:#}");
            let end: Vec<&str> = text.lines().rev().take(4).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            eprintln!("bench: no figure of {name}: {text}");
            (None, format!("no figure of {name}: {}", end.join(" / ")))
        }
    }
}

fn folder() -> anyhow::Result<PathBuf> {
    let top = places::workspace_dir().context("not inside the workspace")?;
    Ok(top.join("tests/rivals"))
}

/// Where it is.
fn setup(which: &str) -> anyhow::Result<PathBuf> {
    let output = Invocation::new(folder()?.join("setup.sh"))
        .args([which])
        .within(Duration::from_secs(300))
        .run_ok()?;
    let text = output.text();
    let last = text.lines().last().context("its set-up said nothing")?;
    Ok(last.into())
}

fn run(invocation: Invocation) -> anyhow::Result<(f64, String)> {
    let output = invocation.within(Duration::from_secs(240)).run_ok()?;
    let text = output.text();
    let word = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let rate = word("rate").with_context(|| format!("it printed no rate: {text}"))?;
    let settings = word("settings").unwrap_or_default();
    Ok((rate.parse()?, settings.to_owned()))
}
