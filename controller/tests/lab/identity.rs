//! Who a node is: over restarts, with a namesake, copied, and taken back.

use std::time::Duration;

use api::fleet::{NodeState, NodeView};
use client::EventFilter;
use stillmetal_join::Phase;

use stillmetal_fakes::lab::{Node, until};

#[tokio::test]
async fn it_stays_over_restarts_of_both_and_a_namesake_is_another() {
    let mut controller = crate::controller().await;
    let (dir, pin, address) = (
        controller.dir().to_owned(),
        controller.pin,
        controller.address,
    );
    let mut first = Node::join("twin", &controller.client, &dir.join("a"), pin, address).await;
    let second = Node::join("twin", &controller.client, &dir.join("b"), pin, address).await;
    let before = controller.client.all_nodes().await.unwrap();
    let names: Vec<_> = before.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(
        names.contains(&"twin") && names.contains(&"twin-2"),
        "{names:?}"
    );
    first.kill().await;
    controller.kill();
    controller.ready().await;
    first.connected().await;
    second.connected().await;
    until("both are ready again", async || {
        let after = controller.client.all_nodes().await.unwrap();
        let who = |nodes: &[NodeView]| -> Vec<_> {
            let known = nodes
                .iter()
                .map(|node| (node.id.clone(), node.name.clone()));
            known.collect()
        };
        assert_eq!(who(&after), who(&before));
        after.iter().all(|node| node.state == NodeState::Ready)
    })
    .await;
}

#[tokio::test]
async fn a_revoked_node_is_out_and_does_not_come_back() {
    let controller = crate::controller().await;
    let (dir, pin, address) = (
        controller.dir().to_owned(),
        controller.pin,
        controller.address,
    );
    let node = Node::join("bad", &controller.client, &dir, pin, address).await;
    controller.client.revoke_node("bad").await.unwrap();
    until("it is out", async || {
        !matches!(node.phase(), Phase::Connected { .. })
    })
    .await;
    // it tries, and is refused each time
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!matches!(node.phase(), Phase::Connected { .. }));
    }
    let nodes = controller.client.all_nodes().await.unwrap();
    assert!(
        nodes.iter().all(|node| node.state == NodeState::Offline),
        "{nodes:?}"
    );
}

#[tokio::test]
async fn a_copied_identity_is_found_and_both_are_named() {
    let controller = crate::controller().await;
    let (dir, pin, address) = (
        controller.dir().to_owned(),
        controller.pin,
        controller.address,
    );
    let node = Node::join("real", &controller.client, &dir, pin, address).await;
    let copy = node.clone_of(&dir).await;
    until("the copy is refused", async || {
        matches!(copy.phase(), Phase::Refused { .. })
    })
    .await;
    assert!(matches!(node.phase(), Phase::Connected { .. }));
    let mut data = serde_json::Value::Null;
    until("the event is stored", async || {
        let filter = EventFilter::default();
        let events = controller.client.events(&filter, None).await.unwrap();
        let mut cloned = events.items.into_iter();
        let cloned = cloned.find(|event| event.kind == "node.cloned");
        data = cloned.map(|event| event.data).unwrap_or_default();
        !data.is_null()
    })
    .await;
    assert!(
        data["connected"].is_string() && data["refused"].is_string(),
        "{data}"
    );
    assert_ne!(data["connected"], data["refused"]);
}
