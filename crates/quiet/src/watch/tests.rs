use crate::{CpuCounts, Resident, TaskCounts};

use super::*;

fn snapshot(taken_ns: u64, cpu: u64, tasks: &[(u32, u64, u64)]) -> Snapshot {
    let counts = CpuCounts {
        interrupts: BTreeMap::from([("LOC".to_owned(), cpu)]),
        timeslices: Some(cpu),
        ..CpuCounts::default()
    };
    Snapshot {
        taken_ns,
        cpus: BTreeMap::from([(1, counts)]),
        tasks: tasks
            .iter()
            .map(|(tid, start_ticks, timeslices)| {
                let task = TaskCounts {
                    start_ticks: *start_ticks,
                    timeslices: *timeslices,
                    ..TaskCounts::default()
                };
                (*tid, task)
            })
            .collect(),
        ..Snapshot::default()
    }
}

fn window(snapshots: impl IntoIterator<Item = Snapshot>) -> Window {
    let mut snapshots = snapshots.into_iter();
    let mut watch = Watch::new(snapshots.next().unwrap());
    snapshots.for_each(|snapshot| watch.push(snapshot));
    watch.finish()
}

#[test]
fn what_the_job_did_not_get_is_foreign() {
    let found = window([
        snapshot(10, 100, &[(7, 1, 5)]),
        snapshot(20, 103, &[(7, 1, 8)]),
        snapshot(45, 109, &[(7, 1, 10), (8, 2, 1)]),
    ]);
    assert_eq!(found.foreign_timeslices, Value::Measured(6 - 2 - 1));
    assert_eq!(found.cpus[&1].timeslices, Value::Measured(9));
    assert_eq!(
        (found.steps, found.longest_step_ns, found.threads),
        (2, 25, 2)
    );
    assert_eq!(found.unattributable_steps, 0);
}

#[test]
fn files_read_one_after_another_do_not_make_foreigners() {
    let found = window([
        snapshot(10, 100, &[(7, 1, 5)]),
        snapshot(20, 103, &[(7, 1, 9)]),
        snapshot(30, 105, &[(7, 1, 10)]),
    ]);
    assert_eq!(found.foreign_timeslices, Value::Measured(0));
    let found = window([
        snapshot(10, 100, &[(7, 1, 5)]),
        snapshot(20, 101, &[(7, 1, 9)]),
    ]);
    assert_eq!(found.foreign_timeslices.measured(), None);
}

#[test]
fn a_thread_that_ended_leaves_its_step_unattributed() {
    for later in [&[][..], &[(7, 2, 1)]] {
        let found = window([
            snapshot(10, 100, &[(7, 1, 5)]),
            snapshot(20, 104, later),
            snapshot(30, 104, later),
        ]);
        assert_eq!(found.unattributable_steps, 1);
        assert_eq!(found.unattributed_timeslices, Value::Measured(4));
        assert_eq!(found.foreign_timeslices, Value::Measured(0));
    }
}

#[test]
fn a_thread_that_nobody_saw_may_have_been_the_jobs() {
    let forks = |snapshot: Snapshot, forks: u64| {
        let mut snapshot = snapshot;
        snapshot.system.forks = Some(forks);
        snapshot
    };
    let run = |made: u64| {
        window([
            forks(snapshot(10, 100, &[(7, 1, 5)]), 50),
            forks(snapshot(20, 106, &[(7, 1, 5), (8, 2, 1)]), 50 + made),
        ])
    };
    assert_eq!(run(1).foreign_timeslices, Value::Measured(5));
    assert_eq!(run(2).foreign_timeslices, Value::Measured(0));
    assert_eq!(run(2).unattributable_steps, 1);
}

#[test]
fn counters_that_go_backwards_are_not_believed() {
    let found = window([
        snapshot(10, 100, &[]),
        snapshot(20, 90, &[]),
        snapshot(30, 95, &[]),
    ]);
    let why = Value::unobservable("it went backwards, from 100 to 90");
    assert_eq!(found.cpus[&1].interrupts["LOC"], why);
    assert!(matches!(
        found.foreign_timeslices,
        Value::Unobservable { .. }
    ));
}

#[test]
fn a_cpu_that_went_away_is_not_known_even_when_it_comes_back() {
    let mut gone = snapshot(20, 0, &[]);
    gone.cpus.clear();
    let found = window([snapshot(10, 5, &[]), gone, snapshot(30, 6, &[])]);
    let cpu = &found.cpus[&1];
    assert_eq!(cpu.interrupts["LOC"].measured(), None);
    assert_eq!(cpu.timeslices.measured(), None);
    assert_eq!(found.foreign_timeslices.measured(), None);
}

#[test]
fn one_snapshot_measures_nothing() {
    let found = window([snapshot(10, 5, &[(7, 1, 5)])]);
    assert_eq!(found.cpus[&1].interrupts["LOC"].measured(), None);
    assert_eq!(found.foreign_timeslices.measured(), None);
    assert_eq!(found.flaws, ["there is only one snapshot"]);
}

#[test]
fn a_clock_that_stands_still_is_a_flaw() {
    let found = window([
        snapshot(10, 5, &[]),
        snapshot(10, 5, &[]),
        snapshot(9, 5, &[]),
    ]);
    assert_eq!(found.flaws.len(), 1);
}

#[test]
fn residents_are_named_when_they_ran() {
    let with = |snapshot: Snapshot, name: &str, timeslices| {
        let resident = Resident {
            name: name.to_owned(),
            start_ticks: 1,
            timeslices,
        };
        let idle = Resident {
            name: "cpuhp/1".to_owned(),
            ..Resident::default()
        };
        Snapshot {
            residents: BTreeMap::from([(30, resident), (31, idle)]),
            ..snapshot
        }
    };
    let found = window([
        with(snapshot(10, 5, &[]), "kworker/1:1", 50),
        with(snapshot(20, 8, &[]), "kworker/1:1-events", 53),
    ]);
    assert_eq!(found.residents.len(), 1);
    assert_eq!(found.residents[0].name, "kworker/1:1-events");
    assert_eq!(found.residents[0].timeslices, 3);
    assert_eq!(found.foreign_timeslices, Value::Measured(3));
}
