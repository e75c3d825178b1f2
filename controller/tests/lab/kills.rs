//! `kill -9` at any point: nothing that was accepted is lost, nothing is run twice.

use std::collections::BTreeMap;
use std::time::Duration;

use api::job::{JobId, JobState};
use stillmetal_fakes::lab::{Node, until};

use crate::{ended, state, submit};

const NODES: usize = 4;
const JOBS: usize = 60;
const KILLS: u32 = 8;

#[tokio::test]
async fn a_campaign_survives_the_death_of_its_controller() {
    let mut controller = crate::controller().await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let name = format!("bench{number}");
        let (dir, pin) = (controller.dir().to_owned(), controller.pin);
        let joined = Node::join(&name, &controller.client, &dir, pin, controller.address);
        nodes.push(joined.await);
    }
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(submit(&controller.client, "sleep 0.3 document data 3000").await);
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..KILLS {
        // xorshift, so that a failure comes again: the instants differ, their order of size does not
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_millis(random % 400)).await;
        controller.kill();
        if kill % 3 == 2 {
            // an agent as well, while nobody listens
            nodes[kill as usize % NODES].kill().await;
        }
        controller.ready().await;
    }
    for id in &jobs {
        let job = ended(&controller.client, *id).await;
        assert_eq!(job.state, JobState::Done, "{job:?}");
        for part in &job.parts {
            let data = part.documents.iter().find(|it| it.name == "data").unwrap();
            let bytes = controller
                .client
                .fetch_document(*id, part.node.as_str(), data, 1 << 20);
            assert_eq!(bytes.await.unwrap().len(), 3000);
        }
        // what was begun was never interrupted, so it was begun once
        assert_eq!(begun(&nodes).get(id), Some(&1), "{job:?}");
    }
    for node in &nodes {
        until("all results are acknowledged", async || {
            node.holds().await == 0
        })
        .await;
    }
}

/// How often each job was begun, in all of its attempts.
fn begun(nodes: &[Node]) -> BTreeMap<JobId, u32> {
    let mut sum = BTreeMap::new();
    for node in nodes {
        for (key, times) in node.machine.world.begun() {
            *sum.entry(key.job).or_default() += times;
        }
    }
    sum
}

#[tokio::test]
async fn a_measurement_outlives_controller_and_agent() {
    let mut controller = crate::controller().await;
    let (dir, pin) = (controller.dir().to_owned(), controller.pin);
    let mut node = Node::join("bench", &controller.client, &dir, pin, controller.address).await;
    let id = submit(&controller.client, "sleep 4").await;
    until("it is measured", async || {
        state(&controller.client, id).await == JobState::Measuring
    })
    .await;
    controller.kill();
    node.kill().await;
    controller.ready().await;
    let job = ended(&controller.client, id).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 1), "{job:?}");
    assert_eq!(begun(std::slice::from_ref(&node)).get(&id), Some(&1));
}

#[tokio::test]
async fn what_the_submitter_says_twice_is_one_job() {
    let mut controller = crate::controller().await;
    let request = crate::work("sleep 0");
    let first = controller
        .client
        .submit_as(&request, "key-1")
        .await
        .unwrap();
    controller.kill();
    controller.ready().await;
    let again = controller
        .client
        .submit_as(&request, "key-1")
        .await
        .unwrap();
    assert_eq!(first.id, again.id);
}
