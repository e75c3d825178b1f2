//! A whole lab in one process tree: the real controller, killed and started again, and nodes that join
//! it over real mutual TLS, speak the real protocol, and only pretend to work.

mod controller;
mod line;
mod node;

use std::time::Duration;

pub use controller::Controller;
pub use line::{Line, Weather};
pub use node::{MakeExecutor, Node, Options, Route, container_api, facts};

/// For whatever has to come, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until it is so.
///
/// # Panics
/// When it is not so within [`PATIENCE`].
pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    assert!(seen.is_ok(), "within {PATIENCE:?}: {what}");
}
