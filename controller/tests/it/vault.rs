//! What a vault promises, on a directory and on a real S3 server.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256};
use stillmetal_controller::vault::{PutError, ReadError, Vault};
use store::Digest;

const LIMIT: u64 = 64 << 20;

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// In pieces, as they come from a node.
fn pieces(bytes: &[u8]) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + use<> {
    let pieces = bytes.chunks(100_000).map(Bytes::copy_from_slice);
    stream::iter(pieces.map(Ok).collect::<Vec<_>>())
}

async fn read(vault: &Vault, digest: &Digest) -> Result<Vec<u8>, ReadError> {
    let (size, bytes) = vault.get(digest).await?;
    let all: Vec<Bytes> = bytes.try_collect().await.expect("it is what it was");
    let all = all.concat();
    assert_eq!(all.len() as u64, size);
    Ok(all)
}

async fn contract(vault: &Vault) {
    // beyond what is sent to a bucket in one request
    let long: Vec<u8> = (0..20_000_000_u32).map(|i| (i % 251) as u8).collect();
    for content in [&b""[..], b"quiet", &long] {
        let expected = digest(content);
        assert!(!vault.contains(&expected).await.unwrap());
        assert!(matches!(
            vault.get(&expected).await.map(|_| ()),
            Err(ReadError::Missing { .. })
        ));
        // twice is one object
        for _ in 0..2 {
            let put = vault.put_stream(Some(expected), LIMIT, pieces(content));
            let stored = put.await.unwrap();
            assert_eq!(
                (stored.digest, stored.bytes),
                (expected, content.len() as u64)
            );
        }
        assert_eq!(read(vault, &expected).await.unwrap(), content);
        assert_eq!(
            vault.size(&expected).await.unwrap(),
            Some(content.len() as u64)
        );
    }
    let of_long = digest(&long);
    for range in [0..1, 7..7, 100_000..9_000_001, 19_999_999..20_000_000] {
        let asked = range.start as u64..range.end as u64;
        let part = vault.get_range(&of_long, asked).await.unwrap();
        let part: Vec<Bytes> = part.try_collect().await.unwrap();
        assert!(part.concat() == long[range.clone()], "{range:?}");
    }
    let beyond = vault.get_range(&of_long, 0..20_000_001).await.map(|_| ());
    assert!(matches!(beyond, Err(ReadError::Range { .. })), "{beyond:?}");

    // nothing is left of what is not what it was said to be, is too long, or broke off
    let other = digest(b"other");
    let wrong = vault.put_stream(Some(other), LIMIT, pieces(b"noisy")).await;
    assert!(matches!(wrong, Err(PutError::Mismatch { .. })), "{wrong:?}");
    let long = vault.put_stream(None, 4, pieces(b"noisy")).await;
    assert!(
        matches!(long, Err(PutError::TooLong { limit: 4 })),
        "{long:?}"
    );
    let cut = pieces(b"noisy").chain(stream::iter([Err(io::ErrorKind::ConnectionReset.into())]));
    let cut = vault.put_stream(None, LIMIT, cut).await;
    assert!(matches!(cut, Err(PutError::Source(_))), "{cut:?}");
    for digest in [other, digest(b"noisy")] {
        assert!(!vault.contains(&digest).await.unwrap());
    }

    // what is young stays, what is needed stays, and the rest goes
    let needed: HashSet<Digest> = [digest(b"quiet")].into();
    let swept = vault
        .sweep(&needed, Duration::from_secs(3_600))
        .await
        .unwrap();
    assert_eq!(swept.objects, 0);
    // S3 tells times in whole seconds
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let swept = vault
        .sweep(&needed, Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!((swept.objects, swept.bytes), (2, 20_000_000));
    assert!(vault.contains(&digest(b"quiet")).await.unwrap());
    assert!(!vault.contains(&of_long).await.unwrap());
}

#[tokio::test]
async fn in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::at(None, dir.path()).await.unwrap();
    contract(&vault).await;
}

/// In another folder each time: what earlier runs left is not swept here.
#[tokio::test]
#[ignore = "needs an S3 server: make test-s3"]
async fn in_a_bucket() {
    let url = std::env::var("STILLMETAL_VAULT").expect("the URL of a bucket");
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("{url}/contract-{}", std::process::id());
    let vault = Vault::at(Some(&folder), dir.path()).await.unwrap();
    contract(&vault).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: make test-s3"]
async fn a_bucket_that_is_not_there_is_told_at_once() {
    pki::install();
    let dir = tempfile::tempdir().unwrap();
    let refused = Vault::at(Some("s3://nowhere-at-all"), dir.path()).await;
    let refused = refused.expect_err("there is none");
    let text = stillmetal_controller::chain(&refused);
    assert!(text.contains("nowhere-at-all"), "{text}");
    assert!(text.contains("AWS_ENDPOINT"), "{text}");
}

#[tokio::test]
async fn what_is_no_place_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Vault::at(Some("/srv/vault"), dir.path())
        .await
        .expect_err("no URL");
    assert!(refused.to_string().contains("s3://BUCKET"), "{refused}");
}
