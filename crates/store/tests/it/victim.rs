//! This program again, as a process of its own that commits until it is ended from outside.
//!
//! It says `led TERM`, then `did ID SEQ` for each job that was committed, and `refused ID` for one that
//! was not because somebody else leads; then it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::{Change, CommitError, Store};

use crate::place::block_on_two;
use crate::records::{queued, submission};

const URL: &str = "STORE_VICTIM_URL";
const FIRST: &str = "STORE_VICTIM_FIRST";
const TTL: &str = "STORE_VICTIM_TTL_MS";
/// Tasks that commit at the same time.
const TASKS: u64 = 4;

/// The process as its parent sees it.
#[derive(Debug)]
pub(crate) struct Victim {
    process: Child,
    said: BufReader<ChildStdout>,
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Led,
    Did { id: u64, seq: u64 },
    Refused,
}

impl Victim {
    /// Commits jobs from number `first` on, as the leader `victim`.
    pub(crate) fn start(url: &str, first: u64, ttl: Duration) -> Self {
        let myself = std::env::current_exe().expect("this program");
        let mut process = Command::new(myself)
            .args([
                "--exact",
                "victim::commits_until_it_is_ended",
                "--ignored",
                "--nocapture",
            ])
            .env(URL, url)
            .env(FIRST, first.to_string())
            .env(TTL, ttl.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let said = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, said }
    }

    /// The next thing that it says; `None`: it is over.
    pub(crate) fn word(&mut self) -> Option<Word> {
        loop {
            let mut line = String::new();
            let bytes = self.said.read_line(&mut line).expect("reads");
            // a line that was cut off was not said
            if bytes == 0 || !line.ends_with('\n') {
                return None;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["led", _] => return Some(Word::Led),
                ["did", id, seq] => {
                    return Some(Word::Did {
                        id: id.parse().expect("a number"),
                        seq: seq.parse().expect("a number"),
                    });
                }
                ["refused", _] => return Some(Word::Refused),
                // of the test harness
                _ => {}
            }
        }
    }

    /// `SIGSTOP`, `SIGCONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("kills");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // it may be over already, and a test that panics has more to say
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
#[ignore = "a process of other tests, which start it"]
fn commits_until_it_is_ended() {
    let variable = |name| std::env::var(name).expect("started by another test");
    let url = variable(URL);
    let first: u64 = variable(FIRST).parse().expect("a number");
    let ttl = Duration::from_millis(variable(TTL).parse().expect("a number"));
    block_on_two(async move {
        let store = Store::open(&url).await.expect("opens");
        let lease = store.lead("victim", ttl).await.expect("leads");
        say(&format!("led {}\n", lease.term));
        let next = Arc::new(AtomicU64::new(first));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (store, next) = (store.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        let mut changes = queued(id);
                        let made = submission("ann", &id.to_string(), &[id]);
                        changes.push(Change::Submission(made));
                        match store.commit(lease.term, changes).await {
                            Ok(seq) => say(&format!("did {id} {seq}\n")),
                            Err(CommitError::NotLeader { .. }) => {
                                return say(&format!("refused {id}\n"));
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("ends by itself");
        }
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).expect("says");
    out.flush().expect("says");
}
