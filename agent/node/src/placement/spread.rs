//! Threads of one claim that share a CPU while another CPU of the claim idles: moved apart.
//!
//! In a partition of several CPUs the kernel is to spread them, and mostly does, when they are made
//! and when they wake. But a CPU joins idle balancing only if it stops its tick on the way to idle
//! (Linux 6.12, kernel/time/tick-sched.c: `tick_nohz_idle_stop_tick` asks for `!was_stopped`). A
//! nohz_full CPU that ran one thread has stopped it long before; once idle it is never given a
//! waiting thread. *Measured*: two spinning threads on one of two CPUs for 20 s and more.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use host::Tree;
use host::threads;

use super::Placer;
use super::ledger::Token;
use crate::certify::tids_below;
use crate::cgroups;

/// What matters of a thread here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    tid: u32,
    /// Where it runs or waits to.
    cpu: u32,
    /// Running or waiting for a CPU.
    runnable: bool,
    /// May run on every CPU of the claim: its owner did not pin it.
    free: bool,
}

/// A thread and the CPU that it is to run on.
type Move = (u32, u32);

/// Pure: who is to go where, if it looks like this now.
fn apart(threads: &[Seen], cpus: &CpuSet) -> Vec<Move> {
    let mut waiting: BTreeMap<u32, Vec<&Seen>> = cpus.iter().map(|cpu| (cpu, vec![])).collect();
    for thread in threads.iter().filter(|thread| thread.runnable) {
        waiting.entry(thread.cpu).or_default().push(thread);
    }
    let idle: Vec<u32> = waiting
        .iter()
        .filter(|(cpu, threads)| threads.is_empty() && cpus.contains(**cpu))
        .map(|(cpu, _)| *cpu)
        .collect();
    let mut moves = Vec::new();
    for cpu in idle {
        let crowded = waiting
            .values_mut()
            .filter(|threads| threads.len() > 1)
            .max_by_key(|threads| threads.len());
        let Some(crowded) = crowded else { break };
        if let Some(at) = crowded.iter().position(|thread| thread.free) {
            moves.push((crowded.remove(at).tid, cpu));
        }
    }
    moves
}

/// Looks now and then, and acts on what it has found twice.
#[derive(Debug, Default)]
pub struct Spreader {
    last: BTreeMap<Token, Vec<Move>>,
}

impl Spreader {
    /// Looks at the claims that hold several CPUs. A move that was due the last time already is
    /// made: once may be the moment between two of a thread's own steps.
    pub fn look(&mut self, placer: &Placer, tree: &dyn Tree) {
        let mut now = BTreeMap::new();
        for (token, claim) in placer.claims() {
            if !claim.holds() || claim.cpus.len() < 2 {
                continue;
            }
            let seen = read(tree, &cgroups::partition_name(&token), &claim.cpus);
            let due = apart(&seen, &claim.cpus);
            for (tid, cpu) in &due {
                let before = self.last.get(&token);
                if before.is_some_and(|before| before.contains(&(*tid, *cpu))) {
                    carry_out(tree, *tid, *cpu, &claim.cpus);
                    placer.note(
                        &token,
                        format!(
                            "thread {tid} moved to CPU {cpu}: it shared one while this one idled"
                        ),
                    );
                }
            }
            now.insert(token, due);
        }
        self.last = now;
    }
}

/// Narrow, then wide again: the kernel moves a thread that may not stay.
fn carry_out(tree: &dyn Tree, tid: u32, cpu: u32, cpus: &CpuSet) {
    let narrowed = tree.set_affinity(tid, &CpuSet::from_iter([cpu]));
    let widened = tree.set_affinity(tid, cpus);
    if let Err(error) = narrowed.and(widened) {
        // it has ended, most likely
        tracing::debug!(tid, cpu, %error, "a thread could not be moved");
    }
}

fn read(tree: &dyn Tree, partition: &str, cpus: &CpuSet) -> Vec<Seen> {
    let tids = tids_below(tree, partition).into_iter();
    tids.filter_map(|tid| {
        let stat = tree.read(&format!("/proc/{tid}/stat")).ok()?;
        // proc_pid_stat(5): state and processor
        Some(Seen {
            tid,
            cpu: threads::stat_field(&stat, 39)?,
            runnable: threads::stat_field(&stat, 3) == Some('R'),
            free: threads::allowed_cpus(tree, tid)? == *cpus,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(list: &[(u32, u32, bool, bool)]) -> Vec<Seen> {
        list.iter()
            .map(|(tid, cpu, runnable, free)| Seen {
                tid: *tid,
                cpu: *cpu,
                runnable: *runnable,
                free: *free,
            })
            .collect()
    }

    #[test]
    fn one_of_two_that_share_a_cpu_goes_to_the_idle_one() {
        let cpus: CpuSet = "1-3".parse().unwrap();
        let moves = |list: &[_]| apart(&threads(list), &cpus);
        // a sleeper keeps no CPU busy
        assert_eq!(
            moves(&[
                (10, 2, true, true),
                (11, 2, true, true),
                (12, 1, false, true),
                (13, 3, true, true)
            ]),
            [(10, 1)]
        );
        assert_eq!(
            moves(&[
                (10, 2, true, true),
                (11, 2, true, true),
                (12, 2, true, true)
            ]),
            [(10, 1), (11, 3)]
        );
        for apart_already in [
            &[(10, 1, true, true), (11, 2, true, true)][..],
            &[(10, 1, true, true), (11, 1, false, true)],
            // pinned by its owner
            &[(10, 1, true, false), (11, 1, true, false)],
            &[],
        ] {
            assert_eq!(moves(apart_already), [], "{apart_already:?}");
        }
        assert_eq!(
            moves(&[(10, 1, true, false), (11, 1, true, true)]),
            [(11, 2)]
        );
    }

    #[test]
    fn more_threads_than_cpus_stay_where_they_are() {
        let cpus: CpuSet = "1-2".parse().unwrap();
        let crowd: Vec<_> = (0..6).map(|n| (n, 1 + n % 2, true, true)).collect();
        assert_eq!(apart(&threads(&crowd), &cpus), []);
    }
}
