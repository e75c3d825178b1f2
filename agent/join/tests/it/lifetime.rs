//! Certificates end: by their date, and by somebody's decision.

use std::time::{Duration, SystemTime};

use api::work::ROUTER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::{Head, Stream};

use crate::controller::{Controller, Policy, Session, World};
use crate::node::{Home, Node, options, soon, until};

/// Of a certificate. Between renewal and end a third of it is left, in which even a busy machine
/// gets the renewal done.
const LIFE: Duration = Duration::from_secs(8);

async fn router(session: &Session) -> Stream {
    let head = Head::new(ROUTER).unwrap().with("role", "admin").unwrap();
    let head = head.with("user", "root").unwrap();
    soon("the router", session.tunnel.open(&head))
        .await
        .unwrap()
}

async fn echo(stream: &mut Stream) {
    stream.write_all(b"x").await.unwrap();
    let mut back = [0];
    soon("an echo", stream.read_exact(&mut back)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_at_two_thirds_and_the_connection_follows() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().life = LIFE;
    let before = SystemTime::now();
    let mut node = Node::start(options("l-1", &home, &world, controller.address.port()));
    node.connected().await;
    let first = world.session(1).await;
    let mut stream = router(&first).await;

    let fingerprint = world.state().enrolments[0].0.clone();
    until("a renewal", || !world.state().renewals.is_empty()).await;
    let renewed = SystemTime::now();
    let end = first.peer.not_after;
    let life = end.duration_since(before).unwrap();
    assert!(renewed > before + life / 2, "too early");
    assert_ne!(
        world.state().renewals[0],
        fingerprint,
        "a new key each time"
    );

    // Somebody uses the connection, so it stays to the last moment of its certificate.
    echo(&mut stream).await;
    let second = world.session(2).await;
    assert!(SystemTime::now() >= end, "nobody had to be cut off yet");
    assert_ne!(second.peer.serial_hex, first.peer.serial_hex);
    assert!(second.peer.not_after > end);
    node.connected().await;
    assert_eq!(
        world.state().enrolments.len(),
        1,
        "a renewal is no enrolment"
    );
    let ends = node.status.borrow().certificate_ends_ms.unwrap();
    assert!(SystemTime::UNIX_EPOCH + Duration::from_millis(ends) > end);

    // Now nobody does, and it makes way before.
    let third = world.session(3).await;
    assert!(SystemTime::now() < second.peer.not_after);
    assert_ne!(third.peer.serial_hex, second.peer.serial_hex);
    node.stop().await;
}

#[tokio::test]
async fn an_identity_that_has_ended_meanwhile_is_of_no_use() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().life = Duration::from_secs(3);
    let start = || Node::start(options("l-2", &home, &world, controller.address.port()));
    let mut node = start();
    node.connected().await;
    let end = world.session(1).await.peer.not_after;
    node.stop().await;
    until("its end", || SystemTime::now() > end).await;
    world.state().life = Duration::from_secs(3600);
    let mut node = start();
    node.connected().await;
    let state = world.state().enrolments.clone();
    assert_eq!(state.len(), 2);
    assert_ne!(state[0].0, state[1].0, "an old key gets no new certificate");
    node.stop().await;
}

#[tokio::test]
async fn a_revoked_node_is_out_and_asks_to_be_let_in_again() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let mut options = options("l-3", &home, &world, controller.address.port());
    options.backoff.base = Duration::from_millis(200);
    let mut node = Node::start(options);
    node.connected().await;
    let session = world.session(1).await;
    let first = world.state().enrolments[0].0.clone();

    {
        let mut state = world.state();
        state.revoked.insert(session.peer.serial_hex.clone());
        state.policy = Policy::Approve;
    }
    session.cut.cancel();
    let why = node.refused().await;
    assert!(why.contains("revoked this node's certificate"), "{why}");
    let fingerprint = node.pending().await;
    assert_ne!(fingerprint, first, "with a new key");
    assert_eq!(node.status.borrow().id, None);
    assert!(!home.state().join("identity.json").exists());
    world.state().approved.insert(fingerprint);
    node.connected().await;
    let again = world.session(2).await;
    assert_ne!(again.peer.serial_hex, session.peer.serial_hex);
    node.stop().await;
}
