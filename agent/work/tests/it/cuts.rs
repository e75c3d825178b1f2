//! The connection, or the agent, goes at each point of an assignment's life.

use std::time::Duration;

use api::work::{Ending, Key, Order, PartOutcome, Report};
use tokio::time::timeout;

use super::controller::Controller;
use super::{Node, assignment, key};

/// A controller that does what it should, on one stream: what it knows survives the stream.
#[derive(Default)]
struct Book {
    accepted: bool,
    ending: Option<Ending>,
    acknowledged: bool,
    messages: usize,
}

impl Book {
    /// Goes on until all is done, or `cut` messages have passed in either direction.
    async fn follow(&mut self, node: &Node, key: Key, cut: usize) -> bool {
        let mut controller = Controller::connect(&node.worker);
        let goes_on = |book: &mut Self| {
            book.messages += 1;
            book.messages < cut
        };
        if !goes_on(self) {
            return false;
        }
        let held = controller.hello().await;
        if !goes_on(self) {
            return false;
        }
        controller.welcome(vec![key]).await;
        if self.acknowledged {
            return true;
        }
        if held.is_empty() && !self.accepted {
            if !goes_on(self) {
                return false;
            }
            let mut work = assignment(key, "prepare 1 sleep 3 document a 1000");
            work.wait_for_begin = true;
            let order = Order::Assign(Box::new(work));
            controller.order(&order).await.unwrap();
        } else {
            assert_eq!(held.len(), 1, "it was accepted and is gone");
            if !goes_on(self) {
                return false;
            }
            controller.order(&Order::Begin { key }).await.unwrap();
        }
        loop {
            let report = controller.report().await;
            if !goes_on(self) {
                return false;
            }
            match report {
                Report::Accepted { .. } => {
                    self.accepted = true;
                    if !goes_on(self) {
                        return false;
                    }
                    controller.order(&Order::Begin { key }).await.unwrap();
                }
                Report::Ended { ending, .. } => {
                    self.ending = Some(*ending);
                    if !goes_on(self) {
                        return false;
                    }
                    controller.order(&Order::Acknowledge { key }).await.unwrap();
                    self.acknowledged = true;
                    // until it is forgotten
                    while node.worker.detail(key.job.0, 1).await.is_some() {
                        if !goes_on(self) {
                            return false;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    return true;
                }
                Report::Stage { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Goes {
    Connection,
    Agent,
}

/// Returns whether the cut came before the end.
async fn life(goes: Goes, cut: usize) -> bool {
    let mut node = Node::new().await;
    let key = key(1, 7);
    let mut book = Book::default();
    let finished = book.follow(&node, key, cut).await;
    if !finished {
        if goes == Goes::Agent {
            node = node.killed().await;
        }
        // the world goes on before the next stream is there
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let all = timeout(
            Duration::from_secs(900),
            book.follow(&node, key, usize::MAX),
        );
        assert!(all.await.expect("it comes to an end"));
    }
    let begun = node.machine.world.begun();
    assert_eq!(begun.get(&key), Some(&1), "cut {cut}: {begun:?}");
    let ending = book.ending.expect("an ending");
    assert_eq!(ending.outcome, PartOutcome::Done, "cut {cut}: {ending:?}");
    assert_eq!(ending.documents.len(), 2);
    assert_eq!(node.worker.detail(1, 1).await, None, "cut {cut}");
    !finished
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_anywhere_loses_nothing() {
    let mut cut = 1;
    while life(Goes::Connection, cut).await {
        cut += 1;
    }
    assert!(cut > 9, "only {cut} points");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_anywhere_loses_nothing_and_begins_nothing_twice() {
    let mut cut = 1;
    while life(Goes::Agent, cut).await {
        cut += 1;
    }
    assert!(cut > 9, "only {cut} points");
}

#[tokio::test(start_paused = true)]
async fn a_result_is_kept_however_long_the_controller_is_away() {
    let mut node = Node::new().await;
    let key = key(1, 1);
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let work = assignment(key, "sleep 10");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    controller.report().await;
    drop(controller);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        node = node.killed().await;
    }
    let (mut controller, held) = Controller::welcomed(&node.worker).await;
    assert_eq!(held.len(), 1);
    let (_, ending) = controller.ended().await;
    assert_eq!(ending.outcome, PartOutcome::Done);
}
