//! The engine as placement sees it: which containers exist and run. A seam, so that placement is
//! tested without an engine; the real side is [`crate::engine::client`].

use futures_util::future::BoxFuture;

/// What placement needs to know of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub cgroup_parent: String,
    /// Running, paused or about to be restarted by the engine itself.
    pub alive: bool,
}

/// The engine did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ContainersError {
    #[error("container {id} does not exist")]
    NoSuch { id: String },
    #[error("ask the engine to {action}")]
    Engine {
        action: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads and, in one case, ends containers. Every call is bounded in time by the implementation.
pub trait Containers: Send + Sync + 'static {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Seen>, ContainersError>>;
    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<Seen, ContainersError>>;
    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ContainersError>>;
}
