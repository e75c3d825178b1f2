//! What the VM tests, the demo and the figures share.

pub mod bench;
pub mod observe;
pub mod people;
