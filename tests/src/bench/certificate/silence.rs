//! What a certified, undisturbed run shows: silence, and what it does not claim to know.

use std::time::{Duration, Instant};

use anyhow::Context;
use quiet::{Certificate, QuietClass, Verdict, WindowName};

use super::bed::{self, Bed, CPU, Job};
use super::{Wanted, figure, float};
use crate::bench::figure::Figure;
use crate::observe;

/// Each canary, s; with the job a little over a minute.
const CANARY: u32 = 32;
const JOB: u32 = 5;
/// The independent readings: so long after the start, when the canary surely spins, and so far apart.
const FIRST: Duration = Duration::from_secs(10);
const APART: Duration = Duration::from_secs(20);
/// What only bare metal can tell (A10).
const WITNESSES: [&str; 4] = ["hw_smi", "hw_frequency", "hw_thermal", "hw_host_steal"];

/// The ids of this module.
pub(super) const IDS: [&str; 6] = [
    "certificate.canary_loc",
    "certificate.canary_other",
    "certificate.canary_softirq",
    "certificate.timeslices",
    "certificate.observer",
    "certificate.false_proof",
];

pub(super) fn figures(
    bed: &Bed,
    wanted: &Wanted<'_>,
    busy: f64,
) -> anyhow::Result<(Vec<Figure>, Certificate)> {
    eprintln!(
        "bench: certificate: one long run, {} s",
        2 * CANARY + JOB + 10
    );
    let script = bed::spin(JOB);
    let job = Job {
        name: "silent",
        cpus: "1",
        canary_seconds: Some(CANARY),
        script: &script,
    };
    let id = bed.start(&job)?;
    let began = Instant::now();
    let read = || observe::read(bed.api(), "/stillmetal/v1/counters?cpus=1");
    until(began + FIRST);
    let before = read()?;
    until(began + FIRST + APART);
    let after = read()?;
    let certificate = bed.certificate(&id)?;
    bed.remove(&id)?;
    let verdict = match certificate.verdict {
        Verdict::Quiet => "verdict quiet".to_owned(),
        other => format!("verdict {other}: {}", bed::said(&certificate)),
    };
    eprintln!("bench: certificate: {verdict}");
    let pre = bed::window(&certificate, WindowName::CanaryPre)?;
    let within = pre.start_ns <= before.taken_ns && after.taken_ns <= pre.end_ns;
    let mut sums = Sums::default();
    for name in [
        WindowName::CanaryPre,
        WindowName::Job,
        WindowName::CanaryPost,
    ] {
        sums.add(&certificate, name)?;
    }
    let independent = after
        .cpus
        .get(&CPU)
        .zip(before.cpus.get(&CPU))
        .map(|(after, before)| after.since(before))
        .context("no counters of the job's CPU")?;
    let timeslices = independent.timeslices.context("no timeslices")?;
    let events = independent.timer
        + independent.other_interrupts()
        + independent.softirqs_total()
        + timeslices;
    let zero = |id: &str, what: &str, value: u64| {
        figure(id, what, "count", "0", busy)
            .values(float(value), None)
            .met(value == 0)
    };
    let unproven = |code: &str| certificate.unproven.iter().any(|found| found.code == code);
    let told = WITNESSES.iter().filter(|code| unproven(code)).count();
    let steps_a_second = float(sums.canary_steps) / sums.canary_seconds;
    let figures = vec![
        figure(
            "certificate.canary_loc",
            "timer interrupts on the job's CPU in both canaries and the job, over 60 s",
            "count",
            "≤ 3",
            busy,
        )
        .values(float(sums.timer), None)
        .met(sums.timer <= 3 && sums.seconds >= 60.0)
        .note(format!("{:.1} s, {verdict}", sums.seconds)),
        zero(
            "certificate.canary_other",
            "every other interrupt there, in both canaries of 32 s",
            sums.other,
        ),
        zero(
            "certificate.canary_softirq",
            "softirqs there, in both canaries",
            sums.softirqs,
        ),
        zero(
            "certificate.timeslices",
            "timeslices there, and involuntary switches of the canaries",
            sums.timeslices + sums.involuntary,
        )
        .note(format!("{} and {}", sums.timeslices, sums.involuntary)),
        zero(
            "certificate.observer",
            "interrupts, softirqs and timeslices there in 20 s of the sampler's work, read independently \
             before and after",
            events,
        )
        .met(events == 0 && within)
        .note(format!(
            "{}{:.1} snapshots a second; timer {}, other interrupts {}, softirqs {}, timeslices {timeslices}",
            if within {
                ""
            } else {
                "NOT within the canary, which began late; "
            },
            steps_a_second,
            independent.timer,
            independent.other_interrupts(),
            independent.softirqs_total()
        )),
        figure(
            "certificate.false_proof",
            "what a virtual machine cannot prove and is told as unproven: SMI, frequency, thermal, steal",
            "of 4",
            "4, and a quiet run is os-quiet",
            busy,
        )
        .values(float(u64::try_from(told)?), None)
        .met(
            told == WITNESSES.len()
                && certificate.verdict == Verdict::Quiet
                && certificate.quiet_class == Some(QuietClass::OsQuiet),
        )
        .note(format!("{verdict}, {:?}", certificate.quiet_class)),
    ];
    let figures = figures.into_iter().filter(|figure| wanted(&figure.id));
    Ok((figures.collect(), certificate))
}

#[derive(Debug, Default)]
struct Sums {
    seconds: f64,
    timer: u64,
    /// From here on of the canaries only.
    canary_seconds: f64,
    canary_steps: u64,
    other: u64,
    softirqs: u64,
    timeslices: u64,
    involuntary: u64,
}

impl Sums {
    fn add(&mut self, certificate: &Certificate, name: WindowName) -> anyhow::Result<()> {
        let window = bed::window(certificate, name)?;
        let cpu = bed::cpu(window, CPU)?;
        let seconds = Duration::from_nanos(window.duration_ns()).as_secs_f64();
        self.seconds += seconds;
        self.timer += bed::interrupts(cpu, "LOC")?;
        if name.is_canary() {
            self.canary_seconds += seconds;
            self.canary_steps += window.steps;
            self.other += bed::other_interrupts(cpu)?;
            self.softirqs += bed::softirqs(cpu)?;
            self.timeslices += bed::count("timeslices", &cpu.timeslices)?;
            self.involuntary += bed::count("involuntary switches", &window.involuntary_switches)?;
        }
        Ok(())
    }
}

/// A moment that the measurement is about.
fn until(instant: Instant) {
    while let Some(left) = instant.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}
