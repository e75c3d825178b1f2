//! `enter`: move into a cgroup, then become another program.
//!
//! A program started this way is born where it belongs: nothing of it ever runs outside, and no
//! unsafe code between fork and exec is needed for that.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Args;
use stillmetal_node::cgroups;

#[derive(Debug, Args)]
pub(crate) struct EnterArguments {
    /// Absolute name of the cgroup below the mount of cgroup v2, such as `/engine`.
    #[arg(long)]
    cgroup: String,
    /// `oom_score_adj` of the program.
    #[arg(long, allow_negative_numbers = true)]
    oom_score_adj: Option<i16>,
    /// `argv[0]` of the program, if not its path.
    #[arg(long)]
    arg0: Option<OsString>,
    /// The program (absolute path) and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &EnterArguments) -> anyhow::Result<ExitCode> {
    let procs = format!("{}{}/cgroup.procs", cgroups::ROOT, arguments.cgroup);
    std::fs::write(&procs, "0").with_context(|| format!("enter {procs}"))?;
    if let Some(score) = arguments.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .with_context(|| format!("set oom_score_adj to {score}"))?;
    }
    // the program inherits affinity; the cgroup decides about it, so ask for everything
    let everything = (0..nix::sched::CpuSet::count())
        .try_fold(nix::sched::CpuSet::new(), |mut all, cpu| {
            all.set(cpu).map(|()| all)
        });
    everything
        .and_then(|all| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &all))
        .context("reset the CPU affinity")?;
    // a session of its own: signals for the agent's terminal are not for it
    nix::unistd::setsid().ok();
    let (program, rest) = arguments
        .command
        .split_first()
        .context("no program to become was given")?;
    // exec resets the signal mask and SIGPIPE to what programs expect
    let mut command = Command::new(program);
    command.args(rest);
    if let Some(name) = &arguments.arg0 {
        command.arg0(name);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("become {}", program.to_string_lossy()))
}
