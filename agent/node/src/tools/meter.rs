//! `perf`: events of a run's program, counted from its first instruction to its end.
//!
//! Counters are attached to the gate while it sleeps, begin with its execve(2), and are read when the run
//! is over: nothing of that interrupts a CPU in a window. But the first counter of its kind, and the end
//! of the last one, rewrite code of the kernel (static keys), which interrupts every CPU. So one counter of
//! nobody is kept for each event from before a series until nothing is measured any more.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collect::{Event, Events, Family};
use cpulist::CpuSet;
use host::Tree;
use host::cgroup::ROOT;
use host::perf::{Count, Counter, EventCode, Perf, Scope, Subject};
use nix::errno::Errno;
use serde_json::{Value, json};

use super::{Outcome, Unable};

const SCHEMA: &str = "stillmetal-counts/1";
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Counters of nobody, by what they count.
pub(super) struct Held {
    perf: Arc<dyn Perf>,
    counters: Mutex<BTreeMap<Event, Kept>>,
    /// Each meter has one besides: none of its counters is to be the last one that closes.
    meters: Arc<()>,
}

/// What is known of an event, and what keeps it ready.
struct Kept {
    scope: Scope,
    #[expect(dead_code, reason = "kept for its Drop")]
    counter: Box<dyn Counter>,
}

impl Held {
    pub(super) fn new(perf: Arc<dyn Perf>) -> Self {
        Self {
            perf,
            counters: Mutex::default(),
            meters: Arc::default(),
        }
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<Event, Kept>> {
        // each change is one call: a panic leaves nothing half done
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that counts these; `alone`: nothing is measured on this node now.
    ///
    /// # Errors
    /// Why nothing, or not all that was named, can be counted.
    pub(super) fn meter(
        &self,
        events: &Events,
        tree: &dyn Tree,
        alone: impl Fn() -> bool,
    ) -> Result<Meter, Unable> {
        let (list, all): (Vec<Event>, bool) = match events {
            Events::Usual => (Event::usual().collect(), false),
            Events::Named(named) => (named.clone(), true),
        };
        let (mut counted, mut missing) = (Vec::new(), Vec::new());
        for event in list {
            match self.keep(event, tree, &alone) {
                Ok(scope) => counted.push((event, scope)),
                Err(why) => missing.push((event, why)),
            }
        }
        let first = missing.first();
        match first {
            Some((event, unable)) if all || counted.is_empty() => Err(Unable {
                why: format!("event {}: {}", event.name(), unable.why),
                for_now: unable.for_now,
            }),
            _ => Ok(Meter {
                perf: Arc::clone(&self.perf),
                counted,
                missing: missing
                    .into_iter()
                    .map(|(event, unable)| (event, unable.why))
                    .collect(),
                open: Mutex::default(),
                _of: Arc::clone(&self.meters),
            }),
        }
    }

    /// Makes an event ready: how much of it may be seen.
    fn keep(
        &self,
        event: Event,
        tree: &dyn Tree,
        alone: &impl Fn() -> bool,
    ) -> Result<Scope, Unable> {
        let mut counters = self.counters();
        if let Some(kept) = counters.get(&event) {
            return Ok(kept.scope);
        }
        if !alone() {
            return Err(Unable::now(
                "another certified run is under way, and to begin counting interrupts all CPUs",
            ));
        }
        let open = |scope| self.perf.open(code(event), scope, Subject::Nobody);
        let (scope, opened) = match open(Scope::All) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && of_user(event) => {
                (Scope::User, open(Scope::User))
            }
            opened => (Scope::All, opened),
        };
        let counter = opened.map_err(|error| Unable::ever(refusal(event, tree, &error)))?;
        counters.insert(event, Kept { scope, counter });
        Ok(scope)
    }

    /// Lets all of them go, unless something is measured or counted; whether there were any.
    pub(super) fn release(&self, alone: impl Fn() -> bool) -> bool {
        let mut counters = self.counters();
        let counted = Arc::strong_count(&self.meters) > 1;
        if counters.is_empty() || counted || !alone() {
            return false;
        }
        counters.clear();
        true
    }
}

/// Whether an event has a part in user space: a switch of threads is the kernel's alone, and would
/// count as none.
fn of_user(event: Event) -> bool {
    !matches!(event.name(), "context-switches" | "cpu-migrations")
}

fn code(event: Event) -> EventCode {
    EventCode {
        kind: event.family().number(),
        config: event.config(),
    }
}

fn refusal(event: Event, tree: &dyn Tree, error: &io::Error) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match (errno, event.family()) {
        (Some(Errno::EACCES | Errno::EPERM), _) => {
            let level = tree.read(PARANOID).unwrap_or_else(|_| "?".into());
            format!(
                "not without privileges: kernel.perf_event_paranoid is {}, and the agent has no CAP_PERFMON",
                level.trim()
            )
        }
        (
            Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::ENODEV | Errno::ENXIO | Errno::EINVAL),
            Family::Hardware | Family::Cache,
        ) => "this CPU's performance monitoring unit does not count it (a virtual machine seldom has one)"
            .into(),
        (Some(Errno::ENOSYS), _) => "this kernel has no perf events".into(),
        _ => format!("the kernel refuses it: {error}"),
    }
}

/// A counter, or why there is none.
type Opened = io::Result<Box<dyn Counter>>;

/// Counts the events of one run.
pub(crate) struct Meter {
    perf: Arc<dyn Perf>,
    counted: Vec<(Event, Scope)>,
    missing: Vec<(Event, String)>,
    open: Mutex<Attached>,
    /// Dropped last, when its counters are closed.
    _of: Arc<()>,
}

/// What is open.
#[derive(Default)]
struct Attached {
    of: &'static str,
    counters: Vec<(Event, Scope, Vec<Opened>)>,
}

const PROGRAM: &str = "the program and all that it made, from its first instruction to its end";
const CGROUP: &str = "whatever ran in the job's cgroup, from before its start to its end";

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}

impl Meter {
    /// Counts a program that this process is going to become. Before any window: it interrupts the CPU
    /// where that sleeps.
    pub(crate) fn attach(&self, pid: u32) {
        self.open_all(PROGRAM, |event, scope| {
            vec![self.perf.open(event, scope, Subject::Program(pid))]
        });
    }

    /// Counts whatever runs in a cgroup on these CPUs, from now on.
    pub(crate) fn attach_cgroup(&self, cgroup: &str, cpus: &CpuSet) {
        let path = format!("{ROOT}/{}", cgroup.trim_start_matches('/'));
        self.open_all(CGROUP, |event, scope| {
            let one = |cpu| {
                let subject = Subject::Cgroup { path: &path, cpu };
                self.perf.open(event, scope, subject)
            };
            cpus.iter().map(one).collect()
        });
    }

    fn open_all(&self, of: &'static str, open: impl Fn(EventCode, Scope) -> Vec<Opened>) {
        let all = self.counted.iter();
        let all = all.map(|(event, scope)| (*event, *scope, open(code(*event), *scope)));
        let counters = all.collect();
        *self.opened() = Attached { of, counters };
    }

    fn opened(&self) -> MutexGuard<'_, Attached> {
        // each change is one call: a panic leaves nothing half done
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they came to, when the run is over.
    pub(super) fn outcome(&self, run: u32) -> Outcome {
        let Attached { of, counters: open } = std::mem::take(&mut *self.opened());
        if open.is_empty() {
            return Outcome::Missing("the run ended before its program began".into());
        }
        let (mut counts, mut lost, mut samples) = (Vec::new(), Vec::new(), 0);
        let mut miss = |event: Event, why: String, counts: &mut Vec<Value>| {
            lost.push(format!("{}: {why}", event.name()));
            counts.push(json!({ "event": event.name(), "missing": why }));
        };
        for (event, scope, counters) in &open {
            let sum = total(counters);
            match sum {
                Ok(count) => {
                    samples += 1;
                    counts.push(counted(*event, *scope, count));
                }
                Err(why) => miss(*event, why, &mut counts),
            }
        }
        for (event, why) in &self.missing {
            miss(*event, why.clone(), &mut counts);
        }
        for (event, scope, counters) in &open {
            if let Ok(count) = total(counters) {
                if count.running_ns < count.enabled_ns {
                    lost.push(format!(
                        "{}: counted {} of {} ns only: the CPU's counter was taken away meanwhile",
                        event.name(),
                        count.running_ns,
                        count.enabled_ns
                    ));
                }
                if *scope == Scope::User {
                    lost.push(format!("{}: in user space only", event.name()));
                }
            }
        }
        let text = json!({
            "schema": SCHEMA,
            "tool": "perf",
            "run": run,
            "of": of,
            "counts": counts,
        });
        let mut text = serde_json::to_string_pretty(&text).unwrap_or_default();
        text.push('\n');
        Outcome::Collected {
            text,
            samples,
            dropped: 0,
            lost,
        }
    }
}

/// Over all CPUs of it.
fn total(counters: &[Opened]) -> Result<Count, String> {
    let mut sum = Count::default();
    for counter in counters {
        let read = match counter {
            Ok(counter) => counter.read(),
            Err(error) => return Err(format!("it could not be opened: {error}")),
        };
        let count = read.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => {
                "the CPU has no counter free for it: ask for fewer events at once".to_owned()
            }
            _ => format!("it could not be read: {error}"),
        })?;
        sum.value = sum.value.saturating_add(count.value);
        sum.enabled_ns = sum.enabled_ns.saturating_add(count.enabled_ns);
        sum.running_ns = sum.running_ns.saturating_add(count.running_ns);
    }
    Ok(sum)
}

fn counted(event: Event, scope: Scope, count: Count) -> Value {
    json!({
        "event": event.name(),
        "count": count.value,
        "unit": event.unit(),
        "scope": match scope {
            Scope::All => "user and kernel",
            Scope::User => "user",
        },
        "enabled_ns": count.enabled_ns,
        "running_ns": count.running_ns,
        "multiplexed": count.running_ns < count.enabled_ns,
    })
}
