//! Many pretended nodes in one process, as the controller's tests and figures use them.

use std::time::Duration;

use api::work::{Order, PartOutcome};
use tokio::task::JoinSet;

use super::controller::Controller;
use super::{Node, assignment, key};

#[tokio::test(start_paused = true)]
async fn five_hundred_nodes_do_two_jobs_each() {
    let mut nodes = JoinSet::new();
    for number in 0..500_u64 {
        nodes.spawn(async move {
            let node = Node::new().await;
            let (mut controller, _) = Controller::welcomed(&node.worker).await;
            for job in 1..=2 {
                let key = key(job, number + job);
                let work = Order::Assign(Box::new(assignment(key, "sleep 1")));
                controller.order(&work).await.unwrap();
                let (_, ending) = controller.ended().await;
                assert_eq!(ending.outcome, PartOutcome::Done);
                controller.order(&Order::Acknowledge { key }).await.unwrap();
            }
            while !node.worker.overview().await.unwrap().parts.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(node.machine.world.begun().len(), 2);
        });
    }
    let done = nodes.join_all().await;
    assert_eq!(done.len(), 500);
}
