//! What a node remembers of its work, so that neither a killed agent nor a lost connection loses a
//! result or begins anything twice.
//!
//! Each change is durable when [`Journal::write`] returns. The two journals, [`Directory`] and
//! [`Memory`], pass the same tests.

mod directory;
mod memory;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::work::{Assignment, Ending, Key, Stage};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use directory::Directory;
pub use memory::Memory;

use crate::fences::Fences;
use crate::folder::Folder;

/// An assignment as it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What is to be done.
    pub assignment: Arc<Assignment>,
    /// When it was taken: time since boot.
    pub taken_at: Duration,
}

/// Something to remember, or to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An assignment was taken.
    Take(Record),
    /// Its first program may have been started from here on, and where it stands.
    Stage(Key, Stage),
    /// It is over.
    End(Key, Arc<Ending>),
    /// Nothing of it is wanted any more. The fences are kept first.
    Forget(Key, Fences),
    /// An attempt was seen that is not taken.
    Fences(Fences),
}

impl Change {
    /// The attempt that it is about; `None`: about all.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Take(record) => Some(record.assignment.key),
            Self::Stage(key, _) | Self::End(key, _) | Self::Forget(key, _) => Some(*key),
            Self::Fences(_) => None,
        }
    }
}

/// One attempt as it is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it was taken.
    pub record: Record,
    /// `None`: no program of it has been started.
    pub stage: Option<Stage>,
    /// How it ended; `None`: it had not.
    pub ending: Option<Arc<Ending>>,
}

/// All that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// In the order of their keys.
    pub attempts: Vec<Found>,
    /// With those of the attempts.
    pub fences: Fences,
}

/// Why something could not be remembered. Nothing has changed then, as far as anybody can tell.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file could not be written: the disk is full, more often than not.
    #[error("write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// What is there could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// An attempt could not be taken away.
    #[error("remove {}", path.display())]
    Remove {
        /// Where it is.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// There is no such attempt in the journal.
    #[error("attempt {} is not in the journal", crate::attempt::name(*key))]
    Unknown {
        /// Which one.
        key: Key,
    },
    /// It is not as large as it would have to be. Only of the journal in memory, in tests.
    #[error("the journal is full")]
    Full,
    /// The thread that wrote has died.
    #[error("the journal's writer died")]
    Died,
}

/// Where a node keeps what it has to do and what came of it.
pub trait Journal: Send + Sync + 'static {
    /// All that an earlier agent left. Once, before anything is written.
    fn load(&self) -> BoxFuture<'_, Result<Contents, JournalError>>;

    /// Makes a change; it is durable when this returns.
    fn write(&self, change: Change) -> BoxFuture<'_, Result<(), JournalError>>;

    /// Where the documents of an attempt are.
    fn folder(&self, key: Key) -> Folder;
}

#[cfg(test)]
mod tests;
