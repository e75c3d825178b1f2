//! Who calls, and what for.

use std::net::SocketAddr;

use api::fleet::NodeId;
use policy::Role;

use crate::desk::Caller;

/// Who is at the other end of a connection, as its certificate says. Whoever accepts the connection
/// puts it into the extensions of each of its requests; a request without it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Showed no certificate.
    Nobody {
        address: SocketAddr,
    },
    Client(Caller, SocketAddr),
    Node {
        id: NodeId,
        address: SocketAddr,
    },
}

impl Peer {
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Nobody { address } | Self::Client(_, address) | Self::Node { address, .. } => {
                *address
            }
        }
    }

    /// For the audit log: the certificate's name.
    #[must_use]
    pub fn who(&self) -> &str {
        match self {
            Self::Nobody { .. } => "nobody",
            Self::Client(caller, _) => &caller.user,
            Self::Node { id, .. } => id.as_str(),
        }
    }

    /// For the audit log.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self {
            Self::Nobody { .. } => "none",
            Self::Client(caller, _) => match caller.role {
                Role::User => "user",
                Role::Admin => "admin",
            },
            Self::Node { .. } => "node",
        }
    }
}

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Also who has no certificate.
    Everybody,
    /// People and programs, whatever their role.
    Client,
    Admin,
    Node,
}

impl Access {
    /// For people and the OpenAPI document.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Everybody => "everybody, without a certificate too",
            Self::Client => "roles user and admin",
            Self::Admin => "role admin",
            Self::Node => "role node",
        }
    }

    pub(crate) fn admits(self, peer: &Peer) -> bool {
        match (self, peer) {
            (Self::Everybody, _)
            | (Self::Client, Peer::Client(..))
            | (Self::Node, Peer::Node { .. }) => true,
            (Self::Admin, Peer::Client(caller, _)) => caller.role == Role::Admin,
            _ => false,
        }
    }
}
