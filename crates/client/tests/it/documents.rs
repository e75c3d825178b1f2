//! Documents come whole and as they were, or not at all.

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::work::Document;
use client::fake::{FakeController, Fault};
use client::{Client, Error, Strange};

use crate::{request, start};

async fn stored(bytes: &[u8]) -> (FakeController, Client, JobId, Document) {
    let (fake, client) = start().await;
    let id = client.submit(&request("a")).await.unwrap().id;
    let node = NodeId::try_from("n1".to_owned()).unwrap();
    let document = fake.change(|state| {
        state.assign(id, &node, "1");
        state.store(id, &node, "runs/1/stdout", bytes);
        state.advance(id, JobState::Done);
        let part = &state.jobs[&id].status.parts[0];
        part.documents[0].clone()
    });
    (fake, client, id, document)
}

fn long() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let bytes = long();
    let (fake, client, id, document) = stored(&bytes).await;
    for after in [0, 1, 70_000, 99_999] {
        fake.break_once(Fault::Cut {
            path: "/v1/jobs/1/documents".into(),
            after,
        });
    }
    let got = client
        .fetch_document(id, "n1", &document, u64::MAX)
        .await
        .unwrap();
    assert_eq!(got, bytes);
    assert_eq!(fake.faults_left(), 0);
}

#[tokio::test]
async fn a_part_can_be_asked_for() {
    let bytes = long();
    let (_fake, client, id, document) = stored(&bytes).await;
    let part = client
        .open_document(id, "n1", &document.name, 123_456)
        .await
        .unwrap();
    assert_eq!(part.read_to_end(u64::MAX).await.unwrap(), bytes[123_456..]);
}

#[tokio::test]
async fn one_changed_byte_is_found() {
    let bytes = long();
    let (fake, client, id, document) = stored(&bytes).await;
    fake.change(|state| {
        let documents = &mut state.jobs.get_mut(&id).unwrap().documents;
        for stored in documents.values_mut() {
            stored[100_000] ^= 1;
        }
    });
    let error = client.fetch_document(id, "n1", &document, u64::MAX).await;
    let Err(Error::Protocol { source, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(source, Strange::Digest { .. }), "{source:?}");
}

#[tokio::test]
async fn another_length_is_found() {
    for (stored_bytes, told) in [(&b"four"[..], 3), (b"four", 5)] {
        let (_fake, client, id, mut document) = stored(stored_bytes).await;
        document.bytes = told;
        let error = client.fetch_document(id, "n1", &document, 100).await;
        let Err(Error::Protocol { source, .. }) = error else {
            panic!("{error:?}");
        };
        assert!(
            matches!(source, Strange::Length { got: 4, .. }),
            "{source:?}"
        );
    }
    let (_fake, client, id, document) = stored(b"four").await;
    let refused = client.fetch_document(id, "n1", &document, 3).await;
    assert!(matches!(refused, Err(Error::Protocol { .. })));
    let missing = client.open_document(id, "n2", &document.name, 0).await;
    assert!(missing.unwrap_err().is_not_found());
}
