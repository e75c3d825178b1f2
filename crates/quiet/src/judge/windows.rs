//! The gates of one window.

mod lines;

use crate::class::{Gate, Rules};
use crate::{CpuWindow, Evidence, Interrupt, Value, Window, WindowName};

use super::{Findings, Place, seconds};

/// The sampler takes about ten snapshots a second.
const LATE_NS: u64 = 1_000_000_000;
/// What is left of the job after its last snapshot.
const LONGEST_EXIT_NS: u64 = 250_000_000;
/// Much noise comes once a second: a shorter canary has not seen it.
const SHORTEST_CANARY_NS: u64 = 1_000_000_000;

pub(super) fn check(evidence: &Evidence, window: &Window, findings: &mut Findings) {
    let rules = Rules {
        window: window.name,
        duration_ns: window.duration_ns(),
        class: evidence.class,
        one_thread: window.threads == 1,
    };
    let mut check = Check {
        rules,
        window,
        findings,
    };
    check.sampling();
    check.threads(evidence.job_cpus.len());
    for cpu in evidence.job_cpus.iter() {
        match window.cpus.get(&cpu) {
            Some(counts) => check.cpu(cpu, counts),
            None => check.unproven(
                Some(cpu),
                "cpu_missing",
                format!("CPU {cpu} has no counters: it was offline or not read"),
            ),
        }
    }
    check.foreign();
    check.system();
}

/// What a gate is about.
struct Subject<'a> {
    code: &'a str,
    cpu: Option<u32>,
    /// Behind the number: "CPU 1 took 3 ...".
    who: String,
    what: String,
    cause: &'a str,
}

struct Check<'a> {
    rules: Rules,
    window: &'a Window,
    findings: &'a mut Findings,
}

impl Check<'_> {
    fn unproven(&mut self, cpu: Option<u32>, code: &str, text: String) {
        let window = Some(self.window.name);
        self.findings.unproven_at(Place { window, cpu }, code, text);
    }

    fn gate(&mut self, gate: Gate, value: &Value, subject: &Subject<'_>) {
        let Gate::AtMost(limit) = gate else { return };
        let Subject {
            code,
            cpu,
            who,
            what,
            cause,
        } = subject;
        match value {
            Value::Measured(count) if count <= &limit => {}
            Value::Measured(count) => {
                let window = Some(self.window.name);
                let span = seconds(self.window.duration_ns());
                let text = format!("{who} {count} {what} in {span} (at most {limit}): {cause}");
                self.findings
                    .noise_at(Place { window, cpu: *cpu }, code, text);
            }
            Value::Absent => {
                self.unproven(*cpu, code, format!("{what} are not counted by this kernel"));
            }
            Value::Unobservable { why } => {
                self.unproven(*cpu, code, format!("{what} are not known: {why}"));
            }
        }
    }

    fn sampling(&mut self) {
        let window = self.window;
        for flaw in &window.flaws {
            self.unproven(None, "flaw", flaw.clone());
        }
        if window.steps == 0 {
            self.unproven(None, "no_steps", "nothing was measured".to_owned());
        }
        let duration = window.duration_ns();
        if window.longest_step_ns > LATE_NS {
            let late = seconds(window.longest_step_ns);
            let text =
                format!("the sampler was late: {late} between two snapshots (at most 1.0 s)");
            self.unproven(None, "sampler_late", text);
        }
        if window.name == WindowName::Exit && duration > LONGEST_EXIT_NS {
            let ms = duration / 1_000_000;
            let text = format!("the job's end was seen only after {ms} ms (at most 250 ms)");
            self.unproven(None, "sampler_late", text);
        }
        if window.name.is_canary() && duration < SHORTEST_CANARY_NS {
            let text = format!(
                "the canary ran for {} (at least 1.0 s): what happens once a second was not seen",
                seconds(duration)
            );
            self.unproven(None, "canary_short", text);
        }
    }

    fn threads(&mut self, cpus: usize) {
        let window = self.window;
        if window.name.is_canary() {
            if usize::try_from(window.threads).is_ok_and(|threads| threads < cpus) {
                let text = format!("{} threads spun on {cpus} CPUs", window.threads);
                self.unproven(None, "canary_threads", text);
            }
            if window.voluntary_switches != Value::Measured(0) {
                let text = format!(
                    "the canary gave the CPU away {} times (at most 0): it did not spin",
                    window.voluntary_switches
                );
                self.unproven(None, "canary_slept", text);
            }
        } else if window.name == WindowName::Job && window.threads == 0 {
            let text = "no thread of the job was seen".to_owned();
            self.unproven(None, "no_threads", text);
        }
    }

    fn cpu(&mut self, cpu: u32, counts: &CpuWindow) {
        for (name, value) in &counts.interrupts {
            let kind = Interrupt::of_name(name);
            let subject = Subject {
                code: &format!("interrupts.{name}"),
                cpu: Some(cpu),
                who: format!("CPU {cpu} took"),
                what: format!("{} ({name})", kind.noun()),
                cause: kind.cause(),
            };
            self.gate(self.rules.interrupt(kind), value, &subject);
        }
        for (irq, device) in &counts.device {
            let kind = Interrupt::of_device(&device.text);
            let subject = Subject {
                code: &format!("device.{irq}"),
                cpu: Some(cpu),
                who: format!("CPU {cpu} took"),
                what: format!("{} {irq} ({})", kind.noun(), device.text),
                cause: kind.cause(),
            };
            self.gate(self.rules.interrupt(kind), &device.count, &subject);
        }
        for (name, value) in &counts.softirqs {
            let subject = Subject {
                code: &format!("softirqs.{name}"),
                cpu: Some(cpu),
                who: format!("CPU {cpu} ran"),
                what: format!("{name} softirqs"),
                cause: lines::softirq_cause(name),
            };
            self.gate(self.rules.softirq(name), value, &subject);
        }
        let rules = self.rules;
        for (file, name) in lines::missing(&rules, counts) {
            let text = format!("CPU {cpu}: /proc/{file} has no line for {name}");
            self.unproven(Some(cpu), &format!("{file}.{name}"), text);
        }
    }

    fn foreign(&mut self) {
        let window = self.window;
        let seen: Vec<String> = window
            .residents
            .iter()
            .map(|ran| format!("{} ({} times)", ran.name, ran.timeslices))
            .collect();
        let gate = self.rules.foreign_timeslices();
        let subject = |who: &str, cause| Subject {
            code: "foreign_timeslices",
            cpu: None,
            who: who.to_owned(),
            what: "timeslices of threads other than the job's".to_owned(),
            cause,
        };
        let named = format!("seen to run: {}", seen.join(", "));
        let cause = if seen.is_empty() {
            "none of the threads bound to these CPUs ran; may another one run there?"
        } else {
            named.as_str()
        };
        self.gate(
            gate,
            &window.foreign_timeslices,
            &subject("the job's CPUs gave", cause),
        );
        let all_known = self.rules.unattributable_steps() != Gate::Reported;
        if all_known && window.foreign_timeslices == Value::Measured(0) {
            // the sum comes from files read one after another; what a thread says of itself stands
            let ran = window.residents.iter().map(|ran| ran.timeslices);
            let ran = Value::Measured(ran.fold(0, u64::saturating_add));
            self.gate(
                gate,
                &ran,
                &subject("threads bound to the job's CPUs got", cause),
            );
        }
        if all_known && window.unattributable_steps > 0 {
            let text = format!(
                "in {} of {} steps a thread of the job ended or may have lived unseen: whose the \
                 {} timeslices of those steps were is not known",
                window.unattributable_steps, window.steps, window.unattributed_timeslices
            );
            self.unproven(None, "unattributable_steps", text);
        }
    }

    fn system(&mut self) {
        let window = self.window;
        let rules = self.rules;
        let checks = [
            (
                rules.involuntary_switches(),
                &window.involuntary_switches,
                "involuntary_switches",
                "the threads watched had",
                "involuntary switches",
                "something else was runnable on their CPU",
            ),
            (
                rules.nr_throttled(),
                &window.nr_throttled,
                "nr_throttled",
                "the job had",
                "periods throttled by a quota",
                "cpu.max is set",
            ),
            (
                rules.major_faults(),
                &window.pgmajfault,
                "pgmajfault",
                "the system had",
                "major page faults",
                "something waited for pages from a device",
            ),
            (
                rules.swap(),
                &window.swapped_in_pages,
                "swapped_in_pages",
                "the system read",
                "pages swapped in",
                "memory is short",
            ),
            (
                rules.swap(),
                &window.swapped_out_pages,
                "swapped_out_pages",
                "the system wrote",
                "pages swapped out",
                "memory is short",
            ),
            (
                rules.psi_cpu(),
                &window.psi_cpu_us,
                "psi_cpu_us",
                "the job had",
                "µs of waiting for a CPU",
                "something else ran on its CPU",
            ),
        ];
        for (gate, value, code, who, what, cause) in checks {
            let subject = Subject {
                code,
                cpu: None,
                who: who.to_owned(),
                what: what.to_owned(),
                cause,
            };
            self.gate(gate, value, &subject);
        }
    }
}
