//! What a database's error means for who asked.

use std::sync::Arc;

use sqlx::error::DatabaseError;

// https://www.sqlite.org/rescode.html
const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_TOOBIG: u32 = 18;
const SQLITE_CONSTRAINT: u32 = 19;
const SQLITE_MISMATCH: u32 = 20;
const SQLITE_RANGE: u32 = 25;
const SQLITE_IOERR_FSYNC: u32 = SQLITE_IOERR | (4 << 8);
const SQLITE_IOERR_DIR_FSYNC: u32 = SQLITE_IOERR | (5 << 8);
/// The write-ahead log's index cannot grow: no space either.
const SQLITE_IOERR_SHMSIZE: u32 = SQLITE_IOERR | (19 << 8);

/// An error by what can be done about it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The statement itself is at fault, and will be again.
    Refused(Arc<sqlx::Error>),
    /// No space.
    Full(Arc<sqlx::Error>),
    /// The database is not there, or busy: the same may work soon, with a new connection.
    Away(Arc<sqlx::Error>),
    /// Anything else: trying again at once is of no use.
    Broken(Arc<sqlx::Error>),
}

impl Fault {
    pub(crate) fn into_error(self) -> Arc<sqlx::Error> {
        match self {
            Self::Refused(error) | Self::Full(error) | Self::Away(error) | Self::Broken(error) => {
                error
            }
        }
    }
}

impl Fault {
    /// Of a commit that SQLite says has failed: whether it may be found on the disk after a crash all
    /// the same. All of it was written then, and only waiting for the disk failed; when a write fails
    /// the log lacks the commit's mark, or has one whose checksum is wrong.
    pub(crate) fn may_be_on_disk(&self) -> bool {
        let (Self::Refused(error) | Self::Full(error) | Self::Away(error) | Self::Broken(error)) =
            self;
        let code = error.as_database_error().and_then(|error| error.code());
        let code = code.and_then(|code| code.parse().ok());
        matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC))
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let make = match &error {
            sqlx::Error::Database(inner) => by_code(inner.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => Self::Away,
            sqlx::Error::Encode(_) => Self::Refused,
            _ => Self::Broken,
        };
        make(Arc::new(error))
    }
}

fn by_code(error: &dyn DatabaseError) -> fn(Arc<sqlx::Error>) -> Fault {
    let Some(code) = error.code() else {
        return Fault::Broken;
    };
    if error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .is_some()
    {
        return by_sqlstate(&code);
    }
    match code.parse() {
        Ok(code) => by_result_code(code),
        Err(_) => Fault::Broken,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn by_sqlstate(code: &str) -> fn(Arc<sqlx::Error>) -> Fault {
    match code {
        // disk_full
        "53100" => return Fault::Full,
        // idle_in_transaction_session_timeout, transaction_timeout: the connection is gone
        "25P03" | "25P04" => return Fault::Away,
        _ => {}
    }
    match code.get(..2) {
        // data exception, integrity constraint violation, program limit exceeded
        Some("22" | "23" | "54") => Fault::Refused,
        // connection exception, transaction rollback, insufficient resources, object not in
        // prerequisite state (a lock), operator intervention (shutdown, timeout), system error
        Some("08" | "40" | "53" | "55" | "57" | "58") => Fault::Away,
        _ => Fault::Broken,
    }
}

fn by_result_code(code: u32) -> fn(Arc<sqlx::Error>) -> Fault {
    if code == SQLITE_IOERR_SHMSIZE {
        return Fault::Full;
    }
    match code & 0xff {
        SQLITE_FULL => Fault::Full,
        SQLITE_CONSTRAINT | SQLITE_TOOBIG | SQLITE_MISMATCH | SQLITE_RANGE => Fault::Refused,
        SQLITE_BUSY | SQLITE_LOCKED | SQLITE_IOERR | SQLITE_CANTOPEN => Fault::Away,
        _ => Fault::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(make: fn(Arc<sqlx::Error>) -> Fault) -> &'static str {
        match make(Arc::new(sqlx::Error::RowNotFound)) {
            Fault::Refused(_) => "refused",
            Fault::Full(_) => "full",
            Fault::Away(_) => "away",
            Fault::Broken(_) => "broken",
        }
    }

    #[test]
    fn sqlite_result_codes() {
        // extended codes of a constraint, of a busy snapshot, of a failed sync
        for (code, want) in [
            (2067, "refused"),
            (787, "refused"),
            (13, "full"),
            (4874, "full"),
            (5, "away"),
            (517, "away"),
            (1034, "away"),
            (11, "broken"),
            (1, "broken"),
        ] {
            assert_eq!(name(by_result_code(code)), want, "{code}");
        }
    }

    #[test]
    fn postgres_states() {
        for (code, want) in [
            ("23505", "refused"),
            ("22021", "refused"),
            ("53100", "full"),
            ("53300", "away"),
            ("57P01", "away"),
            ("25P03", "away"),
            ("42P01", "broken"),
            ("25006", "broken"),
            ("", "broken"),
        ] {
            assert_eq!(name(by_sqlstate(code)), want, "{code}");
        }
    }
}
