//! One connection, with statements and rows that are the same for both databases.
//!
//! Columns and arguments are of two types, `BIGINT` (SQLite: `INTEGER`) and `TEXT`.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row as _, SqlSafeStr, Sqlite,
    SqliteConnection,
};

/// A connection.
#[derive(Debug)]
pub(crate) enum Link {
    /// Of its own: closed when it is dropped, and what was not committed is undone.
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
    /// Goes back to its pool.
    PooledSqlite(PoolConnection<Sqlite>),
    PooledPostgres(PoolConnection<Postgres>),
}

/// The same, by database.
pub(super) enum Wire<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// A value of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Int(i64),
    MaybeInt(Option<i64>),
    Text(&'a str),
    MaybeText(Option<&'a str>),
}

impl Link {
    pub(super) fn wire(&mut self) -> Wire<'_> {
        match self {
            Self::Sqlite(connection) => Wire::Sqlite(connection),
            Self::Postgres(connection) => Wire::Postgres(connection),
            Self::PooledSqlite(connection) => Wire::Sqlite(connection),
            Self::PooledPostgres(connection) => Wire::Postgres(connection),
        }
    }

    /// Closes it in good order.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
            Self::PooledSqlite(connection) => connection.close().await,
            Self::PooledPostgres(connection) => connection.close().await,
        }
    }

    /// Runs a statement without arguments and forgets its rows.
    pub(crate) async fn plain(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self.wire() {
            Wire::Sqlite(connection) => connection.execute(sql).await.map(drop),
            Wire::Postgres(connection) => connection.execute(sql).await.map(drop),
        }
    }

    /// Runs a statement, and says how many rows it changed.
    ///
    /// `sql` is made of this crate's text alone; everything else is in `args`.
    pub(crate) async fn run(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<u64, sqlx::Error> {
        let sql = AssertSqlSafe(sql).into_sql_str();
        match self.wire() {
            Wire::Sqlite(connection) => {
                let query = args.iter().fold(sqlx::query(sql), bind_sqlite);
                Ok(query.execute(connection).await?.rows_affected())
            }
            Wire::Postgres(connection) => {
                let query = args.iter().fold(sqlx::query(sql), bind_postgres);
                Ok(query.execute(connection).await?.rows_affected())
            }
        }
    }

    /// All rows of a statement. `sql` as for [`Self::run`].
    pub(crate) async fn rows(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let sql = AssertSqlSafe(sql).into_sql_str();
        match self.wire() {
            Wire::Sqlite(connection) => {
                let query = args.iter().fold(sqlx::query(sql), bind_sqlite);
                let rows = query.fetch_all(connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Wire::Postgres(connection) => {
                let query = args.iter().fold(sqlx::query(sql), bind_postgres);
                let rows = query.fetch_all(connection).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is one.
    pub(crate) async fn row(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
    ) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }
}

fn bind_sqlite<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    arg: &Arg<'_>,
) -> Query<'q, Sqlite, SqliteArguments> {
    match *arg {
        Arg::Int(value) => query.bind(value),
        Arg::MaybeInt(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::MaybeText(value) => query.bind(value),
    }
}

fn bind_postgres<'q>(
    query: Query<'q, Postgres, PgArguments>,
    arg: &Arg<'_>,
) -> Query<'q, Postgres, PgArguments> {
    match *arg {
        Arg::Int(value) => query.bind(value),
        Arg::MaybeInt(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::MaybeText(value) => query.bind(value),
    }
}

/// One row, columns by their number from 0.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn maybe_int(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn text(&self, column: usize) -> Result<&str, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn maybe_text(&self, column: usize) -> Result<Option<&str>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}
