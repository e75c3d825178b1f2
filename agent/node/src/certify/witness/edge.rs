//! All readings at one edge.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use quiet::{CpuReadings, Energy, HardwareSnapshot, MAX_SKEW_NS, Pace, Processor, Value, parse};
use stillmetal_tune::topology::highest_without_turbo;

use super::Witness;

/// Intel SDM vol. 4; AMD has the first two at the same numbers (PPR, MSR0000_00E7 and _00E8).
const IA32_MPERF: u32 = 0xe7;
const IA32_APERF: u32 = 0xe8;
const MSR_SMI_COUNT: u32 = 0x34;
const IA32_THERM_STATUS: u32 = 0x19c;
/// A pair of readings between which this thread lost its CPU is taken anew.
const TRIES: u32 = 5;

const CPU: &str = "/sys/devices/system/cpu";
const HWMON: &str = "/sys/class/hwmon";
const POWERCAP: &str = "/sys/class/powercap";
/// Drivers whose sensors are the CPU's and are read over PCI, without an interrupt. `coretemp` is
/// not among them: each of its sensors is read on its own core, and not at all on `nohz_full` CPUs
/// (Linux 6.3 and later); the job's CPUs are asked directly instead.
const SENSORS: [&str; 2] = ["k10temp", "zenpower"];
const THROTTLE: [&str; 4] = [
    "core_throttle_count",
    "core_power_limit_count",
    "package_throttle_count",
    "package_power_limit_count",
];

impl Witness<'_> {
    pub(super) fn read(&self, processor: &Processor) -> HardwareSnapshot {
        let stat = self
            .tree
            .read("/proc/stat")
            .map(|text| parse::parse_stat(&text));
        let steal_ticks = |cpu: u32| match &stat {
            Ok(stat) => Value::from_source(stat.cpus.get(&cpu).map(|ticks| ticks.steal)),
            Err(error) => Value::unobservable(format!("/proc/stat cannot be read: {error}")),
        };
        let taken_ns = (self.clock)();
        let of_cpu = |cpu: u32| {
            // sleep is booked when a CPU wakes: the registers, whose reading wakes it, come first
            let smi = self.register(processor.counts_smis(), cpu, MSR_SMI_COUNT);
            let (mperf, aperf) = self.cycles(processor, cpu);
            let readings = CpuReadings {
                smi,
                aperf,
                mperf,
                pace: self.pace(cpu),
                throttle: self.throttle(cpu),
                idle_us: self.idle_us(cpu),
                steal_ticks: steal_ticks(cpu),
            };
            (cpu, readings)
        };
        HardwareSnapshot {
            taken_ns,
            cpus: self.cpus.iter().map(of_cpu).collect(),
            energy: self.energy(),
            temperatures: if processor.tells_temperature() {
                let of_cpu = |cpu| (format!("CPU {cpu}"), self.millidegrees(cpu));
                self.cpus.iter().map(of_cpu).collect()
            } else {
                self.sensors()
            },
        }
    }

    /// Of a CPU that has it.
    fn register(&self, has: bool, cpu: u32, register: u32) -> Value {
        if !has {
            return Value::Absent;
        }
        match self.msrs.read(cpu, register) {
            Ok(value) => Value::Measured(value),
            Err(error) => Value::unobservable(format!(
                "register {register:#x} of CPU {cpu} cannot be read: {error}"
            )),
        }
    }

    /// MPERF and APERF, close together.
    fn cycles(&self, processor: &Processor, cpu: u32) -> (Value, Value) {
        let has = processor.counts_cycles();
        for _ in 0..TRIES {
            let start = (self.clock)();
            let mperf = self.register(has, cpu, IA32_MPERF);
            let aperf = self.register(has, cpu, IA32_APERF);
            let together = (self.clock)().saturating_sub(start) <= MAX_SKEW_NS;
            if together || aperf.measured().is_none() {
                return (mperf, aperf);
            }
        }
        let torn = Value::unobservable(format!(
            "the two counters of CPU {cpu} could not be read within {} µs",
            MAX_SKEW_NS / 1000
        ));
        (torn.clone(), torn)
    }

    /// Below the temperature at which the CPU throttles: bits 22:16, °C, if bit 31 says so. Counted
    /// from an arbitrary end, since only differences are looked at.
    fn millidegrees(&self, cpu: u32) -> Value {
        match self.register(true, cpu, IA32_THERM_STATUS) {
            Value::Measured(bits) if (bits >> 31) & 1 == 1 => {
                Value::Measured((127 - ((bits >> 16) & 127)) * 1000)
            }
            Value::Measured(_) => {
                Value::unobservable(format!("the sensor of CPU {cpu} has no valid reading"))
            }
            missing => missing,
        }
    }

    fn sensors(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for device in self.tree.list(HWMON).unwrap_or_default() {
            let folder = format!("{HWMON}/{device}");
            let name = self.text(&format!("{folder}/name")).unwrap_or_default();
            if !SENSORS.contains(&name.as_str()) {
                continue;
            }
            for file in self.tree.list(&folder).unwrap_or_default() {
                if file.starts_with("temp") && file.ends_with("_input") {
                    let value = self.number(&format!("{folder}/{file}"));
                    all.insert(format!("{name} {device}/{file}"), value);
                }
            }
        }
        all
    }

    /// What tuning fixed. The base frequency is what it would have fixed it at.
    fn pace(&self, cpu: u32) -> Result<Pace, String> {
        let file = |name: &str| format!("{CPU}/cpu{cpu}/cpufreq/{name}");
        let khz = |name: &str| self.number(&file(name)).measured();
        let (Some(min), Some(max)) = (khz("scaling_min_freq"), khz("scaling_max_freq")) else {
            return Err("no driver says which frequency is fixed".to_owned());
        };
        let nominal_mhz = || {
            let path = format!("{CPU}/cpu{cpu}/acpi_cppc/nominal_freq");
            self.number(&path).measured().filter(|mhz| *mhz > 0)
        };
        let table = || highest_without_turbo(&self.text(&file("scaling_available_frequencies"))?);
        let base = khz("base_frequency")
            .or_else(|| nominal_mhz()?.checked_mul(1000))
            .or_else(table);
        Pace::new(min, max, base)
    }

    fn throttle(&self, cpu: u32) -> Value {
        let files = THROTTLE.map(|file| format!("{CPU}/cpu{cpu}/thermal_throttle/{file}"));
        self.total(files.into_iter())
    }

    fn idle_us(&self, cpu: u32) -> Value {
        let folder = format!("{CPU}/cpu{cpu}/cpuidle");
        let states = self.tree.list(&folder).unwrap_or_default();
        let sleeps = |state: &String| {
            let name = self.text(&format!("{folder}/{state}/name"));
            // polling is a loop, not sleep
            state.starts_with("state") && name.as_deref() != Some("POLL")
        };
        let states = states.iter().filter(|state| sleeps(state));
        self.total(states.map(|state| format!("{folder}/{state}/time")))
    }

    /// The sum of those that exist, if each of them can be read.
    fn total(&self, files: impl Iterator<Item = String>) -> Value {
        files.fold(Value::Absent, |total, file| {
            match (total, self.number(&file)) {
                (lost @ Value::Unobservable { .. }, _) | (lost, Value::Absent) => lost,
                (Value::Measured(sum), Value::Measured(one)) => {
                    Value::Measured(sum.saturating_add(one))
                }
                (_, one) => one,
            }
        })
    }

    /// The kernel reads a package's counter on the first CPU of that package.
    fn energy(&self) -> BTreeMap<String, Energy> {
        let zones: Vec<String> = self
            .tree
            .list(POWERCAP)
            .unwrap_or_default()
            .into_iter()
            // packages are `intel-rapl:0`, also AMD's; their parts are `intel-rapl:0:1`
            .filter(|zone| zone.starts_with("intel-rapl:") && zone.matches(':').count() == 1)
            .collect();
        let mut all = BTreeMap::new();
        for (number, cpus) in self.packages() {
            let package = format!("package-{number}");
            let named = |zone: &&String| {
                self.text(&format!("{POWERCAP}/{zone}/name")).as_ref() == Some(&package)
            };
            let Some(zone) = zones.iter().find(named) else {
                continue;
            };
            let first = cpus.as_ref().and_then(|cpus| cpus.iter().next());
            let energy_uj = match first {
                Some(first) if self.may_interrupt(first) => {
                    self.number(&format!("{POWERCAP}/{zone}/energy_uj"))
                }
                Some(first) => Value::unobservable(format!(
                    "reading it would interrupt CPU {first}, which may be another run's"
                )),
                None => Value::unobservable("which CPU reading it would interrupt is not known"),
            };
            let range = self.number(&format!("{POWERCAP}/{zone}/max_energy_range_uj"));
            let energy = Energy {
                energy_uj,
                range_uj: range.measured(),
            };
            all.insert(package, energy);
        }
        all
    }

    fn text(&self, path: &str) -> Option<String> {
        Some(self.tree.read(path).ok()?.trim().to_owned())
    }

    fn number(&self, path: &str) -> Value {
        match self.tree.read(path) {
            Ok(text) => text.trim().parse().map_or_else(
                |_| Value::unobservable(format!("{path} holds no number")),
                Value::Measured,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => Value::Absent,
            Err(error) => Value::unobservable(format!("{path} cannot be read: {error}")),
        }
    }
}
