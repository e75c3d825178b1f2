//! The VM lane: boots the built image in QEMU and looks at it from outside, through the API and
//! the stock `docker` client. `scripts/test-vm` runs it: most tests must come one after the other.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, also in its helpers, a panic is the report"
)]

mod access;
mod boot;
mod certify;
mod clock;
mod cmdline;
mod debian;
mod docker;
mod events;
mod host;
mod image;
mod lab;
mod look;
mod machines;
mod placement;
mod power;
mod runs;
mod selftest;
mod shared;
mod transcript;
