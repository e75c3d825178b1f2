use proptest::prelude::*;

use super::*;

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
fn device_names_follow_the_counts() {
    let lines = parse_table(INTERRUPTS);
    let network = lines.iter().find(|line| line.name == "24").unwrap();
    assert_eq!(
        network.text,
        "PCI-MSIX-0000:00:03.0 0-edge virtio0-input.0, eth0"
    );
    assert!(lines.iter().all(|line| line.name != "ERR"));
}

#[test]
fn a_line_that_is_too_short_counts_for_nothing() {
    assert_eq!(
        parse_schedstat(SCHEDSTAT),
        BTreeMap::from([(0, 789), (2, 30)])
    );
    assert_eq!(parse_table(SOFTIRQS)[1].counts[&2], 22);
    assert_eq!(parse_task_schedstat("1 2"), None);
}

#[test]
fn stat_has_ticks_and_forks() {
    let stat = parse_stat(
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu2 1 2 3 4 5 6 7\nprocesses 77\n",
    );
    let ticks = CpuTicks {
        user: 1,
        nice: 2,
        system: 3,
        idle: 4,
        iowait: 5,
        irq: 6,
        softirq: 7,
        steal: 8,
    };
    assert_eq!(stat.cpus, BTreeMap::from([(1, ticks)]));
    assert_eq!(stat.forks, Some(77));
}

#[test]
fn keyed_files_have_what_they_name_and_nothing_else() {
    let vmstat = parse_vmstat("pswpin 1\npswpout 2\npgmajfault_x 9\n");
    assert_eq!(
        (vmstat.pswpin, vmstat.pswpout, vmstat.pgmajfault),
        (Some(1), Some(2), None)
    );
    assert_eq!(
        parse_nr_throttled("nr_periods 0\nnr_throttled 3\n"),
        Some(3)
    );
    assert_eq!(
        parse_oom_kill("oom 1\noom_kill 2\noom_group_kill 3\n"),
        Some(2)
    );
    let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=55\nfull avg10=0.00 total=4\n";
    assert_eq!(parse_psi_some_us(pressure), Some(55));
    assert_eq!(parse_psi_some_us("full avg10=0.00 total=4\n"), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in "(CPU[0-9]{0,12} ){0,3}\n([A-Z0-9: é\n]{0,60}){0,4}", other in ".{0,80}") {
        prop_assert!(parse_table(&text).len() <= text.len());
        prop_assert_eq!(parse_switches(&text), None);
        prop_assert!(parse_task_schedstat(&other).is_none_or(|_| other.len() > 4));
        prop_assert!(parse_schedstat(&other).len() <= other.len());
        prop_assert!(parse_stat(&other).cpus.len() <= other.len());
        prop_assert!(parse_psi_some_us(&other).is_none_or(|_| other.contains("total=")));
        prop_assert!(parse_nr_throttled(&text).is_none());
    }

    #[test]
    fn every_count_arrives_in_its_column(
        counts in prop::collection::btree_map(0_u32..500, any::<u64>(), 1..20),
        name in "[A-Z]{3}",
    ) {
        let header: String = counts.keys().map(|cpu| format!(" CPU{cpu}")).collect();
        let line: String = counts.values().map(|count| format!(" {count:>10}")).collect();
        let lines = parse_table(&format!("{header}\n{name}:{line}  Some words\n"));
        prop_assert_eq!(&lines[0].counts, &counts);
        prop_assert_eq!(&lines[0].text, "Some words");
    }
}
