//! What can go wrong, by what was wanted.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Term;
use crate::database::Fault;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL itself is not repeated: it may have a password in it.
    #[error("not the URL of a store: give sqlite:/PATH/TO/FILE or postgres://USER@HOST/DATABASE")]
    Url { source: Option<Box<sqlx::Error>> },
    #[error("create {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("connect to the store")]
    Connect { source: sqlx::Error },
    #[error("the store did not answer within {0:?}")]
    Late(Duration),
    /// A newer controller has been here.
    #[error(
        "the store has schema version {found}, and this program knows versions up to {known}: start the newer controller"
    )]
    Newer { found: i64, known: i64 },
    #[error("bring the store's schema to version {known}")]
    Migrate {
        known: i64,
        source: sqlx::migrate::MigrateError,
    },
    #[error("read the store's last event")]
    Read { source: sqlx::Error },
}

/// The lease is not to be had, or not to be kept.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Somebody else leads.
    #[error("{holder} leads, until {until_ms} ms since the epoch by the store's clock")]
    Held { holder: String, until_ms: u64 },
    /// Somebody else led since, or does now: that term is over for good.
    #[error("term {term} is over")]
    Lost { term: Term },
    #[error("a holder's name is 1 to 200 characters, without NUL: {0:?} is not one")]
    Holder(String),
    /// The store does not answer; the lease is as it was, or renewed.
    #[error("the store is not available")]
    Unavailable { source: Unavailable },
}

/// Nothing of the call was done, except where it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another leader was elected since: stop at once.
    #[error("term {term} is over: another controller may lead")]
    NotLeader { term: Term },
    /// It contradicts what is there, such as a used token or a taken idempotency key.
    #[error("it contradicts what is stored")]
    Conflict { source: Refusal },
    /// It can never be stored.
    #[error("it cannot be stored")]
    Invalid { source: Refusal },
    /// No space left. Works again by itself when there is.
    #[error("no space left for the store")]
    Full { source: Arc<sqlx::Error> },
    /// The store does not answer, or is too busy. Worth another try.
    #[error("the store is not available")]
    Unavailable { source: Unavailable },
    /// The store went away in the middle of the commit, and did not come back in time: it may have
    /// been done or not. Start again from [`crate::Store::load`].
    #[error("the store went away during a commit: it may have been done")]
    InDoubt { source: Unavailable },
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("user {user:?} has used the idempotency key {key:?} already")]
    KeyTaken { user: String, key: String },
    #[error("the token {id} is used already")]
    TokenUsed { id: String },
    #[error("the store's rules forbid it")]
    Rule { source: Arc<sqlx::Error> },
    #[error("{field} has a NUL character")]
    Nul { field: &'static str },
    #[error("{field} is {value}, which is more than 2^63-1")]
    Number { field: &'static str, value: u64 },
    #[error("{changes} changes at once are more than {limit}")]
    Changes { changes: usize, limit: usize },
    #[error("write {what} as JSON")]
    Json {
        what: &'static str,
        source: serde_json::Error,
    },
}

/// Why the store does not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the database failed")]
    Database { source: Arc<sqlx::Error> },
    #[error("it is being closed")]
    Closed,
}

/// What was asked for cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the store is not available")]
    Unavailable { source: Unavailable },
    /// Written by a program with other types, or damaged.
    #[error("{what} {id} in the store cannot be understood")]
    Malformed {
        what: &'static str,
        id: String,
        source: Option<serde_json::Error>,
    },
}

/// No copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("a PostgreSQL store is backed up with its own tools, such as pg_dump")]
    NotSqlite,
    #[error("{path} exists already")]
    Exists { path: PathBuf },
    #[error("{path} is not UTF-8")]
    Path { path: PathBuf },
    #[error("create {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("copy the store to {path}")]
    Copy { path: PathBuf, source: sqlx::Error },
    #[error("the copy to {path} was not finished within {limit:?}")]
    Late { path: PathBuf, limit: Duration },
}

/// What a refusal is to who committed.
pub(crate) fn refused(refusal: Refusal) -> CommitError {
    let contradicts = match &refusal {
        Refusal::KeyTaken { .. } | Refusal::TokenUsed { .. } => true,
        Refusal::Rule { source } => source
            .as_database_error()
            .is_some_and(|error| error.kind() != sqlx::error::ErrorKind::Other),
        _ => false,
    };
    if contradicts {
        CommitError::Conflict { source: refusal }
    } else {
        CommitError::Invalid { source: refusal }
    }
}

/// What a fault is to who committed.
pub(crate) fn failed(fault: Fault) -> CommitError {
    match fault {
        Fault::Refused(source) => refused(Refusal::Rule { source }),
        Fault::Full(source) => CommitError::Full { source },
        Fault::Away(source) | Fault::Broken(source) => CommitError::Unavailable {
            source: Unavailable::Database { source },
        },
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable {
            source: Unavailable::Database {
                source: Arc::new(error),
            },
        }
    }
}
