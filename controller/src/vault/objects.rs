//! Objects, in a directory or a bucket.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RenameOptions,
    RenameTargetMode, WriteMultipart,
};
use store::Digest;

use super::OpenError;
use super::draft::{Finished, blocking};

/// Before the digits.
const PREFIX: &str = "sha256";
/// Up to here an object is sent to a bucket at once, and in parts of this size beyond; bytes.
const PART: u64 = 8 * 1024 * 1024;
/// A bucket takes no more parts than 10,000.
const PARTS: u64 = 9_000;
/// Parts under way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// An object of a bucket that is older is sent again, so that it becomes young.
const YOUNG: Duration = Duration::from_secs(3_600);

/// Where objects are.
#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// The directory, if they are in one: files may be moved into it.
    root: Option<PathBuf>,
}

/// The key of an object.
pub(super) fn key(digest: &Digest) -> Key {
    let digits = digest.to_string();
    let (directory, name) = digits.split_at(2);
    Key::from_iter([PREFIX, directory, name])
}

/// The digest of a key; none: it is somebody else's.
fn digest(key: &Key) -> Option<Digest> {
    let mut parts = key.parts();
    let (prefix, directory, name) = (parts.next()?, parts.next()?, parts.next()?);
    if prefix.as_ref() != PREFIX || parts.next().is_some() || directory.as_ref().len() != 2 {
        return None;
    }
    format!("{}{}", directory.as_ref(), name.as_ref())
        .parse()
        .ok()
}

impl Objects {
    pub(super) fn local(root: &Path) -> Result<Self, OpenError> {
        let directory = root.join(PREFIX);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| OpenError::Directory {
                path: directory,
                source,
            })?;
        let store =
            LocalFileSystem::new_with_prefix(root).map_err(|source| OpenError::Objects {
                at: root.display().to_string(),
                source,
            })?;
        Ok(Self {
            // Off by default: an object could be empty after a loss of power.
            store: Arc::new(store.with_fsync(true)),
            root: Some(root.to_path_buf()),
        })
    }

    pub(super) fn remote(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, root: None }
    }

    /// Makes an object of a file, which is gone afterwards. One that is there already becomes young.
    /// Only one at a time for a digest.
    pub(super) async fn create(&self, file: Finished) -> Result<(), Error> {
        if self.renew(&file.digest, file.bytes).await? {
            return Ok(());
        }
        let to = key(&file.digest);
        if self.root.is_none() {
            return self.send(&file, &to).await;
        }
        let rename = |mode| {
            let options = RenameOptions::new().with_target_mode(mode);
            let (from, to) = (file.key(), to.clone());
            async move { self.store.rename_opts(&from, &to, options).await }
        };
        match rename(RenameTargetMode::Create).await {
            // It has another length, so it is not what its name says.
            Err(Error::AlreadyExists { .. }) => {
                tracing::error!(digest = %file.digest, "a damaged object is replaced");
                rename(RenameTargetMode::Overwrite).await
            }
            renamed => renamed,
        }
    }

    /// Whether there is an object of this length, that stays for another grace period.
    pub(super) async fn renew(&self, digest: &Digest, bytes: u64) -> Result<bool, Error> {
        let Some(found) = self.find(digest).await? else {
            return Ok(false);
        };
        if found.size != bytes {
            return Ok(false);
        }
        let Some(root) = &self.root else {
            return Ok(age(&found) < YOUNG);
        };
        let path = root.join(key(digest).as_ref());
        let touched = blocking(move || File::open(path)?.set_modified(SystemTime::now())).await;
        match touched {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Generic {
                store: "LocalFileSystem",
                source: Box::new(source),
            }),
        }
    }

    async fn send(&self, file: &Finished, to: &Key) -> Result<(), Error> {
        if file.bytes <= PART {
            let path = file.path.clone();
            let read = blocking(move || std::fs::read(path)).await;
            let payload = PutPayload::from(read.map_err(unreadable)?);
            let put = |mode: PutMode| self.store.put_opts(to, payload.clone(), mode.into());
            return match put(PutMode::Create).await {
                // It is old, or damaged; it has the same name, so it is to be the same.
                Err(Error::AlreadyExists { .. }) => put(PutMode::Overwrite).await.map(drop),
                put => put.map(drop),
            };
        }
        let upload = self.store.put_multipart(to).await?;
        let part = PART.max(file.bytes.div_ceil(PARTS));
        let size = usize::try_from(part).unwrap_or(usize::MAX);
        let mut upload = WriteMultipart::new_with_chunk_size(upload, size);
        let path = file.path.clone();
        let mut source = blocking(move || File::open(path))
            .await
            .map_err(unreadable)?;
        loop {
            let read = blocking(move || {
                let mut bytes = Vec::new();
                source.by_ref().take(part).read_to_end(&mut bytes)?;
                Ok((source, bytes))
            });
            let (again, bytes) = read.await.map_err(unreadable)?;
            source = again;
            if bytes.is_empty() {
                // Takes it back if it cannot be completed.
                return upload.finish().await.map(drop);
            }
            upload.wait_for_capacity(PARTS_AT_ONCE).await?;
            upload.write(&bytes);
        }
    }

    pub(super) async fn find(&self, digest: &Digest) -> Result<Option<ObjectMeta>, Error> {
        match self.store.head(&key(digest)).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// All objects and how old they are.
    pub(super) fn list(&self) -> BoxStream<'static, Result<(Digest, Duration), Error>> {
        self.store
            .list(Some(&Key::from(PREFIX)))
            .filter_map(|found| async move {
                found
                    .map(|found| Some((digest(&found.location)?, age(&found))))
                    .transpose()
            })
            .boxed()
    }

    /// Removes an object if it is still as old as that; returns its length if it was.
    pub(super) async fn remove(
        &self,
        digest: &Digest,
        grace: Duration,
    ) -> Result<Option<u64>, Error> {
        let Some(found) = self.find(digest).await? else {
            return Ok(None);
        };
        if age(&found) < grace {
            return Ok(None);
        }
        self.store.delete(&key(digest)).await?;
        Ok(Some(found.size))
    }
}

fn age(found: &ObjectMeta) -> Duration {
    // One that is younger than now by some other clock is not old.
    SystemTime::now()
        .duration_since(found.last_modified.into())
        .unwrap_or_default()
}

fn unreadable(source: io::Error) -> Error {
    Error::Generic {
        store: "incoming",
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_tells_its_digest(bytes in any::<[u8; 32]>()) {
            let of = Digest(bytes);
            let key = key(&of);
            prop_assert_eq!(digest(&key), Some(of));
            let digits = of.to_string();
            let expected = format!("sha256/{}/{}", &digits[..2], &digits[2..]);
            prop_assert_eq!(key.as_ref(), expected);
        }

        #[test]
        fn other_keys_have_none(key in "[a-z0-9/]{0,80}") {
            let parsed = Key::parse(&key);
            if let Ok(parsed) = parsed {
                prop_assert!(digest(&parsed).is_none_or(|of| super::key(&of) == parsed));
            }
        }
    }

    #[test]
    fn objects_in_a_directory_are_synced() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::local(dir.path()).unwrap();
        let shown = format!("{:?}", objects.store);
        assert!(shown.contains("fsync: true"), "{shown}");
    }
}
