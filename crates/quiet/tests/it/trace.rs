//! What the osnoise tracer writes, and what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use quiet::{Interruption, InterruptionKind, Interruptions, MAX_INTERRUPTIONS, Tape, Value};

const EVERYTHING: (u64, u64) = (0, u64::MAX);
const TRACE: &str = include_str!("../fixtures/virtio/trace");
const STATS: &str = include_str!("../fixtures/virtio/trace_stats");

/// How many are missing, and what was found.
fn read(text: &str, own: &[u32], span: (u64, u64)) -> (Value, Vec<Interruption>) {
    let tape = Tape {
        cpu: 1,
        trace: text,
        stats: STATS,
    };
    match Interruptions::recorded(&[tape], &own.iter().copied().collect(), span) {
        Interruptions::Recorded { dropped, events } => (dropped[0].count.clone(), events),
        other => panic!("{other:?}"),
    }
}

fn count(events: &[Interruption], kind: InterruptionKind) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}

#[test]
fn a_recorded_trace_is_read_whole() {
    let (dropped, events) = read(TRACE, &[], EVERYTHING);
    assert_eq!(dropped, Value::Measured(0));
    let lines = |name: &str| TRACE.lines().filter(|line| line.contains(name)).count();
    for (kind, name) in [
        (InterruptionKind::Irq, " irq_noise: "),
        (InterruptionKind::Softirq, " softirq_noise: "),
        (InterruptionKind::Thread, " thread_noise: "),
    ] {
        assert_eq!(count(&events, kind), lines(name), "{name}");
    }
    assert_eq!(
        events[0],
        Interruption {
            at_ns: 73_178_222_412,
            cpu: 1,
            duration_ns: 1588,
            kind: InterruptionKind::Irq,
            name: "call_function:252".to_owned(),
        }
    );
    assert!(events.is_sorted_by_key(|event| event.at_ns));
}

#[test]
fn the_jobs_own_threads_and_what_they_made_are_no_interruption() {
    // the job's first process, and two canaries; 325 is a thread that 324 made
    let (_, events) = read(TRACE, &[324, 346, 348], EVERYTHING);
    let threads: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.kind == InterruptionKind::Thread)
        .map(|event| event.name.as_str())
        .collect();
    assert!(threads.contains("kworker/1:1:48") && threads.contains("runc:[0:PARENT]:322"));
    for own in [":324", ":325", ":346", ":348"] {
        assert!(
            !threads.iter().any(|name| name.ends_with(own)),
            "{threads:?}"
        );
    }
    // 322 made 323, which made 324, which made 325
    let (_, events) = read(TRACE, &[322], EVERYTHING);
    assert!(events.iter().any(|event| event.name == "gate:346"));
    let own = [":322", ":323", ":324", ":325"];
    assert!(
        !events
            .iter()
            .any(|event| own.iter().any(|own| event.name.ends_with(own)))
    );
}

#[test]
fn only_what_meets_the_span_is_kept() {
    // the job's turn of 13.5 s ends at 118.401618; an interrupt within it at 118.401451
    let at = |seconds: f64| Duration::from_secs_f64(seconds).as_nanos();
    let span = |from, to| {
        (
            u64::try_from(at(from)).unwrap(),
            u64::try_from(at(to)).unwrap(),
        )
    };
    let names = |span| -> Vec<String> {
        let (_, events) = read(TRACE, &[], span);
        events.into_iter().map(|event| event.name).collect()
    };
    assert_eq!(names(span(110.0, 111.0)), ["sh:324"]);
    assert_eq!(names(span(118.4014, 118.4015)), ["sh:324", "irq_work:246"]);
    assert!(names(span(400.0, 500.0)).is_empty());
}

#[test]
fn what_the_buffer_lost_and_what_is_not_understood_is_counted() {
    let broken = "\
          <idle>-0       [001] d.h2.     1.000001: irq_noise: local_timer:236 start 1.0 duration x ns
          <idle>-0       [002] d.h2.     1.000001: irq_noise: local_timer:236 start 1.0 duration 5 ns
          <idle>-0       [001] .....     1.000001: sched_process_fork: comm=a pid=b
          <idle>-0       [001] .....     1.000001: sample_threshold: start 1.0 duration 5 ns interference 1
CPU:1 [LOST 3 EVENTS]
";
    let tape = |stats| Tape {
        cpu: 1,
        trace: broken,
        stats,
    };
    let lost = |stats| match Interruptions::recorded(&[tape(stats)], &BTreeSet::new(), EVERYTHING) {
        Interruptions::Recorded {
            dropped, events, ..
        } => {
            assert_eq!(events, []);
            dropped[0].count.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        lost("overrun: 1\ncommit overrun: 20\ndropped events: 300\n"),
        Value::Measured(324)
    );
    assert_eq!(lost("entries: 5\n").measured(), None);
}

#[test]
fn no_more_are_kept_than_the_limit_and_the_earliest_are() {
    let line = |at: usize| {
        let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
        format!(
            "a-1 [001] d.h1. {seconds}.{micros:06}: irq_noise: b:2 start 1.000000001 duration 7 ns\n"
        )
    };
    let text: String = (0..MAX_INTERRUPTIONS + 5).rev().map(line).collect();
    let (dropped, events) = read(&text, &[], EVERYTHING);
    assert_eq!(events.len(), MAX_INTERRUPTIONS);
    assert_eq!(dropped, Value::Measured(5));
    assert_eq!(
        events.last().unwrap().at_ns,
        (MAX_INTERRUPTIONS as u64 - 1) * 1000 - 7
    );
}

/// As `kernel/trace/trace_output.c` and `include/trace/events/osnoise.h` print it.
fn print(event: &Interruption, comm: &str, number: u32) -> String {
    let end = event.end_ns();
    let name = match event.kind {
        InterruptionKind::Nmi => String::new(),
        _ => format!("{comm:>8}:{number} "),
    };
    format!(
        "{comm:>16}-{number:<7} [{:03}] d..3. {:>5}.{:06}: {}_noise: {name}start 7.000000009 duration {} ns\n",
        event.cpu,
        end / 1_000_000_000,
        end / 1000 % 1_000_000,
        event.kind,
        event.duration_ns,
    )
}

proptest! {
    #[test]
    fn what_the_kernel_prints_is_read_back(
        seen in prop::collection::vec(
            (0_u64..1 << 40, 0_u64..1 << 30, prop::sample::select(&InterruptionKind::ALL[..]),
             // names that a program may give itself, without a line end
             prop_oneof!["[ -~]{1,15}", "\\[1\\] d [0-9]\\.1: .{0,5}"], 1_u32..99999),
            0..20),
    ) {
        let events = seen.into_iter().map(|(micros, duration_ns, kind, comm, number)| {
            let end = (micros * 1000).max(duration_ns.div_ceil(1000) * 1000);
            let name = match kind {
                InterruptionKind::Nmi => "nmi".to_owned(),
                _ => format!("{comm}:{number}").trim_ascii().to_owned(),
            };
            let event = Interruption { at_ns: end - duration_ns, cpu: 1, duration_ns, kind, name };
            let text = print(&event, &comm, number);
            (event, text)
        });
        let (mut events, texts): (Vec<_>, Vec<_>) = events.unzip();
        events.sort();
        let (dropped, found) = read(&texts.concat(), &[], EVERYTHING);
        prop_assert_eq!(found, events);
        prop_assert_eq!(dropped.measured(), Some(0));
    }

    #[test]
    fn a_damaged_trace_gives_no_more_than_it_has_lines(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..8),
    ) {
        let mut chars: Vec<char> = TRACE.chars().collect();
        for (place, with) in damage {
            *place.get_mut(&mut chars[..]) = with;
        }
        let text: String = chars.into_iter().collect();
        let (dropped, events) = read(&text, &[324], EVERYTHING);
        let all = events.len() as u64 + dropped.measured().unwrap();
        prop_assert!(all <= text.lines().count() as u64);
    }
}
