//! `controller.*`: the real controller, and nodes that speak the real protocol over real mutual TLS on
//! the loopback interface.
//!
//! Each group is taken by a process of its own, a child of the bench: what dies there is a figure that is
//! not met and says why, and everything that was started ends with it.

mod agents;
mod bed;
mod dispatch;
mod docker;
mod exec;
mod flock;
mod gang;
mod kill;
mod latency;
mod rivals;
mod run;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::Invocation;

use super::figure::Figure;
use super::sides::background_busy;

/// Figures that are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    Dispatch,
    Latency,
    Exec,
    Agents,
    Kill,
    Docker,
    Gang,
}

impl Group {
    /// In the order in which they are taken.
    pub const ALL: [Self; 7] = [
        Self::Dispatch,
        Self::Latency,
        Self::Exec,
        Self::Agents,
        Self::Kill,
        Self::Docker,
        Self::Gang,
    ];

    fn ids(self) -> &'static [&'static str] {
        match self {
            Self::Dispatch => &dispatch::IDS,
            Self::Latency => &[latency::ID],
            Self::Exec => &[exec::ID, exec::AGAINST_SLURM],
            Self::Agents => &agents::IDS,
            Self::Kill => &kill::IDS,
            Self::Docker => &docker::IDS,
            Self::Gang => &[gang::ID],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Latency => "latency",
            Self::Exec => "exec",
            Self::Agents => "agents",
            Self::Kill => "kill",
            Self::Docker => "docker",
            Self::Gang => "gang",
        }
    }

    /// All of its figures, with everything that they need.
    fn within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Latency | Self::Gang => 300,
            Self::Dispatch | Self::Exec | Self::Docker => 900,
            Self::Agents | Self::Kill => 1800,
        })
    }

    async fn measure(self, busy: f64) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Dispatch => dispatch::figures(busy).await,
            Self::Latency => latency::figures(busy).await,
            Self::Exec => exec::figures(busy).await,
            Self::Agents => agents::figures(busy).await,
            Self::Kill => kill::figures(busy).await,
            Self::Docker => docker::figures(busy).await,
            Self::Gang => gang::figures(busy),
        }
    }
}

/// All ids.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    let groups = Group::ALL.into_iter();
    groups
        .flat_map(|group| group.ids().iter().copied())
        .collect()
}

/// Those that are wanted. One that cannot be taken is not met and says why.
///
/// # Errors
/// When there is no controller to measure, or this program cannot be started again.
pub fn all(wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let program = bed::program()?;
    ensure!(
        program.is_file(),
        "{} is not built: make bench builds it, or cargo build --release -p stillmetal-controller",
        program.display()
    );
    let folder = testkit::scratch_folder("figures")?;
    let mut figures = Vec::new();
    for group in Group::ALL {
        if !group.ids().iter().any(|id| wanted(id)) {
            continue;
        }
        let out = folder.path().join(group.word());
        match in_a_child(group, &out) {
            Ok(taken) => figures.extend(taken),
            Err(error) => {
                eprintln!("bench: controller.{}: {error:#}", group.word());
                figures.extend(group.ids().iter().map(|id| {
                    Figure::new(id, "could not be taken", "", "", 0.0).note(format!("{error:#}"))
                }));
            }
        }
    }
    Ok(figures)
}

fn in_a_child(group: Group, out: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = std::env::current_exe().context("find this program")?;
    let output = Invocation::new(bench)
        .args(["--alone", group.word()])
        .arg_path("--out", out)
        .within(group.within())
        .run_ok()?;
    eprint!("{}", output.error_text());
    let text = std::fs::read(out).with_context(|| format!("read {}", out.display()))?;
    serde_json::from_slice(&text).context("understand the figures of a group")
}

/// Is a process of agents for [`alone`], until whoever started it ends.
///
/// # Errors
/// When they cannot join.
pub fn flock(orders: &str) -> anyhow::Result<()> {
    bed::raise_limits()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(flock::serve(orders));
    runtime.shutdown_background();
    served
}

/// Takes one group in this process and writes it down.
///
/// # Errors
/// When it cannot be taken, or somebody ends the bench.
pub fn alone(group: Group, out: &Path) -> anyhow::Result<()> {
    bed::raise_limits()?;
    let busy = background_busy()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let figures = runtime.block_on(async {
        let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            figures = group.measure(busy) => figures,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
            _ = ended.recv() => anyhow::bail!("told to end"),
        }
    });
    // tasks of pretended nodes have nothing left to do
    runtime.shutdown_timeout(Duration::from_secs(5));
    std::fs::write(out, serde_json::to_vec(&figures?)?)
        .with_context(|| format!("write {}", out.display()))
}
