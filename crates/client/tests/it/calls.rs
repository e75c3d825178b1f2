//! Each route, once.

use std::collections::BTreeMap;
use std::time::Duration;

use api::fleet::{
    MachineHints, NodeChange, NodeId, NodeState, NodeView, PendingNode, TokenRequest,
};
use api::image::ImageView;
use api::job::{JobId, JobState};
use api::queue::QueueSettings;
use client::{JobFilter, JobOrder, LogStream, NodePage, Upload, Why, WhyReason};
use serde_json::json;

use crate::{PATIENCE, request, start};

fn node(name: &str) -> NodeView {
    NodeView {
        id: NodeId::try_from(format!("id-{name}")).unwrap(),
        name: name.into(),
        state: NodeState::Ready,
        facts: None,
        enrolled_ms: 1,
        connected_ms: Some(2),
        seen_ms: Some(3),
        jobs: Vec::new(),
        labels: BTreeMap::new(),
        received: 0,
        sent: 0,
    }
}

#[tokio::test]
async fn the_controller_itself() {
    let (_fake, client) = start().await;
    client.healthy().await.unwrap();
    assert_eq!(client.version().await.unwrap().version, "0.0.0-fake");
}

#[tokio::test]
async fn jobs_are_submitted_listed_and_cancelled() {
    let (fake, client) = start().await;
    let first = client.submit(&request("a")).await.unwrap();
    assert_eq!((first.id, first.state), (JobId(1), JobState::Queued));
    let more = [request("b"), request("c")];
    let more = client.submit_all(&more).await.unwrap();
    assert_eq!(more[1].request.image.as_deref(), Some("c"));

    let ids = async |filter: JobFilter| {
        let page = client.jobs(&filter).await.unwrap();
        let ids: Vec<u64> = page.items.iter().map(|job| job.id.0).collect();
        (ids, page.next)
    };
    let newest = JobFilter {
        order: JobOrder::NewestFirst,
        limit: Some(2),
        ..JobFilter::default()
    };
    assert_eq!(ids(newest.clone()).await, (vec![3, 2], Some("2".into())));
    let after = Some("2".into());
    assert_eq!(ids(JobFilter { after, ..newest }).await, (vec![1], None));
    fake.change(|state| state.advance(JobId(2), JobState::Done));
    let done = JobFilter {
        state: Some(JobState::Done),
        user: Some("tester".into()),
        queue: Some("default".into()),
        ..JobFilter::default()
    };
    assert_eq!(ids(done).await.0, [2]);

    let cancelled = client.cancel(JobId(3), Some("no use")).await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(cancelled.reason.as_deref(), Some("no use"));
    let refused = client.cancel(JobId(3), None).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().kind, "stillmetal:conflict");
    let missing = client.job_status(JobId(9)).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
}

#[tokio::test]
async fn the_end_of_a_job_is_waited_for() {
    let (fake, client) = start().await;
    let id = client.submit(&request("a")).await.unwrap().id;
    let early = client.wait_job(id, Duration::ZERO).await.unwrap();
    assert_eq!(early.state, JobState::Queued);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_job(id, Duration::from_secs(60)).await }
    });
    let asked = || fake.calls().iter().any(|call| call.ends_with("?wait=60"));
    while !asked() {
        tokio::task::yield_now().await;
    }
    fake.change(|state| state.advance(id, JobState::Failed));
    let ended = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(ended.unwrap().unwrap().state, JobState::Failed);
}

#[tokio::test]
async fn why_a_job_waits() {
    let (fake, client) = start().await;
    let id = client.submit(&request("a")).await.unwrap().id;
    let why = Why {
        reasons: vec![WhyReason {
            code: "held".into(),
            fields: json!({ "by": [1, 2] }).as_object().unwrap().clone(),
        }],
        could_start_ms: Some(5),
        text: vec!["jobs 1 and 2 run where it could".into()],
    };
    fake.change(|state| state.why = why.clone());
    assert_eq!(client.why(id).await.unwrap(), why);
}

#[tokio::test]
async fn output_is_read_and_followed() {
    let (fake, client) = start().await;
    let id = client.submit(&request("a")).await.unwrap().id;
    let mut followed = client
        .follow_logs(id, LogStream::Stdout, None)
        .await
        .unwrap();
    let mut seen = Vec::new();
    for line in ["one\n", "two\n"] {
        fake.change(|state| {
            let job = state.jobs.get_mut(&id).unwrap();
            job.stdout.extend_from_slice(line.as_bytes());
        });
        let piece = tokio::time::timeout(PATIENCE, followed.chunk()).await;
        seen.extend(piece.unwrap().unwrap().unwrap());
    }
    fake.change(|state| state.advance(id, JobState::Done));
    assert_eq!(followed.chunk().await.unwrap(), None);
    assert_eq!(seen, b"one\ntwo\n");

    let read = async |stream| {
        let logs = client.logs(id, stream, Some("n")).await.unwrap();
        logs.read_to_end(100).await.unwrap()
    };
    assert_eq!(read(LogStream::Stdout).await, seen);
    assert_eq!(read(LogStream::Stderr).await, b"");
    let logs = client.logs(id, LogStream::Stdout, None).await.unwrap();
    assert!(logs.read_to_end(3).await.is_err());
}

#[tokio::test]
async fn nodes_are_listed_changed_and_let_in() {
    let (fake, client) = start().await;
    fake.change(|state| {
        state.nodes = (0..5).map(|n| node(&format!("n{n}"))).collect();
        state.pending.push(PendingNode {
            fingerprint: "ab:cd".into(),
            machine: MachineHints::default(),
            address: "10.0.0.9:1".into(),
            first_ms: 1,
            last_ms: 2,
        });
    });
    let page = NodePage {
        after: None,
        limit: Some(2),
    };
    let first = client.nodes(&page).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("id-n1"));
    assert_eq!(client.all_nodes().await.unwrap().len(), 5);
    assert_eq!(client.node("n3").await.unwrap().id.as_str(), "id-n3");

    let change = NodeChange {
        draining: Some(true),
        labels: [("rack".to_owned(), "7".to_owned())].into(),
        ..NodeChange::default()
    };
    let changed = client.change_node("id-n3", &change).await.unwrap();
    assert_eq!(changed.state, NodeState::Draining);
    assert_eq!(changed.labels["rack"], "7");
    client.revoke_node("n3").await.unwrap();
    assert!(client.node("n3").await.unwrap_err().is_not_found());

    let pending = client.pending_nodes().await.unwrap();
    client.approve_node(&pending[0].fingerprint).await.unwrap();
    assert!(client.pending_nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn queues_and_tokens() {
    let (_fake, client) = start().await;
    let settings = QueueSettings {
        priority: 7,
        ..QueueSettings::default()
    };
    client.put_queue("night", &settings).await.unwrap();
    let queues = client.queues().await.unwrap();
    assert_eq!(queues[1].name, "night");
    assert_eq!(queues[1].settings, settings);
    client.delete_queue("night").await.unwrap();
    let gone = client.delete_queue("night").await.unwrap_err();
    assert!(gone.is_not_found());

    let request = TokenRequest {
        valid_seconds: 60,
        machine: Some("uuid".into()),
    };
    let token = client.create_token(&request).await.unwrap();
    assert!(token.token.is_some());
    let listed = client.tokens().await.unwrap();
    assert_eq!((listed.len(), &listed[0].token), (1, &None));
    client.delete_token(&token.id).await.unwrap();
    assert!(client.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn images_are_streamed() {
    let (_fake, client) = start().await;
    let archive: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let length = archive.len() as u64;
    let (told, seen) = std::sync::mpsc::channel();
    let upload = Upload::new(std::io::Cursor::new(archive))
        .bytes(length)
        .progress(move |sent| told.send(sent).unwrap());
    let image = client.push_image(upload).await.unwrap();
    assert_eq!(image.bytes, length);
    let seen: Vec<u64> = seen.iter().collect();
    assert_eq!(seen.last(), Some(&length));
    assert!(seen.is_sorted());
    let listed: Vec<ImageView> = client.images().await.unwrap();
    assert_eq!(listed, [image]);
}
