//! Many nodes at once, and all of them again after a restart.

use std::collections::BTreeSet;

use api::fleet::NodeState;
use api::job::JobState;
use stillmetal_fakes::lab::{Node, until};

use crate::{ended, submit};

const NODES: usize = 40;

#[tokio::test]
async fn all_are_back_after_a_restart_and_none_twice() {
    let mut controller = crate::controller().await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let name = format!("agent{number}");
        let (dir, pin) = (controller.dir().to_owned(), controller.pin);
        let joined = Node::join(&name, &controller.client, &dir, pin, controller.address);
        nodes.push(joined.await);
    }
    let before = controller.client.all_nodes().await.unwrap();
    let ids: BTreeSet<_> = before.iter().map(|node| node.id.clone()).collect();
    assert_eq!(ids.len(), NODES);
    controller.kill_and_time().await;
    until("all are ready again", async || {
        let after = controller.client.all_nodes().await.unwrap();
        let known: BTreeSet<_> = after.iter().map(|node| node.id.clone()).collect();
        assert_eq!(known, ids);
        after.iter().all(|node| node.state == NodeState::Ready)
    })
    .await;
    // and they are of use
    let id = submit(&controller.client, "sleep 0").await;
    assert_eq!(ended(&controller.client, id).await.state, JobState::Done);
}
