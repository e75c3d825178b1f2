//! Documents over a `router` stream.

use api::work::{Ending, Order};
use sha2::{Digest, Sha256};
use stillmetal_work::documents::{Asker, Conditions, answer};
use stillmetal_work::simulated::serve_router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::controller::Controller;
use super::{Node, assignment, key};

const PATH: &str = "/stillmetal/v1/work";

async fn ended(node: &Node, words: &str) -> Ending {
    let (mut controller, _) = Controller::welcomed(&node.worker).await;
    let work = assignment(key(1, 1), words);
    controller
        .order(&Order::Assign(Box::new(work)))
        .await
        .unwrap();
    controller.ended().await.1
}

/// One request; status line and headers in lower case, and the body.
async fn get(node: &Node, path: &str, headers: &str) -> (String, Vec<u8>) {
    let (mut here, there) = tokio::io::duplex(4096);
    let worker = node.worker.clone();
    let served = tokio::spawn(async move { serve_router(&worker, there).await });
    let head = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{headers}\r\n");
    here.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    here.read_to_end(&mut answer).await.unwrap();
    served.await.unwrap().unwrap();
    let end = answer
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head.to_lowercase(), answer[end + 4..].to_vec())
}

#[tokio::test]
async fn a_document_is_had_whole_and_in_parts() {
    let node = Node::new().await;
    let ending = ended(&node, "document out/log 300000").await;
    let document = &ending.documents[0];
    assert_eq!(
        (document.name.as_str(), document.bytes),
        ("out/log", 300_000)
    );
    let path = format!("{PATH}/1/1/documents/out/log");
    let (head, whole) = get(&node, &path, "").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("content-length: 300000"), "{head}");
    let sha256: String = Sha256::digest(&whole)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(sha256, document.sha256);
    assert!(head.contains(&format!("etag: \"{sha256}\"")), "{head}");
    // as after a connection that broke
    let mut had = whole[..123_457].to_vec();
    let range = format!("range: bytes={}-\r\nif-range: \"{sha256}\"\r\n", had.len());
    let (head, rest) = get(&node, &path, &range).await;
    assert!(head.starts_with("http/1.1 206 "), "{head}");
    assert!(
        head.contains("content-range: bytes 123457-299999/300000"),
        "{head}"
    );
    had.extend(rest);
    assert_eq!(had, whole);
    let (head, _) = get(&node, &path, "range: bytes=300000-\r\n").await;
    assert!(head.starts_with("http/1.1 416 "), "{head}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_nothing_leads_elsewhere() {
    let node = Node::new().await;
    ended(&node, "").await;
    for path in [
        "/1/1/documents/other",
        "/1/1/documents/../assignment.json",
        "/1/1/documents/..%2fassignment.json",
        "/1/1/documents/%2e%2e/assignment.json",
        "/1/1/documents//etc/passwd",
        "/1/1/documents/result.json/",
        "/1/1/documents/",
        "/1/1/documents",
        "/1/2",
        "/2/1",
        "/1/1/notes/x",
    ] {
        let (head, _) = get(&node, &format!("{PATH}{path}"), "").await;
        assert!(head.starts_with("http/1.1 404 "), "{path}: {head}");
    }
    let (head, _) = get(&node, &format!("{PATH}/x/1"), "").await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    let (head, list) = get(&node, PATH, "").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let list: api::work::WorkView = serde_json::from_slice(&list).unwrap();
    assert_eq!(list.parts.len(), 1);
}

#[tokio::test]
async fn users_see_what_is_theirs() {
    let node = Node::new().await;
    ended(&node, "").await;
    let paths: [&[&str]; 2] = [&["1", "1"], &["1", "1", "documents", "result.json"]];
    for (asker, status) in [
        (Asker::Admin, 200),
        (Asker::User(Some("ada")), 200),
        (Asker::User(Some("bob")), 404),
        (Asker::User(None), 404),
    ] {
        for path in paths {
            let found = answer(&node.worker, asker, path, Conditions::default()).await;
            assert_eq!(found.unwrap().status, status, "{asker:?} {path:?}");
        }
        let list = answer(&node.worker, asker, &[], Conditions::default()).await;
        let body: Vec<_> = futures_util::TryStreamExt::try_collect(list.unwrap().body)
            .await
            .unwrap();
        let body: Vec<u8> = body.concat();
        let list: api::work::WorkView = serde_json::from_slice(&body).unwrap();
        assert_eq!(list.parts.len(), usize::from(status == 200));
    }
}
