//! What a node needs to know to join.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::MachineHints;
use pki::Pin;
use tunnel::{Backoff, Limits};

use crate::quiet::Quiet;
use crate::resolve::{Resolve, SystemResolver};

/// Where the controller listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// A DNS name or an IP address, without brackets. Its certificate must be good for it.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How long each thing may take.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// The name of the controller to its addresses.
    pub resolve: Duration,
    /// TCP to one address.
    pub connect: Duration,
    /// TLS, and the controller's first word after it.
    pub tls: Duration,
    /// One HTTP call, from the request to the end of its answer.
    pub call: Duration,
    /// Bytes on the wire that the peer's system does not acknowledge.
    pub unacknowledged: Duration,
    /// When this side ends the tunnel: what its streams get to end by themselves.
    pub farewell: Duration,
    /// When the tunnel has ended: what its services get to notice.
    pub settle: Duration,
    /// The tunnel's own.
    pub tunnel: Limits,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(10),
            call: Duration::from_secs(30),
            unacknowledged: Duration::from_secs(45),
            farewell: Duration::from_secs(10),
            settle: Duration::from_secs(5),
            tunnel: Limits::default(),
        }
    }
}

/// All that a node needs to know to join. [`JoinOptions::new`] fills in what has a usual value.
#[derive(Clone)]
pub struct JoinOptions {
    pub controller: Controller,
    /// Of the controller's authority.
    pub pin: Pin,
    /// Holds a join token; taken and unlinked at once ([`Joiner::open`](crate::Joiner::open)).
    pub token_file: Option<PathBuf>,
    /// For key and certificate; made with mode 0700 if it is missing. In memory on the appliance.
    pub state_dir: PathBuf,
    /// What tells this machine from others: [`machine::read`](crate::machine::read).
    pub machine: MachineHints,
    pub backoff: Backoff,
    pub deadlines: Deadlines,
    pub resolver: Arc<dyn Resolve>,
    /// Whoever measures keeps a clone.
    pub quiet: Quiet,
}

impl JoinOptions {
    pub fn new(
        controller: Controller,
        pin: Pin,
        state_dir: impl Into<PathBuf>,
        machine: MachineHints,
    ) -> Self {
        Self {
            controller,
            pin,
            token_file: None,
            state_dir: state_dir.into(),
            machine,
            backoff: Backoff::default(),
            deadlines: Deadlines::default(),
            resolver: Arc::new(SystemResolver),
            quiet: Quiet::default(),
        }
    }
}

impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinOptions")
            .field("controller", &self.controller)
            .field("pin", &self.pin)
            .field("token_file", &self.token_file)
            .field("state_dir", &self.state_dir)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}
