use stillmetal_fakes::{FakeEngine, packed};

use super::*;

async fn engine() -> (tempfile::TempDir, FakeEngine, EngineClient) {
    let folder = tempfile::tempdir().unwrap();
    let engine = FakeEngine::start(folder.path().join("engine.sock"));
    let client = EngineClient::new(&engine.socket);
    (folder, engine, client)
}

async fn all(client: &EngineClient, path: &str) -> Result<(Kind, Vec<u8>), ArchiveError> {
    let read = |kind, content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok((kind, bytes))
    };
    client.take("c1", path, read).await
}

#[tokio::test]
async fn files_are_read_as_they_are_and_folders_as_archives() {
    let (_folder, engine, client) = engine().await;
    let long = vec![7; 3 << 20];
    let name = "n".repeat(300);
    let folder = packed::folder("out", &[("a", b"x"), (&name, &long)]);
    engine.put("c1", "/out/a b", packed::file("a b", &long));
    engine.put("c1", "/out", folder.clone());
    engine.put("c1", "/empty", packed::file("empty", b""));
    engine.put("c1", "/long", packed::file(&name, b"under a long name"));
    let bytes = long.len() as u64;
    assert_eq!(
        all(&client, "/out/a b").await.unwrap(),
        (Kind::File { bytes }, long)
    );
    assert_eq!(all(&client, "/out").await.unwrap(), (Kind::Folder, folder));
    let empty = all(&client, "/empty").await.unwrap();
    assert_eq!(empty, (Kind::File { bytes: 0 }, Vec::new()));
    let long = all(&client, "/long").await.unwrap();
    assert_eq!(long.1, b"under a long name");
}

#[tokio::test]
async fn links_are_followed_and_circles_end() {
    let (_folder, engine, client) = engine().await;
    engine.put("c1", "/out/last", packed::link("last", "7/r.json"));
    engine.put(
        "c1",
        "/out/7/r.json",
        packed::link("r.json", "/data/r.json"),
    );
    engine.put("c1", "/data/r.json", packed::file("r.json", b"{}"));
    engine.put("c1", "/a", packed::link("a", "b"));
    engine.put("c1", "/b", packed::link("b", "a"));
    assert_eq!(all(&client, "/out/last").await.unwrap().1, b"{}");
    assert!(matches!(all(&client, "/a").await, Err(ArchiveError::Links)));
}

#[tokio::test]
async fn what_is_not_there_is_told_from_what_cannot_be_read() {
    let (_folder, engine, client) = engine().await;
    assert!(matches!(
        all(&client, "/x").await,
        Err(ArchiveError::NotThere)
    ));
    let whole = packed::file("cut", &[1; 4096]);
    engine.put("c1", "/cut", whole[..2048].to_vec());
    engine.put("c1", "/no-tar", b"?".repeat(2048));
    engine.put("c1", "/nothing", Vec::new());
    for path in ["/cut", "/no-tar", "/nothing"] {
        let error = all(&client, path).await.unwrap_err();
        assert!(
            matches!(error, ArchiveError::Read { .. }),
            "{path}: {error:?}"
        );
    }
    engine.die().await;
    let error = all(&client, "/x").await.unwrap_err();
    assert!(matches!(error, ArchiveError::Engine { .. }), "{error:?}");
}

#[tokio::test]
async fn whoever_has_read_enough_need_not_read_the_rest() {
    let (_folder, engine, client) = engine().await;
    engine.put("c1", "/big", packed::file("big", &vec![1; 8 << 20]));
    let first = client.take("c1", "/big", |_, content| {
        let mut byte = [0];
        content.read_exact(&mut byte).map(|()| byte)
    });
    assert_eq!(first.await.unwrap(), [1]);
}
