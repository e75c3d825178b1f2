//! What only bare metal can tell.

use crate::hardware::{MAX_DEVIATION_PPM, MAX_DRIFT_MILLIDEGREES, MAX_EVENTS};
use crate::{Evidence, Value};

use super::{Findings, Place, Reason};

/// What a witness that was not heard means for `hw-quiet`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Not `hw-quiet`.
    Matters,
    /// As [`Missing::Matters`], but a machine that has no such thing has none of it.
    AbsentIsFine,
    /// Nothing: others tell what it would have done. Heat by itself slows no program; it does by
    /// throttling or by a lower frequency, and both have witnesses of their own.
    IsFine,
}

struct Witness<'a> {
    code: &'static str,
    value: &'a Value,
    words: &'static str,
    at_most: u64,
    missing: Missing,
}

fn witnesses(evidence: &Evidence) -> [Witness<'_>; 5] {
    let hardware = &evidence.hardware;
    [
        Witness {
            code: "hw_smi",
            value: &hardware.smi,
            words: "system management interrupts",
            at_most: MAX_EVENTS,
            missing: Missing::Matters,
        },
        Witness {
            code: "hw_frequency",
            value: &hardware.aperf_mperf,
            words: "ppm of deviation from the fixed frequency",
            at_most: MAX_DEVIATION_PPM,
            missing: Missing::Matters,
        },
        Witness {
            code: "hw_thermal",
            value: &hardware.throttle,
            words: "thermal or power throttling events",
            at_most: MAX_EVENTS,
            missing: Missing::Matters,
        },
        Witness {
            code: "hw_temperature",
            value: &hardware.temperature,
            words: "m°C of drift from canary to canary",
            at_most: MAX_DRIFT_MILLIDEGREES,
            missing: Missing::IsFine,
        },
        Witness {
            code: "hw_host_steal",
            value: &hardware.host_steal,
            words: "ticks taken by a hypervisor",
            at_most: MAX_EVENTS,
            missing: Missing::AbsentIsFine,
        },
    ]
}

/// Finds what the hardware did on bare metal, and returns what is not known of it.
pub(super) fn check(evidence: &Evidence, findings: &mut Findings) -> Vec<Reason> {
    let bare_metal = evidence.platform.hypervisor == Some(false);
    let mut unknown = Vec::new();
    for witness in witnesses(evidence) {
        let (code, words) = (witness.code, witness.words);
        let why = match witness.value {
            _ if witness.missing == Missing::IsFine && !bare_metal => continue,
            _ if !bare_metal => {
                "in a virtual machine its registers say zero whatever happens".to_owned()
            }
            Value::Measured(count) if *count > witness.at_most => {
                findings.noise(
                    code,
                    format!(
                        "the hardware counted {count} {words} (at most {})",
                        witness.at_most
                    ),
                );
                continue;
            }
            Value::Measured(_) => continue,
            _ if witness.missing == Missing::IsFine => continue,
            Value::Absent if witness.missing == Missing::AbsentIsFine => continue,
            Value::Absent => "this machine does not count them".to_owned(),
            Value::Unobservable { why } => why.clone(),
        };
        unknown.push(Place::default().reason(code, format!("{words} are not known: {why}")));
    }
    unknown
}
