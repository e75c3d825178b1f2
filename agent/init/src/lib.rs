//! PID 1 of the appliance: boots the node, keeps the agent running, reaps, and orders the shutdown.
//!
//! Synchronous and single-threaded on purpose: a bug in HTTP or TLS then restarts `stillmetal-agent serve` and does not
//! take the kernel down with "Attempted to kill init". Nothing here parses what users send; the only bytes from outside
//! are DHCP and SNTP answers, and the kernel command line.
//!
//! Two stages, one binary: [`stage_one`] runs in the initramfs, mounts the compressed read-only root and execs
//! `/sbin/init` in it; [`boot`] runs there, and ends in the [`supervise`] loop, which never returns.
//!
//! What is decided is decided by pure functions ([`cmdline`], `dhcp::machine`, `service::Backoff`, `shutdown::Shutdown`,
//! `modules::load_order`); what acts is thin. The last act, `reboot(2)`, is injected, so tests never reboot anything.
//!
//! This crate does not depend on an async runtime, and it neither starts the container engine nor touches CPUs' tuning:
//! both belong to the agent that it supervises.

mod affinity;
mod boot;
mod cgroup;
mod clock;
pub mod cmdline;
mod config_files;
pub mod dhcp;
mod fail;
mod hostname;
mod input;
pub mod log;
mod loopdev;
mod memory;
mod modules;
mod mounts;
pub mod net;
pub mod service;
pub mod shutdown;
mod signals;
mod squashfs;
mod ssh;
mod stage_one;
pub mod supervise;
mod sysctl;

use nix::unistd::{Pid, getpid};

/// Where init, the agent and the add-ons keep what lives until power-off.
pub const STATE_DIR: &str = "/run/stillmetal";
/// The configuration that came at boot (certificates, authorized keys): directories 0700, files 0400 or 0444.
pub const CONFIG_DIR: &str = "/run/stillmetal/config";
/// Exists when the machine has less memory than the engine needs; holds the sentence to show to people.
pub const MEMORY_LOW_FILE: &str = "/run/stillmetal/memory-low";
/// The primary network device's address, whatever it came from: see [`net::Address`].
pub const NETWORK_FILE: &str = "/run/stillmetal/network.json";

/// Runs as PID 1 and never returns. Any other process that calls it is turned away with exit status 2: the things that
/// follow (mounting over `/`, signalling every process, power) are only right for the first process.
pub fn run() -> ! {
    refuse_unless_pid_1();
    fail::install_panic_hook();
    match stage_one::detect() {
        stage_one::Stage::Initramfs => fail::stop(&stage_one::run()),
        stage_one::Stage::Root => fail::stop(&boot::run()),
    }
}

/// [`run`] for a program that is only stage one: it never becomes the second stage itself.
pub fn run_stage_one() -> ! {
    refuse_unless_pid_1();
    fail::install_panic_hook();
    fail::stop(&stage_one::run())
}

fn refuse_unless_pid_1() {
    if getpid() != Pid::from_raw(1) {
        eprintln!("stillmetal init: must be process 1 of a booted appliance");
        #[expect(
            clippy::exit,
            reason = "not PID 1: there is nothing to run and nobody to return to"
        )]
        std::process::exit(2);
    }
}
