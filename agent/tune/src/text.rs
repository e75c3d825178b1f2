//! Reports for people: aligned tables, one line a knob.

use std::fmt::Write;

use api::report::{NodeState, Report, Status};

use crate::plan::{Plan, Want};
use crate::restore::Restored;

/// Longer values are cut: the JSON has them whole.
const MAX_VALUE_CHARS: usize = 36;

/// The whole report. Interrupts, queues and threads that needed nothing are only counted.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    let cpus = &report.cpus;
    match &report.state {
        NodeState::Fit => text.push_str("state        fit\n"),
        NodeState::Unfit { reason } => line(&mut text, &format!("state        unfit: {reason}")),
    }
    for (name, set) in [
        ("isolated", &cpus.isolated),
        ("housekeeping", &cpus.housekeeping),
        ("offlined", &cpus.offlined_siblings),
    ] {
        line(
            &mut text,
            &format!("{name:<12} {}", or_dash(&set.to_string())),
        );
    }
    for warning in &report.warnings {
        line(
            &mut text,
            &format!("warning      {}: {}", warning.name, warning.text),
        );
    }
    text.push('\n');
    let mut rows = vec![["STATUS", "KNOB", "BEFORE", "AFTER", "WANTED", ""].map(str::to_owned)];
    let mut quiet = 0;
    for knob in &report.knobs {
        let nothing_done = matches!(knob.status, Status::Unchanged | Status::NotApplicable);
        if nothing_done && is_one_of_many(&knob.knob) {
            quiet += 1;
            continue;
        }
        rows.push([
            knob.status.as_str().to_owned(),
            knob.knob.clone(),
            value(knob.before.as_deref()),
            value(knob.after.as_deref()),
            value(Some(&knob.wanted)),
            knob.reason.clone().unwrap_or_default(),
        ]);
    }
    table(&mut text, &rows);
    if quiet > 0 {
        line(
            &mut text,
            &format!(
                "{quiet} more interrupts, queues and threads were right already, or have nothing to set"
            ),
        );
    }
    unmovable(&mut text, report);
    text
}

fn unmovable(text: &mut String, report: &Report) {
    for irq in &report.irqs_unmovable {
        let counts: Vec<String> = irq
            .counts
            .iter()
            .map(|(cpu, count)| format!("cpu{cpu}: {count}"))
            .collect();
        line(
            text,
            &format!(
                "unmovable interrupt {} ({}) on {}, effective {}, struck {}: {}",
                irq.irq,
                or_dash(&irq.name),
                irq.affinity,
                or_dash(&irq.effective),
                or_dash(&counts.join(", ")),
                irq.reason
            ),
        );
    }
    for drift in &report.drift {
        line(
            text,
            &format!(
                "drifted {}: {} instead of {}, found {} s after boot",
                drift.path,
                drift.found,
                drift.wanted,
                drift.found_ns / 1_000_000_000
            ),
        );
    }
    for thread in &report.kthreads_unmovable {
        line(
            text,
            &format!(
                "unmovable thread {} ({}) on {}: {}",
                thread.tid, thread.name, thread.allowed, thread.reason
            ),
        );
    }
}

fn is_one_of_many(knob: &str) -> bool {
    ["irq.", "net.", "kthread."]
        .iter()
        .any(|prefix| knob.starts_with(prefix))
}

/// What `--dry-run` prints.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    line(
        &mut text,
        &format!("isolated     {}", or_dash(&plan.isolated.to_string())),
    );
    line(
        &mut text,
        &format!("housekeeping {}", or_dash(&plan.housekeeping.to_string())),
    );
    for warning in &plan.warnings {
        line(
            &mut text,
            &format!("warning      {}: {}", warning.name, warning.text),
        );
    }
    text.push('\n');
    let mut rows = vec![["KNOB", "WANTED", "PATH", "WHY"].map(str::to_owned)];
    for step in &plan.steps {
        let why = match &step.want {
            Want::Absent(reason) => format!("n/a: {reason}"),
            Want::Record => format!("recorded: {}", step.why),
            _ => step.why.to_owned(),
        };
        rows.push([
            step.knob.clone(),
            value(Some(&step.want.to_string())),
            step.cell.label(),
            why,
        ]);
    }
    table(&mut text, &rows);
    text
}

/// What `restore` prints.
#[must_use]
pub fn restored(result: &Restored) -> String {
    let mut text = String::new();
    line(
        &mut text,
        &format!(
            "{} knobs restored, {} had their old value already, {} gone, {} not restored",
            result.restored.len(),
            result.already,
            result.gone.len(),
            result.failed.len()
        ),
    );
    for knob in &result.gone {
        line(&mut text, &format!("gone: {knob}"));
    }
    for failed in &result.failed {
        line(
            &mut text,
            &format!(
                "not restored: {} ({}) is {}, was {}: {}",
                failed.knob,
                failed.path,
                value(failed.found.as_deref()),
                value(Some(&failed.wanted)),
                failed.reason
            ),
        );
    }
    text
}

fn value(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "-".to_owned();
    };
    let flat = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() > MAX_VALUE_CHARS {
        let cut: String = flat.chars().take(MAX_VALUE_CHARS - 1).collect();
        return format!("{cut}…");
    }
    or_dash(&flat).to_owned()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Columns as wide as their widest cell; no blanks at the end of a line.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut row_text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(row_text, "{cell:<width$}  ").expect("a String takes any text");
        }
        line(text, &row_text);
    }
}

/// Whatever the kernel had in a value, it stays one line and cannot steer a terminal.
fn line(text: &mut String, content: &str) {
    let clean = content
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c });
    text.extend(clean);
    text.push('\n');
}
