//! While something is measured not one byte is sent.

use std::time::Duration;

use api::fleet::NodeFacts;
use api::work::{Order, Report, Stage};

use super::controller::Controller;
use super::{Node, assignment, facts, key};

#[tokio::test(start_paused = true)]
async fn no_byte_is_sent_between_the_stage_and_its_end() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let mut silent = node.worker.silent();
    assert!(!*silent.borrow_and_update());
    let key = key(1, 1);
    let work = assignment(key, "sleep 500");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    loop {
        let report = controller.report().await;
        if matches!(
            report,
            Report::Stage {
                stage: Stage::Measuring,
                ..
            }
        ) {
            break;
        }
    }
    assert!(*silent.wait_for(|silent| *silent).await.unwrap());
    // a change is no reason either
    node.machine.set_facts(NodeFacts {
        class: "new".into(),
        ..facts()
    });
    assert!(controller.is_silent(Duration::from_secs(499)).await);
    assert_eq!(controller.stage().await, Stage::Packing);
    assert!(!*silent.borrow());
    assert!(matches!(controller.report().await, Report::Ended { .. }));
    assert!(matches!(controller.report().await, Report::Facts { .. }));
    assert_eq!(controller.anything().await, Report::Heartbeat {});
}

#[tokio::test(start_paused = true)]
async fn it_is_silent_before_it_measures() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let key = key(1, 1);
    let work = assignment(key, "sleep 5");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    // the program runs only after the stage was told, and then it is silent already
    loop {
        let running = !node.machine.world.running().is_empty();
        assert!(!running || *node.worker.silent().borrow());
        if running {
            break;
        }
        tokio::task::yield_now().await;
    }
    while controller.stage_or_else().await != Some(Stage::Measuring) {}
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_takes_nothing_does_not_keep_it_from_measuring() {
    let node = Node::new().await;
    // room for some messages, and nobody reads
    let mut controller = Controller::connect_with(&node.worker, 4000);
    controller.hello().await;
    controller.welcome(Vec::new()).await;
    for number in 1..30 {
        let work = assignment(key(number, number), "sleep 1");
        controller
            .order(&Order::Assign(Box::new(work)))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(node.machine.world.running(), []);
    assert_eq!(node.machine.world.begun().len(), 29);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_meanwhile() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let key = key(1, 1);
    let work = assignment(key, "sleep 500");
    let assign = Order::Assign(Box::new(work));
    controller.order(&assign).await.unwrap();
    while controller.stage_or_else().await != Some(Stage::Measuring) {}
    controller.order(&assign).await.unwrap();
    assert_eq!(controller.report().await, Report::Accepted { key });
    assert!(controller.is_silent(Duration::from_secs(400)).await);
}
