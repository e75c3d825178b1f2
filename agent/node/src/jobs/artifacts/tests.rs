use serde_json::json;
use stillmetal_fakes::{FakeEngine, packed};

use super::*;

fn run() -> Attempt {
    serde_json::from_value(json!({
        "number": 3, "repetition": 1, "container": "c1", "verdict": "quiet", "reasons": [],
        "outcome": "succeeded", "failure": null, "exit_code": 0, "signal": null, "duration_ns": 5,
        "stdout": "", "stderr": "", "truncated": false,
    }))
    .unwrap()
}

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

async fn engine() -> (tempfile::TempDir, FakeEngine, EngineClient) {
    let folder = tempfile::tempdir().unwrap();
    let engine = FakeEngine::start(folder.path().join("engine.sock"));
    let client = EngineClient::new(&engine.socket);
    (folder, engine, client)
}

async fn read(folder: &Folder, document: &Document) -> Vec<u8> {
    use futures_util::TryStreamExt;
    let content = folder.open(&document.name).await.unwrap();
    let chunks = content.stream(0, document.bytes);
    let chunks: Vec<bytes::Bytes> = chunks.try_collect().await.unwrap();
    chunks.concat()
}

#[tokio::test]
async fn files_and_folders_become_documents_of_their_run() {
    let (_folder, engine, client) = engine().await;
    let tar = packed::folder("out", &[("a", b"x")]);
    engine.put("c1", "/out", tar.clone());
    engine.put("c1", "/data/r.json", packed::file("r.json", b"{}"));
    let folder = Folder::memory();
    let wanted = paths(&["/out", "/data/r.json"]);
    let collected = collect(&client, &folder, &run(), &wanted).await;
    assert_eq!(collected.lack, None);
    let names: Vec<&str> = collected
        .documents
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["artifacts/3/1.tar", "artifacts/3/r.json"]);
    assert_eq!(collected.names["/out"], "artifacts/3/1.tar");
    assert_eq!(read(&folder, &collected.documents[0]).await, tar);
    assert_eq!(read(&folder, &collected.documents[1]).await, b"{}");
    // once more, as after the agent was killed meanwhile
    let again = collect(&client, &folder, &run(), &wanted).await;
    assert_eq!(again.documents, collected.documents);
}

#[tokio::test]
async fn what_is_not_there_fails_its_run_and_the_rest_is_kept() {
    let (_folder, engine, client) = engine().await;
    engine.put("c1", "/b", packed::file("b", b"1"));
    let folder = Folder::memory();
    let collected = collect(&client, &folder, &run(), &paths(&["/a", "/b"])).await;
    let lack = collected.lack.unwrap();
    assert_eq!(lack.why, "artifact /a: not in the container");
    assert_eq!(lack.fault, Fault::Benchmark);
    assert_eq!(collected.documents.len(), 1);
    engine.die().await;
    let collected = collect(&client, &folder, &run(), &paths(&["/b"])).await;
    assert_eq!(collected.lack.unwrap().fault, Fault::Node);
    assert!(collected.documents.is_empty());
}

#[tokio::test]
async fn a_run_has_so_much_room_and_no_more() {
    let (_folder, engine, client) = engine().await;
    engine.put("c1", "/file", packed::file("file", &[1; 5000]));
    engine.put("c1", "/dir", packed::folder("dir", &[("a", &[1; 5000])]));
    let folder = Folder::memory();
    let wanted = paths(&["/file", "/dir"]);
    for index in 0..2 {
        let kept = keep(&client, &folder, &run(), (&wanted, index), 4999).await;
        let (why, fault) = kept.unwrap_err();
        assert!(
            why.contains("longer than the 4999 bytes that are left"),
            "{why}"
        );
        assert_eq!(fault, Fault::Benchmark);
    }
    let missing = folder.open("artifacts/3/file").await;
    assert!(missing.is_err(), "half of it is not there");
    assert!(
        keep(&client, &folder, &run(), (&wanted, 0), 5000)
            .await
            .is_ok()
    );
}

#[test]
fn names_are_those_of_the_files_where_they_can_be() {
    let wanted = paths(&[
        "/a/x.json",
        "/b/y",
        "/c/y",
        "/d/ä",
        "/e/7",
        "/f/7.tar",
        "/g/9.json",
    ]);
    let found: Vec<String> = (0..wanted.len())
        .map(|index| file_name(&wanted, index))
        .collect();
    assert_eq!(found, ["x.json", "2", "3", "4", "5", "6", "9.json"]);
    let long = paths(&[&format!("/{}", "x".repeat(65))]);
    assert_eq!(file_name(&long, 0), "1");
}

#[test]
fn the_file_system_of_the_work_folder_is_asked_for_its_room() {
    assert_eq!(room(&Folder::memory()), u64::MAX);
}
