//! The controller: the registry of nodes, the queues, the results.

pub mod authority;
pub mod check;
pub mod collect;
pub mod credentials;
pub mod desk;
pub mod dispatch;
pub mod enrol;
pub mod fleet;
pub mod http;
pub mod janitor;
pub mod lifecycle;
pub mod metrics;
pub mod office;
pub mod port;
pub mod refusal;
pub mod relay;
pub mod serve;
pub mod shelf;
pub mod stock;
pub mod trail;
pub mod vault;

/// An error and its causes in one line, for logs and answers.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
