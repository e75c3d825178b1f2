//! What only SQLite has: a file, and copies of it.

use std::os::unix::fs::PermissionsExt;

use api::job::JobId;
use store::{BackupError, OpenError, Store};

use crate::place::{Backend, Place, Raw, run};
use crate::records::queued;

#[test]
fn its_file_is_nobody_elses() {
    run(Backend::Sqlite, async |place: Place| {
        let (store, lease) = place.led().await;
        store.commit(lease.term, queued(1)).await.expect("commits");
        let mut files = 0;
        for entry in std::fs::read_dir(place.directory()).expect("lists") {
            let entry = entry.expect("lists");
            let mode = entry.metadata().expect("reads").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{entry:?}");
            files += 1;
        }
        assert_eq!(files, 3, "the file, its log, the log's index");
        let Raw::Sqlite(mut raw) = place.raw().await else {
            unreachable!("it is SQLite");
        };
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut raw)
            .await
            .expect("reads");
        assert_eq!(mode, "wal");
    });
}

#[test]
fn closing_leaves_one_file() {
    run(Backend::Sqlite, async |place: Place| {
        let (store, lease) = place.led().await;
        store.commit(lease.term, queued(1)).await.expect("commits");
        store.job(JobId(1)).await.expect("reads");
        store.close().await;
        let files = std::fs::read_dir(place.directory()).expect("lists");
        assert_eq!(files.count(), 1);
    });
}

#[test]
fn a_copy_is_a_store() {
    run(Backend::Sqlite, async |place: Place| {
        let (store, lease) = place.led().await;
        for id in 1..=50 {
            store.commit(lease.term, queued(id)).await.expect("commits");
        }
        let to = place.directory().join("it's a copy.db");
        let (copied, _) = tokio::join!(store.backup(&to), async {
            for id in 51..=100 {
                store.commit(lease.term, queued(id)).await.expect("goes on");
            }
        });
        copied.expect("copies");
        let mode = std::fs::metadata(&to)
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let copy = Store::open(&format!("sqlite:{}", to.display())).await;
        let loaded = copy.expect("opens").load().await.expect("loads");
        let jobs = loaded.jobs.len() as u64;
        assert!((50..=100).contains(&jobs), "{jobs}");
        assert_eq!((loaded.last_event, loaded.highest_job), (jobs, jobs));

        let refused = store.backup(&to).await;
        assert!(
            matches!(refused, Err(BackupError::Exists { .. })),
            "{refused:?}"
        );
        let nowhere = place.directory().join("no/such/place");
        let refused = store.backup(&nowhere).await;
        assert!(
            matches!(refused, Err(BackupError::Create { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn of_postgres_there_are_none() {
    run(Backend::Postgres, async |place: Place| {
        let store = place.open().await;
        let to = place.directory().join("copy.db");
        let refused = store.backup(&to).await;
        assert!(
            matches!(refused, Err(BackupError::NotSqlite)),
            "{refused:?}"
        );
        assert!(!to.exists());
    });
}

#[test]
fn a_directory_must_be_there() {
    run(Backend::Sqlite, async |place: Place| {
        let refused = Store::open(&format!("sqlite:{}/no/x.db", place.directory().display())).await;
        assert!(
            matches!(refused, Err(OpenError::Create { .. })),
            "{refused:?}"
        );
        std::fs::write(
            place.file(),
            "this is not a database, but long enough to look",
        )
        .expect("writes");
        let refused = Store::open(&place.url).await;
        assert!(
            matches!(
                refused,
                Err(OpenError::Connect { .. } | OpenError::Migrate { .. })
            ),
            "{refused:?}"
        );
    });
}
