//! PostgreSQL goes away, in good order or not, and comes back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use api::job::JobId;
use store::{CommitError, EventFilter, LeadError, ReadError, Settings, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::place::{Backend, Place, TERM, block_on_two, database};
use crate::records::queued;
use crate::server::{LONG, Server, shared, url};

/// A server for these tests alone, one after the other.
fn server() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Mutex::new(Server::start()));
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody is told of it who waits: all commits are done, each once.
#[test]
fn commits_ride_through_a_restart() {
    let server = server();
    let url = server.url(&database(&server, "template0"));
    block_on_two(async {
        let settings = Settings { patience: LONG };
        let store = Store::open_with(&url, settings).await.expect("opens");
        let lease = store.lead("a", TERM).await.expect("leads");
        let over = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..4_u64)
            .map(|task| {
                let (store, over) = (store.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut done = 0;
                    while !over.load(Ordering::Acquire) {
                        let id = task * 1_000_000 + done + 1;
                        store.commit(lease.term, queued(id)).await.expect("commits");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        for in_order in [true, false] {
            let before = store.stats().calls;
            tokio::task::block_in_place(|| {
                if in_order {
                    server.stop();
                } else {
                    server.crash();
                }
                server.resume();
            });
            let goes_on = async {
                while store.stats().calls < before + 20 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(LONG, goes_on).await.expect("goes on");
        }
        over.store(true, Ordering::Release);
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("runs");
        }
        let loaded = store.load().await.expect("loads");
        assert_eq!((loaded.jobs.len() as u64, loaded.last_event), (done, done));
    });
}

/// Who cannot wait that long is told, and it works again as soon as PostgreSQL does.
#[test]
fn an_outage_is_told() {
    let server = server();
    let url = server.url(&database(&server, "template0"));
    block_on_two(async {
        let patience = Duration::from_millis(500);
        let store = Store::open_with(&url, Settings { patience })
            .await
            .expect("opens");
        let lease = store.lead("a", TERM).await.expect("leads");
        store.commit(lease.term, queued(1)).await.expect("commits");
        store.job(JobId(1)).await.expect("reads");
        tokio::task::block_in_place(|| server.stop());

        let began = Instant::now();
        let refused = store.commit(lease.term, queued(2)).await;
        assert!(
            matches!(refused, Err(CommitError::Unavailable { .. })),
            "{refused:?}"
        );
        let refused = store.job(JobId(1)).await;
        assert!(
            matches!(refused, Err(ReadError::Unavailable { .. })),
            "{refused:?}"
        );
        let refused = store.renew(&lease).await;
        assert!(
            matches!(refused, Err(LeadError::Unavailable { .. })),
            "{refused:?}"
        );
        assert!(began.elapsed() < LONG, "every call has its deadline");
        let refused = Store::open(&url).await;
        assert!(
            matches!(refused, Err(store::OpenError::Connect { .. })),
            "{refused:?}"
        );

        tokio::task::block_in_place(|| server.resume());
        let works = async {
            while store.job(JobId(1)).await.is_err()
                || store.renew(&lease).await.is_err()
                || store.commit(lease.term, queued(3)).await.is_err()
            {}
        };
        tokio::time::timeout(LONG, works)
            .await
            .expect("works again");
        let jobs = store.load().await.expect("loads").jobs;
        let jobs: Vec<u64> = jobs.iter().map(|job| job.status.id.0).collect();
        assert_eq!(jobs, [1, 3], "what was refused was not done");
    });
}

/// The connection is lost with the commit on its way: what happened is looked up.
#[test]
fn a_commit_in_doubt_is_looked_up() {
    let place = Place::new(Backend::Postgres);
    let name = place.url.split(['/', '?']).nth(3).expect("a database");
    block_on_two(async {
        let directory = tempfile::tempdir().expect("a directory");
        let wire = Wire::lay(directory.path());
        let through = url(directory.path(), name);
        let open = async |patience| {
            let store = Store::open_with(&through, Settings { patience }).await;
            store.expect("opens")
        };
        let store = open(LONG).await;
        let lease = store.lead("a", TERM).await.expect("leads");
        let commit = async |id| store.commit(lease.term, queued(id)).await;
        let mut last = 0;
        for cut in [CUT_BEHIND, CUT_BEFORE, CUT_BEHIND, CUT_BEFORE] {
            assert_eq!(commit(last + 1).await.expect("commits"), last + 1);
            wire.set(cut);
            assert_eq!(commit(last + 2).await.expect("is found out"), last + 2);
            assert_eq!(wire.get(), WHOLE, "it was cut");
            assert_eq!(commit(last + 3).await.expect("commits"), last + 3);
            last += 3;
        }

        let hasty = open(Duration::from_secs(1)).await;
        for (cut, done) in [(CUT_BEHIND, true), (CUT_BEFORE, false)] {
            wire.set(cut | AND_DOWN);
            let mut id = last;
            let outcome = loop {
                id += 1;
                let outcome = hasty.commit(lease.term, queued(id)).await;
                // on a slow machine it may not even come so far
                if wire.get() == DOWN {
                    break outcome;
                }
            };
            assert!(
                matches!(outcome, Err(CommitError::InDoubt { .. })),
                "{outcome:?}"
            );
            // and now it is certain that nothing can be done
            let outcome = hasty.commit(lease.term, queued(9_000)).await;
            assert!(
                matches!(outcome, Err(CommitError::Unavailable { .. })),
                "{outcome:?}"
            );
            wire.set(WHOLE);
            let there = store.job(JobId(id)).await.expect("reads").is_some();
            assert_eq!(there, done);
            last += u64::from(done);
            assert_eq!(commit(last + 1).await.expect("commits"), last + 1);
            last += 1;
        }
        assert_eq!(store.job(JobId(9_000)).await.expect("reads"), None);
        let events = store.events(0, 100, &EventFilter::default()).await;
        let events = events.expect("reads");
        assert!(
            (1..=last).eq(events.iter().map(|event| event.seq)),
            "{events:?}"
        );
    });
}

const WHOLE: u8 = 0;
/// The next commit reaches the server, its answer does not come back.
const CUT_BEHIND: u8 = 1;
/// The next commit does not reach the server.
const CUT_BEFORE: u8 = 2;
/// And after that there is no connection at all.
const AND_DOWN: u8 = 4;
const DOWN: u8 = 8;

/// Between a store and the shared server, to be cut.
#[derive(Debug, Clone)]
struct Wire(Arc<AtomicU8>);

impl Wire {
    /// Its end for the store is a socket in that directory.
    fn lay(directory: &Path) -> Self {
        let wire = Self(Arc::new(AtomicU8::new(WHOLE)));
        let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).expect("listens");
        let accepting = wire.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accepts");
                tokio::spawn(accepting.clone().carry(client));
            }
        });
        wire
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    async fn carry(self, client: UnixStream) {
        if self.get() == DOWN {
            return;
        }
        let socket = shared().directory().join(".s.PGSQL.5432");
        let server = UnixStream::connect(socket).await.expect("connects");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let forth = async {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let bytes = from_client.read(&mut buffer).await.unwrap_or(0);
                let message = &buffer[..bytes];
                let state = self.get();
                if state == DOWN || bytes == 0 {
                    return;
                }
                let commit = message.windows(7).any(|part| part == b"COMMIT\0");
                if commit && state != WHOLE {
                    if state & CUT_BEHIND != 0 {
                        to_server.write_all(message).await.expect("sends");
                    }
                    self.set(if state & AND_DOWN != 0 { DOWN } else { WHOLE });
                    return;
                }
                if to_server.write_all(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = forth => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    }
}
