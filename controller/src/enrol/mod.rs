//! How machines become nodes: tokens, approval, certificates.

mod desk;
mod identity;
mod office;

pub use desk::{Admission, Admitted};
pub use identity::{Identity, Known, identify, is_bound_to};
pub use office::{Enrolment, Reenrol};
