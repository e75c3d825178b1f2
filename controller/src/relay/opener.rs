//! Streams to nodes.

use futures_util::future::BoxFuture;
use policy::Role;
use tunnel::{Head, HeadError, OpenError, Stream};

/// Why there is no stream to a node.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    #[error("there is no node {node:?}")]
    Unknown { node: String },
    #[error("node {node} is not connected")]
    Offline { node: String },
    #[error("open a stream to node {node}")]
    Open { node: String, source: OpenError },
    /// The user's name cannot be told.
    #[error("tell node {node} who asks")]
    Head { node: String, source: HeadError },
}

/// Opens streams to the routers of nodes, wherever their tunnels end.
pub trait Opener: Send + Sync + 'static {
    /// A stream for `user` in `role`; `node` is an id or a name. The deadline is the tunnel's.
    fn open<'a>(
        &'a self,
        node: &'a str,
        role: Role,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenNodeError>>;
}

/// What a stream to a node's router begins with.
///
/// # Errors
/// When the user's name is longer than a head may be, or no plain text.
pub fn head(role: Role, user: &str) -> Result<Head, HeadError> {
    Head::new(api::work::ROUTER)?
        .with("role", &role.to_string())?
        .with("user", user)
}
