//! From nothing to a tunnel, and again after a restart.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use api::work::{CONTROL, ROUTER};
use pki::{Authority, RoleName, Token, Validity};
use stillmetal_join::{Caller, Phase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::{Head, OpenError, Tunnel};

use crate::controller::{Controller, Policy, World};
use crate::node::{Home, Node, options, soon, until};
use crate::relay::Relay;

async fn refusal(tunnel: &Tunnel, head: Head) -> String {
    match soon("an answer", tunnel.open(&head)).await {
        Err(OpenError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_joins_by_its_token_and_serves() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let token = Token::generate().unwrap();
    std::fs::write(home.token_file(), token.expose() + "\n").unwrap();

    let mut options = options("node-1", &home, &world, controller.address.port());
    options.token_file = Some(home.token_file());
    let mut node = Node::start(options);
    assert!(!home.token_file().exists(), "unlinked before anything else");
    node.connected().await;
    let session = world.session(1).await;
    assert_eq!(session.peer.node.as_deref(), Some("node-1"));
    {
        let state = world.state();
        assert_eq!(state.enrolments.len(), 1);
        assert_eq!(state.enrolments[0].1, Some(token.expose()));
    }
    let status = node.status.borrow().clone();
    assert_eq!(status.id.as_deref(), Some("node-1"));
    assert!(status.certificate_ends_ms.is_some());
    assert_eq!(
        status.controller,
        format!("127.0.0.1:{}", controller.address.port())
    );
    // The token is nowhere any more, and the key is its owner's.
    assert!(!home.mentions(&token.expose()));
    assert!(!home.mentions(&token.expose()[21..]));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.state()), 0o700);
    assert_eq!(mode(&home.state().join("identity.json")), 0o600);

    let head = Head::new(ROUTER).unwrap().with("role", "user").unwrap();
    let head = head.with("user", "alice").unwrap();
    let mut stream = soon("the router", session.tunnel.open(&head))
        .await
        .unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    soon("an echo", stream.read_to_string(&mut back))
        .await
        .unwrap();
    assert_eq!(back, "hello");
    let alice = Caller {
        role: RoleName::User,
        user: "alice".into(),
    };
    assert_eq!(*node.seen.callers.lock().unwrap(), [alice]);

    let tunnel = &session.tunnel;
    let other = refusal(tunnel, Head::new("ssh").unwrap()).await;
    assert!(other.contains("\"ssh\""), "{other}");
    let second = refusal(tunnel, Head::new(CONTROL).unwrap()).await;
    assert!(second.contains("already"), "{second}");
    for (role, user, word) in [
        (None, Some("a"), "role"),
        (Some("node"), Some("a"), "role"),
        (Some("admin"), None, "user"),
        (Some("admin"), Some(""), "user"),
    ] {
        let mut head = Head::new(ROUTER).unwrap();
        for (key, value) in [("role", role), ("user", user)] {
            if let Some(value) = value {
                head = head.with(key, value).unwrap();
            }
        }
        let why = refusal(tunnel, head).await;
        assert!(why.contains(word), "{role:?} {user:?}: {why}");
    }
    node.stop().await;
}

#[tokio::test]
async fn without_a_token_somebody_approves_and_the_fingerprint_stays() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().policy = Policy::Approve;
    let start = || Node::start(options("node-2", &home, &world, controller.address.port()));
    let mut node = start();
    let fingerprint = node.pending().await;
    assert_eq!(world.state().enrolments[0], (fingerprint.clone(), None));
    node.stop().await;

    // A restart of the agent is no reason to compare again.
    let mut node = start();
    assert_eq!(node.pending().await, fingerprint);
    world.state().approved.insert(fingerprint.clone());
    node.connected().await;
    let asked = world.state().enrolments.clone();
    assert!(asked.iter().all(|(shown, _)| *shown == fingerprint));
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_said_to_whom_the_pin_does_not_fit() {
    let (world, other, home) = (World::new(), World::new(), Home::new());
    let controller = Controller::start(&other).await;
    let relay = Relay::to(controller.address).await;
    let token = Token::generate().unwrap();
    std::fs::write(home.token_file(), token.expose()).unwrap();
    let mut options = options("node-3", &home, &world, relay.address.port());
    options.token_file = Some(home.token_file());
    let mut node = Node::start(options);
    let why = node.waiting().await;
    assert!(why.contains(&world.pin().to_string()), "{why}");
    assert!(why.contains(&other.pin().to_string()), "{why}");
    until("several attempts", || relay.connections() >= 5).await;
    {
        let state = other.state();
        assert_eq!(
            state.handshakes, 0,
            "the node hangs up before it has spoken"
        );
        assert!(state.enrolments.is_empty());
    }
    node.stop().await;
    assert!(
        home.mentions(&token.expose()),
        "it was not used, so it is kept"
    );
}

#[tokio::test]
async fn an_authority_that_has_expired_is_not_believed() {
    let world = World::of(Authority::generate_for("old", Validity::expired()).unwrap());
    let home = Home::new();
    let controller = Controller::start(&world).await;
    let mut node = Node::start(options("node-4", &home, &world, controller.address.port()));
    let why = node.waiting().await;
    assert!(why.contains("\"old\" is not valid now"), "{why}");
    assert_eq!(world.state().handshakes, 0);
    node.stop().await;
}

#[tokio::test]
async fn the_controller_must_have_the_name_that_was_dialled() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let mut options = options("node-5", &home, &world, controller.address.port());
    options.controller.host = "localhost".into();
    let mut node = Node::start(options);
    let why = node.waiting().await;
    assert!(why.contains("not valid for name \"localhost\""), "{why}");
    assert_eq!(world.state().handshakes, 0);
    node.stop().await;
}

#[tokio::test]
async fn an_identity_survives_a_restart_and_serves_its_own_controller_only() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let options = options("node-6", &home, &world, controller.address.port());
    let mut node = Node::start(options.clone());
    node.connected().await;
    let first = world.session(1).await.peer.clone();
    node.stop().await;

    // A token that comes with it is not needed, and does not lie about.
    let token = Token::generate().unwrap();
    std::fs::write(home.token_file(), token.expose()).unwrap();
    let mut again = options.clone();
    again.token_file = Some(home.token_file());
    let mut node = Node::start(again);
    node.connected().await;
    assert_eq!(world.session(2).await.peer, first);
    assert_eq!(world.state().enrolments.len(), 1);
    assert!(!home.token_file().exists());
    assert!(!home.mentions(&token.expose()));
    node.stop().await;

    // The operator has another controller now: what the old one said counts for nothing.
    let other = World::new();
    let elsewhere = Controller::start(&other).await;
    let mut moved = options.clone();
    moved.pin = other.pin();
    moved.controller.port = elsewhere.address.port();
    let mut node = Node::start(moved);
    node.connected().await;
    assert_eq!(other.state().enrolments.len(), 1);
    node.stop().await;

    // And a file that something has damaged is no reason to stay away.
    std::fs::write(home.state().join("identity.json"), "{").unwrap();
    let mut node = Node::start(options);
    node.connected().await;
    assert_eq!(world.state().enrolments.len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_node_stops_at_every_stage() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let mut options = options("node-7", &home, &world, controller.address.port());
    // Longer than the test may take, so nothing but the stop ends anything.
    options.deadlines.call = Duration::from_secs(3600);
    options.backoff.base = Duration::from_secs(3600);
    options.backoff.cap = Duration::from_secs(3600);

    world.state().policy = Policy::Mute;
    let mut node = Node::start(options.clone());
    until("asked", || world.state().enrolments.len() == 1).await;
    assert_eq!(node.status.borrow().phase, Phase::Enrolling);
    node.stop().await;

    world.state().policy = Policy::Approve;
    node = Node::start(options.clone());
    node.pending().await;
    node.stop().await;

    world.state().policy = Policy::Refuse(500, "out of order".into());
    node = Node::start(options.clone());
    node.refused().await;
    node.stop().await;

    world.state().policy = Policy::Admit;
    node = Node::start(options.clone());
    node.connected().await;
    node.stop().await;

    options.controller.port = 1;
    node = Node::start(options);
    node.waiting().await;
    node.stop().await;
}
