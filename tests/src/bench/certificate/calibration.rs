//! Whether counting works at all: on a clock of the guest's own instructions a busy CPU that is not
//! `nohz_full` ticks at the kernel's HZ.

use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::{ConfigOptions, Deadline, VmBuilder, poll};

use super::bed::{Bed, CPU, Job};
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
    let ticking = sides
        .ours(2, &ConfigOptions::default())?
        .without_param("nohz_full")
        // isolated otherwise, or the node would refuse
        .param("isolcpus=domain,managed_irq,1-N");
    let (ticks, seconds) = timers(sides, &ticking)?;
    let rate = float(ticks) / seconds;
    Ok(figure(
        ID,
        "timer interrupts a second on a busy CPU without nohz_full, under -icount shift=3,sleep=off",
        "1/s",
        "250 within 1.5 %",
        busy,
    )
    .values(rate, None)
    .met((rate / HZ - 1.0).abs() <= 0.015)
    .note(format!("{ticks} in {seconds:.1} s of the guest's clock")))
}

/// How many came to a busy CPU, and in how many seconds of the guest's clock.
fn timers(sides: &Sides, description: &VmBuilder) -> anyhow::Result<(u64, f64)> {
    eprintln!("bench: {ID} a boot on a clock of instructions");
    let description = description.clone().icount("shift=3,sleep=off");
    let bed = Bed::boot_as_is(sides, &description)?;
    let id = bed.start(&Job {
        name: "busy",
        cpus: "1",
        canary_seconds: None,
        script: "while :; do :; done",
    })?;
    ensure!(bed.working(&id)?, "the job was over too soon");
    let read = || observe::read(bed.api(), "/stillmetal/v1/counters?cpus=1");
    let before = read()?;
    let found = poll(Deadline::after(WITHIN), Duration::from_secs(1), || {
        let after = read().ok()?;
        let elapsed = Duration::from_nanos(after.taken_ns - before.taken_ns).as_secs_f64();
        (elapsed >= AT_LEAST).then_some((after, elapsed))
    });
    let (after, elapsed) = found.context("the guest's clock hardly moves")?;
    let both = after.cpus.get(&CPU).zip(before.cpus.get(&CPU));
    let (after, before) = both.context("no counters of CPU 1")?;
    Ok((after.timer - before.timer, elapsed))
}
