//! cpufreq's traps: limits that must not cross, energy preferences locked by the governor, a
//! global boost switch that overwrites the policies' own.

use nix::errno::Errno;

use super::files::Files;
use super::tree::Verdict;

const POLICIES: &str = "/sys/devices/system/cpu/cpufreq/";

pub(super) fn on_write(files: &mut Files, path: &str, text: &str) -> Verdict {
    let Some(rest) = path.strip_prefix(POLICIES) else {
        return Verdict::Pass;
    };
    if rest == "boost" {
        let policies: Vec<String> = files
            .under(&format!("{POLICIES}policy"))
            .filter(|(path, _)| path.ends_with("/boost"))
            .map(|(path, _)| path.to_owned())
            .collect();
        for policy in policies {
            files.set(&policy, text);
        }
        return Verdict::Pass;
    }
    let Some((policy, name)) = rest.split_once('/') else {
        return Verdict::Pass;
    };
    let file = |name: &str| format!("{POLICIES}{policy}/{name}");
    let number = |name: &str| {
        files
            .get(&file(name))
            .and_then(|text| text.parse::<u64>().ok())
    };
    match name {
        "scaling_min_freq" | "scaling_max_freq" => {
            let Ok(khz) = text.parse::<u64>() else {
                return Verdict::Fail(Errno::EINVAL);
            };
            let crossed = if name == "scaling_min_freq" {
                number("scaling_max_freq").is_some_and(|max| khz > max)
            } else {
                number("scaling_min_freq").is_some_and(|min| khz < min)
            };
            let low = number("cpuinfo_min_freq").is_some_and(|floor| khz < floor);
            let high = number("cpuinfo_max_freq").is_some_and(|ceiling| khz > ceiling);
            if crossed || low || high {
                Verdict::Fail(Errno::EINVAL)
            } else {
                Verdict::Pass
            }
        }
        "scaling_governor" => {
            let known = files
                .get(&file("scaling_available_governors"))
                .is_none_or(|all| all.split_ascii_whitespace().any(|one| one == text));
            if known {
                Verdict::Pass
            } else {
                Verdict::Fail(Errno::EINVAL)
            }
        }
        "energy_performance_preference" => {
            let locked = files.get(&file("scaling_governor")) == Some("performance")
                && text != "performance";
            if locked {
                Verdict::Fail(Errno::EBUSY)
            } else {
                Verdict::Pass
            }
        }
        _ => Verdict::Pass,
    }
}
