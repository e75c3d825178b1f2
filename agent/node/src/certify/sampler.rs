//! Takes snapshots of what happens on a job's CPUs, from a housekeeping CPU.
//!
//! Reading these files, ten times a second, puts no event on the CPUs observed (quiet.md §4).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use cpulist::CpuSet;
use host::cgroup::{Cgroups, ROOT};
use host::threads::{self, stat_field, stat_name};
use host::{Kept, Tree};
use quiet::{Resident, Snapshot, TaskCounts, parse};

use super::sources::Sources;

/// Of `/proc/<tid>/schedstat`: three numbers.
const MAX_LINE_BYTES: u64 = 256;

/// Reads for one run; `cgroup` is the job's, such as `stillmetal-TOKEN/ID`.
pub(crate) struct Sampler {
    tree: Arc<dyn Tree>,
    sources: Sources,
    cpus: CpuSet,
    cgroup: String,
    /// The job's first process: only it and what it made are the job. Who joined the cgroup from
    /// outside (`docker exec`) is a stranger. `None`: all in the cgroup are.
    first: Option<u32>,
    /// Threads of others that may run on these CPUs.
    residents: Vec<Watched>,
}

/// A resident that is read at each snapshot: through a file kept open, which no later thread of the
/// same tid can answer.
struct Watched {
    tid: u32,
    start_ticks: u64,
    name: String,
    schedstat: Box<dyn Kept>,
}

impl Sampler {
    pub(crate) fn new(
        tree: Arc<dyn Tree>,
        cpus: CpuSet,
        cgroup: String,
        first: Option<u32>,
    ) -> Self {
        let mut sampler = Self {
            sources: Sources::open(&*tree, &cgroup),
            tree,
            cpus,
            cgroup,
            first,
            residents: Vec::new(),
        };
        sampler.look_for_residents();
        sampler
    }

    /// Finds anew the threads of others that are bound to these CPUs. Dear (it looks at every thread
    /// of the system), so once before a window and once at its end: one that came in between counts
    /// from its birth.
    pub(crate) fn look_for_residents(&mut self) {
        let (own, _) = self.members();
        self.residents = all_threads(&*self.tree)
            .into_iter()
            .filter(|tid| !own.contains_key(tid))
            .filter(|tid| {
                threads::allowed_cpus(&*self.tree, *tid)
                    .is_some_and(|allowed| !allowed.is_empty() && allowed.is_subset(&self.cpus))
            })
            .filter_map(|tid| Watched::open(&*self.tree, tid))
            .collect();
    }

    /// Counters, the job's threads and the others' as they are now.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read; a file that this kernel lacks is no error.
    pub(crate) fn take(&self) -> io::Result<Snapshot> {
        let tree = &*self.tree;
        let mut snapshot = self.sources.snapshot(super::raw_ns(), &self.cpus)?;
        let (own, strangers) = self.members();
        snapshot.tasks = own;
        let strangers = strangers
            .into_iter()
            .filter_map(|tid| Watched::open(tree, tid)?.read());
        let residents = self.residents.iter().filter_map(Watched::read);
        snapshot.residents = residents.chain(strangers).collect();
        Ok(snapshot)
    }

    /// Whether nothing struck these CPUs between two snapshots, the wanted spinner aside.
    pub(crate) fn silent(before: &Snapshot, after: &Snapshot) -> bool {
        before.cpus == after.cpus
    }

    /// The job's threads, and the tids of strangers in its cgroup.
    fn members(&self) -> (BTreeMap<u32, TaskCounts>, BTreeSet<u32>) {
        let tree = &*self.tree;
        let pids = Cgroups::new(tree).procs(&self.cgroup).unwrap_or_default();
        let parents: BTreeMap<u32, u32> = pids
            .iter()
            .filter_map(|pid| Some((*pid, parent(tree, *pid)?)))
            .collect();
        let family = self.first.map(|first| family(first, &parents));
        let mut own = BTreeMap::new();
        let mut strangers = BTreeSet::new();
        for pid in pids {
            let threads = tids(tree, pid).into_iter();
            if family.as_ref().is_some_and(|family| !family.contains(&pid)) {
                strangers.extend(threads);
            } else {
                own.extend(threads.filter_map(|tid| Some((tid, task(tree, pid, tid)?))));
            }
        }
        (own, strangers)
    }
}

impl Watched {
    /// `None`: it ended while we looked.
    fn open(tree: &dyn Tree, tid: u32) -> Option<Self> {
        let schedstat = tree.keep_open(&format!("/proc/{tid}/schedstat")).ok()?;
        let stat = tree.read(&format!("/proc/{tid}/stat")).ok()?;
        Some(Self {
            tid,
            start_ticks: start_ticks(&stat)?,
            name: stat_name(&stat)?.to_owned(),
            schedstat,
        })
    }

    /// `None`: it has ended.
    fn read(&self) -> Option<(u32, Resident)> {
        let text = self.schedstat.read_up_to(MAX_LINE_BYTES).ok()?;
        let resident = Resident {
            name: self.name.clone(),
            start_ticks: self.start_ticks,
            timeslices: parse::parse_task_schedstat(&text)?.timeslices,
        };
        Some((self.tid, resident))
    }
}

/// `first` and what descends from it. Orphans are given to the first process of their container,
/// so that the line is not broken when a parent ends.
fn family(first: u32, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([first]);
    loop {
        let before = family.len();
        for (pid, parent) in parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

fn parent(tree: &dyn Tree, pid: u32) -> Option<u32> {
    stat_field(&tree.read(&format!("/proc/{pid}/stat")).ok()?, 4)
}

/// Whether a process has begun to exit, or is gone. What it causes from there on (memory given
/// back, its parent woken) is the kernel's work and not the job's.
pub(crate) fn exiting(tree: &dyn Tree, pid: u32) -> bool {
    // include/linux/sched.h
    const PF_EXITING: u64 = 0x4;
    let stat = tree.read(&format!("/proc/{pid}/stat")).unwrap_or_default();
    stat_field(&stat, 9).is_none_or(|flags: u64| flags & PF_EXITING != 0)
}

/// `None`: it ended while we looked.
fn task(tree: &dyn Tree, pid: u32, tid: u32) -> Option<TaskCounts> {
    let read = |file: &str| tree.read(&format!("/proc/{pid}/task/{tid}/{file}")).ok();
    let sched = parse::parse_task_schedstat(&read("schedstat")?)?;
    let (voluntary_switches, involuntary_switches) = parse::parse_switches(&read("status")?)?;
    Some(TaskCounts {
        start_ticks: start_ticks(&read("stat")?)?,
        run_ns: sched.run_ns,
        timeslices: sched.timeslices,
        voluntary_switches,
        involuntary_switches,
    })
}

/// Clock ticks between boot and the thread's start.
fn start_ticks(stat: &str) -> Option<u64> {
    stat_field(stat, 22)
}

/// Threads in a cgroup and the cgroups directly below it.
pub(crate) fn tids_below(tree: &dyn Tree, cgroup: &str) -> BTreeSet<u32> {
    let children = tree.list(&format!("{ROOT}/{cgroup}")).unwrap_or_default();
    let all = children
        .iter()
        .map(|child| format!("{cgroup}/{child}"))
        .chain([cgroup.to_owned()]);
    all.flat_map(|cgroup| Cgroups::new(tree).procs(&cgroup).unwrap_or_default())
        .flat_map(|pid| tids(tree, pid))
        .collect()
}

/// Every thread of the system.
pub(crate) fn all_threads(tree: &dyn Tree) -> Vec<u32> {
    let pids = tree.list("/proc").unwrap_or_default();
    pids.iter()
        .filter_map(|name| name.parse().ok())
        .flat_map(|pid| tids(tree, pid))
        .collect()
}

fn tids(tree: &dyn Tree, pid: u32) -> Vec<u32> {
    let names = tree.list(&format!("/proc/{pid}/task")).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_and_what_it_made_are_the_job() {
        // 7 → 8 → 9; 20 came from outside and made 21
        let parents = BTreeMap::from([(7, 1), (9, 8), (8, 7), (20, 1), (21, 20)]);
        assert_eq!(family(7, &parents), BTreeSet::from([7, 8, 9]));
        assert_eq!(family(5, &BTreeMap::new()), BTreeSet::from([5]));
    }

    #[test]
    fn the_start_of_a_thread_with_an_awkward_name_is_found() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 4242 1000 2";
        assert_eq!(start_ticks(stat), Some(4242));
        assert_eq!(start_ticks("77 (a)"), None);
        assert_eq!(start_ticks(""), None);
    }
}
