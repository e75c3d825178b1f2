//! What struck a job's CPUs one by one: the kernel's osnoise tracer, without its workload, writes a
//! line at the end of each interrupt, softirq, NMI and thread's turn (`kernel/trace/trace_osnoise.c`).
//!
//! Counters judge a run; this explains it. So what the tracer could not tell changes no verdict,
//! and is never taken for an interruption that was not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Value;

/// Interruptions that a certificate keeps, the earliest; the others are counted. So many make 1.5 MB
/// of JSON with their seal, and for a moment 8 MB of the agent's memory.
pub const MAX_INTERRUPTIONS: usize = 5_000;

/// What kind of thing took the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterruptionKind {
    Nmi,
    Irq,
    Softirq,
    /// A turn of a thread that is neither the job's nor a canary.
    Thread,
}

impl InterruptionKind {
    pub const ALL: [Self; 4] = [Self::Nmi, Self::Irq, Self::Softirq, Self::Thread];
}

impl fmt::Display for InterruptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nmi => "nmi",
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Thread => "thread",
        })
    }
}

/// One thing that took a job's CPU for a while.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interruption {
    /// Its end, which is stamped to the µs, less its duration: a turn that was itself interrupted
    /// began as much earlier.
    pub at_ns: u64,
    pub cpu: u32,
    /// Without what interrupted it in turn.
    pub duration_ns: u64,
    pub kind: InterruptionKind,
    /// `local_timer:236`, `TIMER:1`, `sh:4711`: the kernel's name and vector, number or tid.
    pub name: String,
}

impl Interruption {
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.at_ns.saturating_add(self.duration_ns)
    }
}

/// What the tracer said of a run for which it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Interruptions {
    Recorded {
        dropped: Vec<Dropped>,
        /// In the order of their beginning.
        events: Vec<Interruption>,
    },
    Unobservable {
        why: String,
    },
}

/// Of one CPU: what was seen and not kept, all of it later than what was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub cpu: u32,
    pub count: Value,
}

/// What the tracer left of one CPU: `per_cpu/cpuN/trace` and `per_cpu/cpuN/stats`.
#[derive(Clone, Copy, Debug)]
pub struct Tape<'a> {
    pub cpu: u32,
    pub trace: &'a str,
    pub stats: &'a str,
}

impl Interruptions {
    /// Takes what lies, at least in part, between the instants of `span` and is not a turn of the
    /// idle thread, of a thread in `own` or of one that descends from those.
    #[must_use]
    pub fn recorded(tapes: &[Tape<'_>], own: &BTreeSet<u32>, span: (u64, u64)) -> Self {
        let mut dropped = BTreeMap::new();
        let mut forks = Vec::new();
        let mut events = Vec::new();
        for tape in tapes {
            let mut lost = lost_events(tape.stats);
            for line in tape.trace.lines() {
                match parse_line(line) {
                    Line::Noise(noise) if noise.event.cpu == tape.cpu => {
                        let (from, to) = (noise.event.at_ns, noise.event.end_ns());
                        if from <= span.1 && to >= span.0 {
                            events.push(noise);
                        }
                    }
                    Line::Fork(fork) => forks.push(fork),
                    Line::Noise(_) | Line::Broken => lost.advance(Some(0), Some(1)),
                    Line::Other => {}
                }
            }
            dropped.insert(tape.cpu, lost);
        }
        let family = family(own, forks);
        let mut events: Vec<_> = events
            .into_iter()
            .filter(|noise| noise.tid.is_none_or(|tid| !family.contains(&tid)))
            .map(|noise| noise.event)
            .collect();
        events.sort();
        for event in events.iter().skip(MAX_INTERRUPTIONS) {
            let lost = dropped.entry(event.cpu).or_insert(Value::Measured(0));
            lost.advance(Some(0), Some(1));
        }
        events.truncate(MAX_INTERRUPTIONS);
        let dropped = dropped.into_iter();
        Self::Recorded {
            dropped: dropped.map(|(cpu, count)| Dropped { cpu, count }).collect(),
            events,
        }
    }
}

/// What did not fit into the buffer.
fn lost_events(stats: &str) -> Value {
    let of = |name: &str| {
        let mut fields = stats.lines().filter_map(|line| line.split_once(": "));
        let (_, count) = fields.find(|(field, _)| *field == name)?;
        count.trim_ascii().parse::<u64>().ok()
    };
    match (of("overrun"), of("commit overrun"), of("dropped events")) {
        (Some(overrun), Some(commit), Some(dropped)) => {
            Value::Measured(overrun.saturating_add(commit).saturating_add(dropped))
        }
        _ => Value::unobservable("the tracer does not say what it lost"),
    }
}

/// `own`, the idle thread, and all that descends from them.
fn family(own: &BTreeSet<u32>, mut forks: Vec<Fork>) -> BTreeSet<u32> {
    let mut family = own.clone();
    family.insert(0);
    forks.sort_by_key(|fork| fork.at_ns);
    for fork in forks {
        if fork.parent != 0 && family.contains(&fork.parent) {
            family.insert(fork.child);
        }
    }
    family
}

#[derive(Debug)]
enum Line {
    Noise(Noise),
    Fork(Fork),
    /// One of the two, but not of the form that is known.
    Broken,
    Other,
}

#[derive(Debug)]
struct Noise {
    event: Interruption,
    /// Of a thread's turn.
    tid: Option<u32>,
}

#[derive(Debug)]
struct Fork {
    at_ns: u64,
    parent: u32,
    child: u32,
}

/// The beginning of a line, after the name of the thread that ran.
struct Head<'a> {
    cpu: u32,
    at_ns: u64,
    event: &'a str,
    rest: &'a str,
}

/// `NAME-TID [CPU] FLAGS SECONDS.MICROSECONDS: EVENT: ...`. Names are free text of up to 15 bytes,
/// too few to hold all of what follows them.
fn parse_line(line: &str) -> Line {
    let mut heads = line
        .match_indices('[')
        .filter_map(|(at, _)| parse_head(line.get(at + 1..)?));
    let Some(head) = heads.next() else {
        return Line::Other;
    };
    let kind = match head.event {
        "nmi_noise" => InterruptionKind::Nmi,
        "irq_noise" => InterruptionKind::Irq,
        "softirq_noise" => InterruptionKind::Softirq,
        "thread_noise" => InterruptionKind::Thread,
        "sched_process_fork" => return parse_fork(&head).map_or(Line::Broken, Line::Fork),
        _ => return Line::Other,
    };
    parse_noise(&head, kind).map_or(Line::Broken, Line::Noise)
}

fn parse_head(text: &str) -> Option<Head<'_>> {
    let (cpu, rest) = text.split_once(']')?;
    let (_flags, rest) = rest.trim_ascii_start().split_once(' ')?;
    let (at, rest) = rest.trim_ascii_start().split_once(": ")?;
    let (seconds, micros) = at.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    let at_ns = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    let (event, rest) = rest.split_once(": ")?;
    Some(Head {
        cpu: cpu.parse().ok()?,
        at_ns: at_ns.checked_add(micros.parse::<u64>().ok()? * 1000)?,
        event,
        rest,
    })
}

/// `NAME:NUMBER start SECONDS.NANOSECONDS duration NS ns`, and for an NMI no name. The start is
/// told in another clock than the line's.
fn parse_noise(head: &Head<'_>, kind: InterruptionKind) -> Option<Noise> {
    let (rest, duration) = head.rest.trim_ascii_end().rsplit_once(" duration ")?;
    let duration_ns = duration.strip_suffix(" ns")?.parse().ok()?;
    let (name, _start) = rest.rsplit_once("start ")?;
    let name = name.trim_ascii();
    let number = || name.rsplit_once(':')?.1.parse::<u32>().ok();
    let (name, tid) = match kind {
        InterruptionKind::Nmi => ("nmi", None),
        InterruptionKind::Thread => (name, Some(number()?)),
        InterruptionKind::Irq | InterruptionKind::Softirq => number().map(|_| (name, None))?,
    };
    let event = Interruption {
        at_ns: head.at_ns.saturating_sub(duration_ns),
        cpu: head.cpu,
        duration_ns,
        kind,
        name: name.to_owned(),
    };
    Some(Noise { event, tid })
}

/// `comm=NAME pid=TID child_comm=NAME child_pid=TID`
fn parse_fork(head: &Head<'_>) -> Option<Fork> {
    let (rest, child) = head.rest.rsplit_once(" child_pid=")?;
    let (rest, _name) = rest.rsplit_once(" child_comm=")?;
    let (_name, parent) = rest.rsplit_once(" pid=")?;
    Some(Fork {
        at_ns: head.at_ns,
        parent: parent.parse().ok()?,
        child: child.trim_ascii_end().parse().ok()?,
    })
}
