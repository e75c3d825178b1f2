//! What flips a verdict, and what cannot.

use proptest::prelude::*;
use quiet::class::{Gate, Rules};
use quiet::{
    Action, Certificate, Drift, Dropped, Hardware, Interrupt, Interruption, InterruptionKind,
    Interruptions, JobClass, Outcome, QuietClass, Switch, Value, Verdict, WindowName, judge,
    render,
};

use crate::node::{FILES, INTERRUPTS, SOFTIRQS, conditions, evidence};

/// What a gate looks at, by the name that the test's node counts it under.
fn gate(rules: &Rules, counter: &str) -> Gate {
    if let Some((name, text)) = INTERRUPTS.iter().find(|(name, _)| *name == counter) {
        let numbered = name.parse::<u32>().is_ok();
        return rules.interrupt(if numbered {
            Interrupt::of_device(text)
        } else {
            Interrupt::of_name(name)
        });
    }
    match counter {
        "timeslices" => rules.foreign_timeslices(),
        "involuntary" => rules.involuntary_switches(),
        "nr_throttled" => rules.nr_throttled(),
        "pswpin" | "pswpout" => rules.swap(),
        "pgmajfault" => rules.major_faults(),
        "pressure_cpu" => rules.psi_cpu(),
        "pressure_memory" | "pressure_io" => Gate::Reported,
        softirq => rules.softirq(softirq),
    }
}

fn counters() -> Vec<&'static str> {
    INTERRUPTS
        .iter()
        .map(|(name, _)| *name)
        .chain(SOFTIRQS)
        .chain([
            "timeslices",
            "involuntary",
            "nr_throttled",
            "pswpin",
            "pswpout",
            "pgmajfault",
            "pressure_cpu",
            "pressure_memory",
            "pressure_io",
        ])
        .collect()
}

fn rules(window: WindowName, class: JobClass, threads: u32) -> Rules {
    Rules {
        window,
        duration_ns: 2_000_000_000,
        class,
        one_thread: threads == 1,
    }
}

fn any_window() -> impl Strategy<Value = WindowName> {
    prop::sample::select(WindowName::ALL.to_vec())
}

fn any_class() -> impl Strategy<Value = JobClass> {
    prop::sample::select(JobClass::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn one_event_too_many_makes_noise(
        at in any_window(), class in any_class(), threads in 1_u32..3,
        counter in prop::sample::select(counters()), step in 0_u64..2,
    ) {
        let gate = gate(&rules(at, class, threads), counter);
        let disturbed = |events: u64| evidence(class, threads, |window, now, node| {
            if (window, now) != (at, step) {
                return;
            }
            if counter == "involuntary" {
                node.tasks.get_mut(&100).unwrap().involuntary_switches += events;
            } else {
                node.add(counter, events);
            }
        });
        match gate {
            Gate::AtMost(limit) => {
                prop_assert_eq!(judge(&disturbed(limit)).verdict, Verdict::Quiet);
                let judgement = judge(&disturbed(limit + 1));
                prop_assert_eq!(judgement.verdict, Verdict::Noisy);
                prop_assert_eq!(judgement.quiet_class, None);
                prop_assert_eq!(judgement.reasons.len(), 1);
                prop_assert_eq!(judgement.reasons[0].window, Some(at));
            }
            Gate::Reported => {
                prop_assert_eq!(judge(&disturbed(1000)).verdict, Verdict::Quiet);
            }
        }
    }

    #[test]
    fn a_required_source_that_is_not_there_leaves_a_run_unproven(
        at in any_window(), class in any_class(), threads in 1_u32..3,
        source in prop::sample::select([&FILES[..], &["LOC", "NMI", "PMI", "IWI", "RES", "CAL", "TLB"], &SOFTIRQS].concat()),
        from_step in 0_u64..2,
    ) {
        let rules = rules(at, class, threads);
        let gated = |counter: &str| gate(&rules, counter) != Gate::Reported;
        let required = match source {
            "interrupts" => true,
            "softirqs" => SOFTIRQS.into_iter().any(gated),
            "schedstat" => gated("timeslices"),
            "vmstat" => gated("pswpin"),
            "cpu_stat" => gated("nr_throttled"),
            line => gated(line),
        };
        let evidence = evidence(class, threads, |window, step, node| {
            if window == at && step >= from_step {
                node.hidden.insert(source.to_owned());
            }
        });
        let expected = if required { Verdict::Unproven } else { Verdict::Quiet };
        prop_assert_eq!(judge(&evidence).verdict, expected);
    }

    #[test]
    fn what_was_never_printed_is_never_a_measured_zero(
        hidden in prop::collection::btree_set(prop::sample::select(counters()), 0..9),
    ) {
        let mut node = crate::node::Node::new(1);
        node.hidden = hidden.iter().map(ToString::to_string).collect();
        let window = node.watch(WindowName::Job, |_, _| {});
        for cpu in window.cpus.values() {
            for name in &hidden {
                prop_assert!(!cpu.interrupts.contains_key(*name));
                prop_assert!(!cpu.softirqs.contains_key(*name));
            }
        }
        if hidden.contains("pressure_cpu") {
            prop_assert_eq!(window.psi_cpu_us, Value::Absent);
        }
    }

    #[test]
    fn a_certificate_survives_json(
        class in any_class(), counter in prop::sample::select(counters()), events in 0_u64..4,
    ) {
        let mut evidence = evidence(class, 2, |_, _, node| node.add(counter, events));
        evidence.interruptions = (events > 1).then(interruptions);
        let certificate = Certificate::new(evidence);
        let json = serde_json::to_string(&certificate).unwrap();
        let back: Certificate = serde_json::from_str(&json).unwrap();
        prop_assert!(back.is_consistent());
        prop_assert_eq!(back, certificate);
    }

    #[test]
    fn without_all_its_windows_no_run_is_quiet(class in any_class(), missing in any_window(), noise in 0_u64..2) {
        let mut evidence = evidence(class, 1, |_, _, node| node.add("24", noise));
        evidence.windows.retain(|window| window.name != missing);
        let verdict = judge(&evidence).verdict;
        prop_assert_eq!(verdict, if noise == 0 { Verdict::Unproven } else { Verdict::Noisy });
    }
}

#[test]
fn a_virtual_machine_is_at_most_os_quiet() {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.hardware = Hardware {
        smi: Value::Measured(0),
        aperf_mperf: Value::Measured(0),
        throttle: Value::Measured(0),
        host_steal: Value::Measured(0),
        ..Hardware::unobservable("not asked")
    };
    let judgement = judge(&evidence);
    assert_eq!(judgement.verdict, Verdict::Quiet);
    assert_eq!(judgement.quiet_class, Some(QuietClass::OsQuiet));
    let codes: Vec<_> = judgement
        .unproven
        .iter()
        .map(|one| one.code.as_str())
        .collect();
    assert_eq!(
        codes,
        ["hw_smi", "hw_frequency", "hw_thermal", "hw_host_steal"]
    );

    evidence.platform.hypervisor = Some(false);
    assert_eq!(judge(&evidence).quiet_class, Some(QuietClass::HwQuiet));
    evidence.hardware.smi = Value::Measured(1);
    assert_eq!(judge(&evidence).verdict, Verdict::Noisy);
}

#[test]
fn heat_makes_noise_on_bare_metal_and_is_not_missed() {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.platform.hypervisor = Some(false);
    evidence.hardware = Hardware {
        smi: Value::Measured(0),
        aperf_mperf: Value::Measured(5_000),
        throttle: Value::Measured(0),
        temperature: Value::Measured(3_000),
        cstate_residency: Value::Measured(9),
        energy: Value::Measured(9),
        host_steal: Value::Absent,
    };
    assert_eq!(judge(&evidence).quiet_class, Some(QuietClass::HwQuiet));
    evidence.hardware.temperature = Value::Absent;
    assert_eq!(judge(&evidence).quiet_class, Some(QuietClass::HwQuiet));
    evidence.hardware.temperature = Value::Measured(3_001);
    let judgement = judge(&evidence);
    assert_eq!(judgement.verdict, Verdict::Noisy);
    assert_eq!(judgement.reasons[0].code, "hw_temperature");
    evidence.platform.hypervisor = None;
    assert_eq!(judge(&evidence).quiet_class, Some(QuietClass::OsQuiet));
}

#[test]
fn each_condition_can_spoil_a_run() {
    type Spoil = fn(&mut quiet::Conditions);
    let noisy: [Spoil; 10] = [
        |c| c.clocksource = Some("hpet".to_owned()),
        |c| c.nohz_full = Some("2".parse().unwrap()),
        |c| {
            c.partition =
                Some("isolated invalid (Cpu list in cpuset.cpus not exclusive)".to_owned())
        },
        |c| c.cpu_max = Some("100000 100000".to_owned()),
        |c| {
            c.fair_server_runtime_ns
                .extend([(1, Value::Measured(50_000_000))])
        },
        |c| c.rt_runtime_us = Some(950_000),
        |c| c.siblings_online = Some("3".parse().unwrap()),
        |c| c.tsc_watchdog = Some(Switch::On),
        |c| c.swap = Some(Switch::On),
        |c| {
            let (knob, was, found) = ("thp".to_owned(), "never".to_owned(), "always".to_owned());
            c.drift = vec![Drift {
                at_ns: 1,
                knob,
                was,
                found,
            }];
        },
    ];
    let unproven: [Spoil; 11] = [
        |c| c.clocksource = None,
        |c| c.nohz_full = None,
        |c| c.partition = None,
        |c| c.cpu_max = None,
        |c| c.fair_server_runtime_ns.clear(),
        |c| c.rt_runtime_us = None,
        |c| c.siblings_online = None,
        |c| c.swap = None,
        |c| c.irqs_on_job_cpus = None,
        |c| c.tsc_watchdog = None,
        |c| c.movable_threads = None,
    ];
    let evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    let all = noisy.map(|spoil| (spoil, Verdict::Noisy)).into_iter();
    for (spoil, expected) in all.chain(unproven.map(|spoil| (spoil, Verdict::Unproven))) {
        let mut after = evidence.clone();
        after.after = conditions();
        spoil(&mut after.after);
        assert_eq!(judge(&after).verdict, expected, "{:?}", after.after);
    }
}

#[test]
fn a_reason_says_where_how_much_and_why() {
    let evidence = evidence(JobClass::Compute, 1, |window, step, node| {
        if window == WindowName::CanaryPre && step == 3 {
            node.add("LOC", 250);
            node.add("timeslices", 2);
            node.residents.get_mut(&30).unwrap().timeslices += 2;
        }
    });
    let certificate = Certificate::new(evidence);
    assert_eq!(
        certificate.reasons[0].text,
        "CPU 1 took 250 timer interrupts (LOC) in 2.0 s (at most 1): the tick ran; is a second \
         task runnable there, or a quota set?"
    );
    assert!(
        certificate.reasons[1]
            .text
            .contains("kworker/1:1 (2 times)")
    );
    let screen = render(&certificate);
    assert!(screen.starts_with("NOISY\n"), "{screen}");
    assert!(screen.contains("canary_pre: CPU 1 took 250"), "{screen}");
    assert!(screen.lines().count() < 40, "{screen}");
}

#[test]
fn a_failed_job_keeps_its_verdict() {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.job.exit_code = Some(3);
    evidence.hardware.smi = Value::Measured(0);
    evidence.hardware.energy = Value::unobservable("no counter");
    let certificate = Certificate::new(evidence);
    assert_eq!(
        (certificate.verdict, certificate.outcome),
        (Verdict::Quiet, Outcome::Failed)
    );
    let screen = render(&certificate);
    assert!(screen.contains("FAILED: the job exited with 3"), "{screen}");
    assert!(screen.contains("hardware: SMI 0, "), "{screen}");
    assert!(screen.contains(" ? µJ, "), "{screen}");
}

#[test]
fn trouble_with_measuring_leaves_the_run_unproven() {
    let mut evidence = evidence(JobClass::Io, 1, |_, _, _| {});
    evidence.troubles.push("the sampler died".to_owned());
    let judgement = judge(&evidence);
    assert_eq!(judgement.verdict, Verdict::Unproven);
    assert!(
        judgement
            .unproven
            .iter()
            .any(|reason| reason.text == "the sampler died")
    );
}

#[test]
fn the_node_must_not_act_within_a_window() {
    let mut evidence = evidence(JobClass::Io, 1, |_, _, _| {});
    let act = |at_ns| Action {
        at_ns,
        what: "loaded a module".to_owned(),
    };
    evidence.actions_in_window = vec![act(500)];
    assert_eq!(judge(&evidence).verdict, Verdict::Quiet);
    evidence.actions_in_window.push(act(4_100_000_000));
    assert_eq!(judge(&evidence).verdict, Verdict::Noisy);
}

/// One on each of two CPUs, not all of them known.
fn interruptions() -> Interruptions {
    let event = |cpu| Interruption {
        at_ns: 5_000_000_000,
        cpu,
        duration_ns: 1588,
        kind: InterruptionKind::Softirq,
        name: "TIMER:1".to_owned(),
    };
    Interruptions::Recorded {
        dropped: vec![
            Dropped {
                cpu: 1,
                count: Value::Measured(3),
            },
            Dropped {
                cpu: 2,
                count: Value::unobservable("no stats"),
            },
        ],
        events: vec![event(1), event(2)],
    }
}

/// Field paths without what values and free keys are made of.
fn fields(json: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let key = if key.parse::<u32>().is_ok() { "*" } else { key };
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                fields(value, &path, found);
            }
        }
        serde_json::Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| fields(item, path, found));
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_field_has_a_unit_and_a_source() {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.interruptions = Some(interruptions());
    let certificate = Certificate::new(evidence);
    let json = serde_json::to_value(&certificate.evidence).unwrap();
    let mut found = Vec::new();
    fields(&json, "", &mut found);
    assert!(found.len() > 80);
    for path in found {
        let both = path
            .replacen("before.", "*.", 1)
            .replacen("after.", "*.", 1);
        let known = certificate
            .legend
            .keys()
            .any(|key| both == *key || both.starts_with(&format!("{key}.")));
        assert!(known, "{path} is not in the legend");
    }
    assert!(
        certificate
            .legend
            .values()
            .all(|meaning| !meaning.unit.is_empty() && !meaning.source.is_empty())
    );
}
