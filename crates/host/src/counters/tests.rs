use cpulist::CpuSet;
use proptest::prelude::*;

use super::*;
use crate::fakes::FakeTree;

/// CPU 1 is offline: its column is missing.
const INTERRUPTS: &str = "\
           CPU0       CPU2       CPU3
  0:         12          0          1   IO-APIC   2-edge      timer
 24:       1000          5          0  PCI-MSIX-0000:00:03.0   0-edge      virtio0-input.0, eth0
NMI:          0          1          2   Non-maskable interrupts
LOC:      88000          3          4   Local timer interrupts
RES:          7          8          9   Rescheduling interrupts
CAL:          1          2          3   Function call interrupts
TLB:          4          5          6   TLB shootdowns
IWI:          0         11          0   IRQ work interrupts
MCP:          1          1          1   Machine check polls
ERR:          0
MIS:          0
";

const SOFTIRQS: &str = "\
                    CPU0       CPU2       CPU3
          HI:          0          0          0
       TIMER:       5000         22          1
      NET_RX:         44          0          0
";

const SCHEDSTAT: &str = "\
version 17
timestamp 4295001234
cpu0 0 0 0 0 0 0 123 456 789
domain0 SMT 00000003 0 0 0
cpu2 0 0 0 0 0 0 1 2 30
cpu3 0 0 0 0 0 0 1 2
";

#[test]
fn columns_belong_to_the_cpus_of_the_header() {
    let all = combine(INTERRUPTS, SOFTIRQS, SCHEDSTAT);
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
    let cpu = &all[&2];
    assert_eq!(
        (cpu.timer, cpu.resched, cpu.call_function, cpu.tlb_shootdown),
        (3, 8, 2, 5)
    );
    assert_eq!((cpu.irq_work, cpu.nmi, cpu.pmi, cpu.device), (11, 1, 0, 5));
    assert_eq!(cpu.other, BTreeMap::from([("MCP".to_owned(), 1)]));
    assert_eq!(cpu.softirqs["TIMER"], 22);
    assert_eq!(cpu.timeslices, Some(30));
    assert_eq!(all[&3].timeslices, None, "a short line counts for nothing");
    assert_eq!(all[&0].device, 1012);
}

#[test]
fn differences_never_go_below_zero() {
    let all = combine(INTERRUPTS, SOFTIRQS, SCHEDSTAT);
    let delta = all[&2].since(&all[&0]);
    assert_eq!(
        (delta.timer, delta.resched, delta.other_interrupts()),
        (0, 1, 1 + 1 + 1 + 11 + 1)
    );
    assert_eq!(delta.softirqs_total(), 0);
}

#[test]
fn reads_the_asked_cpus_from_a_tree() {
    let tree = FakeTree::new();
    tree.set("/proc/interrupts", INTERRUPTS);
    tree.set("/proc/softirqs", SOFTIRQS);
    let cpus: CpuSet = "1-2".parse().unwrap();
    let found = cpu_counters(&tree, &cpus).unwrap();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(found[&2].timeslices, None);
    let json = serde_json::to_value(&found[&2]).unwrap();
    assert_eq!(json["timer"], 3);
}

#[test]
fn sees_the_threads_of_a_process_and_skips_what_ended() {
    let tree = FakeTree::new();
    tree.set("/proc/7/task/7/schedstat", "100 20 3");
    tree.set(
        "/proc/7/task/7/status",
        "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6",
    );
    tree.set("/proc/7/task/8/schedstat", "1 1 1");
    let found = tasks(&tree, 7).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[&7],
        TaskCounters {
            run_ns: 100,
            wait_ns: 20,
            timeslices: 3,
            voluntary_switches: 5,
            involuntary_switches: 6
        }
    );
    assert!(tasks(&tree, 9).is_err());
}

#[test]
fn the_running_kernel_is_understood() {
    let tree = crate::RealTree::live();
    let lines = interrupts(&tree).unwrap();
    assert!(!lines.is_empty());
    let mine = tasks(&tree, std::process::id()).unwrap();
    assert!(
        mine.values()
            .any(|task| task.run_ns > 0 || task.timeslices > 0 || task.voluntary_switches > 0)
    );
}

proptest! {
    #[test]
    fn no_text_makes_combining_panic(text in "(CPU[0-9]{0,12} ){0,3}\n([A-Z0-9: é\n]{0,60}){0,4}", other in ".{0,80}") {
        let all = combine(&text, &text, &text);
        prop_assert!(all.len() <= text.len());
        prop_assert!(combine(&other, &text, &other).len() <= other.len() + text.len());
    }
}
