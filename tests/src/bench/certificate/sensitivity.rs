//! Known disturbances: a stranger that comes to the job's CPU exactly k times for 1 ms.
//!
//! Each time it leaves while it runs, and only that CPU's stopper can push it away: `migration/1` has
//! one timeslice for each visit. Interrupts do not come so regularly. The kernel announces a visit by
//! `CAL` (to tick again) and `RES` (to reschedule), but not if one of that kind is on its way, and
//! `RES` only if the stranger may run at once, not if it had more than its share where it came from
//! (Linux 6.12, `pick_eevdf` and `entity_eligible` in kernel/sched/fair.c). *Measured*, 100 visits each
//! and read by somebody else: `CAL` 95 to 103, `RES` 84 to 97. So these two are compared with what
//! another reader of `/proc/interrupts` saw.

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
            "{intrusions}: {}, pushed away {}, timeslices {}, RES {} (by another reader {}), CAL {} ({})",
            seen.verdict,
            seen.pushed_away,
            seen.timeslices,
            seen.told.rescheduled,
            seen.read.rescheduled,
            seen.told.called,
            seen.read.called,
        );
        eprintln!("bench: {ID} {note}");
        right += u64::from(seen.is_right(intrusions));
        notes.push(note);
    }
    Ok(figure(
        ID,
        "0, 1, 10 and 100 intrusions of 1 ms: verdict, migration/1 within 1 of them, timeslices at least twice \
         them, RES and CAL within 2 of what another reader saw",
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
    /// Timeslices of `migration/1`.
    pushed_away: u64,
    timeslices: u64,
    /// By the certificate.
    told: Interrupts,
    /// By another.
    read: Interrupts,
}

struct Interrupts {
    rescheduled: u64,
    called: u64,
}

impl Seen {
    fn is_right(&self, intrusions: u64) -> bool {
        let (told, read) = (&self.told, &self.read);
        if intrusions == 0 {
            return self.verdict == Verdict::Quiet && told.rescheduled + told.called == 0;
        }
        self.verdict == Verdict::Noisy
            && self.pushed_away.abs_diff(intrusions) <= 1
            && self.timeslices >= 2 * intrusions
            && told.rescheduled.abs_diff(read.rescheduled) <= 2
            && told.called.abs_diff(read.called) <= 2
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
        let before = read(bed)?;
        bed.process(&["burn", "--pulses", &count, "--into", &cgroup])?;
        let after = read(bed)?;
        Ok::<_, anyhow::Error>(Interrupts {
            rescheduled: after.rescheduled - before.rescheduled,
            called: after.called - before.called,
        })
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
    let read = intruded?;
    let certificate = bed.certificate(&id)?;
    bed.remove(&id)?;
    let window = bed::window(&certificate, WindowName::Job)?;
    let cpu = bed::cpu(window, CPU)?;
    let stopper = format!("migration/{CPU}");
    let residents = window.residents.iter();
    let pushed_away = residents.filter(|thread| thread.name == stopper);
    Ok(Some(Seen {
        verdict: certificate.verdict,
        pushed_away: pushed_away.map(|thread| thread.timeslices).sum(),
        timeslices: bed::count("timeslices", &cpu.timeslices)?,
        told: Interrupts {
            rescheduled: bed::interrupts(cpu, "RES")?,
            called: bed::interrupts(cpu, "CAL")?,
        },
        read,
    }))
}

/// What the job's CPU has had since the boot, read by a container on a housekeeping CPU.
fn read(bed: &Bed) -> anyhow::Result<Interrupts> {
    let column = CPU + 2;
    let text = bed.hand(&format!(
        "awk '$1 == \"RES:\" || $1 == \"CAL:\" {{ print $1, ${column} }}' /hp/interrupts"
    ))?;
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no line {name} in {text:?}"))?;
        line.trim().parse::<u64>().context("a count")
    };
    Ok(Interrupts {
        rescheduled: count("RES:")?,
        called: count("CAL:")?,
    })
}
