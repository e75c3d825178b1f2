//! What only bare metal can tell.

use crate::{Evidence, Value};

use super::{Findings, Place, Reason};

/// Finds what the hardware did on bare metal, and returns what is not known of it.
pub(super) fn check(evidence: &Evidence, findings: &mut Findings) -> Vec<Reason> {
    let hardware = &evidence.hardware;
    // name, value, words, at most (0.5 % of the frequency: quiet.md §8), whether absent is fine
    let witnesses = [
        (
            "hw_smi",
            &hardware.smi,
            "system management interrupts",
            0,
            false,
        ),
        (
            "hw_frequency",
            &hardware.aperf_mperf,
            "ppm of deviation from the nominal frequency",
            5_000,
            false,
        ),
        (
            "hw_thermal",
            &hardware.throttle,
            "thermal or power throttling events",
            0,
            false,
        ),
        (
            "hw_host_steal",
            &hardware.host_steal,
            "ticks taken by a hypervisor",
            0,
            true,
        ),
    ];
    let bare_metal = evidence.platform.hypervisor == Some(false);
    let mut unknown = Vec::new();
    for (code, value, words, limit, absent_is_fine) in witnesses {
        let why = match value {
            _ if !bare_metal => {
                "in a virtual machine its registers say zero whatever happens".to_owned()
            }
            Value::Measured(count) if *count > limit => {
                findings.noise(
                    code,
                    format!("the hardware counted {count} {words} (at most {limit})"),
                );
                continue;
            }
            Value::Measured(_) => continue,
            Value::Absent if absent_is_fine => continue,
            Value::Absent => "this machine does not count them".to_owned(),
            Value::Unobservable { why } => why.clone(),
        };
        unknown.push(Place::default().reason(code, format!("{words} are not known: {why}")));
    }
    unknown
}
