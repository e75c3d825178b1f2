//! Bookings and health checks, with the real program.

use api::booking::BookingRequest;
use api::fleet::{NodeChange, NodeState};
use api::health::HealthCheck;
use api::job::JobState;
use stillmetal_fakes::lab::{Node, until};

use crate::{ended, state, submit};

#[tokio::test]
async fn a_booking_outlives_the_controller() {
    let mut controller = crate::controller().await;
    let (dir, pin) = (controller.dir().to_owned(), controller.pin);
    let _node = Node::join("bench", &controller.client, &dir, pin, controller.address).await;
    let client = controller.client.clone();
    let wish = BookingRequest {
        nodes: ["bench".to_owned()].into(),
        users: ["somebody".to_owned()].into(),
        in_seconds: 0,
        for_seconds: 3600,
    };
    let booking = client.book(&wish).await.unwrap();
    let again = client.book(&wish).await.unwrap_err().to_string();
    assert!(again.contains("booked already, as number 1"), "{again}");
    controller.kill();
    controller.ready().await;
    let all = client.bookings().await.unwrap();
    assert_eq!(all.as_slice(), std::slice::from_ref(&booking));
    let job = submit(&client, "sleep 0").await;
    until("it is told why it waits", async || {
        let why = client.why(job).await.unwrap();
        why.text.iter().any(|it| it.contains("booked for others"))
    })
    .await;
    client.unbook(booking.id).await.unwrap();
    assert_eq!(ended(&client, job).await.state, JobState::Done);
    let filter = client::EventFilter::default();
    let events = client.events(&filter, None).await.unwrap().items;
    for kind in ["booking.made", "booking.cancelled"] {
        let event = events.iter().find(|it| it.kind == kind).unwrap();
        assert_eq!(event.user.as_deref(), Some("admin"), "{kind}");
    }
}

#[tokio::test]
async fn a_node_that_fails_its_health_check_gets_no_work() {
    let mut controller = crate::controller().await;
    let (dir, pin) = (controller.dir().to_owned(), controller.pin);
    let _node = Node::join("bench", &controller.client, &dir, pin, controller.address).await;
    let client = controller.client.clone();
    let check = |words: &str| HealthCheck {
        every_seconds: 3600,
        job: crate::work(words),
    };
    client.set_health_check(&check("sleep 0")).await.unwrap();
    until("it has passed", async || {
        let view = client.health_check().await.unwrap();
        view.nodes[0].passed_ms.is_some()
    })
    .await;
    controller.kill();
    controller.ready().await;
    client.set_health_check(&check("exit 3")).await.unwrap();
    let quarantined = async || {
        let node = client.node("bench").await.unwrap();
        match node.state {
            NodeState::Quarantined { cause } => Some(cause),
            _ => None,
        }
    };
    until("it is in quarantine", async || {
        quarantined().await.is_some()
    })
    .await;
    let cause = quarantined().await.unwrap();
    assert!(cause.contains("its health check"), "{cause}");
    assert!(cause.contains("it exited with code 3"), "{cause}");
    let job = submit(&client, "sleep 0").await;
    until("it is told why it waits", async || {
        let why = client.why(job).await.unwrap();
        why.text.iter().any(|it| it.contains("its health check"))
    })
    .await;
    assert_eq!(state(&client, job).await, JobState::Queued);

    client.remove_health_check().await.unwrap();
    let healthy = NodeChange {
        healthy: Some(true),
        ..NodeChange::default()
    };
    client.change_node("bench", &healthy).await.unwrap();
    assert_eq!(ended(&client, job).await.state, JobState::Done);
}
