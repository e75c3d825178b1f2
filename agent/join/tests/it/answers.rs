//! Answers that are not the one hoped for.

use std::time::Duration;

use pki::Token;

use crate::controller::{Controller, Policy, World};
use crate::node::{Home, Node, options, until};

#[tokio::test]
async fn a_token_that_is_not_wanted_is_dropped_and_approval_asked_for() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().policy = Policy::RefuseTokens;
    let token = Token::generate().unwrap();
    std::fs::write(home.token_file(), token.expose()).unwrap();
    let mut options = options("a-1", &home, &world, controller.address.port());
    options.token_file = Some(home.token_file());
    options.backoff.base = Duration::from_millis(200);
    let mut node = Node::start(options);
    let why = node.refused().await;
    assert!(
        why.ends_with("(403): the token was used before; ask somebody"),
        "{why}"
    );
    let fingerprint = node.pending().await;
    {
        let asked = &world.state().enrolments;
        assert_eq!(asked[0], (fingerprint.clone(), Some(token.expose())));
        assert_eq!(asked[1], (fingerprint, None));
    }
    assert!(!home.mentions(&token.expose()));
    node.stop().await;
}

#[tokio::test]
async fn a_text_that_is_no_token_is_not_sent() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().policy = Policy::Approve;
    std::fs::write(home.token_file(), "root:x:0:0").unwrap();
    let mut options = options("a-2", &home, &world, controller.address.port());
    options.token_file = Some(home.token_file());
    let mut node = Node::start(options);
    node.pending().await;
    assert_eq!(world.state().enrolments[0].1, None);
    assert!(!home.token_file().exists());
    node.stop().await;
}

#[tokio::test]
async fn a_refusal_is_shown_and_the_node_goes_on_asking() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let clone = "node a-3 is connected from 10.0.0.7";
    world.state().policy = Policy::Refuse(409, clone.into());
    let mut node = Node::start(options("a-3", &home, &world, controller.address.port()));
    let why = node.refused().await;
    assert!(why.contains(clone), "{why}");
    until("asked again", || world.state().enrolments.len() >= 5).await;
    world.state().policy = Policy::Admit;
    node.connected().await;
    node.stop().await;
}

#[tokio::test]
async fn answers_of_no_use_let_nobody_in() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    for (policy, words) in [
        (Policy::Say("hello".into()), "understand"),
        (Policy::Say("x".repeat(70 * 1024)), "length limit"),
        (Policy::ForAnotherKey, "use key and certificate"),
        (Policy::UnderAnotherAuthority, "was pinned"),
    ] {
        world.state().policy = policy.clone();
        let mut node = Node::start(options("a-4", &home, &world, controller.address.port()));
        let why = node.waiting().await;
        assert!(why.contains(words), "{policy:?}: {why}");
        node.stop().await;
        assert!(!home.state().join("identity.json").exists());
    }
    // Over before it has begun, by the clock of this node.
    world.state().policy = Policy::Admit;
    world.state().life = Duration::ZERO;
    let mut node = Node::start(options("a-4", &home, &world, controller.address.port()));
    let why = node.waiting().await;
    assert!(why.contains("clock"), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn a_controller_that_never_answers_is_left_alone_after_a_while() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    world.state().policy = Policy::Mute;
    let mut options = options("a-5", &home, &world, controller.address.port());
    options.deadlines.call = Duration::from_millis(100);
    let mut node = Node::start(options);
    let why = node.waiting().await;
    assert!(why.contains("did not answer within 100ms"), "{why}");
    until("asked again", || world.state().enrolments.len() >= 3).await;
    node.stop().await;
}

#[tokio::test]
async fn a_port_that_takes_connections_and_says_nothing_is_left_alone_too() {
    let (world, home) = (World::new(), Home::new());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut options = options("a-6", &home, &world, port);
    options.deadlines.tls = Duration::from_millis(100);
    let mut node = Node::start(options);
    let why = node.waiting().await;
    assert!(why.contains("no TLS within 100ms"), "{why}");
    node.stop().await;
}
