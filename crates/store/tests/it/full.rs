//! A full disk is a clear refusal, and is over when there is space again.
//!
//! The disk is a small tmpfs in a mount namespace of a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use api::job::{JobId, JobState};
use serde_json::Value;
use store::{Change, CommitError, Settings, Store};

use crate::place::{Backend, Place, TERM, block_on_two};
use crate::records::{job, job_change, queued};
use crate::server::Server;

const DISK: &str = "STORE_SMALL_DISK";

#[test]
fn sqlite() {
    on_a_small_disk("full::of_sqlite", "16m");
}

#[test]
fn postgres() {
    on_a_small_disk("full::of_postgres", "28m");
}

/// Runs one of the tests below where `STORE_SMALL_DISK` is a disk of that size.
fn on_a_small_disk(test: &str, size: &str) {
    let disk = tempfile::tempdir().expect("a directory");
    let root =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if root != 0 {
        // as root of a namespace of its own one may mount a tmpfs too
        command.args(["--user", "--map-root-user"]);
    }
    let script = r#"mount -t tmpfs -o "size=$2,mode=777" tmpfs "$1" && shift 2 && exec "$@""#;
    let output = command
        .args(["sh", "-c", script, "sh"])
        .args([disk.path().as_os_str(), size.as_ref()])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DISK, disk.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn disk() -> PathBuf {
    std::env::var_os(DISK)
        .expect("started by another test")
        .into()
}

#[test]
#[ignore = "a process of another test, which starts it"]
fn of_sqlite() {
    let disk = disk();
    let url = format!("sqlite:{}/store.db", disk.display());
    block_on_two(fill_and_free(&disk, &url));
}

#[test]
#[ignore = "a process of another test, which starts it"]
fn of_postgres() {
    let disk = disk();
    let server = Server::start();
    let space = server.make_directory(&disk.join("space"));
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
    server.administer(&sql).expect("a tablespace");
    let sql = "CREATE DATABASE small TEMPLATE template0 TABLESPACE small";
    server.administer(sql).expect("a database");
    block_on_two(fill_and_free(&disk, &server.url("small")));
}

/// A write that fails otherwise, such as at a limit or a quota: it is said, and what follows is not
/// harmed. The limit ends with its process.
#[test]
fn a_write_fails() {
    let place = Place::new(Backend::Sqlite);
    // shells count it in blocks of 512 bytes or of 1,024
    let script = r#"trap '' XFSZ; ulimit -f 4000; exec "$@""#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "full::at_a_limit", "--ignored", "--nocapture"])
        .env(DISK, place.directory())
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let done = said
        .lines()
        .filter_map(|line| line.strip_prefix("done "))
        .next_back();
    let done: Option<u64> = done.and_then(|done| done.parse().ok());
    let (true, Some(done)) = (output.status.success(), done) else {
        panic!("{said}{}", String::from_utf8_lossy(&output.stderr));
    };
    block_on_two(async {
        let (store, lease) = place.led().await;
        let loaded = store.load().await.expect("loads");
        assert_eq!((loaded.jobs.len() as u64, loaded.last_event), (done, done));
        let seq = store.commit(lease.term, large(done + 1)).await;
        assert_eq!(seq.expect("commits"), done + 1);
    });
}

#[test]
#[ignore = "a process of another test, which starts it"]
fn at_a_limit() {
    let url = format!("sqlite:{}/store.db", disk().display());
    block_on_two(async {
        let patience = Duration::from_millis(500);
        let store = Store::open_with(&url, Settings { patience })
            .await
            .expect("opens");
        let lease = store.lead("a", TERM).await.expect("leads");
        let mut id = 1;
        let refused = loop {
            assert!(id < 10_000, "there is a limit");
            match store.commit(lease.term, large(id)).await {
                Ok(_) => id += 1,
                Err(refused) => break refused,
            }
        };
        assert!(
            matches!(refused, CommitError::Unavailable { .. }),
            "{refused:?}"
        );
        assert_eq!(store.job(JobId(id)).await.expect("reads"), None);
        assert!(store.job(JobId(id - 1)).await.expect("reads").is_some());
        println!("\ndone {}", id - 1);
    });
}

async fn fill_and_free(disk: &Path, url: &str) {
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).expect("fits");
    let store = Store::open(url).await.expect("opens");
    let lease = store.lead("a", TERM).await.expect("leads");
    let commit = async |id| store.commit(lease.term, large(id)).await;
    let mut id = 1;
    let refused = loop {
        assert!(id < 10_000, "the disk is small");
        match commit(id).await {
            Ok(_) => id += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, CommitError::Full { .. }), "{refused:?}");
    assert!(id > 5, "{id}");
    // again and again, and those that were done are there meanwhile, and only they
    for _ in 0..3 {
        let refused = commit(id).await;
        assert!(
            matches!(refused, Err(CommitError::Full { .. })),
            "{refused:?}"
        );
        assert_eq!(store.job(JobId(id)).await.expect("reads"), None);
        assert!(store.job(JobId(id - 1)).await.expect("reads").is_some());
    }
    let both = tokio::join!(commit(id), commit(id + 1));
    assert!(matches!(
        both,
        (Err(CommitError::Full { .. }), Err(CommitError::Full { .. }))
    ));
    assert_eq!(*store.events_seen().borrow(), id - 1);

    std::fs::remove_file(&ballast).expect("removes");
    assert_eq!(commit(id).await.expect("there is space again"), id);
    store
        .commit(lease.term, queued(id + 1))
        .await
        .expect("commits");
    store.close().await;
    let loaded = Store::open(url)
        .await
        .expect("opens")
        .load()
        .await
        .expect("loads");
    assert_eq!(
        (loaded.jobs.len() as u64, loaded.last_event),
        (id + 1, id + 1)
    );
}

/// A job that nothing makes much smaller.
fn large(id: u64) -> Vec<Change> {
    static NOISE: OnceLock<String> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'0' + u8::try_from(state >> 58).expect("six bits"))
        });
        noise.take(100_000).collect()
    });
    let mut record = job(id, JobState::Queued);
    record.extra = Value::String(noise.clone());
    let mut changes = queued(id);
    changes[0] = job_change(record);
    changes
}
