//! Counted events in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::perf::{Count, Counter, EventCode, Perf, Scope, Subject};

#[derive(Debug, Default)]
struct State {
    /// What a counter of that event reads.
    counts: BTreeMap<EventCode, Count>,
    /// Events whose kernel's part may not be seen.
    guarded: bool,
    /// Events for which there is no counter free.
    starved: Vec<EventCode>,
    /// Open counters of nobody.
    held: usize,
    opened: Vec<String>,
}

/// A machine that counts the events that were set, and nothing else. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct FakePerf {
    state: Arc<Mutex<State>>,
}

impl FakePerf {
    /// It counts nothing: as a virtual machine without any of it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// It counts this event, and that is what counters of it read.
    pub fn set(&self, event: EventCode, count: Count) {
        self.lock().counts.insert(event, count);
    }

    /// Only what happens in user space may be seen (`EACCES` else).
    pub fn guard(&self) {
        self.lock().guarded = true;
    }

    /// Counters of this event can be opened, and find no counter of the CPU free.
    pub fn starve(&self, event: EventCode) {
        self.lock().starved.push(event);
    }

    /// Counters of nobody that are open.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Whose counters were opened, in order, but for those of nobody.
    #[must_use]
    pub fn opened(&self) -> Vec<String> {
        self.lock().opened.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // each change is one call: a panic leaves nothing half done
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Perf for FakePerf {
    fn open(
        &self,
        event: EventCode,
        scope: Scope,
        subject: Subject<'_>,
    ) -> io::Result<Box<dyn Counter>> {
        let mut state = self.lock();
        if !state.counts.contains_key(&event) {
            return Err(Errno::ENOENT.into());
        }
        if state.guarded && scope == Scope::All {
            return Err(Errno::EACCES.into());
        }
        match subject {
            Subject::Nobody => state.held += 1,
            Subject::Program(pid) if i32::try_from(pid).is_err() => {
                return Err(Errno::ESRCH.into());
            }
            Subject::Program(pid) => state.opened.push(format!("program {pid}")),
            Subject::Cgroup { path, cpu } => state.opened.push(format!("{path} on {cpu}")),
        }
        Ok(Box::new(FakeCounter {
            perf: self.clone(),
            event,
            of_nobody: subject == Subject::Nobody,
        }))
    }
}

struct FakeCounter {
    perf: FakePerf,
    event: EventCode,
    of_nobody: bool,
}

impl Counter for FakeCounter {
    fn read(&self) -> io::Result<Count> {
        let state = self.perf.lock();
        if self.of_nobody {
            return Ok(Count::default());
        }
        if state.starved.contains(&self.event) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let count = state.counts.get(&self.event).copied();
        count.ok_or_else(|| Errno::ENODEV.into())
    }
}

impl Drop for FakeCounter {
    fn drop(&mut self) {
        if self.of_nobody {
            self.perf.lock().held -= 1;
        }
    }
}
