//! What the gate and the node's agent agree on.
//!
//! The gate (`stillmetal-gate`, in `entrypoint/`) stands before a benchmark's own program: it holds
//! the finished container until the node is quiet, lets go at the nanosecond that the agent names,
//! and becomes the program. Both share one [`page`]. The rules of finding the program are in
//! [`search`]. Nothing here touches a file or makes a system call.
#![no_std]
#![forbid(unsafe_code)]

use core::ffi::CStr;

pub mod page;
pub mod search;

/// Where the container finds the gate. In this mode `argv[0]` is dropped and the rest is run.
pub const GATE_PATH: &str = "/dev/.stillmetal/gate";

/// Where the gate finds its control page: a file of [`page::SIZE`] bytes, mode 0666, on a tmpfs.
pub const CONTROL_PATH: &str = match CONTROL_FILE.to_str() {
    Ok(path) => path,
    Err(_) => unreachable!(),
};

/// The same, for a system call.
pub const CONTROL_FILE: &CStr = c"/dev/.stillmetal/control";

/// The `argv[0]` that makes the gate a canary: `stillmetal-canary CONTROL CPU`. The container
/// runtime always gives [`GATE_PATH`] as `argv[0]`, so no arguments of a benchmark come near it.
pub const CANARY_NAME: &str = "stillmetal-canary";

/// Exit codes of the gate itself; those of `docker run` where it has the same case.
pub mod exit {
    /// The node did not release the benchmark, or gave the gate no usable control page.
    pub const NOT_RUN: u8 = 125;
    /// The program is there but cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// There is no such program.
    pub const NOT_FOUND: u8 = 127;
}
