//! A traced run as a picture: time to the right, a lane for each of the job's CPUs, a mark for each
//! interruption.
//!
//! The text is an SVG document of its own: no script, nothing fetched, legible on light and dark.
//! All names in it come from the kernel, or from programs that chose them, and are escaped.

mod axis;
mod text;

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::{
    Certificate, Dropped, Interruption, InterruptionKind, Interruptions, Value, Window, WindowName,
};
use axis::Axis;
use text::Escaped;
pub(crate) use text::Span;

/// More than these are drawn in bins, so that a noisy run's picture still opens at once.
const MAX_MARKS: usize = 2_000;
/// Bins in a row, at most: each as wide as can be told from the next.
const MAX_BINS: usize = 500;

// Lengths in px.
const WIDTH: u64 = 1200;
const LEFT: u64 = 112;
const RIGHT: u64 = 72;
const PLOT: u64 = WIDTH - LEFT - RIGHT;
/// Above the plot: title, subtitle, two rows of window names.
const TOP: u64 = 100;
const NAME_ROWS: [u64; 2] = [78, 92];
const ROW: u64 = 13;
const LANE_GAP: u64 = 10;
const LANE: u64 = ROW * InterruptionKind::ALL.len() as u64 + LANE_GAP;
/// Of a letter of the small font, on average and rather too much.
const LETTER: u64 = 7;

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTraced {
    NotAsked,
    Unobservable { why: String },
    NoWindow,
}

impl fmt::Display for NotTraced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str(
                "the run was not traced: start the container with label stillmetal.trace=true, besides stillmetal.certify=true",
            ),
            Self::Unobservable { why } => {
                write!(f, "the run was to be traced, and could not be: {why}")
            }
            Self::NoWindow => f.write_str("no part of the run was measured"),
        }
    }
}

impl std::error::Error for NotTraced {}

/// The picture of a certificate.
///
/// # Errors
/// [`NotTraced`]: there is nothing to draw.
pub fn timeline(certificate: &Certificate) -> Result<String, NotTraced> {
    let evidence = &certificate.evidence;
    let (dropped, events) = match &evidence.interruptions {
        None => return Err(NotTraced::NotAsked),
        Some(Interruptions::Unobservable { why }) => {
            return Err(NotTraced::Unobservable { why: why.clone() });
        }
        Some(Interruptions::Recorded { dropped, events }) => (dropped, events),
    };
    let windows = &evidence.windows;
    let start_ns = windows.iter().map(|window| window.start_ns).min();
    let end_ns = windows.iter().map(|window| window.end_ns).max();
    let (Some(start_ns), Some(end_ns)) = (start_ns, end_ns) else {
        return Err(NotTraced::NoWindow);
    };
    let mut rows: BTreeMap<(u32, InterruptionKind), Vec<&Interruption>> = BTreeMap::new();
    for cpu in evidence.job_cpus.iter() {
        for kind in InterruptionKind::ALL {
            rows.insert((cpu, kind), Vec::new());
        }
    }
    for event in events {
        rows.entry((event.cpu, event.kind)).or_default().push(event);
    }
    let picture = Picture {
        certificate,
        axis: Axis::new(start_ns, end_ns, LEFT, PLOT),
        rows,
        dropped,
        total: events.len(),
    };
    let mut out = String::new();
    // writing to a String cannot fail
    picture.write(&mut out).unwrap_or_default();
    Ok(out)
}

struct Picture<'a> {
    certificate: &'a Certificate,
    axis: Axis,
    /// In the order in which they are drawn.
    rows: BTreeMap<(u32, InterruptionKind), Vec<&'a Interruption>>,
    dropped: &'a [Dropped],
    total: usize,
}

impl Picture<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let lanes = u64::try_from(self.rows.len() / InterruptionKind::ALL.len()).unwrap_or(0);
        let bottom = TOP + lanes * LANE;
        let notes = self.notes();
        let height = bottom + 48 + 16 * u64::try_from(notes.len()).unwrap_or(0);
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">"#
        )?;
        self.heading(out)?;
        for window in &self.certificate.evidence.windows {
            self.shade(out, window, bottom)?;
        }
        self.window_names(out)?;
        for (index, ((cpu, kind), events)) in self.rows.iter().enumerate() {
            let index = u64::try_from(index).unwrap_or(0);
            let kinds = InterruptionKind::ALL.len() as u64;
            let y = TOP + index / kinds * LANE + index % kinds * ROW;
            if index % kinds == 0 {
                writeln!(
                    out,
                    r#"<text class="cpu" x="12" y="{}">CPU {cpu}</text>"#,
                    y + 10
                )?;
            }
            self.row(out, *kind, events, y)?;
        }
        self.ticks(out, bottom)?;
        for (note, y) in notes.iter().zip((bottom + 52..).step_by(16)) {
            writeln!(out, r#"<text class="small" x="12" y="{y}">{note}</text>"#)?;
        }
        out.write_str("</svg>\n")
    }

    fn heading(&self, out: &mut String) -> fmt::Result {
        let evidence = &self.certificate.evidence;
        let verdict = self.certificate.verdict;
        writeln!(
            out,
            "<title>Interruptions of run {}</title>\n<style>{}</style>",
            Escaped(&evidence.run_id),
            include_str!("style.css"),
        )?;
        out.write_str("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n")?;
        writeln!(
            out,
            r#"<text class="title" x="12" y="26">Interruptions: {} in {} · verdict {verdict}</text>"#,
            self.total,
            Span(self.axis.length_ns()),
        )?;
        writeln!(
            out,
            r#"<text class="small" x="12" y="46">run {} · {} · class {} · CPUs {} · kernel {}</text>"#,
            Escaped(&evidence.run_id),
            Escaped(&shortened(&evidence.image)),
            evidence.class,
            evidence.job_cpus,
            Escaped(&evidence.platform.kernel),
        )?;
        for (kind, x) in InterruptionKind::ALL
            .iter()
            .zip((WIDTH - 340..).step_by(82))
        {
            writeln!(
                out,
                r#"<rect class="{kind}" x="{x}" y="16" width="12" height="12"/><text class="small" x="{}" y="26">{kind}</text>"#,
                x + 17
            )?;
        }
        Ok(())
    }

    fn shade(&self, out: &mut String, window: &Window, bottom: u64) -> fmt::Result {
        let class = match window.name {
            WindowName::CanaryPre | WindowName::CanaryPost => "canary",
            WindowName::Job => "job",
            WindowName::Exit => "exit",
        };
        writeln!(
            out,
            r#"<rect class="{class}" x="{}" y="{TOP}" width="{}" height="{}"><title>{}: {}</title></rect>"#,
            self.axis.x(window.start_ns),
            self.axis.width(window.start_ns, window.end_ns),
            bottom - TOP,
            window.name,
            Span(window.duration_ns()),
        )
    }

    /// Each at its window's beginning, in the first row that still has room there.
    fn window_names(&self, out: &mut String) -> fmt::Result {
        let mut taken = [0; NAME_ROWS.len()];
        for window in &self.certificate.evidence.windows {
            let name = window.name.to_string();
            let length = LETTER * u64::try_from(name.len()).unwrap_or(0);
            let x = self.axis.x(window.start_ns).whole().min(WIDTH - length);
            let free = taken.iter().rposition(|end| *end <= x).unwrap_or(0);
            taken[free] = x + length;
            let y = NAME_ROWS[free];
            writeln!(out, r#"<text class="small" x="{x}" y="{y}">{name}</text>"#)?;
        }
        Ok(())
    }

    fn row(
        &self,
        out: &mut String,
        kind: InterruptionKind,
        events: &[&Interruption],
        y: u64,
    ) -> fmt::Result {
        let (text_y, count_x) = (y + 10, WIDTH - RIGHT + 8);
        writeln!(
            out,
            r#"<text class="small" x="{}" y="{text_y}">{kind}</text><path class="rule" d="M{LEFT} {}h{PLOT}"/><text class="small" x="{count_x}" y="{text_y}">{}</text>"#,
            LEFT - 50,
            y + ROW - 1,
            events.len(),
        )?;
        if events.is_empty() {
            return Ok(());
        }
        writeln!(out, r#"<g class="{kind}">"#)?;
        if self.total <= MAX_MARKS {
            for event in events {
                self.mark(out, event, y)?;
            }
        } else {
            self.bins(out, kind, events, y)?;
        }
        writeln!(out, "</g>")
    }

    fn mark(&self, out: &mut String, event: &Interruption, y: u64) -> fmt::Result {
        writeln!(
            out,
            r#"<rect x="{}" y="{y}" width="{}" height="{}"><title>{} {} on CPU {}: {} at {}</title></rect>"#,
            self.axis.x(event.at_ns),
            self.axis.width(event.at_ns, event.end_ns()),
            ROW - 2,
            event.kind,
            Escaped(&event.name),
            event.cpu,
            Span(event.duration_ns),
            self.axis.since_start(event.at_ns),
        )
    }

    fn bins(
        &self,
        out: &mut String,
        kind: InterruptionKind,
        events: &[&Interruption],
        y: u64,
    ) -> fmt::Result {
        let mut bins: BTreeMap<u64, Vec<&Interruption>> = BTreeMap::new();
        for event in events {
            let since = event.at_ns.saturating_sub(self.axis.start_ns());
            bins.entry(since / self.bin_ns()).or_default().push(event);
        }
        for (number, events) in bins {
            let from = self.axis.start_ns().saturating_add(number * self.bin_ns());
            let ends = events.iter().map(|event| event.end_ns()).max();
            let to = ends.unwrap_or(from).max(from.saturating_add(self.bin_ns()));
            let durations = events.iter().map(|event| event.duration_ns);
            let sum = durations.fold(0, u64::saturating_add);
            let longest = events.iter().max_by_key(|event| event.duration_ns);
            let density = match events.len() {
                0..10 => "few",
                10..100 => "some",
                _ => "many",
            };
            writeln!(
                out,
                r#"<rect class="{density}" x="{}" y="{y}" width="{}" height="{}"><title>{} {kind} in {} from {}: {} in all, longest {} {}</title></rect>"#,
                self.axis.x(from),
                self.axis.width(from, to),
                ROW - 2,
                events.len(),
                Span(self.bin_ns()),
                self.axis.since_start(from),
                Span(sum),
                Escaped(longest.map_or("", |event| event.name.as_str())),
                Span(longest.map_or(0, |event| event.duration_ns)),
            )?;
        }
        Ok(())
    }

    fn bin_ns(&self) -> u64 {
        let bins = (MAX_MARKS / self.rows.len().max(1)).clamp(20, MAX_BINS);
        (self.axis.length_ns() / u64::try_from(bins).unwrap_or(1)).max(1)
    }

    fn ticks(&self, out: &mut String, bottom: u64) -> fmt::Result {
        writeln!(out, r#"<path class="axis" d="M{LEFT} {bottom}h{PLOT}"/>"#)?;
        for (x, label) in self.axis.ticks() {
            writeln!(
                out,
                r#"<path class="axis" d="M{x} {bottom}v5"/><text class="small middle" x="{x}" y="{}">{label}</text>"#,
                bottom + 18
            )?;
        }
        writeln!(
            out,
            r#"<text class="small" x="{}" y="{}">seconds</text>"#,
            WIDTH - RIGHT + 12,
            bottom + 18
        )
    }

    /// What a reader must know besides, escaped.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "CLOCK_MONOTONIC_RAW, from {} ns on. Not the job's own threads and not the canaries'. No mark is thinner than 1 px.",
            self.axis.start_ns()
        )];
        if self.total > MAX_MARKS {
            notes.push(format!(
                "Drawn in bins of {}, paler where there are few.",
                Span(self.bin_ns())
            ));
        }
        for Dropped { cpu, count } in self.dropped {
            match count {
                Value::Measured(0) => {}
                Value::Measured(count) => notes.push(format!(
                    "CPU {cpu}: {count} later ones were not kept; the picture ends before the run."
                )),
                Value::Absent => {
                    notes.push(format!("CPU {cpu}: how many are missing is not known."))
                }
                Value::Unobservable { why } => notes.push(format!(
                    "CPU {cpu}: how many are missing is not known: {}",
                    Escaped(why)
                )),
            }
        }
        notes
    }
}

/// A reference that fits into a line.
fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
