//! Whether counting works at all: on a clock of the guest's own instructions a CPU that ticks ticks
//! at the kernel's HZ, and one that is quiet does not.

use std::time::Duration;

use anyhow::{Context, ensure};
use quiet::WindowName;
use testkit::{ConfigOptions, Deadline, poll};

use super::bed::{self, Bed, Job};
use super::{figure, float};
use crate::bench::figure::Figure;
use crate::bench::sides::{Sides, background_busy};
use crate::observe;

pub(super) const ID: &str = "certificate.calibration";
/// `CONFIG_HZ` of our kernel.
const HZ: f64 = 250.0;
/// Seconds of the guest's clock.
const AT_LEAST: f64 = 10.0;
const WITHIN: Duration = Duration::from_secs(300);

pub(super) fn measure(sides: &Sides) -> anyhow::Result<Figure> {
    let busy = background_busy()?;
    eprintln!("bench: {ID} a boot on a clock of instructions");
    let description = sides
        .ours(3, &ConfigOptions::default())?
        .icount("shift=3,sleep=off");
    let bed = Bed::boot_as_is(sides, &description)?;
    // two runnable threads on CPU 2: it must tick; whether they are certified does not matter
    let pair = "(while :; do :; done) & while :; do :; done";
    let ticking = bed.start(&Job {
        name: "ticking",
        cpus: "2",
        canary_seconds: None,
        script: pair,
    })?;
    let script = bed::spin(30);
    let id = bed.start(&Job {
        name: "quiet",
        cpus: "1",
        canary_seconds: Some(1),
        script: &script,
    })?;
    ensure!(bed.working(&id)?, "the job was over too soon");
    let read = || observe::read(bed.api(), "/stillmetal/v1/counters?cpus=1-2");
    let before = read()?;
    let found = poll(Deadline::after(WITHIN), Duration::from_secs(1), || {
        let after = read().ok()?;
        let elapsed = Duration::from_nanos(after.taken_ns - before.taken_ns).as_secs_f64();
        (elapsed >= AT_LEAST).then_some((after, elapsed))
    });
    let (after, elapsed) = found.context("the guest's clock hardly moves")?;
    let timers = |cpu: u32| {
        let (after, before) = after.cpus.get(&cpu).zip(before.cpus.get(&cpu))?;
        Some(after.timer - before.timer)
    };
    let quiet = timers(1).context("no counters of CPU 1")?;
    let rate = float(timers(2).context("no counters of CPU 2")?) / elapsed;
    let certificate = bed.certificate(&id)?;
    bed.remove(&id)?;
    bed.remove(&ticking)?;
    let window = bed::window(&certificate, WindowName::Job)?;
    let job = bed::interrupts(bed::cpu(window, 1)?, "LOC")?;
    Ok(figure(
        ID,
        "timer interrupts a second on a CPU with two threads, under -icount shift=3,sleep=off",
        "1/s",
        "250 within 1.5 %, 0 on the quiet CPU",
        busy,
    )
    .values(rate, None)
    .met((rate / HZ - 1.0).abs() <= 0.015 && quiet == 0)
    .note(format!(
        "{elapsed:.1} s of the guest's clock; on the quiet CPU {quiet}, in its certificate's job window of {:.1} s \
         {job}, verdict {}",
        Duration::from_nanos(window.duration_ns()).as_secs_f64(),
        certificate.verdict
    )))
}
