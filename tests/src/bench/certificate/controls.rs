//! Negative controls: each makes a run noisy that would be quiet, and the certificate says why.

use anyhow::{Context, ensure};
use quiet::{Certificate, Frequency, Verdict};
use testkit::ConfigOptions;

use super::bed::{self, Bed, Job};
use super::{figure, float};
use crate::bench::figure::Figure;
use crate::bench::sides::Sides;

pub(super) const ID: &str = "certificate.controls";
const JOB: u32 = 12;

/// What is done behind the node's back during a job, and the words that its certificate must say.
struct Control {
    name: &'static str,
    /// `CGROUP` is the claim's, below `/node/fs/cgroup`; `ID` the container's.
    act: &'static str,
    undo: &'static str,
    said: &'static str,
}

const CONTROLS: [Control; 5] = [
    Control {
        name: "cpu.max set",
        act: "echo 100000 100000 > CGROUP/ID/cpu.max",
        undo: "true",
        said: "cpu.max",
    },
    Control {
        name: "second runnable task",
        act: "echo $$ > CGROUP/ID/cgroup.procs; e=$((EPOCHSECONDS+2)); \
              while [ $EPOCHSECONDS -lt $e ]; do :; done; echo $$ > /node/fs/cgroup/cgroup.procs",
        undo: "true",
        said: "second task runnable",
    },
    Control {
        name: "fair server on",
        act: "echo 50000000 > /node/kernel/debug/sched/fair_server/cpu1/runtime",
        undo: "echo 0 > /node/kernel/debug/sched/fair_server/cpu1/runtime",
        said: "fair_server",
    },
    Control {
        name: "interrupt moved",
        act: "n=$(sed -n 's/^ *\\([0-9]*\\):.*virtio.*input.*/\\1/p' /proc/interrupts | head -n1); \
              echo 1 > /proc/irq/$n/smp_affinity_list",
        undo: "n=$(sed -n 's/^ *\\([0-9]*\\):.*virtio.*input.*/\\1/p' /proc/interrupts | head -n1); \
               echo 0 > /proc/irq/$n/smp_affinity_list",
        said: "/proc/irq/",
    },
    Control {
        name: "partition dissolved",
        act: "echo member > CGROUP/cpuset.cpus.partition",
        undo: "true",
        said: "partition",
    },
];

/// On a node that `quiet` is of; and on nodes whose command line lacks something.
pub(super) fn measure(
    sides: &Sides,
    bed: &Bed,
    quiet: &Certificate,
    busy: f64,
) -> anyhow::Result<Figure> {
    let mut seen = Vec::new();
    for control in &CONTROLS {
        seen.push(verdict(control.name, control.said, &during(bed, control)?));
    }
    seen.push(verdict(
        "governor flipped (fixture)",
        "governor",
        &flipped(quiet),
    ));
    for (name, said, lacking) in [
        ("no tsc=", "TSC", lacking(sides, "tsc", None)?),
        (
            "no nohz_full",
            "nohz_full",
            // isolated otherwise, or the node would refuse
            lacking(sides, "nohz_full", Some("isolcpus=domain,managed_irq,1-N"))?,
        ),
    ] {
        seen.push(verdict(name, said, &lacking));
    }
    let right = seen.iter().filter(|(right, _)| *right).count();
    let notes: Vec<String> = seen.into_iter().map(|(_, note)| note).collect();
    Ok(figure(
        ID,
        "negative controls whose verdict is not quiet and whose reasons name the cause",
        "of 8",
        "8",
        busy,
    )
    .values(float(u64::try_from(right)?), None)
    .met(right == 8)
    .note(notes.join("; ")))
}

fn verdict(name: &str, said: &str, certificate: &Certificate) -> (bool, String) {
    let named = certificate
        .reasons
        .iter()
        .find(|reason| reason.text.contains(said) || reason.code.contains(said));
    let right = certificate.verdict == Verdict::Noisy && named.is_some();
    let codes: Vec<&str> = certificate
        .reasons
        .iter()
        .map(|reason| reason.code.as_str())
        .collect();
    let note = match named {
        Some(reason) if right => format!("{name}: {}", reason.code),
        _ => format!(
            "{name}: {}, `{said}` NOT named in {codes:?}",
            certificate.verdict
        ),
    };
    eprintln!("bench: {ID} {note}");
    if !right {
        eprintln!("bench: {ID} {}", bed::said(certificate));
    }
    (right, note)
}

fn during(bed: &Bed, control: &Control) -> anyhow::Result<Certificate> {
    let script = bed::spin(JOB);
    let id = bed.start(&Job {
        name: "control",
        cpus: "1",
        canary_seconds: Some(1),
        script: &script,
    })?;
    ensure!(bed.working(&id)?, "the job was over too soon");
    let cgroup = format!("/node/fs/cgroup{}", bed.claim()?);
    let act = control.act.replace("CGROUP", &cgroup).replace("ID", &id);
    let acted = bed.hand(&format!("set -e; {act}"));
    let certificate = bed.certificate(&id);
    bed.hand(control.undo)?;
    bed.remove(&id)?;
    acted.with_context(|| format!("{}: {act}", control.name))?;
    certificate
}

/// The same evidence with another governor afterwards. No emulated CPU has a frequency; that the
/// files are read, and looked at during the run, is tested with a rooted tree (`conditions.rs`).
fn flipped(quiet: &Certificate) -> Certificate {
    let mut evidence = quiet.evidence.clone();
    let frequency = |governor: &str| Frequency {
        governor: governor.to_owned(),
        min_khz: 800_000,
        max_khz: 3_000_000,
    };
    for cpu in evidence.job_cpus.iter() {
        let (before, after) = (&mut evidence.before, &mut evidence.after);
        before.frequency.insert(cpu, frequency("performance"));
        after.frequency.insert(cpu, frequency("powersave"));
    }
    Certificate::new(evidence)
}

/// A short run on a node that was booted without `parameter`.
fn lacking(sides: &Sides, parameter: &str, instead: Option<&str>) -> anyhow::Result<Certificate> {
    eprintln!("bench: {ID} a boot without {parameter}");
    let mut description = sides
        .ours(2, &ConfigOptions::default())?
        .without_param(parameter);
    if let Some(words) = instead {
        description = description.param(words);
    }
    let bed = Bed::boot(sides, &description)?;
    let script = bed::spin(5);
    bed.certified(&Job {
        name: "control",
        cpus: "1",
        canary_seconds: Some(2),
        script: &script,
    })
}
