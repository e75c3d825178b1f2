//! The handle.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::event::Event;
use api::job::JobId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::database::{Address, Database, Dialect, Link};
use crate::lead::Wish;
use crate::prepare::{Changes, int};
use crate::writer::{Call, Claim, Counters, Inbox, LeaseCall, Writer};
use crate::{
    BackupError, Change, CommitError, EventFilter, JobCount, JobFilter, JobRecord, LeadError,
    Lease, Loaded, OpenError, Order, OrphanRecord, ReadError, Submission, Term, Unavailable,
};
use crate::{backup, load, read};

/// Calls that wait for the writer at most; more wait for their turn to wait.
const QUEUE: usize = 1024;
/// The same for the lease.
const LEASES: usize = 8;
/// A schema's migration, or the reading of all of a controller's state, may take so many times as long
/// as one call.
const MUCH: u32 = 12;

/// Before a file that is being made is looked at again.
const PAUSE: Duration = Duration::from_millis(20);
/// A lease that is longer is not, so that instants and milliseconds can be reckoned with it.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The store; clones are the same one. The last clone's end ends it too, but only [`Store::close`]
/// waits for that.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    calls: mpsc::Sender<Call>,
    leases: mpsc::Sender<LeaseCall>,
    seen: watch::Receiver<u64>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: TaskTracker,
    patience: Duration,
}

/// What may be chosen about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a call may take before it fails: to wait for its turn, and then again to be done.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
        }
    }
}

/// What the writer has done since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Calls of [`Store::commit`] that were done.
    pub calls: u64,
    /// Calls that were refused or failed.
    pub failures: u64,
    /// Changes of the calls that were done.
    pub changes: u64,
    /// Calls that wait for their turn now.
    pub waiting: u64,
    /// All transactions together, from their begin to the end of their commit.
    pub busy: Duration,
}

impl Store {
    /// Opens `sqlite:/PATH/TO/FILE` (made if it is not there; its directory must be) or
    /// `postgres://…`, and brings its schema up to date.
    ///
    /// # Errors
    /// The URL, the file, the connection, or a schema that is newer than this program.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, Settings::default()).await
    }

    /// [`Store::open`] with other settings.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(url: &str, settings: Settings) -> Result<Self, OpenError> {
        let patience = settings.patience;
        let address: Address = url.parse()?;
        address.make()?;
        let database = Database::new(&address, patience);
        let limit = patience * MUCH;
        let last_event = timeout(limit, begin(&database))
            .await
            .map_err(|_| OpenError::Late(limit))??;

        let (calls, calls_in) = mpsc::channel(QUEUE);
        let (leases, leases_in) = mpsc::channel(LEASES);
        let (seen_in, seen) = watch::channel(last_event);
        let counters = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let inbox = Inbox {
            calls: calls_in,
            leases: leases_in,
            stop: stop.clone(),
        };
        let writer = Writer::new(database.clone(), seen_in, Arc::clone(&counters), patience);
        tasks.spawn(writer.run(inbox));
        tasks.close();
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                calls,
                leases,
                seen,
                counters,
                stop,
                tasks,
                patience,
            }),
        })
    }

    /// Finishes what waits and closes. Calls after that fail.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
    }

    /// Takes the leadership for `ttl`, in a new term. Whoever held it under the same name is
    /// replaced at once: let a controller that starts again have the name that it had, and let no two
    /// have the same.
    ///
    /// # Errors
    /// [`LeadError::Held`] while another holder's lease is valid by the store's clock.
    pub async fn lead(&self, holder: &str, ttl: Duration) -> Result<Lease, LeadError> {
        let bad = holder.is_empty() || holder.chars().count() > 200 || holder.contains('\0');
        if bad {
            return Err(LeadError::Holder(holder.into()));
        }
        let holder = holder.into();
        let ttl = ttl.min(FOREVER);
        self.wish(Wish::Lead { holder, ttl }).await
    }

    /// Prolongs it by its `ttl` from now, also after it has run out, if nobody else led since.
    ///
    /// # Errors
    /// [`LeadError::Lost`] when somebody did.
    pub async fn renew(&self, lease: &Lease) -> Result<Lease, LeadError> {
        self.wish(Wish::Renew(lease.clone())).await
    }

    /// Gives it up: another one may lead at once.
    ///
    /// # Errors
    /// [`LeadError::Lost`] when somebody does already.
    pub async fn resign(&self, lease: &Lease) -> Result<(), LeadError> {
        self.wish(Wish::Resign(lease.clone())).await?;
        Ok(())
    }

    async fn wish(&self, wish: Wish) -> Result<Lease, LeadError> {
        let unavailable = |source| LeadError::Unavailable { source };
        let (reply, answer) = oneshot::channel();
        // its own patience begins when the writer has it, behind a transaction that may be in doubt
        let limit = self.inner.patience * 4;
        let asked = async {
            let call = LeaseCall { wish, reply };
            let sent = self.inner.leases.send(call).await;
            sent.map_err(|_| unavailable(Unavailable::Closed))?;
            answer.await.map_err(|_| unavailable(Unavailable::Closed))?
        };
        timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(unavailable(Unavailable::Late(limit))))
    }

    /// What a controller starts from, as of one instant. Lead first: then nothing changes after it.
    ///
    /// # Errors
    /// The database, or a record that cannot be understood.
    pub async fn load(&self) -> Result<Loaded, ReadError> {
        let database = &self.inner.database;
        within(self.inner.patience * MUCH, async {
            // its own: a transaction that is broken off must not go back to the readers
            let mut link = database.connect().await?;
            load::load(&mut link, database.dialect()).await
        })
        .await
    }

    /// Does all changes or none, and returns when they are on the disk, with the number of the last
    /// event (of these, or before). Calls that wait together become one transaction; each stands or
    /// falls by itself. Dropping the future does not undo it.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing was done except with [`CommitError::InDoubt`].
    pub async fn commit(&self, term: Term, changes: Vec<Change>) -> Result<u64, CommitError> {
        self.commit_prepared(term, &Changes::prepare(changes)?)
            .await
    }

    /// [`Store::commit`] of what is prepared already, for whoever may have to try again.
    ///
    /// # Errors
    /// As there.
    pub async fn commit_prepared(&self, term: Term, changes: &Changes) -> Result<u64, CommitError> {
        let unavailable = |source| CommitError::Unavailable { source };
        let (reply, mut answer) = oneshot::channel();
        let claim = Claim::default();
        let call = Call {
            term,
            prepared: Arc::clone(&changes.0),
            reply,
            claim: claim.clone(),
        };
        let patience = self.inner.patience;
        let deadline = Instant::now() + patience;
        match timeout_at(deadline, self.inner.calls.send(call)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(unavailable(Unavailable::Closed)),
            Err(_) => return Err(unavailable(Unavailable::Late(patience))),
        }
        let answered = match timeout_at(deadline, &mut answer).await {
            Err(_) if claim.take() => return Err(unavailable(Unavailable::Late(patience))),
            // the writer is at it: it has its own deadline, and then as long to be sure
            Err(_) => timeout(patience * 3, answer).await,
            Ok(answered) => Ok(answered),
        };
        match answered {
            Ok(Ok(outcome)) => outcome,
            // the writer's task has been ended with the call, at it or not
            Ok(Err(_)) if claim.take() => Err(unavailable(Unavailable::Closed)),
            Ok(Err(_)) => Err(CommitError::InDoubt {
                source: Unavailable::Closed,
            }),
            Err(_) => Err(CommitError::InDoubt {
                source: Unavailable::Late(patience * 3),
            }),
        }
    }

    /// A job, over or not.
    ///
    /// # Errors
    /// The database, or a record that cannot be understood.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRecord>, ReadError> {
        let Ok(id) = int("a job's id", id.0) else {
            return Ok(None);
        };
        self.read(async |link| read::job(link, id).await).await
    }

    /// At most `limit` jobs that fit, from behind `after` in that order.
    ///
    /// # Errors
    /// The database, or a record that cannot be understood.
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<JobId>,
        limit: u32,
        order: Order,
    ) -> Result<Vec<JobRecord>, ReadError> {
        let texts = [&filter.user, &filter.queue];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Ok(Vec::new());
        }
        let after = after.map(|id| clamped(id.0));
        self.read(async |link| read::jobs(link, filter, after, limit, order).await)
            .await
    }

    /// All jobs that ever were, by queue and state.
    ///
    /// # Errors
    /// The database.
    pub async fn counts(&self) -> Result<Vec<JobCount>, ReadError> {
        self.read(async |link| read::counts(link).await).await
    }

    /// At most `limit` events that fit, from behind `after_seq`, in their order. Who has read up to a
    /// number will never find a new event below it.
    ///
    /// # Errors
    /// The database, or an event that cannot be understood.
    pub async fn events(
        &self,
        after_seq: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, ReadError> {
        let after = clamped(after_seq);
        self.read(async |link| read::events(link, after, limit, filter).await)
            .await
    }

    /// The number of the last event that this process has committed, or found when it opened the
    /// store; changes after each commit that has events.
    #[must_use]
    pub fn events_seen(&self) -> watch::Receiver<u64> {
        self.inner.seen.clone()
    }

    /// What was made of a submission with this idempotency key.
    ///
    /// # Errors
    /// The database, or a record that cannot be understood.
    pub async fn submission(&self, user: &str, key: &str) -> Result<Option<Submission>, ReadError> {
        if user.contains('\0') || key.contains('\0') {
            return Ok(None);
        }
        self.read(async |link| read::submission(link, user, key).await)
            .await
    }

    /// Late results of a job's attempts that had been given up, by attempt.
    ///
    /// # Errors
    /// The database, or a record that cannot be understood.
    pub async fn orphans(&self, job: JobId) -> Result<Vec<OrphanRecord>, ReadError> {
        let Ok(job) = int("a job's id", job.0) else {
            return Ok(Vec::new());
        };
        self.read(async |link| read::orphans(link, job).await).await
    }

    /// What the writer has done, for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Inner {
            counters, calls, ..
        } = &*self.inner;
        Stats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            calls: counters.calls.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            changes: counters.changes.load(Ordering::Relaxed),
            waiting: (calls.max_capacity() - calls.capacity()) as u64,
            busy: Duration::from_micros(counters.busy_micros.load(Ordering::Relaxed)),
        }
    }

    /// Writes a copy of the store as it is now to a new file; the controller may go on meanwhile.
    ///
    /// # Errors
    /// PostgreSQL, a file that is there already, or the disk.
    pub async fn backup(&self, to: &Path) -> Result<(), BackupError> {
        backup::backup(&self.inner.database, to).await
    }

    /// Asks with a connection of the readers'.
    async fn read<T>(
        &self,
        ask: impl AsyncFnOnce(&mut Link) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        within(self.inner.patience, async {
            let mut link = self.inner.database.reader().await?;
            ask(&mut link).await
        })
        .await
    }
}

/// Brings the schema up to date and reads the number of the last event.
async fn begin(database: &Database) -> Result<u64, OpenError> {
    let mut link = loop {
        match database.connect().await {
            Ok(link) => break link,
            // a new file is made a write-ahead one by somebody else, and that cannot be waited for
            Err(e) if database.dialect() == Dialect::Sqlite && is_busy(&e) => sleep(PAUSE).await,
            Err(source) => return Err(OpenError::Connect { source }),
        }
    };
    link.migrate().await?;
    let last = last_event(&mut link).await;
    last.map_err(|source| OpenError::Read { source })
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "5")
}

async fn last_event(link: &mut Link) -> Result<u64, sqlx::Error> {
    let row = link.row("SELECT last_event FROM leadership", &[]).await?;
    Ok(row.ok_or(sqlx::Error::RowNotFound)?.int(0)?.unsigned_abs())
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, ReadError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(ReadError::Unavailable {
            source: Unavailable::Late(limit),
        })
    })
}

/// Nothing has a number above that.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
