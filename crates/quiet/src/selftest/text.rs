//! A self-test's result on one screen.

use std::fmt::{self, Write};

use crate::{QuietClass, Reason, Value, Window};

use super::{Answer, Finding, SelfTest, Sight};

/// Reasons of each kind that are shown; the JSON has them all.
const MAX_REASONS: usize = 8;

/// The answer, each probe, and what the node cannot see.
#[must_use]
pub fn render(test: &SelfTest) -> String {
    let mut text = String::new();
    // writing to a String cannot fail
    write(&mut text, test).unwrap_or_default();
    text
}

fn write(out: &mut String, test: &SelfTest) -> fmt::Result {
    writeln!(
        out,
        "this node can prove quiet: {}",
        match (test.can_prove_quiet, test.quiet_class) {
            (Answer::Yes, Some(QuietClass::HwQuiet)) => "YES, as far as the hardware tells",
            (Answer::Yes, _) => "YES, as far as the operating system tells",
            (Answer::No, _) => "NO",
        }
    )?;
    let cpu = test
        .cpu
        .map_or_else(|| "no CPU".to_owned(), |cpu| format!("CPU {cpu}"));
    writeln!(
        out,
        "{cpu} · Linux {} · agent {} · took {}",
        printable(&test.kernel),
        printable(&test.agent_version),
        crate::judge::seconds(test.ended_ns.saturating_sub(test.started_ns))
    )?;
    reasons(out, "why not", &test.reasons)?;
    writeln!(out)?;
    if let Some(window) = &test.silence {
        writeln!(
            out,
            "{:<12}{:<13}a thread spun alone for {}: {} interrupts, {} softirqs, {} foreign timeslices",
            "silence",
            "",
            crate::judge::seconds(window.duration_ns()),
            total(window, |cpu| cpu
                .interrupts
                .values()
                .chain(cpu.device.values().map(|device| &device.count))
                .collect()),
            total(window, |cpu| cpu.softirqs.values().collect()),
            window.foreign_timeslices,
        )?;
    }
    for probe in &test.probes {
        let sight = match probe.sight {
            Sight::Seen => "seen",
            Sight::NotSeen => "NOT SEEN",
            Sight::Inapplicable => "not tried",
            Sight::Failed => "FAILED",
        };
        writeln!(out, "{:<12}{sight:<13}{}", probe.probe, probe.what)?;
        if !probe.findings.is_empty() {
            let all: Vec<String> = probe.findings.iter().map(finding).collect();
            writeln!(out, "{:25}{}", "", all.join(", "))?;
        } else if let Some(why) = &probe.why {
            writeln!(out, "{:25}{}", "", printable(why))?;
        }
    }
    reasons(out, "what it cannot see", &test.cannot_see)
}

fn reasons(out: &mut String, title: &str, reasons: &[Reason]) -> fmt::Result {
    if reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    for reason in reasons.iter().take(MAX_REASONS) {
        writeln!(out, "  {}", printable(&reason.text))?;
    }
    if reasons.len() > MAX_REASONS {
        writeln!(out, "  ... and {} more", reasons.len() - MAX_REASONS)?;
    }
    Ok(())
}

/// `RES 21 (19 to 21)`.
pub(super) fn finding(finding: &Finding) -> String {
    let name = finding.figure.trim_start_matches("interrupts.");
    let found = match &finding.found {
        Value::Measured(count) => count.to_string(),
        Value::Absent => "not counted".to_owned(),
        Value::Unobservable { why } => format!("not known: {}", printable(why)),
    };
    match finding.at_most {
        Some(most) => format!("{name} {found} ({} to {most})", finding.at_least),
        None => format!("{name} {found} (at least {})", finding.at_least),
    }
}

/// Known only if each is.
fn total<'a>(window: &'a Window, of: impl Fn(&'a crate::CpuWindow) -> Vec<&'a Value>) -> String {
    let mut total = 0_u64;
    for value in window.cpus.values().flat_map(of) {
        match value {
            Value::Measured(count) => total = total.saturating_add(*count),
            Value::Absent => {}
            Value::Unobservable { .. } => return "?".to_owned(),
        }
    }
    total.to_string()
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
