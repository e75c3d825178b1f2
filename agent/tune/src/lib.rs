//! Quiet CPUs: read the machine, plan, apply, verify, report, and put everything back.
//!
//! ```text
//! topology::read(tree) → Topology ─ plan::plan ─→ Plan ─ apply::apply ─→ Applied { report, hold }
//!                                     (pure)              (each write read back)
//! ```
//!
//! Nothing here decides by itself to stop: a knob that is missing or that the kernel refuses is
//! an entry in the report, and the next knob is tried. The knobs and their traps are those of
//! Linux 6.12, with the reasons beside each step. What belongs to a job (address space layout,
//! huge pages, the machine check poll) is recorded, never changed.

pub mod apply;
pub mod cell;
pub mod cli;
pub mod irqs;
pub mod kept;
pub mod plan;
pub mod restore;
pub mod state;
pub mod text;
pub mod topology;
pub mod warnings;

pub use apply::{Applied, LatencyHold, apply};
pub use plan::{Latency, Options, Plan, Smt, plan};
pub use topology::Topology;
