//! One contract for every tree: what holds for the fake must hold for the kernel's own files.
#![allow(
    clippy::unwrap_used,
    reason = "clippy sees helpers of tests as no tests"
)]

mod cgroups;
mod files;
mod msrs;
mod perf;
