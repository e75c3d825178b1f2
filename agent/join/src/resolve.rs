//! The controller's name to its addresses.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

/// Addresses that are on their way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Asked before each attempt, so that a controller may move.
pub trait Resolve: Send + Sync {
    /// In the order in which they are to be tried. The caller sees to the deadline.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// The system's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, port)).await?;
            Ok(addresses.collect())
        })
    }
}
