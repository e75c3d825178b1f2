//! A lab on this machine: a controller, and nodes in virtual machines or as processes, started by
//! `still up` and gone after `still down`.
//!
//! One process in the background, the supervisor (`still supervise`), owns all others; the kernel kills
//! them when it dies, however it dies. It holds the lock of the lab's folder for as long as it lives,
//! so that nobody has to guess from a number in a file whether it does.
//!
//! ```text
//! $XDG_STATE_HOME/stillmetal/lab/lock             held by the supervisor
//!                               /record.json      what there is, written by the supervisor
//!                               /supervisor.log  controller.log  consoles/NAME.log
//!                               /controller/      the controller's state
//!                               /admin/           the certificate and key of its first admin
//!                               /agents/NAME/     an agent that is a process of this machine
//! ```

mod controller;
mod down;
mod folder;
mod identity;
mod local;
mod machine;
mod record;
mod supervise;
mod up;

pub(crate) use down::{DownArguments, down};
pub(crate) use supervise::{SuperviseArguments, supervise};
pub(crate) use up::{UpArguments, up};

/// The context that leads to it.
const CONTEXT: &str = "lab";
