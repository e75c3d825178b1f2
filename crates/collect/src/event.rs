//! Events that `perf` counts: those that the kernel names for every CPU (`linux/perf_event.h`).

/// Who counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The CPU's performance monitoring unit; a virtual machine often has none.
    Hardware,
    /// The kernel.
    Software,
    /// The same unit, an event of a cache.
    Cache,
}

impl Family {
    /// `perf_event_attr.type`.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Hardware => 0,
            Self::Software => 1,
            Self::Cache => 3,
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event(usize);

/// Misses of reads: `PERF_COUNT_HW_CACHE_RESULT_MISS` (1) of `OP_READ` (0).
const READ_MISS: u64 = 1 << 16;

/// Name, family, `perf_event_attr.config`.
const ALL: [(&str, Family, u64); 22] = [
    ("cycles", Family::Hardware, 0),
    ("instructions", Family::Hardware, 1),
    ("cache-references", Family::Hardware, 2),
    ("cache-misses", Family::Hardware, 3),
    ("branches", Family::Hardware, 4),
    ("branch-misses", Family::Hardware, 5),
    ("bus-cycles", Family::Hardware, 6),
    ("stalled-cycles-frontend", Family::Hardware, 7),
    ("stalled-cycles-backend", Family::Hardware, 8),
    ("ref-cycles", Family::Hardware, 9),
    ("cpu-clock", Family::Software, 0),
    ("task-clock", Family::Software, 1),
    ("page-faults", Family::Software, 2),
    ("context-switches", Family::Software, 3),
    ("cpu-migrations", Family::Software, 4),
    ("minor-faults", Family::Software, 5),
    ("major-faults", Family::Software, 6),
    ("alignment-faults", Family::Software, 7),
    ("emulation-faults", Family::Software, 8),
    ("L1-dcache-load-misses", Family::Cache, READ_MISS),
    ("LLC-load-misses", Family::Cache, 2 | READ_MISS),
    ("dTLB-load-misses", Family::Cache, 3 | READ_MISS),
];

/// What `perf` counts unless it is told what: few enough for the counters of any CPU of today.
const USUAL: [&str; 8] = [
    "task-clock",
    "context-switches",
    "cpu-migrations",
    "page-faults",
    "cycles",
    "instructions",
    "branches",
    "branch-misses",
];

impl Event {
    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ALL.len()).map(Self)
    }

    /// Those that are counted unless others are named.
    pub fn usual() -> impl Iterator<Item = Self> {
        USUAL.iter().filter_map(|name| Self::parse(name))
    }

    /// The event of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|event| event.name() == name)
    }

    /// As perf-list(1) has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL[self.0].0
    }

    #[must_use]
    pub fn family(self) -> Family {
        ALL[self.0].1
    }

    /// `perf_event_attr.config`.
    #[must_use]
    pub fn config(self) -> u64 {
        ALL[self.0].2
    }

    /// Of its count.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self.name() {
            "task-clock" | "cpu-clock" => "ns",
            _ => "count",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_found_by_its_name() {
        for event in Event::all() {
            assert_eq!(Event::parse(event.name()), Some(event));
        }
        assert_eq!(Event::usual().count(), USUAL.len());
        assert_eq!(Event::parse("Cycles"), None);
        let misses = Event::parse("LLC-load-misses").unwrap();
        // linux/perf_event.h: LL is 2, read 0, miss 1
        assert_eq!((misses.family().number(), misses.config()), (3, 0x1_0002));
    }
}
