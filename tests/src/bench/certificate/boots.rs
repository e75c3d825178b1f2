//! The same on several boots, and with the host under load.

use quiet::{Certificate, Verdict, WindowName};
use testkit::{ConfigOptions, Invocation, Running};

use super::bed::{self, Bed, CPU, Job};
use super::{figure, float};
use crate::bench::figure::Figure;
use crate::bench::sides::{Sides, background_busy};

pub(super) const ID: &str = "certificate.reproducible";
const BOOTS: u64 = 5;

pub(super) fn measure(sides: &Sides) -> anyhow::Result<Figure> {
    let busy = background_busy()?;
    let (mut idle, mut loaded) = (0, 0);
    let mut notes = Vec::new();
    for boot in 1..=BOOTS {
        let bed = Bed::boot(sides, &sides.ours(2, &ConfigOptions::default())?)?;
        let first = undisturbed(&bed)?;
        let second = {
            let _busy = [spin_here()?, spin_here()?];
            undisturbed(&bed)?
        };
        eprintln!(
            "bench: {ID} boot {boot}/{BOOTS}: {}, with a busy host {}",
            first.verdict, second.verdict
        );
        for (what, certificate, count) in [
            ("idle", &first, &mut idle),
            ("loaded", &second, &mut loaded),
        ] {
            if silent(certificate)? {
                *count += 1;
            } else {
                notes.push(format!("boot {boot}, {what}: {}", bed::said(certificate)));
            }
        }
    }
    notes.insert(
        0,
        format!("idle {idle} of {BOOTS}, loaded {loaded} of {BOOTS}"),
    );
    Ok(figure(
        ID,
        "boots with a quiet run and canaries of nothing but zeros, and again with two busy processes on the \
         host",
        "of 5",
        "5 and 5",
        busy,
    )
    .values(float(idle.min(loaded)), None)
    .met(idle == BOOTS && loaded == BOOTS)
    .note(notes.join("; ")))
}

fn undisturbed(bed: &Bed) -> anyhow::Result<Certificate> {
    let script = bed::spin(5);
    bed.certified(&Job {
        name: "again",
        cpus: "1",
        canary_seconds: Some(5),
        script: &script,
    })
}

/// Quiet, and canaries of 5 s without a single event.
fn silent(certificate: &Certificate) -> anyhow::Result<bool> {
    let mut events = 0;
    if certificate.verdict != Verdict::Quiet {
        return Ok(false);
    }
    for name in [WindowName::CanaryPre, WindowName::CanaryPost] {
        let counts = bed::cpu(bed::window(certificate, name)?, CPU)?;
        events += bed::interrupts(counts, "LOC")?
            + bed::other_interrupts(counts)?
            + bed::softirqs(counts)?
            + bed::count("timeslices", &counts.timeslices)?;
    }
    Ok(events == 0)
}

/// A busy process of ours on this machine, until it is dropped.
fn spin_here() -> anyhow::Result<Running> {
    Ok(Invocation::new("/bin/sh")
        .args(["-c", "while :; do :; done"])
        .spawn()?)
}
