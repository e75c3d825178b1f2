//! Both ends of a tunnel, over memory and over TCP with mutual TLS.
//!
//! Nothing here depends on how fast the machine is: deadlines only keep a test from hanging, and
//! where time matters it is tokio's paused clock, which moves on when everything waits.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bounds;
mod contract;
mod ending;
mod io;
mod liveness;
mod peers;
mod rig;
