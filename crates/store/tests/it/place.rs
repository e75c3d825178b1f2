//! A place for a store of one test's own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use store::{Lease, Settings, Store};

use crate::server::{LONG, Server, block_on, shared};

/// Longer than any test.
pub(crate) const TERM: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Where it is, and nothing there yet but perhaps the schema.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
    directory: tempfile::TempDir,
    backend: Backend,
}

impl Place {
    pub(crate) fn new(backend: Backend) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = match backend {
            Backend::Sqlite => format!("sqlite:{}", directory.path().join("store.db").display()),
            Backend::Postgres => shared().url(&database(shared(), template())),
        };
        Self {
            url,
            directory,
            backend,
        }
    }

    /// Without a schema.
    pub(crate) fn bare(backend: Backend) -> Self {
        let mut place = Self::new(backend);
        if backend == Backend::Postgres {
            place.url = shared().url(&database(shared(), "template0"));
        }
        place
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// The file of a SQLite store.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("store.db")
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url).await.expect("opens")
    }

    pub(crate) async fn open_impatient(&self, patience: Duration) -> Store {
        let settings = Settings { patience };
        let store = Store::open_with(&self.url, settings).await;
        store.expect("opens")
    }

    /// A store, and the leadership of it.
    pub(crate) async fn led(&self) -> (Store, Lease) {
        let store = self.open().await;
        let lease = store.lead("a", TERM).await.expect("leads");
        (store, lease)
    }

    /// A connection past the store.
    pub(crate) async fn raw(&self) -> Raw {
        match self.backend {
            Backend::Sqlite => Raw::Sqlite(
                SqliteConnectOptions::new()
                    .filename(self.file())
                    .connect()
                    .await
                    .expect("connects"),
            ),
            Backend::Postgres => {
                Raw::Postgres(PgConnection::connect(&self.url).await.expect("connects"))
            }
        }
    }
}

/// A connection past the store.
#[derive(Debug)]
pub(crate) enum Raw {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Raw {
    pub(crate) async fn run(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => {
                connection.execute(AssertSqlSafe(sql)).await.expect(sql);
            }
            Self::Postgres(connection) => {
                connection.execute(AssertSqlSafe(sql)).await.expect(sql);
            }
        }
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let query = AssertSqlSafe(sql);
        let found = match self {
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
        };
        found.expect(sql)
    }

    /// Keeps every writer waiting until [`Self::let_go`].
    pub(crate) async fn hold_writers(&mut self) {
        match self {
            Self::Sqlite(_) => self.run("BEGIN IMMEDIATE").await,
            Self::Postgres(_) => {
                self.run("BEGIN").await;
                self.run("SELECT * FROM leadership FOR UPDATE").await;
            }
        }
    }

    pub(crate) async fn let_go(&mut self) {
        self.run("ROLLBACK").await;
    }
}

/// A new database on the server, a copy of another one.
pub(crate) fn database(server: &Server, template: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("store{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    let deadline = Instant::now() + LONG;
    // who used the template last may still be on his way out
    while let Err(error) = server.administer(&sql) {
        assert!(Instant::now() < deadline, "{sql}: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    name
}

/// A database of the shared server with the schema, which nobody uses.
fn template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let name = database(shared(), "template0");
        block_on(async {
            let store = Store::open(&shared().url(&name)).await.expect("opens");
            store.close().await;
        });
        name
    })
}

/// Runs a test of the contract.
pub(crate) fn run<F: Future<Output = ()>>(backend: Backend, test: impl FnOnce(Place) -> F) {
    let place = Place::new(backend);
    block_on_two(test(place));
}

/// On a runtime of two threads.
pub(crate) fn block_on_two(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work);
}

/// Makes a test of each of these, for each database.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $test() {
                crate::place::run(crate::place::Backend::Sqlite, super::$test);
            })*
        }
        mod postgres {
            $(#[test] fn $test() {
                crate::place::run(crate::place::Backend::Postgres, super::$test);
            })*
        }
    };
}
pub(crate) use on_both;
