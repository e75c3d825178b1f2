//! The whole proxy between a real TLS client and a fake engine, and, in the root lane, between the
//! stock `docker` client and a real engine. What must hold through a controller's tunnel too is tested
//! both ways.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

/// Tests that must hold on the node's own port and through a tunnel alike.
macro_rules! port_and_tunnel {
    ($($test:ident),* $(,)?) => {
        mod by_port {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::rig::Over::Port).await;
            })*
        }
        mod by_tunnel {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::rig::Over::Tunnel).await;
            })*
        }
    };
}

mod client;
mod docker;
mod events;
mod hijack;
mod limits;
mod placement;
mod rig;
mod roles;
mod streams;
