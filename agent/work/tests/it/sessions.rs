//! Streams: one at a time, with deadlines, and whatever comes on them.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeFacts;
use api::work::{Order, PartOutcome, Report, Stage};
use stillmetal_work::frame::FrameError;
use stillmetal_work::worker::SessionError;
use tokio::time::Instant;

use super::controller::Controller;
use super::{Node, assignment, facts, key};

#[tokio::test(start_paused = true)]
async fn an_assignment_goes_its_way() {
    let node = Node::new().await;
    let (mut controller, held) = Controller::welcomed(&node.worker).await;
    assert_eq!(held, []);
    let key = key(1, 5);
    let work = assignment(key, "sleep 2 document log/a 100");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    assert_eq!(controller.report().await, Report::Accepted { key });
    // what is over before it could be told is not told
    while controller.stage().await != Stage::Measuring {}
    assert_eq!(controller.stage().await, Stage::Packing);
    let (ended, ending) = controller.ended().await;
    assert_eq!((ended, ending.outcome), (key, PartOutcome::Done));
    let names: Vec<_> = ending.documents.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["log/a", "result.json"]);
    let overview = node.worker.overview().await.unwrap();
    assert_eq!(overview.parts.len(), 1);
    assert!((5..=6).contains(&overview.sent), "{overview:?}");
    assert_eq!((overview.received, overview.silent), (2, false));
    controller.order(&Order::Acknowledge { key }).await.unwrap();
    // answered after the acknowledgement, as orders are taken one after the other
    controller.order(&Order::Begin { key }).await.unwrap();
    assert!(matches!(controller.report().await, Report::Refused { .. }));
    assert_eq!(node.worker.detail(1, 1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_what_would_never_end() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let key = key(1, 1);
    let work = assignment(key, "hang");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    controller.report().await;
    while controller.stage().await != Stage::Measuring {}
    let why = "not needed any more".to_owned();
    controller.order(&Order::Cancel { key, why }).await.unwrap();
    let (_, ending) = controller.ended().await;
    assert_eq!(ending.outcome, PartOutcome::Cancelled);
    assert_eq!(ending.reason.as_deref(), Some("not needed any more"));
    assert_eq!(node.machine.world.running(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lease_and_a_silent_program_come_to_an_end() {
    for (words, output_seconds, reason) in [
        ("hang", None, "lease of 3600 s"),
        ("hang write 4", Some(5), "lease of 3600 s"),
        ("hang", Some(5), "wrote nothing for 5 s"),
        ("hang write 6", Some(5), "wrote nothing for 5 s"),
    ] {
        let node = Node::new().await;
        let (mut controller, _) = Controller::welcomed(&node.worker).await;
        let mut work = assignment(key(1, 1), words);
        work.request.limits.output_seconds = output_seconds;
        controller
            .order(&Order::Assign(Box::new(work)))
            .await
            .unwrap();
        // more than the patience of one read may pass before it
        while controller.report().await != stage(Stage::Measuring) {}
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let (_, ending) = controller.ended().await;
        assert_eq!(ending.outcome, PartOutcome::TimedOut, "{words}");
        let found = ending.reason.unwrap();
        assert!(found.contains(reason), "{words}: {found}");
    }
}

fn stage(stage: Stage) -> Report {
    Report::Stage {
        key: key(1, 1),
        stage,
        detail: None,
    }
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_dies_is_an_error_and_not_a_hang() {
    use stillmetal_work::fakes::FakeExecutor;
    use stillmetal_work::simulated::Machine;
    let machine = Machine::new(facts());
    let executor = FakeExecutor::directed(machine.world.clone(), |_| panic!("out of luck"));
    let tasks = tokio_util::task::TaskTracker::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let worker = machine
        .agent(Arc::new(executor), &tasks, stop)
        .await
        .unwrap();
    let (mut controller, _) = Controller::welcomed(&worker).await;
    let work = assignment(key(1, 1), "");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    let (_, ending) = controller.ended().await;
    assert_eq!(ending.outcome, PartOutcome::Error);
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_takes_the_place_of_the_older() {
    let node = Node::new().await;
    let (older, _) = Controller::welcomed(&node.worker).await;
    let (mut newer, _) = Controller::welcomed(&node.worker).await;
    let left = older.session.await.unwrap();
    assert!(matches!(left, Err(SessionError::Replaced)), "{left:?}");
    let work = assignment(key(1, 1), "");
    newer.order(&Order::Assign(Box::new(work))).await.unwrap();
    newer.ended().await;
    assert_eq!(node.worker.overview().await.unwrap().streams, 2);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_answer_is_left() {
    let node = Node::new().await;
    let began = Instant::now();
    let mut mute = Controller::connect(&node.worker);
    mute.hello().await;
    let left = mute.session.await.unwrap();
    assert!(
        matches!(left, Err(SessionError::NoWelcome { .. })),
        "{left:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 30);
    // and one that comes after it is served
    Controller::welcomed(&node.worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_read_is_left() {
    let node = Node::new().await;
    let stuck = Controller::connect_with(&node.worker, 16);
    let left = stuck.session.await.unwrap();
    assert!(
        matches!(left, Err(SessionError::Stalled { .. })),
        "{left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_order_is_refused_and_what_is_no_frame_ends_the_stream() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    for text in [
        r#"{"order":"exec","argv":["/bin/sh","-c","id"]}"#,
        r#"{"order":"begin","key":{"job":1,"attempt":1,"fence":1},"and":"rm -rf /"}"#,
        "null",
    ] {
        let length = u32::try_from(text.len()).unwrap();
        controller.raw(&length.to_be_bytes()).await;
        controller.raw(text.as_bytes()).await;
    }
    let key = key(1, 1);
    controller.order(&Order::Begin { key }).await.unwrap();
    assert!(matches!(controller.report().await, Report::Refused { .. }));
    assert_eq!(node.worker.overview().await.unwrap().rejected, 3);
    controller.raw(&u32::MAX.to_be_bytes()).await;
    let left = controller.session.await.unwrap();
    let Err(SessionError::Frame(FrameError::TooLong { .. })) = left else {
        panic!("{left:?}");
    };
    // an end within a frame
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    controller.raw(&[0, 0, 0, 9, b'{']).await;
    let session = controller.cut();
    let left = session.await.unwrap();
    let Err(SessionError::Frame(FrameError::Truncated { .. })) = left else {
        panic!("{left:?}");
    };
    // and one between two
    let (controller, _) = Controller::welcomed(&node.worker).await;
    controller.cut().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_as_often_as_they_were_asked_for() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let began = Instant::now();
    for _ in 0..6 {
        assert_eq!(controller.anything().await, Report::Heartbeat {});
    }
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn what_the_node_is_is_told_when_it_changes() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let unfit = NodeFacts {
        unfit: Some("no isolated CPU".into()),
        ..facts()
    };
    node.machine.set_facts(unfit.clone());
    let facts = Box::new(unfit);
    assert_eq!(controller.report().await, Report::Facts { facts });
    assert!(controller.is_silent(Duration::from_secs(9)).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_leaves_everything_as_it_stands() {
    let node = Node::new().await;
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let key = key(1, 1);
    let work = assignment(key, "sleep 5");
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    while controller.report().await != stage(Stage::Measuring) {}
    node.stop.cancel();
    let left = controller.session.await.unwrap();
    assert!(matches!(left, Err(SessionError::Stopped)), "{left:?}");
    assert_eq!(
        node.worker.overview().await.map(|view| view.parts.len()),
        None
    );
    node.tasks.close();
    node.tasks.wait().await;
    let next = Node::on(node.machine).await;
    let (mut controller, held) = Controller::welcomed(&next.worker).await;
    assert_eq!((held.len(), held[0].key), (1, key));
    let (_, ending) = controller.ended().await;
    assert_eq!(ending.outcome, PartOutcome::Done);
    assert_eq!(next.machine.world.begun()[&key], 1);
}
