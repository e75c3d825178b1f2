//! Tools that look at a run while it is measured: what a job asks for, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Words of one job's list.
pub const TOOLS: usize = 16;

/// One word of the list: a tool with its interval, `perf` with its events, either optional with `?`, or a
/// set with its interval.
pub const PATTERN: &str = concat!(
    "^(((cpu|interrupts|memory|disk|network|frequency|temperature|energy)",
    "(:([1-9][0-9]{2,4}ms|[1-9][0-9]{0,2}s))?",
    "|perf(:",
    "(cycles|instructions|cache-references|cache-misses|branches|branch-misses|bus-cycles|",
    "stalled-cycles-frontend|stalled-cycles-backend|ref-cycles|cpu-clock|task-clock|page-faults|",
    "context-switches|cpu-migrations|minor-faults|major-faults|alignment-faults|emulation-faults|",
    "L1-dcache-load-misses|LLC-load-misses|dTLB-load-misses)",
    "(,",
    "(cycles|instructions|cache-references|cache-misses|branches|branch-misses|bus-cycles|",
    "stalled-cycles-frontend|stalled-cycles-backend|ref-cycles|cpu-clock|task-clock|page-faults|",
    "context-switches|cpu-migrations|minor-faults|major-faults|alignment-faults|emulation-faults|",
    "L1-dcache-load-misses|LLC-load-misses|dTLB-load-misses)",
    "){0,15})?)\\??",
    "|(light|medium|all)(:([1-9][0-9]{2,4}ms|[1-9][0-9]{0,2}s))?)$",
);

/// What a tool came to in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToolResult {
    Collected {
        /// Name of its document.
        document: String,
        /// Moments in it; of counted events how many there are.
        samples: u64,
        /// Samples that were taken and not kept, because there are only so many.
        #[serde(default, skip_serializing_if = "is_zero")]
        dropped: u64,
        /// What it could not see, and why.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<String>,
    },
    Missing {
        /// Why there is nothing of it.
        missing: String,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// By the tool's name.
pub type ToolResults = BTreeMap<String, ToolResult>;
