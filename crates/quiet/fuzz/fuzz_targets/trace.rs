//! No trace makes the parser panic, and it finds no more in it than there are lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quiet::{Interruptions, Tape, Value};

fuzz_target!(|text: &str| {
    let (trace, stats) = text.split_once('\0').unwrap_or((text, text));
    let tape = |trace| Tape {
        cpu: 1,
        trace,
        stats,
    };
    let own = [324, 346].into();
    let span = (96_000_000_000, 120_000_000_000);
    let all = Interruptions::recorded(&[tape(trace)], &own, (0, u64::MAX));
    let some = Interruptions::recorded(&[tape(trace)], &own, span);
    let (Interruptions::Recorded { events, dropped }, Interruptions::Recorded { events: few, .. }) =
        (all, some)
    else {
        panic!("nothing was recorded");
    };
    assert!(events.len() <= trace.lines().count());
    assert!(events.is_sorted() && few.len() <= events.len());
    let Interruptions::Recorded { dropped: none, .. } =
        Interruptions::recorded(&[tape("")], &own, span)
    else {
        panic!("nothing was recorded");
    };
    // what is not understood is counted besides what the kernel lost
    if let (Value::Measured(more), Value::Measured(less)) = (&dropped[0].count, &none[0].count) {
        assert!(more >= less);
    }
});
