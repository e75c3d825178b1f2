//! Tables of real and of realistic machines.

use cpulist::CpuSet;
use proptest::prelude::*;
use quiet::{Interrupt, Snapshot, Texts, Value, Watch};

macro_rules! fixture {
    ($path:literal) => {
        include_str!(concat!("../fixtures/", $path))
    };
}

fn cpus(list: &str) -> CpuSet {
    list.parse().expect("a CPU list")
}

#[test]
fn a_virtual_machine_without_schedstats() {
    let texts = Texts {
        interrupts: fixture!("virtio/interrupts"),
        softirqs: fixture!("virtio/softirqs"),
        stat: Some(fixture!("virtio/stat")),
        vmstat: Some(fixture!("virtio/vmstat")),
        ..Texts::default()
    };
    let snapshot = Snapshot::parse(1, &cpus("1"), &texts);
    let cpu = &snapshot.cpus[&1];
    assert_eq!(snapshot.cpus.len(), 1);
    assert_eq!(cpu.timeslices, None);
    assert!(cpu.steal_ticks.is_some() && snapshot.system.forks.is_some());
    assert_eq!(cpu.softirqs.len(), 10);
    assert!(cpu.devices[&38].text.ends_with("virtio2-input.0"));
    assert!(cpu.interrupts["LOC"] > 0 && !cpu.interrupts.contains_key("ERR"));
    assert!(snapshot.system.pgmajfault.is_some() && snapshot.system.nr_throttled.is_none());
}

#[test]
fn columns_of_offline_cpus_are_left_out() {
    let texts = Texts {
        interrupts: fixture!("offline/interrupts"),
        schedstat: Some(fixture!("offline/schedstat")),
        ..Texts::default()
    };
    let snapshot = Snapshot::parse(1, &cpus("5-8,13"), &texts);
    assert_eq!(
        snapshot.cpus.keys().copied().collect::<Vec<_>>(),
        [5, 8, 13]
    );
    assert_eq!(snapshot.cpus[&8].interrupts["LOC"], 1208);
    assert_eq!(snapshot.cpus[&13].timeslices, Some(1312));
    assert_eq!(snapshot.cpus[&5].timeslices, None);
}

#[test]
fn arm_lines_have_their_kinds_by_text() {
    let texts = Texts {
        interrupts: fixture!("arm/interrupts"),
        schedstat: Some(fixture!("arm/schedstat")),
        ..Texts::default()
    };
    let snapshot = Snapshot::parse(1, &cpus("2"), &texts);
    let cpu = &snapshot.cpus[&2];
    assert_eq!(cpu.timeslices, Some(212));
    assert_eq!(cpu.interrupts["IPI0 Rescheduling interrupts"], 121);
    let kinds = |kind| {
        cpu.interrupts
            .keys()
            .filter(|name| Interrupt::of_name(name) == kind)
            .count()
    };
    assert_eq!(
        (
            kinds(Interrupt::Call),
            kinds(Interrupt::IrqWork),
            kinds(Interrupt::Other)
        ),
        (1, 1, 3)
    );
    assert_eq!(
        Interrupt::of_device(&cpu.devices[&11].text),
        Interrupt::Timer
    );
    assert_eq!(
        Interrupt::of_device(&cpu.devices[&48].text),
        Interrupt::Device
    );
}

#[test]
fn amd_lines_are_known() {
    let texts = Texts {
        interrupts: fixture!("amd/interrupts"),
        ..Texts::default()
    };
    let snapshot = Snapshot::parse(1, &cpus("1"), &texts);
    let other: Vec<_> = snapshot.cpus[&1]
        .interrupts
        .keys()
        .filter(|name| Interrupt::of_name(name) == Interrupt::Other)
        .collect();
    assert_eq!(other, ["NPI", "PIN", "PIW", "RTR", "SPU"]);
}

proptest! {
    /// Whatever happens to the text, nothing panics, and twice the same text is no event.
    #[test]
    fn damaged_tables_are_taken_as_they_come(
        table in prop::sample::select(vec![
            fixture!("virtio/interrupts"), fixture!("virtio/softirqs"), fixture!("virtio/stat"),
            fixture!("virtio/vmstat"), fixture!("offline/interrupts"), fixture!("arm/schedstat"),
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..8),
    ) {
        let mut chars: Vec<char> = table.chars().collect();
        for (place, with) in damage {
            *place.get_mut(&mut chars[..]) = with;
        }
        let text: String = chars.into_iter().collect();
        let texts = Texts {
            interrupts: &text,
            softirqs: &text,
            schedstat: Some(&text),
            stat: Some(&text),
            vmstat: Some(&text),
            ..Texts::default()
        };
        let snapshot = |taken_ns| Snapshot::parse(taken_ns, &cpus("0-3"), &texts);
        let mut watch = Watch::new(snapshot(1));
        watch.push(snapshot(2));
        for cpu in watch.finish().cpus.values() {
            prop_assert!(cpu.interrupts.values().all(|value| *value == Value::Measured(0)));
        }
    }
}
