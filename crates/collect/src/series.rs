//! What one tool saw in one run: a column for each figure, a row for each moment, bounded.
//!
//! ```text
//! {"schema":"stillmetal-series/1","tool":"cpu","run":1,…,"columns":[{"name":"cpu0/user","unit":"ms",…},…]}
//! [-5210334,0,null]
//! [994667120,10,4]
//! ```
//! The first line says what the others are: first the time in ns from the start of the measured window,
//! then a number for each column, or null where it could not be read. Counters begin at 0 with their
//! first row, or when what they count did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use quiet::energy_gained_uj;
use serde_json::json;

/// The `schema` of its first line.
pub const SCHEMA: &str = "stillmetal-series/1";
/// Rows that are kept of one series.
pub const SAMPLES: usize = 7200;
/// Numbers that are kept of one series: 4 MiB.
pub const CELLS: usize = 512 * 1024;
/// Columns of one series.
pub const COLUMNS: usize = 16 * 1024;
/// Different reasons that are kept.
const REASONS: usize = 32;
/// Not known.
const NONE: i64 = i64::MIN;

/// How a number is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; the series has what it gained since its first row.
    Counter,
    /// As it is.
    Gauge,
    /// A counter of µJ that goes round at `range_uj`.
    Energy { range_uj: Option<u64> },
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter | Self::Energy { .. } => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// What a figure was before it was first read, if it was not there at the first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// Nobody knows: it counts from there on.
    Unknown,
    /// Nothing: what has not happened yet is not listed.
    Zero,
    /// Not there; it began at 0.
    New,
}

/// One figure at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// Unique within its tool.
    pub name: String,
    pub unit: &'static str,
    pub kind: Kind,
    /// Path of the file.
    pub source: &'a str,
    /// Holds every `u64` and every `i64`.
    pub value: i128,
    pub birth: Birth,
}

impl<'a> Reading<'a> {
    pub(crate) fn counter(
        name: impl Into<String>,
        unit: &'static str,
        source: &'a str,
        count: u64,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            kind: Kind::Counter,
            source,
            value: count.into(),
            birth: Birth::Unknown,
        }
    }

    /// The same with another birth.
    pub(crate) fn born(self, birth: Birth) -> Self {
        Self { birth, ..self }
    }

    pub(crate) fn gauge(
        name: impl Into<String>,
        unit: &'static str,
        source: &'a str,
        value: i64,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            kind: Kind::Gauge,
            source,
            value: value.into(),
            birth: Birth::Unknown,
        }
    }
}

/// One figure over time.
#[derive(Debug)]
struct Column {
    name: String,
    unit: &'static str,
    kind: Kind,
    source: String,
    /// The reading before, and its time, ns.
    last: (i128, i64),
    gained: i64,
    /// Nothing of it is believed any more.
    broken: bool,
    moved: bool,
    cells: Vec<i64>,
}

impl Column {
    /// `rows`: those before it.
    fn new(reading: Reading<'_>, at_ns: i64, rows: usize) -> Self {
        let (then, before) = match reading.birth {
            _ if rows == 0 => (reading.value, NONE),
            Birth::Unknown => (reading.value, NONE),
            Birth::Zero => (0, 0),
            Birth::New => (0, NONE),
        };
        Self {
            name: reading.name,
            unit: reading.unit,
            kind: reading.kind,
            source: reading.source.to_owned(),
            last: (then, at_ns),
            gained: 0,
            broken: false,
            moved: false,
            cells: vec![before; rows],
        }
    }

    /// The number of this moment; an error is why there is none from here on.
    fn take(&mut self, value: i128, at_ns: i64) -> Result<i64, String> {
        let (then, then_ns) = std::mem::replace(&mut self.last, (value, at_ns));
        self.moved |= value != then;
        let gained = match self.kind {
            Kind::Gauge => return Ok(clamped(value)),
            Kind::Counter => u64::try_from(value - then)
                .map_err(|_| format!("it went backwards, from {then} to {value}")),
            Kind::Energy { range_uj } => {
                let [then, now] = [then, value].map(|it| u64::try_from(it).unwrap_or_default());
                let elapsed_us = at_ns.saturating_sub(then_ns) / 1000;
                let elapsed_us = u64::try_from(elapsed_us).unwrap_or_default();
                // a reading may be older than its moment: a tenth of a second is granted
                energy_gained_uj(then, now, range_uj, elapsed_us.saturating_add(100_000))
            }
        };
        match gained {
            Ok(gained) => {
                let gained = i64::try_from(gained).unwrap_or(i64::MAX);
                self.gained = self.gained.saturating_add(gained);
                Ok(self.gained)
            }
            Err(why) => {
                self.broken = true;
                Err(why)
            }
        }
    }
}

/// A number that is none of [`NONE`].
fn clamped(value: i128) -> i64 {
    i64::try_from(value).map_or(i64::MAX, |it| it.max(NONE + 1))
}

/// One tool's series in the making.
#[derive(Debug)]
pub struct Series {
    tool: &'static str,
    interval: Duration,
    times: Vec<i64>,
    columns: Vec<Column>,
    index: BTreeMap<String, usize>,
    /// Every so many of the samples taken are kept.
    step: u64,
    /// Samples since the last one that was kept.
    since: u64,
    dropped: u64,
    /// Something was not read: what appears later may have been there before.
    doubtful: bool,
    /// What was not seen, and why.
    lost: BTreeSet<String>,
}

/// What the times are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zero {
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: i64,
    /// When the measured window ended, ns from zero; `None`: nobody saw it, and zero is the first row.
    pub window_ns: Option<i64>,
}

impl Series {
    /// One of `tool`, sampled every `interval`.
    #[must_use]
    pub fn new(tool: &'static str, interval: Duration) -> Self {
        Self {
            tool,
            interval,
            times: Vec::new(),
            columns: Vec::new(),
            index: BTreeMap::new(),
            step: 1,
            since: 0,
            dropped: 0,
            doubtful: false,
            lost: BTreeSet::new(),
        }
    }

    /// What was read at a moment of `CLOCK_MONOTONIC`. When there is no room for more, every second row
    /// goes, and from then on every second sample: the series stays one of the whole run.
    pub fn add(&mut self, at_ns: i64, readings: Vec<Reading<'_>>) {
        self.since = self.since.saturating_add(1);
        let kept = self.times.is_empty() || self.since >= self.step;
        self.row(at_ns, readings, kept);
    }

    /// The same for the last moment, which is kept.
    pub fn finish(&mut self, at_ns: i64, readings: Vec<Reading<'_>>) {
        self.row(at_ns, readings, true);
    }

    fn row(&mut self, at_ns: i64, readings: Vec<Reading<'_>>, kept: bool) {
        let rows = self.times.len();
        for mut reading in readings {
            if self.doubtful {
                reading.birth = Birth::Unknown;
            }
            let index = match self.index.get(&reading.name) {
                Some(index) => *index,
                None if self.columns.len() >= COLUMNS => {
                    self.lose(format!("more than {COLUMNS} figures: the rest is left out"));
                    continue;
                }
                None => {
                    let index = self.columns.len();
                    self.index.insert(reading.name.clone(), index);
                    self.columns.push(Column::new(reading.clone(), at_ns, rows));
                    index
                }
            };
            let column = &mut self.columns[index];
            if column.broken || column.cells.len() > rows {
                continue; // a second reading of one name at one moment
            }
            match column.take(reading.value, at_ns) {
                Ok(value) if kept => column.cells.push(value),
                Ok(_) => {}
                Err(why) => {
                    let why = format!("{}: {why}", column.name);
                    self.lose(why);
                }
            }
        }
        if !kept {
            self.dropped += 1;
            return;
        }
        self.since = 0;
        self.times.push(at_ns);
        for column in &mut self.columns {
            column.cells.resize(rows + 1, NONE);
        }
        while self.times.len() > 2
            && (self.times.len() >= SAMPLES || self.times.len() * self.columns.len() >= CELLS)
        {
            self.thin();
        }
    }

    /// Takes every second row out.
    fn thin(&mut self) {
        let before = self.times.len();
        let halve = |list: &mut Vec<i64>| {
            let mut index = 0;
            list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        };
        halve(&mut self.times);
        for column in &mut self.columns {
            halve(&mut column.cells);
        }
        self.dropped += (before - self.times.len()) as u64;
        // of an even number the last went as well
        self.since = match before % 2 {
            0 => self.step,
            _ => 0,
        };
        self.step = self.step.saturating_mul(2);
    }

    /// Says that something could not be read at this moment.
    pub fn miss(&mut self, why: impl Into<String>) {
        self.doubtful = true;
        self.lose(why);
    }

    /// Says that something is not in it.
    pub fn lose(&mut self, why: impl Into<String>) {
        if self.lost.len() < REASONS {
            self.lost.insert(why.into());
        }
    }

    /// Rows.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.times.len() as u64
    }

    /// Samples that were taken and are not among them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is not in it, and why.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.lost.iter().cloned().collect()
    }

    /// When its first row was taken, `CLOCK_MONOTONIC`, ns.
    #[must_use]
    pub fn first_ns(&self) -> Option<i64> {
        self.times.first().copied()
    }

    /// Its text. Counters that did not move are named once and have no column.
    #[must_use]
    pub fn encode(&self, run: u32, zero: Zero) -> String {
        let still = |column: &Column| {
            let counts = !matches!(column.kind, Kind::Gauge);
            counts && !column.moved && !column.broken && !column.cells.contains(&NONE)
        };
        let (unmoved, moved): (Vec<&Column>, Vec<&Column>) =
            self.columns.iter().partition(|column| still(column));
        let columns: Vec<_> = moved
            .iter()
            .map(|column| {
                json!({
                    "name": column.name, "unit": column.unit, "kind": column.kind.as_str(),
                    "source": column.source,
                })
            })
            .collect();
        let unmoved: Vec<&str> = unmoved.iter().map(|column| column.name.as_str()).collect();
        let head = json!({
            "schema": SCHEMA,
            "tool": self.tool,
            "run": run,
            "clock": "CLOCK_MONOTONIC",
            "zero": match zero.window_ns {
                Some(_) => "the first instruction of the program",
                None => "the first row: nobody saw when the program began",
            },
            "zero_ns": zero.at_ns,
            "window_ns": zero.window_ns.map(|end| [0, end]),
            "interval_ns": u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX),
            "kept_every": self.step,
            "samples": self.samples(),
            "dropped": self.dropped,
            "lost": self.lost,
            "columns": columns,
            "unmoved": unmoved,
        });
        let mut text = head.to_string();
        text.push('\n');
        for (row, at_ns) in self.times.iter().enumerate() {
            // writing to a string does not fail
            let _ok = write!(text, "[{}", at_ns.saturating_sub(zero.at_ns));
            for column in &moved {
                let _ok = match column.cells.get(row) {
                    Some(&value) if value != NONE => write!(text, ",{value}"),
                    _ => write!(text, ",null"),
                };
            }
            text.push_str("]\n");
        }
        text
    }
}

#[cfg(test)]
mod tests;
