//! A job of as many threads as CPUs.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Deadline, poll};

use super::bed::{self, Bed, Job};
use super::{figure, float};
use crate::bench::figure::Figure;

pub(super) const ID: &str = "certificate.threads";
const JOB: u32 = 60;
const WINDOW: Duration = Duration::from_secs(20);
/// Both threads begin on one CPU; the agent looks five times a second and moves one.
const APART_WITHIN: Duration = Duration::from_secs(15);

pub(super) fn measure(bed: &Bed, busy: f64) -> anyhow::Result<Figure> {
    let spin = bed::spin(JOB);
    let script = format!("({spin}) & {spin}; wait");
    let id = bed.start(&Job {
        name: "threads",
        cpus: "1,2",
        canary_seconds: Some(1),
        script: &script,
    })?;
    ensure!(bed.working(&id)?, "the job was over too soon");
    let mut last = State::read(bed, &id)?;
    let apart = poll(
        Deadline::after(APART_WITHIN),
        Duration::from_secs(1),
        || {
            let next = State::read(bed, &id).ok()?;
            let still = next.timers == last.timers && next.threads.len() == 2;
            last = next;
            still.then_some(())
        },
    );
    let before = State::read(bed, &id)?;
    until(Instant::now() + WINDOW);
    let after = State::read(bed, &id)?;
    // what is measured is over; the certificate is told besides
    let certificate = bed.certificate(&id)?;
    bed.remove(&id)?;
    ensure!(
        before.threads.len() == 2 && after.threads.len() == 2,
        "{} and {} threads of the job were found, not 2",
        before.threads.len(),
        after.threads.len()
    );
    let timers: Vec<u64> = after
        .timers
        .iter()
        .zip(&before.timers)
        .map(|(after, before)| after - before)
        .collect();
    let elapsed = after.uptime - before.uptime;
    let each = after.threads.iter().zip(&before.threads);
    let shares: Vec<f64> = each
        .clone()
        .map(|(after, before)| float(after.ticks - before.ticks) / 100.0 / elapsed)
        .collect();
    let switches: Vec<u64> = each
        .map(|(after, before)| after.involuntary - before.involuntary)
        .collect();
    let slowest = shares.iter().copied().fold(f64::INFINITY, f64::min) * 100.0;
    Ok(figure(
        ID,
        "two threads on two CPUs, 20 s: the CPU time that the slower one got",
        "%",
        "≥ 98, 0 timer interrupts, ≤ 2 switches",
        busy,
    )
    .values(slowest, None)
    .met(
        slowest >= 98.0
            && timers.iter().all(|count| *count == 0)
            && switches.iter().all(|count| *count <= 2),
    )
    .note(format!(
        "timer interrupts {timers:?}, involuntary switches {switches:?}, verdict {}{}",
        certificate.verdict,
        if apart.is_none() {
            ", still on one CPU after 15 s"
        } else {
            ""
        }
    )))
}

/// The job's processes and CPUs at one moment of the guest's clock.
struct State {
    /// s
    uptime: f64,
    threads: Vec<Thread>,
    /// `LOC` on CPUs 1 and 2.
    timers: Vec<u64>,
}

struct Thread {
    /// User and system time, ticks of 10 ms.
    ticks: u64,
    involuntary: u64,
}

impl State {
    fn read(bed: &Bed, id: &str) -> anyhow::Result<Self> {
        let text = bed.hand(&format!(
            "cut -d' ' -f1 /hp/uptime; for f in $(grep -l {id} /hp/[0-9]*/cgroup 2>/dev/null); do p=${{f%/cgroup}}; \
             echo thread $(sed 's/.*) //' $p/stat | cut -d' ' -f12,13) \
             $(sed -n 's/^nonvoluntary_ctxt_switches:[^0-9]*//p' $p/status); done; grep LOC: /hp/interrupts"
        ))?;
        let mut lines = text.lines();
        let uptime = lines.next().context("no uptime")?.parse()?;
        let mut threads = Vec::new();
        let mut timers = Vec::new();
        for line in lines {
            let mut words = line.split_whitespace();
            let first = words.next();
            let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
            match (first, &numbers[..]) {
                (Some("thread"), [user, system, involuntary]) => threads.push(Thread {
                    ticks: user + system,
                    involuntary: *involuntary,
                }),
                (Some("LOC:"), [_, job @ ..]) => timers = job.iter().take(2).copied().collect(),
                _ => anyhow::bail!("unexpected line `{line}`"),
            }
        }
        ensure!(
            timers.len() == 2,
            "no timer interrupts of CPUs 1 and 2: {text}"
        );
        Ok(Self {
            uptime,
            threads,
            timers,
        })
    }
}

fn until(instant: Instant) {
    while let Some(left) = instant.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}
