//! No text makes a parser or a watch panic, and nothing is counted between twice the same text.
#![no_main]

use std::hint::black_box;

use cpulist::CpuSet;
use libfuzzer_sys::fuzz_target;
use quiet::{Snapshot, Texts, Watch, parse};

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\0').unwrap_or((text, text));
    let cpus: CpuSet = (0..4).collect();
    let snapshot = |taken_ns, text| {
        let texts = Texts {
            interrupts: text,
            softirqs: text,
            schedstat: Some(text),
            stat: Some(text),
            vmstat: Some(text),
            cpu_stat: Some(text),
            memory_stat: Some(text),
            pressure_cpu: Some(text),
            pressure_memory: Some(text),
            pressure_io: Some(text),
        };
        Snapshot::parse(taken_ns, &cpus, &texts)
    };
    let watch = |first, second| {
        let mut watch = Watch::new(snapshot(1, first));
        watch.push(snapshot(2, second));
        watch.finish()
    };
    black_box(watch(first, second));
    for cpu in watch(first, first).cpus.values() {
        let values = cpu.interrupts.values().chain(cpu.softirqs.values());
        assert!(values.into_iter().all(|value| value.measured() == Some(0)));
    }
    black_box(parse::parse_task_schedstat(first));
    black_box(parse::parse_switches(first));
    black_box(parse::parse_oom_kill(first));
});
