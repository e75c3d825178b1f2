//! How a container's runs are measured: label `stillmetal.certify=true` asks for a noise
//! certificate, the others beside it say how.

use quiet::{JobClass, TickMode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Role;
use crate::denial::{Denial, shown};
use crate::schema::Read;

const CERTIFY: &str = "stillmetal.certify";
const CLASS: &str = "stillmetal.class";
const CANARY: &str = "stillmetal.canary";
const TIMEOUT: &str = "stillmetal.timeout";
const TICK: &str = "stillmetal.tick";
const ASLR: &str = "stillmetal.aslr";
const NICE: &str = "stillmetal.nice";
const FIFO: &str = "stillmetal.fifo";
const TRACE: &str = "stillmetal.trace";
/// All labels of this module.
pub(crate) const LABELS: [&str; 9] = [
    CERTIFY, CLASS, CANARY, TIMEOUT, TICK, ASLR, NICE, FIFO, TRACE,
];

/// Seconds that each canary runs when the request does not say (quiet.md §8).
const CANARY_SECONDS: u32 = 5;
const LONGEST_CANARY_SECONDS: u32 = 600;
/// A week.
const LONGEST_TIMEOUT_SECONDS: u32 = 604_800;

/// How a container's runs are measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certify {
    pub class: JobClass,
    /// Length of the canary before and after the run; 0: none, and nothing is proven.
    pub canary_seconds: u32,
    /// Counted from the instant at which the program is let go; then everything in its cgroup is
    /// killed. `None`: it may run for ever.
    pub timeout_seconds: Option<u32>,
    /// The run is refused on CPUs of the other mode; `None`: whichever they have.
    pub tick: Option<TickMode>,
    /// Whether addresses are the same in each run (`ADDR_NO_RANDOMIZE`).
    pub fixed_addresses: bool,
    pub scheduling: Scheduling,
    pub trace: Trace,
}

/// Whether each interruption of the run is recorded, not only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trace {
    Off,
    On,
}

impl Certify {
    /// What is measured when only the class is said.
    #[must_use]
    pub fn of(class: JobClass) -> Self {
        Self {
            class,
            canary_seconds: CANARY_SECONDS,
            timeout_seconds: None,
            tick: None,
            fixed_addresses: false,
            scheduling: Scheduling::default(),
            trace: Trace::Off,
        }
    }

    /// The labels that ask for just this.
    #[must_use]
    pub fn labels(&self) -> Vec<(&'static str, String)> {
        let mut labels = vec![
            (CERTIFY, "true".to_owned()),
            (CLASS, self.class.to_string()),
            (CANARY, self.canary_seconds.to_string()),
        ];
        if let Some(seconds) = self.timeout_seconds {
            labels.push((TIMEOUT, seconds.to_string()));
        }
        if let Some(tick) = self.tick {
            labels.push((TICK, tick.to_string()));
        }
        if self.fixed_addresses {
            labels.push((ASLR, "off".to_owned()));
        }
        match self.scheduling {
            Scheduling::Normal { nice: 0 } => {}
            Scheduling::Normal { nice } => labels.push((NICE, nice.to_string())),
            Scheduling::Fifo { priority } => labels.push((FIFO, priority.to_string())),
        }
        if self.trace == Trace::On {
            labels.push((TRACE, "true".to_owned()));
        }
        labels
    }
}

/// How the kernel's scheduler is to treat the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// `SCHED_OTHER`; nice is -20 to 19.
    Normal { nice: i8 },
    /// `SCHED_FIFO`; the priority is 1 to 99.
    Fifo { priority: u8 },
}

impl Default for Scheduling {
    fn default() -> Self {
        Self::Normal { nice: 0 }
    }
}

/// Reads the labels; `None`: runs are not to be measured.
pub(crate) fn read(role: Role, labels: &Map<String, Value>) -> Result<Option<Certify>, Denial> {
    if !switch(labels, CERTIFY)? {
        return match LABELS[1..].iter().find(|key| labels.contains_key(**key)) {
            None => Ok(None),
            Some(key) => Err(Denial::malformed(format!(
                "label {key} says how to certify, and {CERTIFY}=true is missing: add it or leave {key} out"
            ))),
        };
    }
    let class = match labels.text(CLASS) {
        "" => JobClass::default(),
        text => text
            .parse()
            .map_err(|error| Denial::malformed(format!("label {CLASS}={text}: {error}")))?,
    };
    let canary_seconds = number(labels, CANARY, 0..=LONGEST_CANARY_SECONDS)?;
    let tick = match labels.text(TICK) {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error| Denial::malformed(format!("label {TICK}={text}: {error}")))?,
        ),
    };
    let fixed_addresses = match labels.text(ASLR) {
        "" | "on" => false,
        "off" => true,
        other => return Err(wrong(ASLR, other, "neither on nor off")),
    };
    Ok(Some(Certify {
        canary_seconds: canary_seconds.unwrap_or(CANARY_SECONDS),
        timeout_seconds: number(labels, TIMEOUT, 1..=LONGEST_TIMEOUT_SECONDS)?,
        tick,
        fixed_addresses,
        scheduling: scheduling(role, labels)?,
        trace: if switch(labels, TRACE)? {
            Trace::On
        } else {
            Trace::Off
        },
        ..Certify::of(class)
    }))
}

/// Off unless it is there.
fn switch(labels: &Map<String, Value>, key: &str) -> Result<bool, Denial> {
    match labels.text(key) {
        "true" => Ok(true),
        "" | "false" => Ok(false),
        other => Err(wrong(key, other, "neither true nor false")),
    }
}

fn scheduling(role: Role, labels: &Map<String, Value>) -> Result<Scheduling, Denial> {
    let nice = number(labels, NICE, -20..=19)?;
    let fifo = number(labels, FIFO, 1..=99)?;
    match (nice, fifo) {
        (None, None) => Ok(Scheduling::default()),
        (Some(nice), None) => Ok(Scheduling::Normal { nice }),
        (Some(_), Some(_)) => Err(Denial::malformed(format!(
            "labels {NICE} and {FIFO} exclude each other: SCHED_FIFO knows no nice value; leave one out"
        ))),
        // the kernel's own threads on that CPU would wait for ever, and others for them
        (None, Some(_)) if role == Role::User => Err(Denial::role(
            format!("label {FIFO}"),
            "a real-time job that never sleeps starves the kernel's own threads",
        )),
        (None, Some(priority)) => Ok(Scheduling::Fifo { priority }),
    }
}

fn number<T>(
    labels: &Map<String, Value>,
    key: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Denial>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match labels.text(key) {
        "" => Ok(None),
        text => text
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                wrong(
                    key,
                    text,
                    &format!("no whole number from {least} to {most}"),
                )
            }),
    }
}

fn wrong(key: &str, text: &str, why: &str) -> Denial {
    Denial::malformed(format!("label {key}={} is {why}", shown(text)))
}
