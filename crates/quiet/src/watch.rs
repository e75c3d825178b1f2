//! A series of snapshots becomes one window, in bounded memory.

mod cpu;
mod share;

use std::collections::BTreeMap;

use crate::snapshot::SystemCounts;
use crate::{Snapshot, Value, Window, WindowName};

use share::Share;

/// Adds up a window while it goes on. Keeps the last snapshot and the sums, nothing in between.
#[derive(Debug)]
pub struct Watch {
    last: Snapshot,
    window: Window,
    share: Share,
}

impl Watch {
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let system = &first.system;
        let window = Window {
            name: WindowName::Job,
            start_ns: first.taken_ns,
            end_ns: first.taken_ns,
            steps: 0,
            longest_step_ns: 0,
            cpus: first
                .cpus
                .iter()
                .map(|(cpu, counts)| (*cpu, cpu::begin(counts)))
                .collect(),
            threads: 0,
            foreign_timeslices: Value::Absent,
            unattributable_steps: 0,
            unattributed_timeslices: Value::Absent,
            residents: Vec::new(),
            run_ns: Value::Absent,
            voluntary_switches: Value::Absent,
            involuntary_switches: Value::Absent,
            pgmajfault: begin(system.pgmajfault),
            swapped_in_pages: begin(system.pswpin),
            swapped_out_pages: begin(system.pswpout),
            nr_throttled: begin(system.nr_throttled),
            psi_cpu_us: begin(system.psi_cpu_us),
            psi_memory_us: begin(system.psi_memory_us),
            psi_io_us: begin(system.psi_io_us),
            flaws: Vec::new(),
        };
        Self {
            share: Share::new(&first),
            last: first,
            window,
        }
    }

    /// The next snapshot of the series.
    pub fn push(&mut self, next: Snapshot) {
        let window = &mut self.window;
        match next.taken_ns.checked_sub(self.last.taken_ns) {
            Some(step_ns) if step_ns > 0 => {
                window.longest_step_ns = window.longest_step_ns.max(step_ns);
            }
            _ => flaw(
                window,
                "the clock did not move forward between two snapshots",
            ),
        }
        window.steps = window.steps.saturating_add(1);
        window.end_ns = next.taken_ns;
        for (number, now) in &next.cpus {
            match (window.cpus.get_mut(number), self.last.cpus.get(number)) {
                (Some(sums), Some(then)) => cpu::advance(sums, then, now),
                (Some(_), None) => {} // it was away: spoilt already
                (None, _) => {
                    let mut sums = cpu::begin(now);
                    cpu::spoil(&mut sums, "the CPU appeared within the window");
                    window.cpus.insert(*number, sums);
                }
            }
        }
        for (number, sums) in &mut window.cpus {
            if !next.cpus.contains_key(number) {
                cpu::spoil(sums, "the CPU vanished within the window");
            }
        }
        advance_system(window, &self.last.system, &next.system);
        self.share.advance(&self.last, &next);
        self.last = next;
    }

    /// The window, as the job's; [`Window::named`] makes it another.
    #[must_use]
    pub fn finish(self) -> Window {
        let mut window = self.window;
        self.share.finish(&mut window);
        if window.steps == 0 {
            const WHY: &str = "there is only one snapshot";
            flaw(&mut window, WHY);
            window
                .cpus
                .values_mut()
                .for_each(|sums| cpu::spoil(sums, WHY));
            for value in [
                &mut window.foreign_timeslices,
                &mut window.unattributed_timeslices,
                &mut window.run_ns,
                &mut window.voluntary_switches,
                &mut window.involuntary_switches,
                &mut window.pgmajfault,
                &mut window.swapped_in_pages,
                &mut window.swapped_out_pages,
                &mut window.nr_throttled,
                &mut window.psi_cpu_us,
                &mut window.psi_memory_us,
                &mut window.psi_io_us,
            ] {
                value.spoil(WHY);
            }
        }
        window
    }
}

/// Nothing yet, of a counter that exists.
fn begin(count: Option<u64>) -> Value {
    Value::from_source(count.map(|_| 0))
}

fn flaw(window: &mut Window, text: &str) {
    if window.flaws.iter().all(|known| known != text) {
        window.flaws.push(text.to_owned());
    }
}

fn advance_system(window: &mut Window, then: &SystemCounts, now: &SystemCounts) {
    window.pgmajfault.advance(then.pgmajfault, now.pgmajfault);
    window.swapped_in_pages.advance(then.pswpin, now.pswpin);
    window.swapped_out_pages.advance(then.pswpout, now.pswpout);
    window
        .nr_throttled
        .advance(then.nr_throttled, now.nr_throttled);
    window.psi_cpu_us.advance(then.psi_cpu_us, now.psi_cpu_us);
    window
        .psi_memory_us
        .advance(then.psi_memory_us, now.psi_memory_us);
    window.psi_io_us.advance(then.psi_io_us, now.psi_io_us);
}

/// Adds up each entry of a map of counters; a new name starts out as unobservable.
fn advance_map<K: Ord + Clone>(
    sums: &mut BTreeMap<K, Value>,
    then: &BTreeMap<K, u64>,
    now: &BTreeMap<K, u64>,
) {
    for name in now.keys().filter(|name| !then.contains_key(*name)) {
        sums.entry(name.clone()).or_insert(Value::Absent);
    }
    for (name, sum) in sums {
        sum.advance(then.get(name).copied(), now.get(name).copied());
    }
}

#[cfg(test)]
mod tests;
