//! The files that a tool reads, and what they say.
//!
//! A file is read only if that interrupts no CPU but the housekeeping's (docs/tools.md has the list, with
//! the functions of the kernel that it was read from).

use std::io;

use collect::{Kind, Reading, Tool, parse};

use super::place::{Place, why};

/// `/proc/interrupts` of a large machine.
pub(super) const LONGEST: u64 = 32 << 20;

const CPU: &str = "/sys/devices/system/cpu";
const HWMON: &str = "/sys/class/hwmon";
const THERMAL: &str = "/sys/class/thermal";
const POWERCAP: &str = "/sys/class/powercap";
/// Their sensors are read over PCI.
const QUIET_SENSORS: [&str; 2] = ["k10temp", "zenpower"];
/// Files that a sensor may have.
const SENSORS: usize = 256;

/// What a tool reads.
#[derive(Debug)]
pub(super) struct Source {
    what: What,
    /// What it does not see, and why.
    pub(super) lost: Vec<String>,
}

#[derive(Debug)]
enum What {
    Cpu {
        job: Option<String>,
    },
    Interrupts,
    Memory {
        current: Option<String>,
        stat: Option<String>,
    },
    Disk,
    Network,
    Numbers(Vec<Number>),
}

/// A file that holds one number.
#[derive(Debug)]
struct Number {
    name: String,
    unit: &'static str,
    kind: Kind,
    path: String,
}

/// What was read at one moment, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<(usize, String)>,
    pub(super) lost: Vec<String>,
}

impl Source {
    /// Those of a tool.
    ///
    /// # Errors
    /// Why there is nothing that it could read.
    pub(super) fn find(tool: Tool, place: &Place) -> Result<Self, String> {
        match tool {
            Tool::Cpu => {
                let job = place.of_job("cpu.stat");
                Self::table(place, "/proc/stat", What::Cpu { job })
            }
            Tool::Interrupts => {
                place.readable("/proc/softirqs")?;
                Self::table(place, "/proc/interrupts", What::Interrupts)
            }
            Tool::Memory => {
                let current = place.of_job("memory.current");
                let stat = place.of_job("memory.stat");
                Self::table(place, "/proc/meminfo", What::Memory { current, stat })
            }
            Tool::Disk => {
                let text = place.tree.read_up_to("/proc/diskstats", LONGEST);
                let text = text.map_err(|error| why("/proc/diskstats", &error))?;
                let none = text.lines().all(|line| line.trim().is_empty());
                if none {
                    return Err("/proc/diskstats names no device: this machine has none".into());
                }
                Ok(Self::of(What::Disk))
            }
            Tool::Network => Self::table(place, "/proc/net/dev", What::Network),
            Tool::Frequency => frequency(place),
            Tool::Temperature => temperature(place),
            Tool::Energy => energy(place),
            // counted, not read: see `Meter`
            Tool::Perf => Err("it is not sampled".into()),
        }
    }

    fn of(what: What) -> Self {
        Self {
            what,
            lost: Vec::new(),
        }
    }

    fn table(place: &Place, path: &str, what: What) -> Result<Self, String> {
        place.readable(path)?;
        Ok(Self::of(what))
    }

    /// Numbers, at least one of them.
    fn numbers(numbers: Vec<Number>, lost: Vec<String>, nothing: &str) -> Result<Self, String> {
        if numbers.is_empty() {
            return Err(match lost.first() {
                Some(first) => first.clone(),
                None => nothing.to_owned(),
            });
        }
        Ok(Self {
            what: What::Numbers(numbers),
            lost,
        })
    }

    /// The texts of all its files, one after the other.
    pub(super) fn read(&self, place: &Place) -> Texts {
        let mut texts = Texts::default();
        let mut one = |index: usize, path: &str| match place.tree.read_up_to(path, LONGEST) {
            Ok(text) => texts.texts.push((index, text)),
            Err(error) => texts.lost.push(why(path, &error)),
        };
        match &self.what {
            What::Cpu { .. } => one(0, "/proc/stat"),
            What::Interrupts => {
                one(0, "/proc/interrupts");
                one(1, "/proc/softirqs");
            }
            What::Memory { .. } => {
                one(0, "/proc/meminfo");
                one(1, "/proc/vmstat");
            }
            What::Disk => one(0, "/proc/diskstats"),
            What::Network => one(0, "/proc/net/dev"),
            What::Numbers(numbers) => {
                for (index, number) in numbers.iter().enumerate() {
                    one(index, &number.path);
                }
            }
        }
        // the cgroup is there while the container is
        let mut of_job = |index: usize, path: &Option<String>| {
            let Some(path) = path else { return };
            match place.tree.read_up_to(path, LONGEST) {
                Ok(text) => texts.texts.push((index, text)),
                Err(error) if is_gone(&error) => {}
                Err(error) => texts.lost.push(why(path, &error)),
            }
        };
        match &self.what {
            What::Cpu { job } => of_job(1, job),
            What::Memory { current, stat } => {
                of_job(2, current);
                of_job(3, stat);
            }
            What::Interrupts | What::Disk | What::Network | What::Numbers(_) => {}
        }
        texts
    }

    /// What they say.
    pub(super) fn readings<'a>(&'a self, texts: &Texts) -> Vec<Reading<'a>> {
        let text = |wanted: usize| {
            let found = texts.texts.iter().find(|(index, _)| *index == wanted);
            found.map_or("", |(_, text)| text.as_str())
        };
        let path = |path: &'a Option<String>| path.as_deref().unwrap_or_default();
        match &self.what {
            What::Cpu { job } => {
                let mut all = parse::cpu(text(0));
                all.extend(parse::cpu_of_job(path(job), text(1)));
                all
            }
            What::Interrupts => parse::interrupts(text(0), text(1)),
            What::Memory { current, stat } => {
                let mut all = parse::memory(text(0), text(1));
                all.extend(parse::memory_of_job(path(current), text(2)));
                all.extend(parse::memory_stat_of_job(path(stat), text(3)));
                all
            }
            What::Disk => parse::disk(text(0)),
            What::Network => parse::network(text(0)),
            What::Numbers(numbers) => {
                let all = texts.texts.iter().filter_map(|(index, text)| {
                    let number = numbers.get(*index)?;
                    let Number {
                        name,
                        unit,
                        kind,
                        path,
                    } = number;
                    parse::single(name, unit, *kind, path, text)
                });
                all.collect()
            }
        }
    }
}

/// Of a cgroup that is not there yet, or not any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// What is read of a machine's frequency: what the driver says, from memory.
fn frequency(place: &Place) -> Result<Source, String> {
    let names = place.tree.list(CPU).unwrap_or_default();
    let mut cpus: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .collect();
    cpus.sort_unstable();
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    for cpu in cpus {
        let folder = format!("{CPU}/cpu{cpu}/cpufreq");
        if !place.tree.exists(&folder) {
            continue;
        }
        let path = format!("{folder}/scaling_cur_freq");
        match place.readable(&path) {
            Ok(()) => numbers.push(Number {
                name: format!("cpu{cpu}"),
                unit: "kHz",
                kind: Kind::Gauge,
                path,
            }),
            Err(why) => lost.push(why),
        }
    }
    let nothing = match place.virtual_machine {
        true => "no CPU has a cpufreq driver: a virtual machine",
        false => "no CPU has a cpufreq driver (there is no /sys/devices/system/cpu/cpu*/cpufreq)",
    };
    Source::numbers(numbers, lost, nothing)
}

fn temperature(place: &Place) -> Result<Source, String> {
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    for device in place.tree.list(HWMON).unwrap_or_default() {
        let folder = format!("{HWMON}/{device}");
        let driver = place.text(&format!("{folder}/name")).unwrap_or_default();
        let files = place.tree.list(&folder).unwrap_or_default();
        let inputs = files
            .iter()
            .filter_map(|file| file.strip_suffix("_input"))
            .filter(|file| file.starts_with("temp"));
        for sensor in inputs.take(SENSORS) {
            let label = place.text(&format!("{folder}/{sensor}_label"));
            let name = format!("{driver}/{}", label.as_deref().unwrap_or(sensor));
            match may_ask_sensor(place, &driver, label.as_deref()) {
                Ok(()) => numbers.push(millidegrees(name, format!("{folder}/{sensor}_input"))),
                Err(why) => lost.push(format!("{name}: {why}")),
            }
        }
    }
    for zone in place.tree.list(THERMAL).unwrap_or_default() {
        if !zone.starts_with("thermal_zone") {
            continue;
        }
        let folder = format!("{THERMAL}/{zone}");
        let kind = place.text(&format!("{folder}/type")).unwrap_or_default();
        match kind.as_str() {
            // the same as coretemp's
            "x86_pkg_temp" => {}
            kind if kind.ends_with("-thermal") || kind.ends_with("_thermal") => {
                numbers.push(millidegrees(
                    format!("{zone}/{kind}"),
                    format!("{folder}/temp"),
                ));
            }
            kind => lost.push(format!(
                "{zone}/{kind}: reading it may run code of the firmware, which stops all CPUs"
            )),
        }
    }
    let mut readable = Vec::new();
    for number in numbers {
        match place.readable(&number.path) {
            Ok(()) => readable.push(number),
            Err(why) => lost.push(format!("{}: {why}", number.name)),
        }
    }
    let nothing = match place.virtual_machine {
        true => "there is no sensor: a virtual machine",
        false => "there is no sensor (nothing in /sys/class/hwmon and /sys/class/thermal)",
    };
    Source::numbers(readable, lost, nothing)
}

fn millidegrees(name: String, path: String) -> Number {
    Number {
        name,
        unit: "m°C",
        kind: Kind::Gauge,
        path,
    }
}

/// Whether reading a sensor leaves the CPUs of runs in peace.
fn may_ask_sensor(place: &Place, driver: &str, label: Option<&str>) -> Result<(), String> {
    if QUIET_SENSORS.contains(&driver) {
        return Ok(());
    }
    if driver != "coretemp" {
        return Err("whether reading it leaves other CPUs alone is not known".into());
    }
    let package = label.and_then(|label| label.strip_prefix("Package id ")?.parse().ok());
    match package {
        Some(package) => place.may_ask_package(package),
        None => Err("each core's own is read on that core, and would interrupt it".into()),
    }
}

/// Packages and their parts.
fn energy(place: &Place) -> Result<Source, String> {
    if place.virtual_machine {
        return Err("a virtual machine: what it says of energy is not the machine's".into());
    }
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    for zone in place.tree.list(POWERCAP).unwrap_or_default() {
        // packages are `intel-rapl:0`, also AMD's; their parts are `intel-rapl:0:1`
        let Some(number) = zone.strip_prefix("intel-rapl:") else {
            continue;
        };
        let name = |zone: &str| {
            let name = place.text(&format!("{POWERCAP}/{zone}/name"));
            name.unwrap_or_else(|| zone.to_owned())
        };
        let top = number.split(':').next().unwrap_or_default();
        let package = name(&format!("intel-rapl:{top}"));
        let full = match number == top {
            true => package.clone(),
            false => format!("{package}/{}", name(&zone)),
        };
        let path = format!("{POWERCAP}/{zone}/energy_uj");
        let package = package.strip_prefix("package-");
        let package = package.and_then(|rest| rest.split('-').next()?.parse().ok());
        let may = match package {
            Some(package) => place.may_ask_package(package),
            None => Err("which CPU reading it would interrupt is not known".into()),
        };
        if let Err(why) = may.and_then(|()| place.readable(&path)) {
            lost.push(format!("{full}: {why}"));
            continue;
        }
        let range = place.text(&format!("{POWERCAP}/{zone}/max_energy_range_uj"));
        numbers.push(Number {
            name: full,
            unit: "µJ",
            kind: Kind::Energy {
                range_uj: range.and_then(|text| text.parse().ok()),
            },
            path,
        });
    }
    let nothing = "the machine does not count it (no RAPL in /sys/class/powercap)";
    Source::numbers(numbers, lost, nothing)
}
