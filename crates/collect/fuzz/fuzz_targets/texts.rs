//! No text makes a parser, a series or the list of what is asked for panic, and what is written of a series
//! can be read.
#![no_main]

use std::time::Duration;

use collect::{Kind, Reading, Series, Zero, asked, parse, split};
use libfuzzer_sys::fuzz_target;

fn readings(text: &str) -> Vec<Reading<'_>> {
    let mut all = parse::cpu(text);
    all.extend(parse::cpu_of_job("/a", text));
    all.extend(parse::interrupts(text, text));
    all.extend(parse::memory(text, text));
    all.extend(parse::memory_of_job("/b", text));
    all.extend(parse::memory_stat_of_job("/c", text));
    all.extend(parse::disk(text));
    all.extend(parse::network(text));
    let kind = Kind::Energy { range_uj: Some(7) };
    all.extend(parse::single("energy", "µJ", kind, "/d", text));
    all.extend(parse::single("heat", "m°C", Kind::Gauge, "/e", text));
    all
}

fuzz_target!(|text: &str| {
    let words = split(text);
    assert_eq!(words.join(","), text);
    if let Ok(list) = asked(&words) {
        assert!(list.len() <= 9);
    }
    let mut series = Series::new("cpu", Duration::from_secs(1));
    for (at, part) in (0..).zip(text.split('\0')) {
        series.add(at, readings(part));
    }
    series.finish(i64::MAX, readings(text));
    let zero = Zero {
        at_ns: i64::MIN,
        window_ns: Some(1),
    };
    for line in series.encode(1, zero).lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON");
    }
});
