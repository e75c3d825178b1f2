//! Where the objects of a vault are, as a URL says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::{OpenError, Vault};

/// Of one request to a bucket.
const REQUEST: Duration = Duration::from_secs(120);
/// To connect to it.
const CONNECT: Duration = Duration::from_secs(10);
/// With all repetitions of a request that failed for a passing reason.
const RETRIES: Duration = Duration::from_secs(180);
/// Until the first answer, at the start.
const FIRST: Duration = Duration::from_secs(30);

/// Why a URL names no place for objects.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "{0:?} is no place for a vault: give s3://BUCKET or s3://BUCKET/FOLDER, or leave it out"
    )]
    Url(String),
    #[error(
        "use the bucket {bucket:?} (AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
         in the environment say where it is and whose)"
    )]
    Bucket {
        bucket: String,
        source: object_store::Error,
    },
    #[error("the bucket {bucket:?} did not answer within {FIRST:?}")]
    Silent { bucket: String },
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Bucket, and folder in it.
fn parse(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("s3://")?;
    let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |text: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        text.bytes().all(known)
    };
    (!bucket.is_empty() && plain(rest)).then_some((bucket, folder.trim_end_matches('/')))
}

impl Vault {
    /// A vault in `root`, or with its objects in a bucket of S3 (`s3://BUCKET/FOLDER`) and `root` for
    /// what is on its way in. Whether the bucket can be used is tried at once.
    ///
    /// # Errors
    /// When the URL names none, or it cannot be used.
    pub async fn at(url: Option<&str>, root: &Path) -> Result<Self, PlaceError> {
        let Some(url) = url else {
            return Ok(Self::open(root)?);
        };
        let (bucket, folder) = parse(url).ok_or_else(|| PlaceError::Url(url.to_owned()))?;
        let refused = |source| PlaceError::Bucket {
            bucket: bucket.to_owned(),
            source,
        };
        // one by one: what the environment says of the client stays
        let limit = |key, value: Duration| {
            let text = format!("{} s", value.as_secs());
            (AmazonS3ConfigKey::Client(key), text)
        };
        let (request, within) = limit(ClientConfigKey::Timeout, REQUEST);
        let (connect, soon) = limit(ClientConfigKey::ConnectTimeout, CONNECT);
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_config(request, within)
            .with_config(connect, soon)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 10,
                retry_timeout: RETRIES,
            })
            .build()
            .map_err(refused)?;
        let store: Arc<dyn ObjectStore> = match folder {
            "" => Arc::new(store),
            folder => Arc::new(PrefixStore::new(store, folder)),
        };
        let first = tokio::time::timeout(FIRST, store.list(None).next()).await;
        match first {
            Ok(None | Some(Ok(_))) => Ok(Self::remote(store, root)?),
            Ok(Some(Err(source))) => Err(refused(source)),
            Err(_elapsed) => Err(PlaceError::Silent {
                bucket: bucket.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_folders() {
        assert_eq!(parse("s3://lab"), Some(("lab", "")));
        assert_eq!(parse("s3://lab/"), Some(("lab", "")));
        assert_eq!(parse("s3://lab/a/b/"), Some(("lab", "a/b")));
        for wrong in [
            "lab",
            "s3://",
            "s3:///a",
            "http://lab",
            "s3://lab?a=b",
            "s3://a b",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
