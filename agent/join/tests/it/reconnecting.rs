//! Connections that end, and what comes after.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use stillmetal_join::Phase;
use tunnel::Liveness;

use crate::controller::{Controller, World};
use crate::node::{Home, Node, Signpost, options, soon, until};
use crate::relay::Relay;

#[tokio::test]
async fn a_controller_that_was_away_finds_its_nodes_again() {
    let (world, home) = (World::new(), Home::new());
    let mut controller = Controller::start(&world).await;
    let address = controller.address;
    let mut node = Node::start(options("r-1", &home, &world, address.port()));
    node.connected().await;
    let first = world.session(1).await.peer.clone();
    for number in 2..5 {
        drop(controller);
        node.waiting().await;
        // Nobody listens there now.
        let refused = |phase: &Phase| match phase {
            Phase::Waiting { why, .. } => why.contains("refused"),
            _ => false,
        };
        node.phase("refused", refused).await;
        controller = Controller::start_at(&world, address).await;
        node.connected().await;
        assert_eq!(world.session(number).await.peer, first, "the same node");
    }
    assert_eq!(world.state().enrolments.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn the_name_is_resolved_anew_and_every_address_tried() {
    let (world, home) = (World::new(), Home::new());
    let signpost = Arc::<Signpost>::default();
    let mut options = options("r-2", &home, &world, 7443);
    options.controller.host = "controller.test".into();
    options.resolver = Arc::clone(&signpost) as _;
    let mut node = Node::start(options);
    let why = node.waiting().await;
    assert_eq!(why, "enrol: controller.test has no address");

    let (old, stranger) = (
        Controller::start(&world).await,
        Controller::start(&World::new()).await,
    );
    let nobody = "127.0.0.1:1".parse().unwrap();
    *signpost.to.lock().unwrap() = vec![nobody, stranger.address, old.address];
    node.connected().await;
    world.session(1).await;

    let new = Controller::start(&world).await;
    *signpost.to.lock().unwrap() = vec![new.address];
    drop(old);
    world.session(2).await;
    let there = |phase: &Phase| match phase {
        Phase::Connected { address, .. } => *address == new.address.to_string(),
        _ => false,
    };
    node.phase("at the new place", there).await;
    let asked = signpost.asked.lock().unwrap().clone();
    assert!(asked.len() >= 4);
    assert!(
        asked
            .iter()
            .all(|it| *it == ("controller.test".into(), 7443))
    );
    node.stop().await;
}

#[tokio::test]
async fn a_line_that_is_dead_without_a_word_is_given_up() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let relay = Relay::to(controller.address).await;
    let mut options = options("r-3", &home, &world, relay.address.port());
    options.deadlines.tunnel.liveness = Liveness::Ping {
        every: Duration::from_millis(300),
        within: Duration::from_millis(300),
    };
    options.backoff.base = Duration::from_millis(200);
    let mut node = Node::start(options);
    node.connected().await;
    let number = world.sessions.borrow().len();
    relay.sever();
    let silent = |phase: &Phase| match phase {
        Phase::Waiting { why, .. } => why.contains("has been silent for"),
        _ => false,
    };
    node.phase("given up", silent).await;
    world.session(number + 1).await;
    node.connected().await;
    node.stop().await;
}

#[tokio::test]
async fn a_cloned_identity_is_shown() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let clone = "node r-4 is connected from 10.0.0.7 already";
    world.state().notice = Some(clone.into());
    let mut node = Node::start(options("r-4", &home, &world, controller.address.port()));
    let why = node.refused().await;
    assert!(why.ends_with(clone), "{why}");
    world.state().notice = None;
    node.connected().await;
    assert_eq!(world.state().enrolments.len(), 1, "the identity is kept");
    node.stop().await;
}

/// Sockets of this process that have this port at either end.
fn sockets(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let inodes: HashSet<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1].ends_with(&end) || fields[2].ends_with(&end))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|link| inodes.contains(&*link.to_string_lossy()))
        .count()
}

#[tokio::test]
async fn a_hundred_reconnections_leave_nothing_behind() {
    let (world, home) = (World::new(), Home::new());
    let controller = Controller::start(&world).await;
    let port = controller.address.port();
    let mut options = options("r-5", &home, &world, port);
    options.backoff.cap = Duration::from_millis(1);
    let mut node = Node::start(options);
    node.connected().await;
    world.session(1).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    // A listener, and for either end a socket; the node has a second descriptor for its own.
    until("one connection", || sockets(port) == 4).await;
    let before = tasks();

    world.state().hang_up = true;
    world.session(1).await.cut.cancel();
    world.session(101).await;
    world.state().hang_up = false;
    let last = soon("the last one", async {
        loop {
            let number = world.sessions.borrow().len();
            let session = world.session(number).await;
            let quick = Duration::from_millis(50);
            if tokio::time::timeout(quick, session.tunnel.handle().closed())
                .await
                .is_err()
            {
                break session;
            }
        }
    })
    .await;
    until("one connection again", || sockets(port) == 4).await;
    until("as many tasks", || tasks() <= before).await;
    assert_eq!(world.state().enrolments.len(), 1);
    drop(last);
    node.stop().await;
    until("no connection", || sockets(port) == 1).await;
}
