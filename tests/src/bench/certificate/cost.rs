//! What the certificate costs: the run's own time, the agent's CPU time, its memory.

use std::time::Duration;

use anyhow::Context;
use testkit::{Invocation, places};

use super::bed::{Bed, Job};
use super::{Wanted, figure};
use crate::bench::figure::{Figure, median};

pub(super) const IDS: [&str; 3] = [
    "certificate.cost_wall",
    "certificate.cost_cpu",
    "certificate.cost_memory",
];

const PAIRS: usize = 2;
const JOB: u32 = 60;
/// The agent is looked at so long after the start, and so long, s: all of it within the job.
const SETTLED: u32 = 20;
const WATCHED: u32 = 30;

pub(super) fn figures(bed: &Bed, wanted: &Wanted<'_>, busy: f64) -> anyhow::Result<Vec<Figure>> {
    let pid = bed.hand(
        "for p in /hp/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q 'agent[ ]serve' && echo ${p#/hp/}; done; true",
    )?;
    let pid: u32 = pid
        .split_whitespace()
        .next()
        .context("no agent among the node's processes")?
        .parse()?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 1..=PAIRS {
        let certified = Cost::of(bed, pid, Some(0))?;
        let plain = Cost::of(bed, pid, None)?;
        eprintln!("bench: certificate.cost pair {pair}/{PAIRS}: {certified}; without {plain}");
        with.push(certified);
        without.push(plain);
    }
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| {
        median(&mut costs.iter().map(of).collect::<Vec<_>>()).context("no runs")
    };
    let seconds = |cost: &Cost| cost.wall.as_secs_f64();
    let (ours, theirs) = (middle(&with, seconds)?, middle(&without, seconds)?);
    let counted = |cost: &Cost| cost.counted;
    let rate = middle(&with, counted)? / middle(&without, counted)?;
    let wall = figure(
        IDS[0],
        "docker run of a job of 60 s, certified without canaries; theirs: not certified",
        "s",
        "ours/theirs ≤ 1.05",
        busy,
    )
    .values(ours, Some(theirs))
    .met(ours / theirs <= 1.05)
    .note(format!(
        "{PAIRS} pairs by turns, medians; the job counted {rate:.3} times as far in its time"
    ));
    let share = |cost: &Cost| cost.share * 100.0;
    let emulated = middle(&with, share)?;
    let cpu = figure(
        IDS[1],
        "CPU time of a run's snapshots, 10 a second, of one CPU; on this machine itself",
        "%",
        "≤ 1",
        busy,
    );
    let emulated = format!(
        "`stillmetal-agent snapshots`; the whole agent in the emulated node, where times mean little: \
         {emulated:.1} % with a certified run, {:.1} % with another",
        middle(&without, share)?
    );
    let cpu = match native() {
        Ok(percent) => cpu.values(percent, None).met(percent <= 1.0).note(emulated),
        Err(error) => cpu.note(format!("could not be taken: {error:#}; {emulated}")),
    };
    let peak = with.iter().map(|cost| cost.resident_kib);
    let peak = peak.fold(0.0, f64::max) / 1024.0;
    let memory = figure(
        IDS[2],
        "the agent's resident memory during the job window",
        "MiB",
        "≤ 16 MB",
        busy,
    )
    .values(peak, None)
    .met(peak * 1.048_576 <= 16.0);
    let figures = [wall, cpu, memory].into_iter();
    Ok(figures.filter(|figure| wanted(&figure.id)).collect())
}

/// What the same snapshots cost without emulation, %: of a busy process here, in a cgroup of its own
/// below a mount that nobody else sees (this machine may have another kind of cgroup).
fn native() -> anyhow::Result<f64> {
    let agent = places::build_dir().join("stillmetal-agent");
    let script = "mount -t cgroup2 none /sys/fs/cgroup; at=/sys/fs/cgroup/stillmetal-bench-$$; \
                  mkdir $at; sh -c 'while :; do :; done' & busy=$!; \
                  trap 'kill $busy; wait $busy || :; rmdir $at' EXIT; echo $busy > $at/cgroup.procs; \
                  \"$0\" snapshots --pid $busy --cpus 1 --seconds 20";
    let output = Invocation::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .args([agent])
        .within(Duration::from_secs(120))
        .run_ok()?;
    let text = output.text();
    let told: serde_json::Value =
        serde_json::from_str(text.trim()).with_context(|| text.clone())?;
    eprintln!("bench: certificate.cost natively: {told}");
    let percent = told["cpu_percent"].as_f64();
    percent.context("no percentage in it")
}

/// One run.
struct Cost {
    wall: Duration,
    /// How far the job counted.
    counted: f64,
    /// CPU time of the agent a second.
    share: f64,
    resident_kib: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} s, agent {:.2} % and {:.1} MiB, counted to {:.0}",
            self.wall.as_secs_f64(),
            self.share * 100.0,
            self.resident_kib / 1024.0,
            self.counted
        )
    }
}

impl Cost {
    fn of(bed: &Bed, pid: u32, canary_seconds: Option<u32>) -> anyhow::Result<Self> {
        let script = format!("{}; echo $i", super::bed::spin(JOB));
        // reads what it needs on its own: a question to the agent would be work for the agent
        let look = "cut -d' ' -f1 /hp/uptime; sed 's/.*) //' /hp/PID/stat | cut -d' ' -f12,13";
        let watch = format!(
            "rm -f /tmp/cost; exec > /tmp/cost.new; sleep {SETTLED}; {look}; sleep {WATCHED}; {look}; \
             sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /hp/PID/status; mv /tmp/cost.new /tmp/cost"
        );
        bed.hand_in_background(&watch.replace("PID", &pid.to_string()))?;
        let (id, printed, wall) = bed.run(&Job {
            name: "cost",
            cpus: "1",
            canary_seconds,
            script: &script,
        })?;
        let text = bed.hand("cat /tmp/cost")?;
        if canary_seconds.is_some() {
            // whether it was quiet is another figure; that it was measured is what costs
            let verdict = bed.certificate(&id)?.verdict;
            eprintln!("bench: certificate.cost of a run that was {verdict}");
        }
        bed.remove(&id)?;
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [from, user, system, to, more_user, more_system, resident_kib] = numbers[..] else {
            anyhow::bail!("unexpected answer: {text}");
        };
        Ok(Self {
            wall,
            counted: printed.trim().parse().context("the job's count")?,
            // ticks of 10 ms
            share: (more_user + more_system - user - system) / 100.0 / (to - from),
            resident_kib,
        })
    }
}
