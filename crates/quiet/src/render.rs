//! A certificate on one screen.

use std::fmt::{self, Write};

use crate::{Certificate, CpuWindow, Outcome, QuietClass, Reason, Value, Verdict, Window};

/// Reasons of each kind that are shown; the certificate has them all.
const MAX_REASONS: usize = 8;
/// CPUs that are shown.
const MAX_CPUS: usize = 8;

/// The summary: verdict, reasons, a table per CPU and window. Control characters of names that came
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
        "\n{:<12}{:>5}{:>9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}",
        "window", "CPU", "seconds", "LOC", "RES", "CAL", "other", "devices", "softirqs", "slices"
    )?;
    for window in &evidence.windows {
        for (number, cpu) in window.cpus.iter().take(MAX_CPUS) {
            row(out, window, *number, cpu)?;
        }
        if window.cpus.len() > MAX_CPUS {
            writeln!(out, "... {} CPUs more", window.cpus.len() - MAX_CPUS)?;
        }
    }
    writeln!(out, "- not counted here   ? not known")
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
    writeln!(
        out,
        "{:<12}{number:>5}{:>9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}",
        window.name,
        format!("{}.{}", tenths / 10, tenths % 10),
        line("LOC"),
        line("RES"),
        line("CAL"),
        sum(others.map(|(_, value)| value)),
        sum(cpu.device.values().map(|device| &device.count)),
        sum(cpu.softirqs.values()),
        cpu.timeslices,
    )
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
