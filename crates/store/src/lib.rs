//! What the controller must not forget.
//!
//! One active controller holds its state in memory; the store holds what must survive it. A call of
//! [`Store::commit`] is done wholly or not at all, and is on the disk when it returns; calls that wait
//! at the same time share one transaction (group commit). Every write is conditional on the writer's
//! [`Term`]: who has been replaced as leader writes nothing any more, however late he notices.
//! Events are append-only and numbered without gaps in the order in which they become visible.
//! Heartbeats and other things that may be lost do not belong here.
//!
//! SQLite by default, PostgreSQL by URL, one contract for both: see `docs/store.md`.

mod apply;
mod backup;
mod database;
mod error;
mod lead;
mod lease;
mod load;
mod prepare;
mod read;
mod record;
mod store;
mod writer;

pub use error::{BackupError, CommitError, LeadError, OpenError, ReadError, Refusal, Unavailable};
pub use lease::{Lease, Term};
pub use prepare::Changes;
pub use record::{
    BadDigest, Change, Digest, EventFilter, JobCount, JobFilter, JobRecord, Loaded, NewEvent,
    NodeRecord, Order, OrphanRecord, Revocation, Submission, TokenRecord,
};
pub use store::{Settings, Stats, Store};
