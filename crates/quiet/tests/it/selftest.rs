//! Which disturbances of a self-test count as seen, and what the answer is.

use quiet::selftest::{Answer, Findings, Probe, SelfTest, Sight, Trial, render};
use quiet::{Drift, Evidence, JobClass, QuietClass, Value, Window, WindowName};

use crate::node::{Node, conditions, evidence};

fn ground() -> Evidence {
    let mut ground = evidence(JobClass::Compute, 1, |_, _, _| {});
    ground.windows.clear();
    ground
}

/// A canary's window in which these events came, all of them in one step.
fn window(events: &[(&str, u64)], involuntary: u64) -> Window {
    Node::new(1).watch(WindowName::CanaryPre, |step, node| {
        if step == 1 {
            for (name, count) in events {
                node.add(name, *count);
            }
            for task in node.tasks.values_mut() {
                task.involuntary_switches += involuntary;
            }
        }
    })
}

fn drift(knob: &str) -> Drift {
    Drift {
        at_ns: 5,
        knob: knob.to_owned(),
        was: "as it was".to_owned(),
        found: "otherwise".to_owned(),
    }
}

fn made(events: &[(&str, u64)], involuntary: u64, knobs: &[&str]) -> Trial {
    Trial::Made {
        window: Some(Box::new(window(events, involuntary))),
        drift: knobs.iter().copied().map(drift).collect(),
    }
}

/// What each probe gives where all works.
fn seen(probe: Probe) -> Trial {
    match probe {
        Probe::Intrusions => made(&[("timeslices", 41), ("CAL", 20), ("LOC", 50)], 20, &[]),
        Probe::SecondTask => made(&[("LOC", 64), ("timeslices", 3)], 2, &[]),
        Probe::Quota => made(&[("LOC", 64), ("nr_throttled", 9)], 9, &["cpu.max"]),
        Probe::Shootdowns => made(&[("TLB", 20), ("CAL", 21)], 0, &[]),
        Probe::FairServer => made(
            &[("LOC", 1), ("RES", 2)],
            0,
            &["fair server of CPU 1", "/sys/kernel/debug/sched/…"],
        ),
        Probe::Partition => Trial::Made {
            window: None,
            drift: vec![drift("cpuset.cpus.partition")],
        },
    }
}

fn test(silence: Result<Window, String>, trials: Vec<(Probe, Trial)>) -> Findings {
    Findings {
        ground: ground(),
        started_ns: 1_000_000_000,
        ended_ns: 21_400_000_000,
        silence,
        trials,
        left_behind: Vec::new(),
    }
}

fn all_seen() -> Vec<(Probe, Trial)> {
    Probe::ALL.map(|probe| (probe, seen(probe))).into()
}

fn codes(test: &SelfTest) -> Vec<&str> {
    test.reasons.iter().map(|reason| &*reason.code).collect()
}

#[test]
fn a_silent_node_that_sees_every_probe_can_prove_quiet() {
    let test = SelfTest::judge(test(Ok(window(&[("LOC", 1)], 0)), all_seen()));
    assert_eq!(test.can_prove_quiet, Answer::Yes, "{:#?}", test.reasons);
    assert_eq!(test.quiet_class, Some(QuietClass::OsQuiet));
    for report in &test.probes {
        assert_eq!(report.sight, Sight::Seen, "{report:?}");
        assert!(!report.noticed_by.is_empty(), "{report:?}");
    }
    let blind: Vec<_> = test.cannot_see.iter().map(|reason| &*reason.code).collect();
    assert_eq!(
        blind,
        ["hw_smi", "hw_frequency", "hw_thermal", "hw_host_steal"]
    );
    let text = render(&test);
    assert!(
        text.starts_with("this node can prove quiet: YES, as far as the operating system tells\n"),
        "{text}"
    );
    assert!(text.contains("RES+CAL 20 (at least 19)"), "{text}");
    assert!(
        text.contains("what it cannot see:\n  system management"),
        "{text}"
    );
    let json = serde_json::to_string(&test).unwrap();
    assert!(json.starts_with(r#"{"schema":"stillmetal-selftest/1","can_prove_quiet":"yes""#));
    assert_eq!(serde_json::from_str::<SelfTest>(&json).unwrap(), test);
}

/// Each expectation of each probe, one event short or one too many.
#[test]
fn a_probe_of_which_too_little_or_too_much_is_counted_is_not_seen() {
    let short: [(Probe, Trial, &str); 12] = [
        (
            Probe::Intrusions,
            made(&[("timeslices", 39), ("RES", 20), ("CAL", 20)], 20, &[]),
            "timeslices 39 (at least 40)",
        ),
        (
            Probe::Intrusions,
            made(&[("timeslices", 40), ("RES", 9), ("CAL", 9)], 20, &[]),
            "RES+CAL 18 (at least 19)",
        ),
        (
            Probe::Shootdowns,
            made(&[("TLB", 20), ("CAL", 22)], 0, &[]),
            "CAL 22 (19 to 21)",
        ),
        (
            Probe::SecondTask,
            made(&[("LOC", 1), ("timeslices", 3)], 2, &[]),
            "LOC 1 (at least 10)",
        ),
        (
            Probe::SecondTask,
            made(&[("LOC", 64)], 2, &[]),
            "foreign_timeslices 0 (at least 1)",
        ),
        (
            Probe::SecondTask,
            made(&[("LOC", 64), ("timeslices", 3)], 0, &[]),
            "involuntary_switches 0 (at least 1)",
        ),
        (
            Probe::Quota,
            made(&[("LOC", 64)], 0, &["cpu.max"]),
            "nr_throttled 0 (at least 1)",
        ),
        (
            Probe::Quota,
            made(
                &[("LOC", 64), ("nr_throttled", 9)],
                9,
                &["cpuset.cpus.effective"],
            ),
            "drift.cpu.max 0 (at least 1)",
        ),
        (
            Probe::Shootdowns,
            made(&[("CAL", 20)], 0, &[]),
            "TLB 0 (19 to 21)",
        ),
        (
            Probe::FairServer,
            made(&[], 0, &["fair server of CPU 1"]),
            "LOC+RES+CAL 0 (at least 1)",
        ),
        (
            Probe::FairServer,
            made(&[("LOC", 3)], 0, &[]),
            "drift.fair server 0 (at least 1)",
        ),
        (
            Probe::Partition,
            Trial::Made {
                window: None,
                drift: Vec::new(),
            },
            "drift.cpuset.cpus.partition 0 (at least 1)",
        ),
    ];
    for (probe, trial, why) in short {
        let trials = Probe::ALL.map(|other| {
            let trial = if other == probe {
                trial.clone()
            } else {
                seen(other)
            };
            (other, trial)
        });
        let test = SelfTest::judge(test(Ok(window(&[], 0)), trials.into()));
        assert_eq!(test.can_prove_quiet, Answer::No, "{probe}: {why}");
        assert_eq!(test.quiet_class, None);
        assert_eq!(codes(&test), [format!("probe_{probe}")]);
        let text = &test.reasons[0].text;
        assert!(text.contains(why), "{probe}: {text}");
        assert!(render(&test).contains("NOT SEEN"), "{probe}");
    }
}

#[test]
fn what_was_not_measured_is_not_seen() {
    let mut node = Node::new(1);
    node.hidden.insert("CAL".to_owned());
    let blind = node.watch(WindowName::CanaryPre, |_, node| {
        node.add("timeslices", 15);
    });
    let trial = Trial::Made {
        window: Some(Box::new(blind)),
        drift: Vec::new(),
    };
    let trials = vec![(Probe::Intrusions, trial)];
    let test = SelfTest::judge(test(Ok(window(&[], 0)), trials));
    assert_eq!(test.probes[0].sight, Sight::NotSeen);
    let calls = &test.probes[0].findings[2];
    assert_eq!(
        (&*calls.figure, &calls.found),
        ("interrupts.RES+CAL", &Value::Absent)
    );
    assert!(test.reasons[0].text.contains("RES+CAL not counted"));
}

#[test]
fn probes_that_failed_or_were_left_out_count_and_what_the_node_lacks_does_not() {
    let lacking = "this kernel has no fair server";
    let trials = |failing: Option<Probe>, left_out: Option<Probe>| {
        let all = Probe::ALL
            .into_iter()
            .filter(|probe| Some(*probe) != left_out);
        let trial = |probe| match probe {
            _ if Some(probe) == failing => Trial::Failed("fork: EAGAIN".to_owned()),
            Probe::FairServer => Trial::Inapplicable(lacking.to_owned()),
            _ => seen(probe),
        };
        all.map(|probe| (probe, trial(probe))).collect::<Vec<_>>()
    };
    let silence = || Ok(window(&[], 0));
    let lacks = SelfTest::judge(test(silence(), trials(None, None)));
    assert_eq!(lacks.can_prove_quiet, Answer::Yes, "{:?}", lacks.reasons);
    assert!(render(&lacks).contains(lacking));
    let failed = SelfTest::judge(test(silence(), trials(Some(Probe::Quota), None)));
    assert_eq!(codes(&failed), ["probe_quota"]);
    assert!(failed.reasons[0].text.contains("EAGAIN"));
    let left_out = SelfTest::judge(test(silence(), trials(None, Some(Probe::SecondTask))));
    assert_eq!(codes(&left_out), ["probe_second_task"]);
}

#[test]
fn a_node_that_is_not_silent_or_not_set_up_says_why() {
    let noisy = SelfTest::judge(test(Ok(window(&[("LOC", 44)], 0)), Vec::new()));
    assert_eq!(noisy.can_prove_quiet, Answer::No);
    assert_eq!(codes(&noisy), ["interrupts.LOC"]);
    assert!(!SelfTest::is_silent(&ground(), &window(&[("RES", 1)], 0)));
    assert!(SelfTest::is_silent(&ground(), &window(&[], 0)));

    let late = Window {
        longest_step_ns: 1_200_000_000,
        ..window(&[], 0)
    };
    assert!(SelfTest::is_late(&ground(), &late));
    assert!(!SelfTest::is_silent(&ground(), &late));
    let late_and_noisy = Window {
        longest_step_ns: 1_200_000_000,
        ..window(&[("RES", 1)], 0)
    };
    assert!(!SelfTest::is_late(&ground(), &late_and_noisy));
    assert!(!SelfTest::is_late(&ground(), &window(&[], 0)));

    let mut slow_clock = test(Ok(window(&[], 0)), all_seen());
    for conditions in [&mut slow_clock.ground.before, &mut slow_clock.ground.after] {
        conditions.clocksource = Some("hpet".to_owned());
    }
    let slow_clock = SelfTest::judge(slow_clock);
    assert_eq!(codes(&slow_clock), ["clocksource", "clocksource"]);
    assert!(slow_clock.reasons[0].text.contains("hpet"));

    let none = SelfTest::judge(test(
        Err("no canary could be started".to_owned()),
        Vec::new(),
    ));
    assert_eq!(codes(&none), ["no_canary"]);
    assert!(render(&none).contains("no canary could be started"));
}

#[test]
fn what_was_not_put_back_is_told() {
    let mut found = test(Ok(window(&[], 0)), all_seen());
    found
        .left_behind
        .push("cpu.max of /x is still 50000 100000".to_owned());
    assert_eq!(codes(&SelfTest::judge(found)), ["left_behind"]);

    let mut changed = test(Ok(window(&[], 0)), all_seen());
    changed.ground.after.partition = Some("member".to_owned());
    assert!(codes(&SelfTest::judge(changed)).contains(&"partition"));
}

/// A disturbance that shows in figures but leaves a certificate quiet would be no use.
#[test]
fn the_nodes_own_faults_are_no_sign_of_a_disturbance() {
    let mut found = test(
        Ok(window(&[], 0)),
        vec![(
            Probe::Partition,
            Trial::Made {
                window: None,
                drift: Vec::new(),
            },
        )],
    );
    found.ground.before = quiet::Conditions {
        rt_runtime_us: Some(950_000),
        ..conditions()
    };
    let judged = SelfTest::judge(found);
    assert!(judged.probes[0].noticed_by.is_empty());
}
