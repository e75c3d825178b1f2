//! The one crate that touches Linux: kernel files under a root, cgroups, counters, threads, registers,
//! counted events.
//!
//! Everything goes through [`Tree`], so that the code which decides can be tested on a machine
//! that it must not change: [`RealTree`] is the kernel's (or a copy of it in a directory),
//! [`fakes::FakeTree`] lives in memory and behaves like the kernel where that matters. Registers
//! are no text, and go through [`Msrs`] in the same way. One contract suite (`tests/contract`)
//! runs on both.

pub mod cgroup;
pub mod counters;
pub mod durable;
pub mod fakes;
mod msr;
pub mod perf;
pub mod threads;
mod tree;

pub use msr::{DevCpu, Msrs};
pub use tree::{Hold, Kept, MAX_READ_BYTES, RealTree, Tree, check_path};
