//! The harness of every test, demo and benchmark that needs a machine: virtual machines in QEMU,
//! the stock `docker` client, certificates, and the node's API over mutual TLS.
//!
//! - [`VmBuilder`] describes and starts any machine; [`Vm`] is a running one. Nothing in them is
//!   specific to Stillmetal, so the Debian that it is compared with runs in the same harness.
//! - Everything is synchronous. Every wait has a deadline and its error quotes the last lines.
//!   Nothing sleeps a fixed time.
//! - Everything that was started dies with its owner, even when that is killed.

pub mod accel;
pub mod docker;
pub mod images;
pub mod node;
pub mod places;

mod answer;
mod arguments;
mod builder;
mod capture;
mod cmdline;
mod command;
mod credentials;
mod error;
mod http;
mod launch;
mod lines;
mod net;
mod process;
mod qmp;
mod running;
mod scratch;
mod timeline;
mod vm;
mod wait;

pub use accel::Accel;
pub use answer::Answer;
pub use builder::{DiskBus, OnReset, VmBuilder};
pub use cmdline::Cmdline;
pub use command::{Invocation, Output};
pub use credentials::{Client, ConfigOptions, Credentials};
pub use docker::Docker;
pub use error::{Error, Result, chain};
pub use http::{ApiClient, TlsStream};
pub use lines::{Line, LineLog, Mark};
pub use net::{Forward, Nic, free_ports};
pub use node::Node;
pub use places::Artifacts;
pub use process::{find_in_path, guarded};
pub use qmp::Qmp;
pub use running::Running;
pub use scratch::folder as scratch_folder;
pub use timeline::{Passed, timeline, uptime_s};
pub use vm::{DiskUse, Ending, Vm};
pub use wait::{Deadline, POLL, poll};
