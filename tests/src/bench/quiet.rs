//! `quiet.*`: what happens on the job's CPU during a spin in a container; and, on the same two
//! machines, `image.memory`, `image.processes` and `image.sockets`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::ConfigOptions;

use super::figure::Figure;
use super::image;
use super::sides::{Side, Sides, background_busy};

/// The job's CPU.
const CPU: usize = 1;
const SPIN: &str = "while :; do :; done";

/// Counts on the job's CPU during one window.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    timer: u64,
    other: u64,
    softirqs: u64,
    foreign: u64,
    involuntary: u64,
}

/// # Errors
/// When a machine does not come up, or a count cannot be read.
pub fn all(sides: &Sides) -> anyhow::Result<Vec<Figure>> {
    let busy = background_busy()?;
    let ours = sides.boot_ours(3, &ConfigOptions::default())?;
    let our_idle = image::idle(&ours)?;
    let (our_long, our_short) = spin(&ours)?;
    let our_threads = threads(&ours)?;
    drop(ours);
    let theirs = sides.boot_theirs(3)?;
    let their_idle = image::idle(&theirs)?;
    let (their_long, their_short) = spin(&theirs)?;
    let their_threads = threads(&theirs)?;
    let mut figures = image::idle_figures(&our_idle, &their_idle, busy);
    let count = |id, what, ours: u64, theirs: u64| {
        Figure::new(id, what, "count", "0", busy)
            .values(float(ours), Some(float(theirs)))
            .met(ours == 0)
    };
    let ratio = float(their_long.timer) / float(our_long.timer.max(1));
    let mut loc = Figure::new(
        "quiet.loc",
        "timer interrupts on the job's CPU, 60 s spin in a container; ratio: theirs/ours (of at least 1)",
        "count",
        "≤ 3 and theirs/ours ≥ 1000",
        busy,
    )
    .values(float(our_long.timer), Some(float(their_long.timer)))
    .met(our_long.timer <= 3 && ratio >= 1000.0);
    loc.ratio = Some(ratio);
    figures.push(loc);
    figures.push(count(
        "quiet.other",
        "every other interrupt there, 20 s",
        our_short.other,
        their_short.other,
    ));
    figures.push(count(
        "quiet.softirq",
        "softirqs there, 20 s",
        our_short.softirqs,
        their_short.softirqs,
    ));
    figures.push(
        count(
            "quiet.foreign",
            "foreign timeslices and involuntary switches there, 20 s",
            our_short.foreign + our_short.involuntary,
            their_short.foreign + their_short.involuntary,
        )
        .note(format!(
            "ours {} and {}, theirs {} and {}",
            our_short.foreign, our_short.involuntary, their_short.foreign, their_short.involuntary
        )),
    );
    let (our_rate, our_ticks) = our_threads;
    let (their_rate, their_ticks) = their_threads;
    figures.push(
        Figure::new(
            "quiet.threads",
            "two threads on two CPUs, 20 s: CPU time a second",
            "CPU-s/s",
            "≥ 1.9 and 0 timer interrupts",
            busy,
        )
        .values(our_rate, Some(their_rate))
        .met(our_rate >= 1.9 && our_ticks == 0)
        .note(format!(
            "timer interrupts on both CPUs: ours {our_ticks}, theirs {their_ticks}"
        )),
    );
    Ok(figures)
}

/// Timer interrupts over 60 s, everything over the first 20 s.
fn spin(side: &Side) -> anyhow::Result<(Window, Window)> {
    let cpu = CPU.to_string();
    let docker = &side.docker;
    docker.run_ok([
        "run",
        "-d",
        "--name",
        "spin",
        "--cpuset-cpus",
        &cpu,
        "busybox",
        "sh",
        "-c",
        SPIN,
    ])?;
    let pid = docker
        .run_ok(["inspect", "-f", "{{.State.Pid}}", "spin"])?
        .text();
    let pid = pid.trim();
    let first = read(side, pid)?;
    let started = Instant::now();
    window(started, 20);
    let after_20 = read(side, pid)?;
    window(started, 60);
    let after_60 = read(side, pid)?;
    docker.run_ok(["rm", "-f", "spin"])?;
    Ok((after_60.since(first), after_20.since(first)))
}

/// CPU seconds a second of two spinning processes on CPUs 1 and 2, and timer interrupts there.
///
/// The window opens soon after the start and is short: QEMU's emulated APIC cannot wait longer than
/// 2^31 counts of 16 ns, so that an otherwise silent CPU has one timer interrupt every 34.4 s. (A
/// processor with a TSC deadline timer has no such limit.)
fn threads(side: &Side) -> anyhow::Result<(f64, u64)> {
    let docker = &side.docker;
    let script = format!("({SPIN}) & ({SPIN}) & wait");
    let id = docker
        .run_ok([
            "run",
            "-d",
            "--name",
            "two",
            "--cpuset-cpus",
            "1,2",
            "busybox",
            "sh",
            "-c",
            &script,
        ])?
        .text();
    let before = Spun::read(side, id.trim())?;
    window(Instant::now(), 20);
    let after = Spun::read(side, id.trim())?;
    docker.run_ok(["rm", "-f", "two"])?;
    let rate = (after.cpu_seconds - before.cpu_seconds) / (after.uptime - before.uptime);
    Ok((rate, after.timers - before.timers))
}

/// What was seen of the two processes, at one moment of the guest's own clock.
struct Spun {
    /// Seconds since the guest's boot.
    uptime: f64,
    /// User and system time of the container's processes.
    cpu_seconds: f64,
    /// Timer interrupts on CPUs 1 and 2.
    timers: u64,
}

impl Spun {
    fn read(side: &Side, id: &str) -> anyhow::Result<Self> {
        let script = format!(
            "p=$(grep -l {id} /hp/[0-9]*/cgroup 2>/dev/null); \
             cat /hp/uptime; for f in $p; do cat ${{f%cgroup}}stat; done; echo ====; cat /hp/interrupts"
        );
        let text = side.look(&script)?;
        let (times, interrupts) = text.split_once("====\n").context("no interrupts")?;
        let (uptime, stats) = times.split_once('\n').context("no uptime")?;
        let uptime = uptime.split_whitespace().next().context("no uptime")?;
        Ok(Self {
            uptime: uptime.parse().context("the uptime is no number")?,
            cpu_seconds: cpu_seconds(stats)?,
            timers: timers(interrupts, &[1, 2])?,
        })
    }
}

/// User and system time of all processes whose `stat` this is, in ticks of 10 ms each.
fn cpu_seconds(stats: &str) -> anyhow::Result<f64> {
    let mut ticks = 0;
    for line in stats.lines() {
        let (_, rest) = line.rsplit_once(") ").context("no process name in stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        ticks += field(11).context("no user time")? + field(12).context("no system time")?;
    }
    ensure!(ticks > 0, "no process of the container has run");
    Ok(float(ticks) / 100.0)
}

fn timers(interrupts: &str, cpus: &[usize]) -> anyhow::Result<u64> {
    let interrupts = per_cpu_lines(interrupts);
    let line = interrupts
        .get("LOC")
        .context("no line LOC in /proc/interrupts")?;
    Ok(cpus.iter().filter_map(|cpu| line.get(*cpu)).sum())
}

/// The length of a measured window.
fn window(started: Instant, seconds: u64) {
    let end = started + Duration::from_secs(seconds);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

fn read(side: &Side, pid: &str) -> anyhow::Result<Window> {
    let text = side.look(&format!(
        "cat /hp/interrupts; echo ====; cat /hp/softirqs; echo ====; grep '^cpu{CPU} ' /hp/schedstat; \
         echo ====; cat /hp/{pid}/schedstat; grep ^nonvoluntary /hp/{pid}/status"
    ))?;
    let parts: Vec<&str> = text.split("====\n").collect();
    ensure!(parts.len() == 4, "unexpected answer: {text}");
    let interrupts = per_cpu_lines(parts[0]);
    let on_cpu = |line: &Vec<u64>| line.get(CPU).copied().unwrap_or(0);
    let timer = interrupts
        .get("LOC")
        .map(on_cpu)
        .context("no line LOC in /proc/interrupts")?;
    let all: u64 = interrupts.values().map(on_cpu).sum();
    let softirqs = per_cpu_lines(parts[1]).values().map(on_cpu).sum();
    let slices = parts[2]
        .split_whitespace()
        .nth(9)
        .context("no timeslices in schedstat")?;
    let mut own = parts[3].split_whitespace();
    let own_slices: u64 = own.nth(2).context("no schedstat of the job")?.parse()?;
    let involuntary = own.last().context("no switches of the job")?.parse()?;
    Ok(Window {
        timer,
        other: all - timer,
        softirqs,
        foreign: slices.parse::<u64>()?.saturating_sub(own_slices),
        involuntary,
    })
}

impl Window {
    fn since(self, earlier: Self) -> Self {
        Self {
            timer: self.timer - earlier.timer,
            other: self.other - earlier.other,
            softirqs: self.softirqs - earlier.softirqs,
            foreign: self.foreign.saturating_sub(earlier.foreign),
            involuntary: self.involuntary - earlier.involuntary,
        }
    }
}

/// `NAME: count count … text`, by name. `ERR` and `MIS` have one count for the machine.
fn per_cpu_lines(text: &str) -> BTreeMap<String, Vec<u64>> {
    let cpus = text
        .lines()
        .next()
        .map_or(0, |header| header.split_whitespace().count());
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let counts: Vec<u64> = rest
                .split_whitespace()
                .take(cpus)
                .map_while(|word| word.parse().ok())
                .collect();
            (counts.len() == cpus).then(|| (name.trim().to_owned(), counts))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
