//! The engine as placement sees it: which containers exist and run. A seam, so that placement is
//! tested without an engine; the real side is [`crate::engine::client`].

use futures_util::future::BoxFuture;

use super::ledger::Token;
use crate::cgroups;

/// What placement needs to know of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub cgroup_parent: String,
    /// Its claim, where no cgroup is named after one.
    pub claim: Option<Token>,
    /// Running, paused or about to be restarted by the engine itself.
    pub alive: bool,
}

impl Seen {
    /// The claim that it was created with.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        cgroups::token_of(&self.cgroup_parent).or_else(|| self.claim.clone())
    }
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
