//! SQLite and PostgreSQL, as far as they differ.

mod address;
mod fault;
mod link;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, PgPool, SqlitePool};

pub(crate) use address::Address;
pub(crate) use fault::Fault;
pub(crate) use link::{Arg, Link, Row};

/// Readers at a time; more wait.
const READERS: u32 = 8;
/// A server ends the transaction of a writer that says nothing for so long: a stopped process must not
/// keep its successor from leading.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// A write-ahead log that has grown is cut to that, bytes.
const LOG_KEPT: u32 = 64 * 1024 * 1024;

/// Which SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Milliseconds since the epoch by the database's clock.
    pub(crate) fn now_ms(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// Begins a transaction that reads, all of it as of one instant.
    pub(crate) fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// The database.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite {
        options: SqliteConnectOptions,
        readers: SqlitePool,
    },
    Postgres {
        options: PgConnectOptions,
        readers: PgPool,
    },
}

impl Database {
    /// Connects to nothing yet. `patience` is how long one statement or connection may take.
    pub(crate) fn new(address: &Address, patience: Duration) -> Self {
        match address {
            Address::Sqlite { path } => {
                let options = sqlite_options(path, patience);
                let readers = SqlitePoolOptions::new()
                    .max_connections(READERS)
                    .acquire_timeout(patience)
                    .test_before_acquire(false)
                    .connect_lazy_with(options.clone().pragma("query_only", "ON"));
                Self::Sqlite { options, readers }
            }
            Address::Postgres { options } => {
                let options = postgres_options(options, patience);
                let readers = PgPoolOptions::new()
                    .max_connections(READERS)
                    .acquire_timeout(patience)
                    .connect_lazy_with(options.clone());
                Self::Postgres { options, readers }
            }
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres { .. } => Dialect::Postgres,
        }
    }

    /// A new connection that may write.
    pub(crate) async fn connect(&self) -> Result<Link, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { options, .. } => Link::Sqlite(Box::new(options.connect().await?)),
            Self::Postgres { options, .. } => {
                let mut connection = Box::new(options.connect().await?);
                durable(&mut connection).await?;
                Link::Postgres(connection)
            }
        })
    }

    /// A connection that reads.
    pub(crate) async fn reader(&self) -> Result<Link, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Link::PooledSqlite(readers.acquire().await?),
            Self::Postgres { readers, .. } => Link::PooledPostgres(readers.acquire().await?),
        })
    }

    /// Closes the readers.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { readers, .. } => readers.close().await,
            Self::Postgres { readers, .. } => readers.close().await,
        }
    }
}

fn sqlite_options(path: &str, patience: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(patience)
        .pragma("journal_size_limit", LOG_KEPT.to_string())
        .disable_statement_logging()
}

fn postgres_options(options: &Arc<PgConnectOptions>, patience: Duration) -> PgConnectOptions {
    let patience = patience.as_millis().to_string();
    let idle = IDLE_IN_TRANSACTION.as_millis().to_string();
    PgConnectOptions::clone(options)
        .application_name("stillmetal-controller")
        .options([
            ("statement_timeout", patience.as_str()),
            ("idle_in_transaction_session_timeout", idle.as_str()),
        ])
        .disable_statement_logging()
}

/// A commit is an answer about the disk, whatever the server's own setting is.
async fn durable(connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    connection
        .execute(
            "SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_waits_for_the_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.db").display().to_string();
        let address = Address::Sqlite { path };
        address.make().expect("makes the file");
        let database = Database::new(&address, Duration::from_secs(7));
        let mut link = database.connect().await.expect("connects");
        for (pragma, want) in [
            // FULL
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            ("PRAGMA query_only", 0),
            ("PRAGMA busy_timeout", 7_000),
        ] {
            let row = link.row(pragma, &[]).await.expect("reads").expect("a row");
            assert_eq!(row.int(0).expect("a number"), want, "{pragma}");
        }
        let mut reader = database.reader().await.expect("connects");
        let refused = reader.plain("CREATE TABLE x (y INTEGER)").await;
        refused.expect_err("readers do not write");
    }
}
