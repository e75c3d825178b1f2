//! Cut, slow and silent lines between a node and its controller, at every stage of a job.

use std::time::Duration;

use api::job::{JobId, JobState};
use client::Client;
use stillmetal_fakes::lab::{Controller, Line, Node, Weather, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::{ended, state, submit};

async fn behind_a_line(controller: &Controller) -> (Line, Node) {
    let line = Line::to(controller.address).await;
    let dir = controller.dir().to_owned();
    let node = Node::join(
        "far",
        &controller.client,
        &dir,
        controller.pin,
        line.address,
    );
    let node = node.await;
    (line, node)
}

async fn comes_to(client: &Client, words: &str, wanted: JobState) -> JobId {
    let id = submit(client, words).await;
    until(&format!("it is {wanted}"), async || {
        state(client, id).await == wanted
    })
    .await;
    id
}

/// The line is closed for a second while the job is in this state.
async fn cut_while(words: &str, wanted: JobState) {
    let controller = crate::controller().await;
    let (line, node) = behind_a_line(&controller).await;
    let id = comes_to(&controller.client, words, wanted).await;
    line.set(Weather::Cut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    line.set(Weather::Fair);
    let job = ended(&controller.client, id).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 1), "{job:?}");
    let begun: u32 = node.machine.world.begun().values().sum();
    assert_eq!(begun, 1, "begun once");
}

#[tokio::test]
async fn a_cut_while_it_is_prepared_loses_nothing() {
    // it is assigned until its node has made it ready
    cut_while("prepare 3 sleep 0.2", JobState::Assigned).await;
}

#[tokio::test]
async fn a_cut_while_it_is_measured_loses_nothing() {
    cut_while("sleep 3", JobState::Measuring).await;
}

#[tokio::test]
async fn a_result_waits_for_a_line_that_was_cut_before_its_end() {
    let controller = crate::controller().await;
    let (line, node) = behind_a_line(&controller).await;
    let id = comes_to(
        &controller.client,
        "sleep 1 document data 300000",
        JobState::Measuring,
    )
    .await;
    line.set(Weather::Cut);
    until("it is over at the node", async || {
        node.machine.world.running().is_empty()
    })
    .await;
    // for as long as it takes
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.holds().await, 1);
    line.set(Weather::Fair);
    let job = ended(&controller.client, id).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 1), "{job:?}");
    until("it is acknowledged", async || node.holds().await == 0).await;
}

#[tokio::test]
async fn a_half_open_line_while_it_is_measured_is_no_loss() {
    let controller = crate::controller().await;
    let (line, _node) = behind_a_line(&controller).await;
    let id = comes_to(&controller.client, "sleep 2", JobState::Measuring).await;
    line.set(Weather::Mute);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!state(&controller.client, id).await.is_over());
    line.set(Weather::Fair);
    let job = ended(&controller.client, id).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 1), "{job:?}");
}

#[tokio::test]
async fn a_slow_line_only_takes_longer() {
    let controller = crate::controller().await;
    let (line, _node) = behind_a_line(&controller).await;
    line.set(Weather::Slow(Duration::from_millis(150)));
    let id = submit(&controller.client, "sleep 0.2 document data 100000").await;
    let job = ended(&controller.client, id).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 1), "{job:?}");
}

#[tokio::test]
async fn a_cancelled_job_ends_though_its_node_is_gone() {
    let controller = crate::controller().await;
    let (line, node) = behind_a_line(&controller).await;
    let id = comes_to(&controller.client, "hang", JobState::Measuring).await;
    line.set(Weather::Cut);
    controller.client.cancel(id, Some("enough")).await.unwrap();
    let job = ended(&controller.client, id).await;
    assert_eq!(job.state, JobState::Cancelled, "{job:?}");
    // and when it is back it ends what belongs to nobody, before it takes anything new
    line.set(Weather::Fair);
    until("nothing runs there", async || {
        node.machine.world.running().is_empty()
    })
    .await;
    let next = submit(&controller.client, "sleep 0").await;
    assert_eq!(ended(&controller.client, next).await.state, JobState::Done);
}

#[tokio::test]
async fn a_hundred_silent_connections_are_in_nobodys_way() {
    let controller = crate::controller().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(controller.address).await.unwrap());
    }
    let (_line, _node) = behind_a_line(&controller).await;
    let id = submit(&controller.client, "sleep 0").await;
    assert_eq!(ended(&controller.client, id).await.state, JobState::Done);
    // and they do not stay for ever
    until("the silent are shown out", async || {
        let mut byte = [0];
        let read = silent[0].read(&mut byte);
        let read = tokio::time::timeout(Duration::from_millis(10), read).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    })
    .await;
}
