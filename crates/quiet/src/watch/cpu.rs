//! The sums of one CPU.

use crate::{CpuCounts, CpuWindow, DeviceWindow, Value};

use super::{advance_map, begin as begin_value};

/// Nothing yet, of the counters that the first snapshot has.
pub(super) fn begin(counts: &CpuCounts) -> CpuWindow {
    CpuWindow {
        interrupts: zeros(counts.interrupts.keys()),
        device: counts
            .devices
            .iter()
            .map(|(number, device)| {
                let text = device.text.clone();
                let count = Value::Measured(0);
                (*number, DeviceWindow { count, text })
            })
            .collect(),
        softirqs: zeros(counts.softirqs.keys()),
        timeslices: begin_value(counts.timeslices),
        irq_ticks: begin_value(counts.irq_ticks),
        softirq_ticks: begin_value(counts.softirq_ticks),
        steal_ticks: begin_value(counts.steal_ticks),
    }
}

fn zeros<'a, T: FromIterator<(String, Value)>>(names: impl Iterator<Item = &'a String>) -> T {
    names
        .map(|name| (name.clone(), Value::Measured(0)))
        .collect()
}

pub(super) fn advance(sums: &mut CpuWindow, then: &CpuCounts, now: &CpuCounts) {
    advance_map(&mut sums.interrupts, &then.interrupts, &now.interrupts);
    advance_map(&mut sums.softirqs, &then.softirqs, &now.softirqs);
    sums.timeslices.advance(then.timeslices, now.timeslices);
    sums.irq_ticks.advance(then.irq_ticks, now.irq_ticks);
    sums.softirq_ticks
        .advance(then.softirq_ticks, now.softirq_ticks);
    sums.steal_ticks.advance(then.steal_ticks, now.steal_ticks);
    for (number, device) in &now.devices {
        sums.device.entry(*number).or_insert_with(|| DeviceWindow {
            count: Value::Absent,
            text: device.text.clone(),
        });
    }
    for (number, sum) in &mut sums.device {
        let (then, now) = (then.devices.get(number), now.devices.get(number));
        if then
            .zip(now)
            .is_some_and(|(then, now)| then.text != now.text)
        {
            sum.count
                .spoil("the line was given to another device within the window");
        }
        sum.count
            .advance(then.map(|line| line.count), now.map(|line| line.count));
    }
}

/// Nothing of this CPU is known any more.
pub(super) fn spoil(sums: &mut CpuWindow, why: &str) {
    sums.interrupts
        .values_mut()
        .chain(sums.softirqs.values_mut())
        .chain(sums.device.values_mut().map(|device| &mut device.count))
        .chain([
            &mut sums.timeslices,
            &mut sums.irq_ticks,
            &mut sums.softirq_ticks,
            &mut sums.steal_ticks,
        ])
        .for_each(|value| value.spoil(why));
}
