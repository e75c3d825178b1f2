//! Counted events: the fake and the running kernel must agree, on events that every kernel counts.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use host::fakes::FakePerf;
use host::perf::{Count, EventCode, KernelPerf, Perf, Scope, Subject};

/// `PERF_COUNT_SW_TASK_CLOCK`: with or without privileges, on any machine.
const TASK_CLOCK: EventCode = EventCode { kind: 1, config: 1 };
/// `PERF_COUNT_SW_PAGE_FAULTS`.
const PAGE_FAULTS: EventCode = EventCode { kind: 1, config: 2 };
/// Nobody has it.
const NOWHERE: EventCode = EventCode {
    kind: 1,
    config: 9_999,
};

/// Counts what `pid` becomes; `go` lets it, and waits for its end.
fn behaves_like_the_kernel(perf: &dyn Perf, pid: u32, go: impl FnOnce()) {
    let held = perf.open(TASK_CLOCK, Scope::User, Subject::Nobody).unwrap();
    assert_eq!(held.read().unwrap(), Count::default());
    for event in [TASK_CLOCK, PAGE_FAULTS] {
        let nobody = perf.open(event, Scope::User, Subject::Program(u32::MAX));
        assert!(nobody.is_err(), "no such process");
    }
    let events = [TASK_CLOCK, PAGE_FAULTS];
    let counters = events.map(|event| {
        perf.open(event, Scope::User, Subject::Program(pid))
            .unwrap()
    });
    go();
    for (event, counter) in events.into_iter().zip(&counters) {
        let count = counter.read().unwrap();
        assert!(count.value > 0, "{event:?}: {count:?}");
        assert!(count.enabled_ns > 0 && count.running_ns == count.enabled_ns);
        assert_eq!(counter.read().unwrap(), count, "it has ended");
    }
    let unknown = perf.open(NOWHERE, Scope::User, Subject::Nobody);
    let unknown = unknown.err().unwrap();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
}

#[test]
fn fake() {
    let perf = FakePerf::new();
    for event in [TASK_CLOCK, PAGE_FAULTS] {
        let count = Count {
            value: 7,
            enabled_ns: 5,
            running_ns: 5,
        };
        perf.set(event, count);
    }
    behaves_like_the_kernel(&perf, 77, || {});
    assert_eq!(perf.held(), 0);
}

#[test]
fn running_kernel() {
    // waits for a line, then becomes a program that does something
    let mut child = Command::new("sh")
        .args([
            "-c",
            "read line; exec sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done'",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, stdin) = (child.id(), child.stdin.take());
    behaves_like_the_kernel(&KernelPerf, pid, move || {
        drop(stdin);
        child.wait().unwrap();
    });
}
