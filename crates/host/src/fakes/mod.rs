//! In-memory stand-ins with the kernel's manners, for tests in every crate.
//!
//! [`FakeTree`] is the store; [`Rule`]s add behaviour: [`KernelRules`] for CPUs, interrupts and
//! cpufreq, [`CgroupRules`] for cpuset partitions, [`TracefsRules`] for tracing. `tests/contract.rs` holds them to what the
//! real trees do.

mod cgroups;
mod cpufreq;
mod files;
mod kernel;
mod msrs;
mod perf;
mod tracefs;
mod tree;

pub use cgroups::CgroupRules;
pub use files::Files;
pub use kernel::KernelRules;
pub use msrs::FakeMsrs;
pub use perf::FakePerf;
pub use tracefs::TracefsRules;
pub use tree::{FakeTree, OnWrite, Rule, Verdict, errno_by_name};
