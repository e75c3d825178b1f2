use futures_util::TryStreamExt;
use proptest::prelude::*;

use super::*;

/// The contract of both kinds.
async fn contract(folder: &Folder) {
    let document = folder.put("a/b.json", "abc").await.unwrap();
    // FIPS 180-2, appendix B.1
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!((document.bytes, document.sha256.as_str()), (3, sha256));
    assert_eq!(all(folder, "a/b.json").await, b"abc");

    let long: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = folder.create("long").unwrap();
    for part in long.chunks(7777) {
        writer.write(part).unwrap();
    }
    let missing = folder.open("long").await.unwrap_err();
    assert!(
        matches!(&missing, FolderError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound),
        "{missing:?}"
    );
    assert_eq!(writer.bytes(), long.len() as u64);
    assert_eq!(writer.finish().unwrap().bytes, long.len() as u64);
    for (first, length) in [
        (0, 0),
        (5, 1),
        (0, 70_000),
        (65_536, 65_536),
        (1_199_999, 1),
    ] {
        let content = folder.open("long").await.unwrap();
        let part: Vec<_> = content
            .stream(first as u64, length as u64)
            .try_collect()
            .await
            .unwrap();
        assert_eq!(part.concat(), &long[first..first + length]);
    }

    drop(folder.create("given-up").unwrap());
    assert!(folder.open("given-up").await.is_err());
    // a directory is no document
    assert!(folder.open("a").await.is_err());

    assert_eq!(folder.noted("series").await.unwrap(), None);
    folder.note("series", "1").await.unwrap();
    folder.note("series", "2").await.unwrap();
    assert_eq!(folder.noted("series").await.unwrap().unwrap(), "2");
    assert!(
        folder.open("series").await.is_err(),
        "a note is no document"
    );
    if let Some(path) = folder.file("out").unwrap() {
        fs::write(&path, "written").unwrap();
        for _ in 0..2 {
            let document = folder.put_file("out").await.unwrap();
            let same = folder.put("same", "written").await.unwrap();
            assert_eq!((document.bytes, document.sha256), (7, same.sha256));
        }
        assert_eq!(all(folder, "out").await, b"written");
        assert!(!path.exists(), "moved, not copied");
    }
}

async fn all(folder: &Folder, name: &str) -> Vec<u8> {
    let content = folder.open(name).await.unwrap();
    let bytes = content.bytes();
    let chunks: Vec<_> = content.stream(0, bytes).try_collect().await.unwrap();
    chunks.concat()
}

#[tokio::test]
async fn both_kinds_keep_the_contract() {
    let root = tempfile::tempdir().unwrap();
    contract(&Folder::directory(root.path())).await;
    contract(&Folder::memory()).await;
    let left = fs::read_dir(root.path().join(WRITING)).unwrap().count();
    assert_eq!(left, 0, "nothing half written stays");
}

#[tokio::test]
async fn a_file_is_never_in_memory_as_a_whole() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::directory(root.path());
    folder.put("x", vec![1; 1_000_000]).await.unwrap();
    let content = folder.open("x").await.unwrap();
    let chunks: Vec<Bytes> = content.stream(10, 900_000).try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= 64 * 1024));
    assert_eq!(chunks.concat().len(), 900_000);
}

#[tokio::test]
async fn a_file_that_became_shorter_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::directory(root.path());
    folder.put("x", vec![1; 100]).await.unwrap();
    let content = folder.open("x").await.unwrap();
    let file = fs::File::options()
        .write(true)
        .open(root.path().join("documents/x"))
        .unwrap();
    file.set_len(50).unwrap();
    let read: Result<Vec<Bytes>, _> = content.stream(0, 100).try_collect().await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        ".",
        "..",
        "a//b",
        "a/",
        "a\\b",
        "a b",
        "a\0",
        "ä",
        "%2e%2e/x",
    ] {
        assert!(check(name).is_err(), "{name:?}");
    }
    assert!(check(&"x".repeat(256)).is_err());
    for name in ["result.json", ".hidden", "a/..b", "A-1_2.x/y"] {
        assert!(check(name).is_ok(), "{name:?}");
    }
}

proptest! {
    #[test]
    fn whatever_passes_stays_below_its_directory(name in "[a./_-]{0,12}|.{0,12}") {
        if check(&name).is_ok() {
            let path = Path::new("/r").join(&name);
            let sound = path.components().skip(2).all(|part| {
                matches!(part, std::path::Component::Normal(_))
            });
            prop_assert!(path.starts_with("/r") && sound);
        }
    }
}
