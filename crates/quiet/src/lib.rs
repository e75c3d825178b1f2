//! The noise certificate of one benchmark run on CPUs set apart: kernel counters in, a verdict out.
//!
//! Texts of `/proc` become [`Snapshot`]s, a series of them becomes a [`Window`] (by way of a
//! [`Watch`]), and the windows with the [`Conditions`] and the rest of the [`Evidence`] are
//! [`judge`]d: `quiet`, `noisy` or `unproven`. What was measured and is too much makes a run noisy;
//! what is needed and was not measured makes it unproven; only what is left is quiet.
//!
//! Pure: no files, no clock, no threads. The caller reads the files, each snapshot in one go from a
//! housekeeping CPU, and says when it did.
#![forbid(unsafe_code)]

pub mod class;
pub mod parse;
pub mod seal;
pub mod selftest;

mod brief;
mod certificate;
mod conditions;
mod evidence;
mod hardware;
mod interrupt;
mod job;
mod judge;
mod legend;
mod render;
mod snapshot;
mod svg;
mod tick;
mod trace;
mod value;
mod watch;
mod window;

pub use brief::brief;
pub use certificate::{Certificate, SCHEMA};
pub use class::JobClass;
pub use conditions::{Conditions, Drift, Frequency, IrqRoute, Switch, Thread};
pub use evidence::{Action, Evidence, Hardware, Platform};
pub use hardware::{
    CpuReadings, Energy, HardwareSnapshot, HardwareSpan, MAX_SKEW_NS, Pace, Processor,
    energy_gained_uj, witnesses,
};
pub use interrupt::Interrupt;
pub use job::{Digest, JobOutcome, Outcome, Output, Release, Settings};
pub use judge::{Judgement, QuietClass, Reason, Verdict, judge};
pub use legend::{Meaning, legend};
pub use render::render;
pub use snapshot::{CpuCounts, DeviceCount, Resident, Snapshot, SystemCounts, TaskCounts, Texts};
pub use svg::{NotTraced, timeline};
pub use tick::{TickMode, UnknownTickMode};
pub use trace::{Dropped, Interruption, InterruptionKind, Interruptions, MAX_INTERRUPTIONS, Tape};
pub use value::Value;
pub use watch::Watch;
pub use window::{CpuWindow, DeviceWindow, ResidentRan, Window, WindowName};
