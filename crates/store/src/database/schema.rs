//! The schema's versions, built in.

use sqlx::migrate::{MigrateError, Migrator};

use super::Link;
use super::link::Wire;
use crate::OpenError;

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");
/// Two that open a new SQLite store at once get into each other's way.
const TRIES: u32 = 5;

impl Link {
    /// Brings the schema to the last version that this program knows.
    pub(crate) async fn migrate(&mut self) -> Result<(), OpenError> {
        let mut tries = 0;
        if let Self::Postgres(_) = self {
            // it takes as long as there are rows
            let unlimited = self.plain("SET statement_timeout = 0").await;
            unlimited.map_err(|source| OpenError::Connect { source })?;
        }
        loop {
            tries += 1;
            let (migrator, outcome) = match self.wire() {
                Wire::Sqlite(connection) => {
                    (&SQLITE, SQLITE.run_direct(None, connection, false).await)
                }
                Wire::Postgres(connection) => (
                    &POSTGRES,
                    POSTGRES.run_direct(None, connection, false).await,
                ),
            };
            let known = migrator.iter().map(|m| m.version).max().unwrap_or(0);
            return match outcome {
                Ok(()) => Ok(()),
                Err(MigrateError::VersionMissing(missing)) if missing > known => {
                    let found = self.version().await.unwrap_or(missing);
                    Err(OpenError::Newer { found, known })
                }
                Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                    if tries < TRIES =>
                {
                    continue;
                }
                Err(source) => Err(OpenError::Migrate { known, source }),
            };
        }
    }

    /// The last one that was applied.
    async fn version(&mut self) -> Result<i64, sqlx::Error> {
        let row = self.row("SELECT max(version) FROM _sqlx_migrations", &[]);
        row.await?.ok_or(sqlx::Error::RowNotFound)?.int(0)
    }
}
