//! Nothing on the wire while something is measured.

use std::time::Duration;

use api::work::ROUTER;
use stillmetal_join::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use tunnel::{Head, Liveness};

use crate::controller::{Controller, World};
use crate::node::{Home, Node, options, soon, until};
use crate::relay::Relay;

/// More than twice what the questions are apart. That nothing happens can only be seen by looking for a while.
const WHILE: Duration = Duration::from_millis(700);

#[tokio::test]
async fn silence_is_complete_and_ends_with_the_last_who_wants_it() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let relay = Relay::to(controller.address).await;
    let mut options = options("q-1", &home, &world, relay.address.port());
    options.deadlines.tunnel.liveness = Liveness::Ping {
        every: Duration::from_millis(20),
        within: Duration::from_millis(300),
    };
    let mut node = Node::start(options);
    node.connected().await;
    // What belongs to its beginning has been sent.
    sleep(WHILE).await;
    let start = relay.bytes();
    until("questions", || relay.bytes() > start + 60).await;

    let (one, other) = (node.quiet.silence(), node.quiet.silence());
    assert!(node.quiet.is_silent());
    // What was under way arrives.
    sleep(WHILE).await;
    let before = (relay.bytes(), relay.connections());
    sleep(WHILE).await;
    drop(one);
    sleep(WHILE).await;
    let after = (relay.bytes(), relay.connections());
    assert_eq!(after, before, "something was sent");

    // Who is asked answers nevertheless.
    let head = Head::new(ROUTER).unwrap().with("role", "user").unwrap();
    let head = head.with("user", "alice").unwrap();
    let session = world.session(world.sessions.borrow().len()).await;
    let mut stream = soon("the router", session.tunnel.open(&head))
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut back = [0];
    soon("an echo", stream.read_exact(&mut back)).await.unwrap();
    drop(stream);

    other.speak();
    let start = relay.bytes();
    until("questions again", || relay.bytes() > start + 60).await;
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_during_silence_is_made_again_after_it() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let relay = Relay::to(controller.address).await;
    let mut node = Node::start(options("q-2", &home, &world, relay.address.port()));
    node.connected().await;
    let silence = node.quiet.silence();
    world.session(1).await.cut.cancel();
    let held = |phase: &Phase| match phase {
        Phase::Waiting { until_ms, why } => until_ms.is_none() && why.contains("silence"),
        _ => false,
    };
    node.phase("held back", held).await;
    let connections = relay.connections();
    sleep(WHILE).await;
    assert_eq!(relay.connections(), connections);
    drop(silence);
    node.connected().await;
    world.session(2).await;
    node.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_after_the_silence_and_not_within() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().life = Duration::from_secs(8);
    let mut node = Node::start(options("q-3", &home, &world, controller.address.port()));
    node.connected().await;
    let session = world.session(1).await;
    let silence = node.quiet.silence();
    // Two thirds are over by then, and the certificate is still good.
    let end = session.peer.not_after;
    until("nearly its end", || {
        std::time::SystemTime::now() > end - Duration::from_millis(1500)
    })
    .await;
    assert!(world.state().renewals.is_empty());
    assert_eq!(world.sessions.borrow().len(), 1);
    drop(silence);
    until("a renewal", || !world.state().renewals.is_empty()).await;
    assert_eq!(world.state().enrolments.len(), 1);
    node.stop().await;
}
