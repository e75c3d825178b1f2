//! `image.*`: size, memory, processes, sockets, and the smallest RAM that still runs a container.

use std::time::Duration;

use anyhow::Context;
use testkit::{Artifacts, Client, ConfigOptions, Node};

use super::figure::Figure;
use super::sides::{Side, Sides, background_busy};

/// Kernel plus initramfs.
///
/// # Errors
/// When the image is missing.
pub fn bytes(sides: &Sides) -> anyhow::Result<Vec<Figure>> {
    let size = |path: &std::path::Path| -> anyhow::Result<u64> {
        Ok(std::fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .len())
    };
    let image = Artifacts::find()?;
    let ours = size(&image.kernel)? + size(&image.initrd)?;
    let (kernel, initrd) = sides.baseline_files();
    let theirs = size(kernel)? + size(initrd)?;
    let limit = 72_000_000;
    Ok(vec![
        Figure::new(
            "image.bytes",
            "kernel and initramfs",
            "bytes",
            "≤ 72 MB",
            background_busy()?,
        )
        .values(float(ours), Some(float(theirs)))
        .met(ours <= limit)
        .note("theirs: initramfs compressed with zstd -3"),
    ])
}

/// What an idle machine holds.
#[derive(Debug)]
pub struct Idle {
    memory_kib: u64,
    processes: Vec<String>,
    sockets: Vec<String>,
}

/// Reads memory first, through a container that is gone again when it is read; then starts the
/// observer and counts what is not of its making.
///
/// # Errors
/// When a container cannot run.
pub fn idle(side: &Side) -> anyhow::Result<Idle> {
    side.observe()?;
    let meminfo = side.look("cat /hp/meminfo")?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = meminfo.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(number
            .with_context(|| format!("no {name} in meminfo"))?
            .parse()?)
    };
    // kernel threads have an empty cmdline; the shim, runc and the shell are the observer's
    let text = side.look(
        "for p in /hp/[0-9]*; do c=$(tr '\\0' ' ' < $p/cmdline 2>/dev/null); [ -n \"$c\" ] && echo \"$c\"; done; true",
    )?;
    let observers = [
        "containerd-shim",
        "runc",
        "sleep 100000",
        "sh -c for p in",
        "tr ",
    ];
    let processes = text
        .lines()
        .filter(|line| !observers.iter().any(|own| line.contains(own)))
        .map(str::to_owned)
        .collect();
    let sockets = side.look(
        "for f in tcp tcp6; do awk '$4 == \"0A\" {print FILENAME, $2}' /hp/1/net/$f; done; \
         for f in udp udp6; do awk 'FNR > 1 {print FILENAME, $2}' /hp/1/net/$f; done",
    )?;
    Ok(Idle {
        memory_kib: field("MemTotal:")? - field("MemAvailable:")?,
        processes,
        sockets: sockets.lines().map(str::to_owned).collect(),
    })
}

/// The figures from both idle machines.
#[must_use]
pub fn idle_figures(ours: &Idle, theirs: &Idle, busy: f64) -> Vec<Figure> {
    let count = |list: &[String]| u64::try_from(list.len()).map_or(f64::NAN, float);
    let memory = Figure::new(
        "image.memory",
        "memory in use when ready (MemTotal - MemAvailable, 2 GiB machine)",
        "KiB",
        "ours/theirs ≤ 0.50",
        busy,
    )
    .values(float(ours.memory_kib), Some(float(theirs.memory_kib)))
    .note("both with one sleeping container, through which it is read");
    let met = memory.ratio.is_some_and(|ratio| ratio <= 0.5);
    vec![
        memory.met(met),
        Figure::new(
            "image.processes",
            "processes, idle, no container",
            "count",
            "≤ 4",
            busy,
        )
        .values(count(&ours.processes), Some(count(&theirs.processes)))
        .met(ours.processes.len() <= 4)
        .note(format!("ours: {}", ours.processes.join("; "))),
        Figure::new(
            "image.sockets",
            "listening TCP and bound UDP sockets",
            "count",
            "exactly 1",
            busy,
        )
        .values(count(&ours.sockets), Some(count(&theirs.sockets)))
        .met(ours.sockets.len() == 1)
        .note(format!("ours: {}", ours.sockets.join("; "))),
    ]
}

/// The smallest RAM, in steps of 32 MiB, in which a container runs.
///
/// # Errors
/// When even the largest step fails.
pub fn floor(sides: &Sides) -> anyhow::Result<Vec<Figure>> {
    let busy = background_busy()?;
    let mut smallest = None;
    let mut note = String::new();
    for mib in (256..=448).rev().step_by(32) {
        match runs_with(sides, mib) {
            Ok(()) => smallest = Some(mib),
            Err(error) => {
                note = format!("with {mib} MiB: {error:#}")
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .into();
                break;
            }
        }
    }
    let smallest = smallest.context("no container runs even in 448 MiB")?;
    Ok(vec![
        Figure::new(
            "image.floor",
            "smallest RAM in which docker run works",
            "MiB",
            "≤ 384",
            busy,
        )
        .values(f64::from(smallest), None)
        .met(smallest <= 384)
        .note(note),
    ])
}

fn runs_with(sides: &Sides, mib: u32) -> anyhow::Result<()> {
    let description = sides
        .ours(2, &ConfigOptions::default())?
        .memory_mib(mib)
        // the node's own minimum would refuse to try
        .param("stillmetal.memory_min=1");
    let node = Node::boot(&description, &sides.credentials)?;
    let api = node.api(Client::Admin)?;
    let limit = Duration::from_secs(90);
    api.wait_for("the engine", "/_ping", limit, |answer| answer.status == 200)?;
    let docker = node.docker(Client::Admin)?;
    docker.load(&sides.busybox)?;
    docker.run_ok(["run", "--rm", "busybox", "true"])?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}
