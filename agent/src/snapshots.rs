//! `snapshots`: what it costs to watch a process as a certified run is watched.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use cpulist::CpuSet;
use host::RealTree;
use serde_json::json;
use stillmetal_node::certify::Effort;

#[derive(Debug, Args)]
#[command(
    after_help = "Prints JSON: snapshots taken, seconds by the clock, CPU seconds that they took, and \
                  the percentage of one CPU. Needs cgroup v2 at /sys/fs/cgroup; changes nothing."
)]
pub(crate) struct SnapshotsArguments {
    /// The process to watch, with what it started.
    #[arg(long)]
    pid: u32,
    /// The CPUs to watch, such as 1 or 2-5.
    #[arg(long)]
    cpus: CpuSet,
    /// For how long, s.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

pub(crate) fn run(arguments: &SnapshotsArguments) -> anyhow::Result<ExitCode> {
    let &SnapshotsArguments { pid, seconds, .. } = arguments;
    let tree = Arc::new(RealTree::live());
    let length = Duration::from_secs(seconds);
    let effort = Effort::spend(tree, pid, arguments.cpus.clone(), length)
        .with_context(|| format!("watch process {pid}"))?;
    let (elapsed, spent) = (effort.elapsed.as_secs_f64(), effort.cpu_time.as_secs_f64());
    println!(
        "{}",
        json!({
            "snapshots": effort.snapshots,
            "seconds": elapsed,
            "cpu_seconds": spent,
            "cpu_percent": 100.0 * spent / elapsed,
        })
    );
    Ok(ExitCode::SUCCESS)
}
