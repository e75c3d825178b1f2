//! Machines of fixtures, with registers that count as theirs would, judged to the end.

use std::sync::atomic::{AtomicU64, Ordering};

use host::fakes::{FakeMsrs, FakeTree};
use nix::errno::Errno;
use quiet::{JobClass, Judgement, QuietClass, Value, Verdict, judge};

use super::*;

/// A run of which everything else is quiet: the same as in the tests of the rules.
#[allow(dead_code, reason = "not all of it is of use here")]
#[path = "../../../../../crates/quiet/tests/it/node.rs"]
mod node;

macro_rules! machine {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/hardware/",
            $name
        ))
    };
}
const INTEL: &str = machine!("intel.txt");
const AMD: &str = machine!("amd.txt");
const VM: &str = machine!("vm.txt");

const SMI: u32 = 0x34;
const MPERF: u32 = 0xe7;
const APERF: u32 = 0xe8;
const THERM_STATUS: u32 = 0x19c;
/// Cycles of a window: five seconds at 2 GHz.
const CYCLES: u64 = 10_000_000_000;

/// 10 µs later each time, as long as a register takes.
fn clock() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(10_000, Ordering::Relaxed)
}

/// Always too late: this thread loses its CPU between any two readings.
fn slow_clock() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1_000_000, Ordering::Relaxed)
}

struct Machine {
    tree: FakeTree,
    msrs: FakeMsrs,
    cpus: CpuSet,
    housekeeping: CpuSet,
    clock: fn() -> u64,
}

/// Where in a run something happens: after the reading before a window, or after the one behind it.
type Act<'a> = &'a dyn Fn(&Machine, WindowName);

impl Machine {
    /// With a job on CPUs 2 and 3.
    fn new(fixture: &str) -> Self {
        let msrs = FakeMsrs::new();
        for cpu in 0..4 {
            msrs.set(cpu, SMI, 17);
            msrs.set(cpu, MPERF, 1 << 40);
            msrs.set(cpu, APERF, 1 << 41);
            msrs.set(cpu, THERM_STATUS, 1 << 31 | 55 << 16); // 55 °C below throttling
        }
        Self {
            tree: FakeTree::from_fixture(fixture),
            msrs,
            cpus: "2-3".parse().unwrap(),
            housekeeping: "0-1".parse().unwrap(),
            clock,
        }
    }

    fn job_cpus(&self) -> impl Iterator<Item = u32> {
        self.cpus.iter()
    }

    /// Adds to a file's number.
    fn add(&self, path: &str, more: u64) {
        let now: u64 = self.tree.get(path).unwrap().parse().unwrap();
        self.tree.set(path, &(now + more).to_string());
    }

    fn throttled(&self, file: &str) {
        self.add(
            &format!("/sys/devices/system/cpu/cpu3/thermal_throttle/{file}"),
            1,
        );
    }

    fn stolen(&self) {
        let stat = self.tree.get("/proc/stat").unwrap();
        let line = "cpu3 2250 0 200 100000 2 0 5 ";
        self.tree.set(
            "/proc/stat",
            &stat.replace(&format!("{line}0"), &format!("{line}1")),
        );
    }

    fn each(&self, file: &str, text: &str) {
        for cpu in self.cpus.iter() {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/{file}");
            self.tree.set(&path, text);
        }
    }

    /// A run with both canaries, in which `act` happens within each window.
    fn run(&self, act: Act<'_>) -> Hardware {
        let mut witness = Witness::new(
            &self.tree,
            &self.msrs,
            &self.cpus,
            self.housekeeping.clone(),
            self.clock,
        );
        for window in [
            WindowName::CanaryPre,
            WindowName::Job,
            WindowName::CanaryPost,
        ] {
            witness.before(window);
            for cpu in self.job_cpus() {
                self.msrs.add(cpu, MPERF, CYCLES);
                self.msrs.add(cpu, APERF, CYCLES);
            }
            act(self, window);
            witness.after(window);
        }
        witness.finish()
    }

    /// Something that happens within the job's window only.
    fn run_with(&self, act: impl Fn(&Self)) -> Hardware {
        self.run(&|machine, window| {
            if window == WindowName::Job {
                act(machine);
            }
        })
    }
}

/// The verdict on a run on bare metal that is quiet but for this.
fn judged(hardware: Hardware) -> Judgement {
    let mut evidence = node::evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.platform.hypervisor = Some(false);
    evidence.hardware = hardware;
    judge(&evidence)
}

fn assert_noisy(hardware: Hardware, code: &str) {
    let judgement = judged(hardware);
    assert_eq!(judgement.verdict, Verdict::Noisy, "{code}");
    assert_eq!(judgement.quiet_class, None);
    let codes: Vec<_> = judgement.reasons.iter().map(|one| &one.code).collect();
    assert_eq!(codes, [code]);
}

/// `os-quiet`, for this reason alone.
fn assert_not_known(hardware: Hardware, code: &str, why: &str) {
    let judgement = judged(hardware);
    assert_eq!(judgement.verdict, Verdict::Quiet, "{:?}", judgement.reasons);
    assert_eq!(judgement.quiet_class, Some(QuietClass::OsQuiet));
    let [only] = judgement.unproven.as_slice() else {
        panic!("{:?}", judgement.unproven);
    };
    assert_eq!(only.code, code);
    assert!(only.text.contains(why), "{}", only.text);
}

#[test]
fn an_intel_server_at_rest_is_hw_quiet() {
    let machine = Machine::new(INTEL);
    let hardware = machine.run(&|machine, window| {
        if window == WindowName::Job {
            for cpu in machine.job_cpus() {
                let state = |number: u32| {
                    format!("/sys/devices/system/cpu/cpu{cpu}/cpuidle/state{number}/time")
                };
                machine.add(&state(0), 1_000_000); // polling is no sleep
                machine.add(&state(1), 200);
            }
        }
    });
    assert_eq!(
        hardware,
        Hardware {
            smi: Value::Measured(0),
            aperf_mperf: Value::Measured(0),
            throttle: Value::Measured(0),
            temperature: Value::Measured(0),
            cstate_residency: Value::Measured(400),
            // package 1, of which only the job has CPUs
            energy: Value::Measured(0),
            host_steal: Value::Measured(0),
        }
    );
    let judgement = judged(hardware);
    assert_eq!(judgement.verdict, Verdict::Quiet);
    assert_eq!(judgement.quiet_class, Some(QuietClass::HwQuiet));
    assert!(judgement.unproven.is_empty(), "{:?}", judgement.unproven);
    for cpu in [0, 1] {
        assert_eq!(machine.msrs.reads(cpu), 0, "not the job's");
    }
    // SMI, MPERF, APERF and temperature, before and after three windows
    assert_eq!(machine.msrs.reads(2), 4 * 6);
}

#[test]
fn each_witness_of_an_intel_server_can_make_noise() {
    let noisy = |code: &str, act: fn(&Machine)| {
        assert_noisy(Machine::new(INTEL).run_with(act), code);
    };
    noisy("hw_smi", |machine| machine.msrs.add(3, SMI, 1));
    noisy("hw_frequency", |machine| {
        machine.msrs.add(3, APERF, CYCLES / 199); // 0.5025 % too fast
    });
    noisy("hw_frequency", |machine| {
        machine.msrs.add(3, MPERF, CYCLES / 198)
    });
    noisy("hw_thermal", |machine| {
        machine.throttled("core_throttle_count")
    });
    noisy("hw_thermal", |machine| {
        machine.throttled("package_throttle_count")
    });
    noisy("hw_host_steal", Machine::stolen);
    noisy("hw_temperature", |machine| {
        machine.msrs.set(3, THERM_STATUS, 1 << 31 | 51 << 16); // 4 °C hotter
    });
    noisy("hw_temperature", |machine| {
        machine.msrs.set(3, THERM_STATUS, 1 << 31 | 59 << 16); // or colder
    });
    // and in a canary as well as in the job
    let in_canary = Machine::new(INTEL).run(&|machine, window| {
        if window == WindowName::CanaryPost {
            machine.msrs.add(2, SMI, 1);
        }
    });
    assert_noisy(in_canary, "hw_smi");
}

#[test]
fn what_the_gates_allow_is_quiet() {
    let allowed = Machine::new(INTEL).run_with(|machine| {
        machine.msrs.add(3, APERF, CYCLES / 200); // 0.5 %
        machine.msrs.set(3, THERM_STATUS, 1 << 31 | 58 << 16); // 3 °C
    });
    assert_eq!(allowed.aperf_mperf, Value::Measured(5_000));
    assert_eq!(allowed.temperature, Value::Measured(3_000));
    assert_eq!(judged(allowed).quiet_class, Some(QuietClass::HwQuiet));
}

#[test]
fn each_witness_that_is_missing_leaves_it_os_quiet() {
    let quiet = |_: &Machine, _: WindowName| {};
    let missing = |code: &str, why: &str, make: &dyn Fn(&Machine)| {
        let machine = Machine::new(INTEL);
        make(&machine);
        assert_not_known(machine.run(&quiet), code, why);
    };
    missing("hw_smi", "register 0x34 of CPU 3", &|machine| {
        machine.msrs.fail(3, SMI, Errno::EIO);
    });
    missing("hw_frequency", "2000000 to 2100000", &|machine| {
        machine.each("cpufreq/scaling_max_freq", "2100000");
    });
    missing("hw_frequency", "no driver", &|machine| {
        machine.each("cpufreq/scaling_min_freq", "?");
    });
    missing("hw_frequency", "base frequency", &|machine| {
        machine.each("cpufreq/base_frequency", "0");
    });
    missing("hw_frequency", "register 0xe8", &|machine| {
        machine.msrs.fail(2, APERF, Errno::EPERM);
    });
    missing("hw_thermal", "does not count", &|machine| {
        for cpu in machine.job_cpus() {
            let folder = format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
            machine.tree.remove(&folder);
        }
    });
    missing("hw_host_steal", "/proc/stat cannot be read", &|machine| {
        machine.tree.on_read_fail("/proc/stat", Errno::EACCES);
    });
}

#[test]
fn a_witness_that_is_lost_on_the_way_is_not_known() {
    let lost = |code: &str, why: &str, act: fn(&Machine)| {
        assert_not_known(Machine::new(INTEL).run_with(act), code, why);
    };
    lost("hw_smi", "went backwards", |machine| {
        machine.msrs.set(3, SMI, 16)
    });
    lost("hw_frequency", "went backwards", |machine| {
        machine.msrs.set(3, APERF, 1);
    });
    lost("hw_thermal", "some readings only", |machine| {
        machine
            .tree
            .remove("/sys/devices/system/cpu/cpu3/thermal_throttle");
    });
    let unfixed = Machine::new(INTEL).run(&|machine, window| {
        if window == WindowName::CanaryPost {
            machine.each("cpufreq/scaling_min_freq", "1000000");
            machine.each("cpufreq/scaling_max_freq", "1000000");
        }
    });
    assert_not_known(unfixed, "hw_frequency", "did not stay fixed");
    let mut machine = Machine::new(INTEL);
    machine.clock = slow_clock;
    let torn = machine.run(&|_, _| {});
    assert!(torn.smi.measured().is_none(), "nothing beside it is known");
    let Value::Unobservable { why } = torn.aperf_mperf else {
        panic!("{:?}", torn.aperf_mperf);
    };
    assert!(why.contains("within 100 µs"), "{why}");
}

#[test]
fn without_temperature_it_is_still_hw_quiet() {
    let lost = Machine::new(INTEL).run_with(|machine| machine.msrs.set(3, THERM_STATUS, 0));
    let Value::Unobservable { why } = &lost.temperature else {
        panic!("{:?}", lost.temperature);
    };
    assert!(why.contains("no valid reading"), "{why}");
    assert_eq!(judged(lost).quiet_class, Some(QuietClass::HwQuiet));
}

#[test]
fn another_fixed_frequency_has_another_ratio() {
    let machine = Machine::new(INTEL);
    machine.each("cpufreq/scaling_min_freq", "1500000");
    machine.each("cpufreq/scaling_max_freq", "1500000");
    let full_speed = machine.run(&|_, _| {});
    assert_eq!(full_speed.aperf_mperf, Value::Measured(333_333));
    let held = machine.run(&|machine, _| {
        for cpu in machine.job_cpus() {
            machine.msrs.add(cpu, MPERF, CYCLES / 3);
        }
    });
    assert!(held.aperf_mperf.measured() < Some(10), "{held:?}");
}

#[test]
fn registers_that_stand_still_are_not_believed() {
    let machine = Machine::new(INTEL);
    let mut witness = Witness::new(
        &machine.tree,
        &machine.msrs,
        &machine.cpus,
        machine.housekeeping.clone(),
        clock,
    );
    for cpu in 0..4 {
        for register in [SMI, MPERF, APERF, THERM_STATUS] {
            machine.msrs.set(cpu, register, 0);
        }
    }
    witness.before(WindowName::Job);
    witness.after(WindowName::Job);
    let hardware = witness.finish();
    assert!(hardware.smi.measured().is_none(), "{:?}", hardware.smi);
    assert!(hardware.aperf_mperf.measured().is_none());
    assert!(hardware.temperature.measured().is_none());
}

#[test]
fn without_the_msr_device_no_register_is_known() {
    let machine = Machine::new(INTEL);
    for cpu in 0..4 {
        machine.msrs.remove(cpu);
    }
    let mut witness = Witness::new(
        &machine.tree,
        &machine.msrs,
        &machine.cpus,
        machine.housekeeping.clone(),
        clock,
    );
    witness.before(WindowName::Job);
    witness.after(WindowName::Job);
    let hardware = witness.finish();
    assert!(hardware.smi.measured().is_none() && hardware.aperf_mperf.measured().is_none());
    assert_eq!(
        hardware.throttle,
        Value::Measured(0),
        "a file of the kernel"
    );
}

#[test]
fn energy_is_the_jobs_and_goes_round() {
    let mut machine = Machine::new(INTEL);
    let zone = |package: u32| format!("/sys/class/powercap/intel-rapl:{package}/energy_uj");
    let spent = machine.run(&|machine, _| machine.add(&zone(1), 7_000_000));
    assert_eq!(
        spent.energy,
        Value::Measured(7_000_000),
        "not the canaries'"
    );

    machine.cpus = "1".parse().unwrap();
    let round = machine.run_with(|machine| machine.tree.set(&zone(0), "1000000"));
    // from 262,143,000,000 of 262,143,328,850
    assert_eq!(round.energy, Value::Measured(1_328_850));

    machine.cpus = "3".parse().unwrap();
    let foreign = machine.run(&|_, _| {});
    let Value::Unobservable { why } = &foreign.energy else {
        panic!("{:?}", foreign.energy);
    };
    assert!(why.contains("would interrupt CPU 2"), "{why}");
}

#[test]
fn an_amd_server_counts_less_and_says_so() {
    let machine = Machine::new(AMD);
    let hardware = machine.run(&|machine, window| {
        if window == WindowName::CanaryPost {
            machine.add("/sys/class/hwmon/hwmon1/temp1_input", 2_125);
            machine.add("/sys/class/hwmon/hwmon0/temp1_input", 9_000); // a disk
        }
    });
    assert_eq!(hardware.smi, Value::Absent);
    assert_eq!(hardware.throttle, Value::Absent);
    assert_eq!(hardware.aperf_mperf, Value::Measured(0));
    assert_eq!(hardware.temperature, Value::Measured(2_125));
    let judgement = judged(hardware);
    assert_eq!(judgement.quiet_class, Some(QuietClass::OsQuiet));
    let codes: Vec<_> = judgement.unproven.iter().map(|one| &one.code).collect();
    assert_eq!(codes, ["hw_smi", "hw_thermal"]);
    // MPERF and APERF, and nothing that this CPU does not have
    assert_eq!(machine.msrs.reads(2), 2 * 6);

    let slower = Machine::new(AMD).run_with(|machine| machine.msrs.add(2, MPERF, CYCLES / 100));
    let codes: Vec<_> = judged(slower)
        .reasons
        .into_iter()
        .map(|one| one.code)
        .collect();
    assert_eq!(codes, ["hw_frequency"]);
    let hotter = Machine::new(AMD).run(&|machine, window| {
        if window == WindowName::CanaryPost {
            machine.add("/sys/class/hwmon/hwmon1/temp3_input", 3_001);
        }
    });
    let codes: Vec<_> = judged(hotter)
        .reasons
        .into_iter()
        .map(|one| one.code)
        .collect();
    assert_eq!(codes, ["hw_temperature"]);
}

#[test]
fn in_a_virtual_machine_not_one_register_is_read() {
    let machine = Machine::new(VM);
    let hardware = machine.run(&|_, _| {});
    let why = "a virtual machine: its registers say zero whatever happens";
    assert_eq!(hardware, Hardware::unobservable(why));
    for cpu in 0..4 {
        assert_eq!(machine.msrs.reads(cpu), 0);
    }
    let unknown = Machine::new(INTEL);
    unknown.tree.set("/proc/cpuinfo", "processor : 0\n");
    assert!(unknown.run(&|_, _| {}).smi.measured().is_none());
    assert_eq!(unknown.msrs.reads(2), 0);
}

#[test]
fn without_canaries_the_job_alone_is_witnessed() {
    let machine = Machine::new(INTEL);
    let mut witness = Witness::new(
        &machine.tree,
        &machine.msrs,
        &machine.cpus,
        machine.housekeeping.clone(),
        clock,
    );
    witness.before(WindowName::CanaryPre); // which then failed
    witness.before(WindowName::Job);
    for cpu in machine.job_cpus() {
        machine.msrs.add(cpu, MPERF, CYCLES);
        machine.msrs.add(cpu, APERF, CYCLES);
    }
    witness.after(WindowName::Job);
    let hardware = witness.finish();
    assert_eq!(hardware.smi, Value::Measured(0));
    assert_eq!(hardware.aperf_mperf, Value::Measured(0));
    assert!(hardware.temperature.measured().is_none());
}
