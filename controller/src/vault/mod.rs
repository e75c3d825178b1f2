//! Documents of jobs and images, by what is in them.
//!
//! An object's key is its SHA-256 (`sha256/ab/cdef…`), so it is only ever created: to put the same
//! content twice is one object, and nothing is changed that somebody reads. What comes in is written
//! to a file of its own below `incoming/`, counted and hashed on the way, synced, and becomes an
//! object only when it is what it was said to be; otherwise nothing is left of it. What was fetched of
//! a document before its connection was cut is kept there too, and continued.
//!
//! Objects lie in a directory, synced to the disk, or in a bucket of S3 ([`Vault::remote`]). What is
//! read as a whole is verified while it is read.
//!
//! The vault does not know who needs an object: [`Vault::sweep`] is told.

mod claims;
mod draft;
mod fetch;
mod images;
mod objects;
mod place;
mod put;
mod read;
mod sweep;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use object_store::ObjectStore;
use store::Digest;

pub use fetch::FetchError;
pub use images::{
    ArchiveError, EnsureError, Ensured, ImageIndex, ImageRecord, PushError, full_name,
};
pub use place::PlaceError;
pub use put::{PutError, Stored};
pub use read::ReadError;
pub use sweep::{SweepError, Swept};

use bytes::Bytes;
use claims::Claims;
use draft::Incoming;
use objects::Objects;

/// Bytes as they come. An error ends them.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// How long the vault waits for nodes.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For the head of an answer to a small question.
    pub answer: Duration,
    /// Between two pieces of a document.
    pub piece: Duration,
    /// From the first byte of an image until the node's engine has it.
    pub load: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            piece: Duration::from_secs(60),
            load: Duration::from_secs(3_600),
        }
    }
}

/// Where documents and images are kept. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Objects,
    incoming: Incoming,
    /// Objects that are just being made or removed.
    making: Claims<Digest>,
    /// Documents that are just being fetched.
    fetching: Claims<Digest>,
    /// Images that are just being loaded, by node and id.
    loading: Claims<(String, String)>,
    patience: Patience,
}

/// Why there is no vault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("prepare the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("open the objects at {at}")]
    Objects {
        at: String,
        source: object_store::Error,
    },
}

impl Vault {
    /// A vault in a directory, which is made if it is not there. One process at a time.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let incoming = Incoming::open(root)?;
        let objects = Objects::local(root)?;
        Ok(Self::new(objects, incoming))
    }

    /// A vault whose objects lie elsewhere; `root` is a local directory for what is on its way in.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn remote(objects: Arc<dyn ObjectStore>, root: &Path) -> Result<Self, OpenError> {
        let incoming = Incoming::open(root)?;
        Ok(Self::new(Objects::remote(objects), incoming))
    }

    fn new(objects: Objects, incoming: Incoming) -> Self {
        Self {
            shared: Arc::new(Shared {
                objects,
                incoming,
                making: Claims::default(),
                fetching: Claims::default(),
                loading: Claims::default(),
                patience: Patience::default(),
            }),
        }
    }

    /// Other deadlines than the default ones; before the vault is shared.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.patience = patience;
        }
        self
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("objects", &self.shared.objects)
            .finish_non_exhaustive()
    }
}

/// Whether the disk is full, somewhere among the causes.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    };
    std::iter::successors(Some(error), |error| error.source()).any(full)
}
