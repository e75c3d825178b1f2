//! A certificate on one screen.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::svg::Span;
use crate::{
    Certificate, CpuWindow, Interruption, InterruptionKind, Interruptions, Outcome, QuietClass,
    Reason, Value, Verdict, Window,
};

/// Reasons of each kind that are shown; the certificate has them all.
const MAX_REASONS: usize = 8;
/// CPUs that are shown.
const MAX_CPUS: usize = 8;
/// Names of interruptions that are shown, those that took longest.
const MAX_NAMES: usize = 5;

/// The summary: verdict, reasons, a table with a bar per CPU and window, and what the tracer saw if
/// it was on. Control characters of names that came
/// from the job are replaced.
#[must_use]
pub fn render(certificate: &Certificate) -> String {
    let mut text = String::new();
    // writing to a String cannot fail
    write(&mut text, certificate).unwrap_or_default();
    text
}

fn write(out: &mut String, certificate: &Certificate) -> fmt::Result {
    let evidence = &certificate.evidence;
    let verdict = match (certificate.verdict, certificate.quiet_class) {
        (Verdict::Quiet, Some(QuietClass::HwQuiet)) => {
            "QUIET (hw-quiet: as far as the hardware tells)"
        }
        (Verdict::Quiet, _) => "QUIET (os-quiet: as far as the operating system tells)",
        (Verdict::Noisy, _) => "NOISY",
        (Verdict::Unproven, _) => "UNPROVEN",
    };
    writeln!(out, "{verdict}")?;
    writeln!(
        out,
        "run {} · {} · class {} · CPUs {}",
        printable(&evidence.run_id),
        printable(&evidence.image),
        evidence.class,
        evidence.job_cpus
    )?;
    match (certificate.outcome, evidence.job.failure()) {
        (_, Some(why)) => writeln!(out, "FAILED: {why}")?,
        (Outcome::Unknown, None) => writeln!(out, "how the job ended is not known")?,
        (_, None) => {}
    }
    reasons(out, "noise", &certificate.reasons)?;
    reasons(out, "not proven", &certificate.unproven)?;
    writeln!(
        out,
        "\n{:<12}{:>4}{:>8}{:>7}{:>7}{:>7}{:>7}{:>8}{:>9}{:>7}  events",
        "window", "CPU", "seconds", "LOC", "RES", "CAL", "other", "devices", "softirqs", "slices",
    )?;
    for window in &evidence.windows {
        for (number, cpu) in window.cpus.iter().take(MAX_CPUS) {
            row(out, window, *number, cpu)?;
        }
        if window.cpus.len() > MAX_CPUS {
            writeln!(out, "... {} CPUs more", window.cpus.len() - MAX_CPUS)?;
        }
    }
    let hardware = &evidence.hardware;
    writeln!(
        out,
        "hardware: SMI {}, frequency off by {} ppm, throttled {}, temperature off by {} m°C, asleep {} µs, {} µJ, steal {}",
        hardware.smi,
        hardware.aperf_mperf,
        hardware.throttle,
        hardware.temperature,
        hardware.cstate_residency,
        hardware.energy,
        hardware.host_steal
    )?;
    writeln!(
        out,
        "- not counted here   ? not known   events: · none, █ up to 9, ██ up to 99, ..."
    )?;
    match &evidence.interruptions {
        None => Ok(()),
        Some(Interruptions::Unobservable { why }) => {
            writeln!(out, "\nnot traced: {}", printable(why))
        }
        Some(Interruptions::Recorded { dropped, events }) => {
            write!(out, "\ntraced interruptions:")?;
            interruptions(out, events, &evidence.windows)?;
            match sum(dropped.iter().map(|dropped| &dropped.count)) {
                Value::Measured(0) => Ok(()),
                dropped => writeln!(out, "  ... and {dropped} later ones that were not kept"),
            }
        }
    }
}

/// What took the job's CPUs within the windows, by name.
fn interruptions(out: &mut String, events: &[Interruption], windows: &[Window]) -> fmt::Result {
    for window in windows {
        let count = events.iter().filter(|event| window.meets(event)).count();
        write!(out, " {} {count}", window.name)?;
    }
    writeln!(out)?;
    let mut names: BTreeMap<(InterruptionKind, &str), (u64, u64)> = BTreeMap::new();
    let within = |event: &&Interruption| windows.iter().any(|window| window.meets(event));
    for event in events.iter().filter(within) {
        let (count, sum) = names.entry((event.kind, &event.name)).or_default();
        *count += 1;
        *sum = sum.saturating_add(event.duration_ns);
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|(_, (_, sum))| std::cmp::Reverse(*sum));
    for ((kind, name), (count, sum)) in names.iter().take(MAX_NAMES) {
        writeln!(
            out,
            "  {kind:<8}{:<24}{count:>7} times  {}",
            printable(name),
            Span(*sum)
        )?;
    }
    if names.len() > MAX_NAMES {
        writeln!(out, "  ... and {} names more", names.len() - MAX_NAMES)?;
    }
    Ok(())
}

fn reasons(out: &mut String, title: &str, reasons: &[Reason]) -> fmt::Result {
    if reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    for reason in reasons.iter().take(MAX_REASONS) {
        let window = reason
            .window
            .map(|window| format!("{window}: "))
            .unwrap_or_default();
        writeln!(out, "  {window}{}", printable(&reason.text))?;
    }
    if reasons.len() > MAX_REASONS {
        writeln!(out, "  ... and {} more", reasons.len() - MAX_REASONS)?;
    }
    Ok(())
}

fn row(out: &mut String, window: &Window, number: u32, cpu: &CpuWindow) -> fmt::Result {
    const SHOWN: [&str; 3] = ["LOC", "RES", "CAL"];
    let tenths = window.duration_ns() / 100_000_000;
    let line = |name: &str| cpu.interrupts.get(name).unwrap_or(&Value::Absent);
    let others = cpu
        .interrupts
        .iter()
        .filter(|(name, _)| !SHOWN.contains(&name.as_str()));
    let device = || cpu.device.values().map(|device| &device.count);
    let all = cpu.interrupts.values().chain(device());
    let all = all.chain(cpu.softirqs.values()).chain([&cpu.timeslices]);
    writeln!(
        out,
        "{:<12}{number:>4}{:>8}{:>7}{:>7}{:>7}{:>7}{:>8}{:>9}{:>7}  {}",
        window.name,
        format!("{}.{}", tenths / 10, tenths % 10),
        line("LOC"),
        line("RES"),
        line("CAL"),
        sum(others.map(|(_, value)| value)),
        sum(device()),
        sum(cpu.softirqs.values()),
        cpu.timeslices,
        bar(&sum(all)),
    )
}

/// A block for each decimal digit.
fn bar(events: &Value) -> String {
    match events {
        Value::Measured(0) => "·".to_owned(),
        Value::Measured(count) => (0..=count.ilog10()).map(|_| '█').collect(),
        unknown => unknown.to_string(),
    }
}

/// Known only if each is.
fn sum<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
    let mut sum = Value::Absent;
    for value in values {
        sum = match (sum, value) {
            (Value::Absent, value) => value.clone(),
            (Value::Measured(sum), Value::Measured(count)) => {
                Value::Measured(sum.saturating_add(*count))
            }
            (sum, Value::Absent) => sum,
            (_, Value::Unobservable { why }) => Value::unobservable(why),
            (sum @ Value::Unobservable { .. }, _) => sum,
        };
    }
    sum
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
