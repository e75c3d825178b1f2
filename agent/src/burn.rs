//! `burn`: keep CPUs busy, and say how much CPU time each thread got.
//!
//! The smallest honest benchmark: if the sum stays well below `threads × seconds`, the threads
//! shared a CPU, or somebody else ran there. With `--pulses` it is the smallest honest disturbance
//! instead: a known number of short bursts, to see whether a certificate counts them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use host::RealTree;
use host::threads::cpu_time;
use serde_json::json;
use stillmetal_node::cgroups;

#[derive(Debug, Args)]
pub(crate) struct BurnArguments {
    /// Wall-clock seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Threads, each an endless loop.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// That many bursts of one thread instead, with a pause between two of them.
    #[arg(long, conflicts_with_all = ["seconds", "threads"], value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pulses: Option<u64>,
    /// CPU time of each burst, ms.
    #[arg(long, requires = "pulses", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pulse_ms: u64,
    /// From the end of a burst to the next, ms.
    #[arg(long, requires = "pulses", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pause_ms: u64,
    /// Enter this cgroup (absolute name below the mount of cgroup v2) right before each burst, and
    /// leave it after: if it has one CPU, each burst interrupts whatever runs there exactly once.
    #[arg(long, requires = "pulses")]
    into: Option<String>,
}

pub(crate) fn run(arguments: &BurnArguments) -> anyhow::Result<ExitCode> {
    if let Some(pulses) = arguments.pulses {
        return pulse(pulses, arguments);
    }
    let length = Duration::from_secs(arguments.seconds);
    let workers: Vec<_> = (0..arguments.threads)
        .map(|_| std::thread::spawn(move || spin(length)))
        .collect();
    let mut cpu_seconds = Vec::new();
    for worker in workers {
        let spun = worker.join().ok().context("a thread died")?;
        cpu_seconds.push(spun.as_secs_f64());
    }
    let total: f64 = cpu_seconds.iter().sum();
    println!(
        "{}",
        json!({
            "seconds": arguments.seconds,
            "threads": arguments.threads,
            "cpu_seconds": cpu_seconds,
            "cpu_seconds_total": total,
        })
    );
    Ok(ExitCode::SUCCESS)
}

/// CPU time of this thread after spinning for `length`.
fn spin(length: Duration) -> Duration {
    let end = Instant::now() + length;
    while Instant::now() < end {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
    }
    cpu_time()
}

/// The process is on the cgroup's CPU `pulses` times and not once more: it comes from elsewhere each
/// time and sleeps elsewhere in between. So each burst is announced to that CPU by another one: if it
/// was without a tick, with an interrupt to begin ticking (`CAL`, `tick_nohz_full_kick_cpu`), and with
/// one to reschedule (`RES`) where the newcomer goes first. A thread that sleeps on the CPU itself
/// would be woken by its own timer (`LOC`).
fn pulse(pulses: u64, arguments: &BurnArguments) -> anyhow::Result<ExitCode> {
    let (length, pause) = (
        Duration::from_millis(arguments.pulse_ms),
        Duration::from_millis(arguments.pause_ms),
    );
    let home = host::cgroup::of_process(&RealTree::live(), std::process::id())?;
    let home = format!("/{home}");
    let before = cpu_time();
    for number in 0..pulses {
        if number > 0 {
            std::thread::sleep(pause);
        }
        if let Some(cgroup) = &arguments.into {
            enter(cgroup)?;
        }
        let end = cpu_time() + length;
        while cpu_time() < end {
            for _ in 0..100 {
                std::hint::spin_loop();
            }
        }
        if arguments.into.is_some() {
            enter(&home)?;
        }
    }
    let spent = cpu_time().saturating_sub(before);
    println!(
        "{}",
        json!({
            "pulses": pulses,
            "pulse_ms": arguments.pulse_ms,
            "pause_ms": arguments.pause_ms,
            "cpu_seconds_total": spent.as_secs_f64(),
        })
    );
    Ok(ExitCode::SUCCESS)
}

fn enter(cgroup: &str) -> anyhow::Result<()> {
    let procs = format!("{}{cgroup}/cgroup.procs", cgroups::ROOT);
    std::fs::write(&procs, "0").with_context(|| format!("enter {procs}"))
}
