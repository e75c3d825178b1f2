//! The one crate that touches Linux: kernel files under a root, cgroups, counters, threads.
//!
//! Everything goes through [`Tree`], so that the code which decides can be tested on a machine
//! that it must not change: [`RealTree`] is the kernel's (or a copy of it in a directory),
//! [`fakes::FakeTree`] lives in memory and behaves like the kernel where that matters. One
//! contract suite (`tests/contract.rs`) runs on both.

pub mod cgroup;
pub mod counters;
pub mod durable;
pub mod fakes;
pub mod threads;
mod tree;

pub use tree::{Hold, Kept, MAX_READ_BYTES, RealTree, Tree, check_path};
