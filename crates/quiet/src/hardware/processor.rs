//! Which registers a CPU has. A register is only asked for when this says that it is there: in a
//! virtual machine those that are not read zero, without an error.

use std::collections::BTreeSet;

/// Models of family 6 from Nehalem's number on that lack `MSR_SMI_COUNT`: Dunnington (Core 2) and
/// the Atoms before Silvermont. Earlier ones all lack it. (Intel SDM vol. 4: the tables from
/// Nehalem and from Silvermont on list it; Linux's events/msr.c has the same families.)
const WITHOUT_SMI_COUNT: [u32; 6] = [0x1c, 0x1d, 0x26, 0x27, 0x35, 0x36];
const NEHALEM: u32 = 0x1a;

/// What `/proc/cpuinfo` says of the first CPU. Mixed machines have the same registers on all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    vendor: String,
    family: u32,
    model: u32,
    flags: BTreeSet<String>,
}

impl Processor {
    /// `None`: not an x86 CPU, or it does not say enough.
    #[must_use]
    pub fn parse(cpuinfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let first = cpuinfo.lines().take_while(|line| !line.trim().is_empty());
            first
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        Some(Self {
            vendor: field("vendor_id")?.to_owned(),
            family: field("cpu family")?.parse().ok()?,
            model: field("model")?.parse().ok()?,
            flags: field("flags")?
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    fn is_intel(&self) -> bool {
        self.vendor == "GenuineIntel"
    }

    /// CPUID.1:ECX\[31\]: never set by a CPU.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.has("hypervisor")
    }

    /// `IA32_APERF` and `IA32_MPERF` (CPUID.6:ECX\[0\], AMD the same).
    #[must_use]
    pub fn counts_cycles(&self) -> bool {
        !self.is_virtual() && self.has("msr") && self.has("aperfmperf")
    }

    /// `MSR_SMI_COUNT`: Intel only, no flag of its own.
    #[must_use]
    pub fn counts_smis(&self) -> bool {
        self.counts_cycles()
            && self.is_intel()
            && self.family == 6
            && self.model >= NEHALEM
            && !WITHOUT_SMI_COUNT.contains(&self.model)
    }

    /// `IA32_THERM_STATUS` with a digital sensor (CPUID.6:EAX\[0\]): Intel only.
    #[must_use]
    pub fn tells_temperature(&self) -> bool {
        !self.is_virtual() && self.has("msr") && self.is_intel() && self.has("dtherm")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_processor_or_none(text in "((vendor_id|model|flags|cpu family)?[: \\t]{0,3}[a-z0-9\\n]{0,9}){0,9}") {
            let parsed = Processor::parse(&text);
            prop_assert!(parsed.is_none() || text.contains("flags"));
        }
    }

    fn cpuinfo(vendor: &str, family: u32, model: u32, flags: &str) -> Processor {
        let text = format!(
            "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
             model name\t: x\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: hypervisor\n"
        );
        Processor::parse(&text).unwrap()
    }

    #[test]
    fn registers_by_vendor_model_and_flags() {
        const FLAGS: &str = "fpu msr aperfmperf dtherm";
        let intel = cpuinfo("GenuineIntel", 6, 106, FLAGS);
        assert!(intel.counts_smis() && intel.counts_cycles() && intel.tells_temperature());
        assert!(!intel.is_virtual(), "only the first CPU's flags");
        for model in [0x0f, 0x17, 0x1c, 0x1d, 0x36] {
            assert!(!cpuinfo("GenuineIntel", 6, model, FLAGS).counts_smis());
        }
        assert!(cpuinfo("GenuineIntel", 6, 0x37, FLAGS).counts_smis());
        assert!(!cpuinfo("GenuineIntel", 15, 106, FLAGS).counts_smis());
        let amd = cpuinfo("AuthenticAMD", 25, 1, FLAGS);
        assert!(!amd.counts_smis() && amd.counts_cycles() && !amd.tells_temperature());
        let guest = cpuinfo(
            "GenuineIntel",
            6,
            106,
            "fpu msr aperfmperf dtherm hypervisor",
        );
        assert!(guest.is_virtual());
        assert!(!guest.counts_smis() && !guest.counts_cycles() && !guest.tells_temperature());
        let bare = cpuinfo("GenuineIntel", 6, 106, "fpu aperfmperf dtherm");
        assert!(!bare.counts_cycles() && !bare.tells_temperature());
        assert_eq!(
            Processor::parse("processor : 0\nFeatures : fp asimd\n"),
            None
        );
        assert_eq!(Processor::parse(""), None);
    }
}
