//! Known disturbances: a stranger that comes to the job's CPU exactly k times for 1 ms.
//!
//! Each time that CPU is told to tick again (`CAL`). It is told to reschedule at once (`RES`) only if
//! the stranger may run at once: one that ran more than its share where it came from waits for the
//! next tick (Linux 6.12, `pick_eevdf` and `entity_eligible` in kernel/sched/fair.c; *measured*: 95
//! of 100).

use anyhow::Context;
use quiet::{Verdict, WindowName};

use super::bed::{self, Bed, CPU, Job};
use super::{figure, float};
use crate::bench::figure::Figure;

pub(super) const ID: &str = "certificate.sensitivity";

/// Intrusions, and how long the job spins, s: long enough for all of them under emulation.
const TRIES: [(u64, u32); 4] = [(0, 10), (1, 10), (10, 12), (100, 25)];

pub(super) fn measure(bed: &Bed, busy: f64) -> anyhow::Result<Figure> {
    let mut right = 0;
    let mut notes = Vec::new();
    for (intrusions, seconds) in TRIES {
        let seen = [1, 2, 4]
            .into_iter()
            .find_map(|times| disturbed(bed, intrusions, seconds * times).transpose());
        let seen = seen.with_context(|| {
            format!("the job ended before the last of {intrusions} intrusions, three times")
        })??;
        let note = format!(
            "{intrusions}: {}, RES {}, CAL {}, timeslices {}",
            seen.verdict, seen.rescheduled, seen.called, seen.timeslices
        );
        eprintln!("bench: {ID} {note}");
        right += u64::from(seen.is_right(intrusions));
        notes.push(note);
    }
    Ok(figure(
        ID,
        "0, 1, 10 and 100 intrusions of 1 ms: verdict, CAL within 1 of them, RES no more, timeslices at least \
         twice them",
        "of 4",
        "4",
        busy,
    )
    .values(float(right), None)
    .met(right == 4)
    .note(notes.join("; ")))
}

struct Seen {
    verdict: Verdict,
    rescheduled: u64,
    called: u64,
    timeslices: u64,
}

impl Seen {
    fn is_right(&self, intrusions: u64) -> bool {
        if intrusions == 0 {
            return self.verdict == Verdict::Quiet && self.rescheduled + self.called == 0;
        }
        self.verdict == Verdict::Noisy
            && self.called.abs_diff(intrusions) <= 1
            && self.rescheduled <= intrusions + 1
            && self.timeslices >= 2 * intrusions
    }
}

/// `None`: the job was over before the intrusions were, because the host is overloaded.
fn disturbed(bed: &Bed, intrusions: u64, seconds: u32) -> anyhow::Result<Option<Seen>> {
    let script = bed::spin(seconds);
    let name = format!("disturbed-{intrusions}");
    let id = bed.start(&Job {
        name: &name,
        cpus: "1",
        canary_seconds: Some(1),
        script: &script,
    })?;
    let count = intrusions.to_string();
    // this fails when the job is over too soon
    let intrude = || {
        bed.working(&id)?;
        let cgroup = format!("{}/{id}", bed.claim()?);
        bed.process(&["burn", "--pulses", &count, "--into", &cgroup])
    };
    let intruded = intrude();
    let state = bed
        .user
        .run_ok(["inspect", "-f", "{{.State.Running}}", &id])?
        .text();
    if state.trim() != "true" {
        bed.certificate(&id)?;
        bed.remove(&id)?;
        return Ok(None);
    }
    intruded?;
    let certificate = bed.certificate(&id)?;
    bed.remove(&id)?;
    let window = bed::window(&certificate, WindowName::Job)?;
    let cpu = bed::cpu(window, CPU)?;
    Ok(Some(Seen {
        verdict: certificate.verdict,
        rescheduled: bed::interrupts(cpu, "RES")?,
        called: bed::interrupts(cpu, "CAL")?,
        timeslices: bed::count("timeslices", &cpu.timeslices)?,
    }))
}
