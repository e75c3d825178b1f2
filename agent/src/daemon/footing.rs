//! What an agent can do on a host that is not its own. Pure: the probe looked, this decides.

use cpulist::CpuSet;
use stillmetal_node::certify::RUNTIME;
use stillmetal_node::engine::client::Abilities;

/// How a container's cgroup is named where partitions can be made of it.
const DRIVER: &str = "cgroupfs";

/// Powers of a process (capabilities(7)), and what this agent does with each.
pub(super) const POWERS: [(caps::Capability, &str); 4] = [
    (
        caps::Capability::CAP_SYS_ADMIN,
        "making cpuset partitions, and tracing",
    ),
    (
        caps::Capability::CAP_SYS_NICE,
        "setting the priority and the CPUs of others' threads",
    ),
    (
        caps::Capability::CAP_SYS_RAWIO,
        "reading the hardware's own counters (/dev/cpu/N/msr)",
    ),
    (
        caps::Capability::CAP_KILL,
        "ending what runs beyond its limit",
    ),
];
/// Without these no run can be measured.
const NEEDED: [caps::Capability; 3] = [
    caps::Capability::CAP_SYS_ADMIN,
    caps::Capability::CAP_SYS_NICE,
    caps::Capability::CAP_KILL,
];

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) online: CpuSet,
    pub(super) isolated: CpuSet,
    /// CPUs that this process may use.
    pub(super) allowed: CpuSet,
    /// Powers of [`POWERS`] that it does not have.
    pub(super) missing: Vec<caps::Capability>,
    /// Why cpuset partitions cannot be made.
    pub(super) cgroup: Result<(), String>,
    pub(super) engine: Result<Abilities, String>,
    /// The gate is where the runtime looks for it.
    pub(super) gate: Result<(), String>,
    pub(super) power_allowed: bool,
}

/// What is to be made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footing {
    /// Why nothing can be proven here, and the CPUs that jobs are given all the same. `None`: it works
    /// as on the appliance.
    pub(super) unproven: Option<(String, CpuSet)>,
    /// What it cannot do, each with the reason.
    pub(super) lacks: Vec<String>,
}

/// Decides. `asked`: the CPUs that its configuration gives to jobs.
///
/// # Errors
/// When the configuration asks for what this host cannot give.
pub(super) fn decide(probe: &Probe, asked: Option<&CpuSet>) -> Result<Footing, String> {
    let Some(why) = unproven(probe) else {
        if asked.is_some() {
            return Err(format!(
                "--cpus is for hosts without isolated CPUs; here jobs are given the isolated ones, {}",
                probe.isolated
            ));
        }
        return Ok(Footing {
            unproven: None,
            lacks: lacks(probe),
        });
    };
    let cpus = match asked {
        None => ordinary(probe),
        Some(asked) => {
            let absent = asked.difference(&probe.online);
            if asked.is_empty() || !absent.is_empty() {
                return Err(format!(
                    "--cpus {asked}: give CPUs that are online ({})",
                    probe.online
                ));
            }
            asked.clone()
        }
    };
    Ok(Footing {
        unproven: Some((why, cpus)),
        lacks: lacks(probe),
    })
}

/// The first thing that keeps runs from being proven.
fn unproven(probe: &Probe) -> Option<String> {
    if probe.isolated.is_empty() {
        return Some(
            "the host has no isolated CPU: neither nohz_full= nor isolcpus= is on its kernel's \
             command line"
                .into(),
        );
    }
    let why = if let Some(missing) = probe.missing.iter().find(|it| NEEDED.contains(it)) {
        format!("this agent runs without {missing}")
    } else if let Err(why) = &probe.cgroup {
        why.clone()
    } else {
        match &probe.engine {
            Err(why) => why.clone(),
            Ok(engine) if engine.cgroup_driver != DRIVER => format!(
                "the engine's cgroup driver is {}, and only with {DRIVER} can a container be put \
                 into a partition",
                engine.cgroup_driver
            ),
            Ok(engine) if !engine.runtimes.iter().any(|name| name == RUNTIME) => {
                format!("the engine has no runtime `{RUNTIME}` to hold programs back")
            }
            Ok(_) => probe.gate.as_ref().err()?.clone(),
        }
    };
    Some(format!(
        "the host has isolated CPUs ({}), which cannot be given to jobs: {why}",
        probe.isolated
    ))
}

/// All that this process may use, but for the first, so that the host has one.
fn ordinary(probe: &Probe) -> CpuSet {
    let all = probe.allowed.intersection(&probe.online);
    if all.len() > 1 {
        all.iter().skip(1).collect()
    } else {
        all
    }
}

fn lacks(probe: &Probe) -> Vec<String> {
    let powers = POWERS.iter().filter(|(it, _)| probe.missing.contains(it));
    let mut all: Vec<String> = powers
        .map(|(capability, use_of)| format!("{capability}: no {use_of}"))
        .collect();
    if let Err(why) = &probe.cgroup {
        all.push(format!("partitions: {why}"));
    }
    if let Err(why) = &probe.engine {
        all.push(format!("engine: {why}"));
    }
    if !probe.power_allowed {
        all.push("power: the host's own; --allow-power gives it to the agent".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    /// A host made for it.
    fn probe() -> Probe {
        Probe {
            online: cpus("0-3"),
            isolated: cpus("2-3"),
            allowed: cpus("0-3"),
            missing: Vec::new(),
            cgroup: Ok(()),
            engine: Ok(Abilities {
                cpusets: true,
                cgroup_driver: "cgroupfs".into(),
                runtimes: vec!["runc".into(), "stillmetal".into()],
            }),
            gate: Ok(()),
            power_allowed: true,
        }
    }

    fn why(probe: &Probe) -> String {
        decide(probe, None).unwrap().unproven.unwrap().0
    }

    #[test]
    fn a_host_with_all_that_is_needed_works_as_the_appliance() {
        let footing = decide(&probe(), None).unwrap();
        assert_eq!(footing.unproven, None);
        assert_eq!(footing.lacks, [""; 0]);
        let error = decide(&probe(), Some(&cpus("1"))).unwrap_err();
        assert!(error.contains("2-3"), "{error}");
    }

    #[test]
    fn without_isolated_cpus_jobs_get_all_but_the_first() {
        let ordinary = Probe {
            isolated: CpuSet::new(),
            ..probe()
        };
        assert!(why(&ordinary).starts_with("the host has no isolated CPU: "));
        let given = |probe: &Probe| decide(probe, None).unwrap().unproven.unwrap().1;
        assert_eq!(given(&ordinary), cpus("1-3"));
        let one = Probe {
            allowed: cpus("2"),
            ..ordinary.clone()
        };
        assert_eq!(given(&one), cpus("2"), "there is no other");
        let asked = decide(&ordinary, Some(&cpus("0-1"))).unwrap();
        assert_eq!(asked.unproven.unwrap().1, cpus("0-1"));
        for wrong in ["7", ""] {
            let error = decide(&ordinary, Some(&cpus(wrong))).unwrap_err();
            assert!(error.contains("0-3"), "{error}");
        }
    }

    #[test]
    fn isolated_cpus_that_cannot_be_given_away_prove_nothing_and_the_reason_is_named() {
        let engine = |driver: &str, runtime: &str| {
            Ok(Abilities {
                cpusets: true,
                cgroup_driver: driver.into(),
                runtimes: vec![runtime.into()],
            })
        };
        let good = probe();
        let cases = [
            (
                Probe {
                    missing: vec![caps::Capability::CAP_SYS_ADMIN],
                    ..good.clone()
                },
                "without CAP_SYS_ADMIN",
            ),
            (
                Probe {
                    cgroup: Err("no cgroup2".into()),
                    ..good.clone()
                },
                "no cgroup2",
            ),
            (
                Probe {
                    engine: Err("no engine answers".into()),
                    ..good.clone()
                },
                "no engine answers",
            ),
            (
                Probe {
                    engine: engine("systemd", "stillmetal"),
                    ..good.clone()
                },
                "driver is systemd",
            ),
            (
                Probe {
                    engine: engine("cgroupfs", "runc"),
                    ..good.clone()
                },
                "no runtime `stillmetal`",
            ),
            (
                Probe {
                    gate: Err("no gate".into()),
                    ..good.clone()
                },
                "no gate",
            ),
        ];
        for (probe, expected) in cases {
            let why = why(&probe);
            assert!(why.contains("(2-3)") && why.contains(expected), "{why}");
        }
        // the counters of the hardware are not needed for a proof of the operating system's quiet
        let counters = Probe {
            missing: vec![caps::Capability::CAP_SYS_RAWIO],
            ..good
        };
        assert_eq!(decide(&counters, None).unwrap().unproven, None);
    }

    #[test]
    fn a_container_without_powers_says_which() {
        let poor = Probe {
            isolated: CpuSet::new(),
            missing: POWERS.iter().map(|(it, _)| *it).collect(),
            cgroup: Err("not the root".into()),
            engine: Err("no engine answers at /run/docker.sock".into()),
            power_allowed: false,
            ..probe()
        };
        let lacks = decide(&poor, None).unwrap().lacks;
        assert_eq!(lacks.len(), POWERS.len() + 3);
        for (lack, beginning) in lacks.iter().zip([
            "CAP_SYS_ADMIN: ",
            "CAP_SYS_NICE: ",
            "CAP_SYS_RAWIO: ",
            "CAP_KILL: ",
            "partitions: not the root",
            "engine: no engine",
            "power: ",
        ]) {
            assert!(lack.starts_with(beginning), "{lack}");
        }
    }
}
