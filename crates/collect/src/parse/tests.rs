use proptest::prelude::*;

use super::*;

/// Of the machine this was written on: two CPUs of a virtual machine.
const STAT_2: &str = include_str!("../../tests/fixtures/stat-2cpu.txt");
const INTERRUPTS_2: &str = include_str!("../../tests/fixtures/interrupts-2cpu.txt");
const SOFTIRQS_2: &str = include_str!("../../tests/fixtures/softirqs-2cpu.txt");
const MEMINFO_TEXT: &str = include_str!("../../tests/fixtures/meminfo.txt");
const VMSTAT_TEXT: &str = include_str!("../../tests/fixtures/vmstat.txt");
const DISKSTATS_TEXT: &str = include_str!("../../tests/fixtures/diskstats.txt");
const NET_DEV_TEXT: &str = include_str!("../../tests/fixtures/net-dev.txt");

/// Four CPUs, one of them offline.
const STAT_4: &str = "\
cpu  9 9 9 9 9 9 9 9 0 0
cpu0 1 2 3 4 5 6 7 8 0 0
cpu2 10 20 30 40 50 60 70 80 0 0
cpu3 1 2 3
intr 7 0 0
ctxt 11
processes 12
procs_running 3
procs_blocked 1
";
const INTERRUPTS_4: &str = "\
           CPU0       CPU2       CPU3
 24:       1000          0          7  PCI-MSIX-0000:00:03.0   0-edge      virtio0-input.0, eth0
LOC:      88000          3          0   Local timer interrupts
ERR:          0
";

/// A reading's number and unit.
fn of(readings: &[Reading<'_>], name: &str) -> (i128, &'static str, Kind) {
    let found = readings.iter().find(|reading| reading.name == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not in {readings:#?}"));
    (found.value, found.unit, found.kind)
}

fn names<'a>(readings: &'a [Reading<'_>]) -> Vec<&'a str> {
    readings
        .iter()
        .map(|reading| reading.name.as_str())
        .collect()
}

#[test]
fn each_cpu_that_is_online_has_its_times() {
    let all = cpu(STAT_4);
    assert_eq!(of(&all, "cpu0/user"), (10, "ms", Kind::Counter));
    assert_eq!(of(&all, "cpu2/steal"), (800, "ms", Kind::Counter));
    assert_eq!(of(&all, "context_switches"), (11, "count", Kind::Counter));
    assert_eq!(of(&all, "runnable"), (3, "threads", Kind::Gauge));
    assert!(!names(&all).iter().any(|name| name.starts_with("cpu3/")));
    let real = cpu(STAT_2);
    assert_eq!(real.len(), 2 * 8 + 4, "{real:#?}");
    assert!(real.iter().all(|reading| reading.source == "/proc/stat"));
    let path = "/sys/fs/cgroup/x/cpu.stat";
    let job = cpu_of_job(
        path,
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 0\n",
    );
    assert_eq!(of(&job, "job/usage"), (5, "µs", Kind::Counter));
    assert_eq!((job.len(), job[0].source), (3, path));
}

#[test]
fn interrupts_are_those_that_happened() {
    let all = interrupts(
        INTERRUPTS_4,
        "                    CPU0       CPU2\n      TIMER:  5  0\n",
    );
    assert_eq!(
        names(&all),
        [
            "cpu0/24 PCI-MSIX-0000:00:03.0 0-edge virtio0-input.0, eth0",
            "cpu3/24 PCI-MSIX-0000:00:03.0 0-edge virtio0-input.0, eth0",
            "cpu0/LOC",
            "cpu2/LOC",
            "cpu0/softirq TIMER",
        ]
    );
    assert_eq!(of(&all, "cpu2/LOC"), (3, "count", Kind::Counter));
    let real = interrupts(INTERRUPTS_2, SOFTIRQS_2);
    for name in ["cpu0/LOC", "cpu1/RES", "cpu0/softirq RCU"] {
        assert!(of(&real, name).0 > 0, "{name}");
    }
}

#[test]
fn memory_is_in_bytes() {
    let all = memory(
        "MemFree: 2 kB\nHugePages_Free:  3\nDirty:\nCached: x kB\n",
        "pswpin 4\n",
    );
    assert_eq!(names(&all), ["MemFree", "HugePages_Free", "swapped_in"]);
    assert_eq!(of(&all, "MemFree"), (2048, "bytes", Kind::Gauge));
    assert_eq!(of(&all, "HugePages_Free"), (3, "pages", Kind::Gauge));
    let real = memory(MEMINFO_TEXT, VMSTAT_TEXT);
    assert_eq!(real.len(), MEMORY.len() + 3, "{real:#?}");
    assert!(of(&real, "MemAvailable").0 > 1 << 20);
    let huge = memory("MemFree: 18446744073709551615 kB\n", "");
    assert_eq!(names(&huge), [""; 0], "no such machine");
    let job = memory_of_job("/m", "4096\n");
    assert_eq!(of(&job, "job/memory"), (4096, "bytes", Kind::Gauge));
    let stat = memory_stat_of_job("/s", "anon 1\nfile 2\npgfault 3\n");
    assert_eq!(names(&stat), ["job/anon", "job/file", "job/pgfault"]);
}

#[test]
fn devices_that_were_used_have_bytes() {
    let all = disk(
        " 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n 8 0 sda 1\n",
    );
    assert_eq!(all.len(), 8);
    assert_eq!(of(&all, "vda/reads"), (1, "count", Kind::Counter));
    assert_eq!(of(&all, "vda/read"), (3 * 512, "bytes", Kind::Counter));
    assert_eq!(of(&all, "vda/written"), (7 * 512, "bytes", Kind::Counter));
    assert_eq!(of(&all, "vda/in_flight"), (9, "requests", Kind::Gauge));
    assert_eq!(of(&all, "vda/busy"), (10, "ms", Kind::Counter));
    assert!(of(&disk(DISKSTATS_TEXT), "vda/writes").0 > 0);
}

#[test]
fn each_interface_has_both_directions() {
    let all = network(NET_DEV_TEXT);
    assert!(names(&all).contains(&"lo/received"));
    assert!(of(&all, "eth0/received").0 > 0);
    let one = network(" eth0:1: 1 2 3 4 0 0 0 0 9 10 11 12 0 0 0 0\n eth1: 1 2\n");
    assert_eq!(one.len(), 8);
    assert_eq!(of(&one, "eth0:1/sent"), (9, "bytes", Kind::Counter));
    assert_eq!(
        of(&one, "eth0:1/receive_dropped"),
        (4, "count", Kind::Counter)
    );
}

#[test]
fn a_file_of_one_number_is_that_number() {
    let kind = Kind::Energy { range_uj: Some(9) };
    let energy = single("package-0", "µJ", kind, "/e", "7\n").unwrap();
    assert_eq!((energy.value, energy.kind), (7, kind));
    let cold = single("t", "m°C", Kind::Gauge, "/t", "-3000\n").unwrap();
    assert_eq!(cold.value, -3000);
    assert_eq!(single("e", "µJ", Kind::Counter, "/e", "-1"), None);
    assert_eq!(single("e", "µJ", Kind::Counter, "/e", ""), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(
        text in "((cpu[0-9]{0,10}|CPU[0-9]|[a-z0-9]{1,6}:?|[0-9]{1,22}|é)[ \n]{1,2}){0,60}",
    ) {
        let most = text.len() * 8;
        prop_assert!(cpu(&text).len() <= most);
        prop_assert!(interrupts(&text, &text).len() <= most);
        prop_assert!(memory(&text, &text).len() <= most);
        prop_assert!(disk(&text).len() <= most);
        prop_assert!(network(&text).len() <= most);
        prop_assert!(cpu_of_job("/", &text).len() <= 3);
        prop_assert!(memory_of_job("/", &text).len() <= 1);
        prop_assert!(memory_stat_of_job("/", &text).len() <= 6);
        prop_assert!(number(&text).is_none_or(|_| !text.is_empty()));
    }
}
