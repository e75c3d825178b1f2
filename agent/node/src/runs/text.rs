//! A series for people.

use std::fmt::{self, Write};

use api::run::{Attempt, RunState, RunStatus};

/// Reasons that are shown of one run.
const REASONS: usize = 3;

/// One line a run, and what they came to.
#[must_use]
pub(crate) fn render(status: &RunStatus) -> String {
    let mut text = String::new();
    // writing to a String cannot fail
    write(&mut text, status).unwrap_or_default();
    text
}

fn write(out: &mut String, status: &RunStatus) -> fmt::Result {
    let state = match status.state {
        RunState::Running => "RUNNING",
        RunState::Done => "DONE: every repetition has a quiet run",
        RunState::Noisy => "NOISY: not every repetition has a quiet run",
        RunState::Unproven => "UNPROVEN: not every repetition is proven to be quiet",
        RunState::Failed => "FAILED",
        RunState::Cancelled => "CANCELLED",
        RunState::Error => "ERROR",
    };
    writeln!(out, "{state}")?;
    if let Some(error) = &status.error {
        writeln!(out, "{error}")?;
    }
    let cpus = status.cpus.as_ref().map(ToString::to_string);
    writeln!(
        out,
        "series {} · {} · class {} · CPUs {}\n",
        status.id,
        status.request.image.escape_debug(),
        status.request.class,
        cpus.unwrap_or_default()
    )?;
    writeln!(
        out,
        "{:>4} {:<12} {:<9} {:>12}  ended",
        "run", "", "verdict", "seconds"
    )?;
    for run in &status.attempts {
        row(out, run)?;
    }
    if let Some(figures) = status.duration_ns {
        let seconds = |ns: f64| ns / 1e9;
        writeln!(
            out,
            "\nquiet runs: {} · median {:.6} s · median absolute deviation {:.6} s · {:.6} to {:.6} s",
            figures.samples,
            seconds(figures.median),
            seconds(figures.mad),
            seconds(figures.min),
            seconds(figures.max)
        )?;
        match figures.interval {
            Some(interval) => writeln!(
                out,
                "{:.0} % interval of the median (bootstrap): {:.6} to {:.6} s",
                interval.confidence * 100.0,
                seconds(interval.low),
                seconds(interval.high)
            )?,
            None => writeln!(out, "one run says nothing of the spread")?,
        }
    }
    for (name, metric) in &status.metrics {
        let values = &metric.values;
        write!(out, "{name}: median {}", values.median)?;
        if !metric.unit.is_empty() {
            write!(out, " {}", metric.unit)?;
        }
        writeln!(
            out,
            " · median absolute deviation {} · {} to {} · {} is better",
            values.mad,
            values.min,
            values.max,
            metric.direction.as_str()
        )?;
    }
    if !status.left_out.is_empty() {
        let numbers: Vec<String> = status.left_out.iter().map(u32::to_string).collect();
        writeln!(out, "left out: run {}", numbers.join(", "))?;
    }
    Ok(())
}

fn row(out: &mut String, run: &Attempt) -> fmt::Result {
    let what = match run.repetition {
        None => "warm-up".to_owned(),
        Some(number) => format!("repetition {number}"),
    };
    let verdict = run
        .verdict
        .map_or("-".to_owned(), |verdict| verdict.to_string());
    let seconds = run.duration_ns.map_or("?".to_owned(), |ns| {
        format!("{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1000)
    });
    let ended = run.failure.as_deref().unwrap_or("well");
    writeln!(
        out,
        "{:>4} {what:<12} {verdict:<9} {seconds:>12}  {ended}",
        run.number
    )?;
    for reason in run.reasons.iter().take(REASONS) {
        writeln!(out, "     {}", reason.escape_debug())?;
    }
    if run.reasons.len() > REASONS {
        writeln!(out, "     ... and {} more", run.reasons.len() - REASONS)?;
    }
    Ok(())
}
