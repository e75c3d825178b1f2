//! `burn`: keep CPUs busy, and say how much CPU time each thread got.
//!
//! The smallest honest benchmark: if the sum stays well below `threads × seconds`, the threads
//! shared a CPU, or somebody else ran there.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

#[derive(Debug, Args)]
pub(crate) struct BurnArguments {
    /// Wall-clock seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Threads, each an endless loop.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
}

pub(crate) fn run(arguments: &BurnArguments) -> anyhow::Result<ExitCode> {
    let length = Duration::from_secs(arguments.seconds);
    let workers: Vec<_> = (0..arguments.threads)
        .map(|_| std::thread::spawn(move || spin(length)))
        .collect();
    let mut cpu_seconds = Vec::new();
    for worker in workers {
        let spun = worker.join().ok().context("a thread died")??;
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
fn spin(length: Duration) -> anyhow::Result<Duration> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
    }
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("thread CPU clock")?;
    Ok(spent.into())
}
