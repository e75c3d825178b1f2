//! The figures of `make bench`: how each is taken. Both sides are measured in the same way, with
//! the stock docker client; what is read of a kernel is read by a container from `/proc`, not by
//! our agent.

pub mod boot;
pub mod certificate;
pub mod controller;
pub mod figure;
pub mod image;
pub mod proxy;
pub mod quiet;
pub mod sides;
