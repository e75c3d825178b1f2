//! An executor that only pretends, with state: what it "runs" goes on when its agent is killed, and
//! the next one finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::work::{Assignment, Document, Ending, Key, PartOutcome, Stage};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use quiet::Verdict;
use tokio::time::Instant;

use crate::executor::{Executor, Output, Refused, Task};
use crate::folder::FolderError;

/// How an assignment goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Play {
    /// It is refused, for this reason.
    pub refuse: Option<String>,
    /// Before it can begin.
    pub prepare: Duration,
    /// From its beginning to its end; `None`: it never ends by itself.
    pub takes: Option<Duration>,
    /// How often it writes something meanwhile; `None`: never.
    pub writes_every: Option<Duration>,
    /// How it ends.
    pub outcome: PartOutcome,
    /// Why.
    pub reason: Option<String>,
    /// With what.
    pub exit_code: Option<i32>,
    /// By what.
    pub signal: Option<i32>,
    /// What the noise was.
    pub verdict: Option<Verdict>,
    /// What it leaves.
    pub documents: BTreeMap<String, Bytes>,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            refuse: None,
            prepare: Duration::ZERO,
            takes: Some(Duration::ZERO),
            writes_every: None,
            outcome: PartOutcome::Done,
            reason: None,
            exit_code: Some(0),
            signal: None,
            verdict: Some(Verdict::Quiet),
            documents: BTreeMap::from([("result.json".to_owned(), Bytes::from_static(b"{}"))]),
        }
    }
}

impl Play {
    /// As the words of the job say, in its `argv` or its `command`: `sleep 1.5`, `prepare 0.5`,
    /// `exit 3`, `signal 9`, `hang`, `noisy`, `unproven`, `error`, `refuse`, `write 1` (every
    /// second), `document NAME BYTES`. Other words mean nothing.
    #[must_use]
    pub fn of(assignment: &Assignment) -> Self {
        let request = &assignment.request;
        let words = request.argv.iter().chain(request.command.iter().flatten());
        let words: Vec<&str> = words.map(String::as_str).collect();
        let mut play = Self::default();
        let mut rest = words.as_slice();
        while let [word, more @ ..] = rest {
            rest = play.word(word, more);
        }
        play
    }

    /// Returns the words after this one and its own.
    fn word<'a>(&mut self, word: &str, more: &'a [&'a str]) -> &'a [&'a str] {
        let seconds = more.first().and_then(|text| text.parse().ok());
        let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let number = more.first().and_then(|text| text.parse().ok());
        match (word, seconds, number) {
            ("sleep", Some(takes), _) => self.takes = Some(takes),
            ("prepare", Some(takes), _) => self.prepare = takes,
            ("write", Some(every), _) => self.writes_every = Some(every),
            ("exit", _, Some(code)) => {
                self.exit_code = Some(code);
                if code != 0 {
                    self.fails(format!("it exited with code {code}"));
                }
            }
            ("signal", _, Some(signal)) => {
                (self.exit_code, self.signal) = (None, Some(signal));
                self.fails(format!("signal {signal} ended it"));
            }
            ("document", ..) => {
                if let [name, bytes, more @ ..] = more
                    && let Ok(count) = bytes.parse()
                {
                    let content = name.bytes().cycle().take(count).collect();
                    self.documents.insert((*name).to_owned(), content);
                    return more;
                }
                return more;
            }
            ("hang", ..) => {
                self.takes = None;
                return more;
            }
            ("noisy", ..) => {
                self.outcome = PartOutcome::Noisy;
                self.reason = Some("interrupts on its CPUs".into());
                self.verdict = Some(Verdict::Noisy);
                return more;
            }
            ("unproven", ..) => {
                self.verdict = Some(Verdict::Unproven);
                return more;
            }
            ("error", ..) => {
                self.outcome = PartOutcome::Error;
                (self.reason, self.exit_code) = (Some("it could not be run".into()), None);
                self.verdict = None;
                return more;
            }
            ("refuse", ..) => {
                self.refuse = Some("the play says so".into());
                return more;
            }
            _ => return more,
        }
        &more[1..]
    }

    fn fails(&mut self, why: String) {
        (self.outcome, self.reason) = (PartOutcome::Failed, Some(why));
    }
}

/// Decides how assignments go.
type Director = Box<dyn Fn(&Assignment) -> Play + Send + Sync>;

/// Where pretended work goes on, whether or not an agent is there to see it.
#[derive(Debug, Clone, Default)]
pub struct World {
    begun: Arc<Mutex<BTreeMap<Key, Begun>>>,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Instant,
    times: u32,
    cancelled: bool,
    /// It has ended, and was seen to.
    over: bool,
}

impl World {
    /// How often each was begun.
    #[must_use]
    pub fn begun(&self) -> BTreeMap<Key, u32> {
        let begun = self.lock();
        begun.iter().map(|(key, one)| (*key, one.times)).collect()
    }

    /// What runs.
    #[must_use]
    pub fn running(&self) -> Vec<Key> {
        let begun = self.lock();
        let running = begun.iter().filter(|(_, one)| !one.over);
        running.map(|(key, _)| *key).collect()
    }

    fn begin(&self, key: Key) -> Instant {
        let mut begun = self.lock();
        let at = Instant::now();
        let one = begun.entry(key).or_insert(Begun {
            at,
            times: 0,
            cancelled: false,
            over: false,
        });
        one.times += 1;
        at
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pretends to do work. One for each agent, on a world that outlives it.
pub struct FakeExecutor {
    world: World,
    director: Director,
}

impl std::fmt::Debug for FakeExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeExecutor")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl FakeExecutor {
    /// Assignments go as their words say, see [`Play::of`].
    #[must_use]
    pub fn new(world: World) -> Self {
        Self::directed(world, Play::of)
    }

    /// Assignments go as `director` says.
    pub fn directed(
        world: World,
        director: impl Fn(&Assignment) -> Play + Send + Sync + 'static,
    ) -> Self {
        let director = Box::new(director);
        Self { world, director }
    }

    async fn follow(&self, task: &Task, play: Play, since: Instant) -> Ending {
        task.output(Output::Expected).await;
        let end = async {
            match play.takes {
                Some(takes) => tokio::time::sleep_until(since + takes).await,
                None => std::future::pending().await,
            }
        };
        let writes = async {
            let Some(every) = play.writes_every else {
                return std::future::pending().await;
            };
            loop {
                tokio::time::sleep(every).await;
                task.output(Output::Seen).await;
            }
        };
        let cancelled = tokio::select! {
            biased;
            () = task.cancelled().cancelled() => true,
            () = end => false,
            () = writes => false,
        };
        task.output(Output::Over).await;
        task.packing().await;
        let ending = match self.pack(task, &play).await {
            Ok(documents) => Ending {
                exit_code: play.exit_code.filter(|_| !cancelled),
                signal: if cancelled { Some(9) } else { play.signal },
                verdict: play.verdict.filter(|_| !cancelled),
                documents,
                ..match cancelled {
                    true => Task::ending(PartOutcome::Cancelled, Some(task.why())),
                    false => Task::ending(play.outcome, play.reason),
                }
            },
            Err(error) => Task::ending(PartOutcome::Error, Some(crate::chain(&error))),
        };
        if let Some(begun) = self.world.lock().get_mut(&task.key()) {
            (begun.over, begun.cancelled) = (true, cancelled);
        }
        ending
    }

    async fn pack(&self, task: &Task, play: &Play) -> Result<Vec<Document>, FolderError> {
        let mut documents = Vec::with_capacity(play.documents.len());
        for (name, bytes) in &play.documents {
            documents.push(task.folder().put(name, bytes.clone()).await?);
        }
        Ok(documents)
    }
}

impl Executor for FakeExecutor {
    fn run(self: Arc<Self>, task: Task) -> BoxFuture<'static, Result<Ending, Refused>> {
        Box::pin(async move {
            let play = (self.director)(task.assignment());
            let given_up = || Ok(Task::ending(PartOutcome::Cancelled, Some(task.why())));
            tokio::select! {
                biased;
                () = task.cancelled().cancelled() => return given_up(),
                () = tokio::time::sleep(play.prepare) => {}
            }
            if let Some(why) = play.refuse {
                return Err(Refused::here(why));
            }
            if task.ready().await.is_err() || task.measuring().await.is_err() {
                return given_up();
            }
            let since = self.world.begin(task.key());
            Ok(self.follow(&task, play, since).await)
        })
    }

    fn adopt(self: Arc<Self>, task: Task, _stage: Stage) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let begun = self.world.lock().get(&task.key()).copied();
            match begun {
                Some(begun) if begun.cancelled => {
                    Task::ending(PartOutcome::Cancelled, Some("it was cancelled".into()))
                }
                Some(begun) => {
                    let play = (self.director)(task.assignment());
                    self.follow(&task, play, begun.at).await
                }
                None => {
                    let why = "the agent was killed before anything ran".to_owned();
                    Task::ending(PartOutcome::Error, Some(why))
                }
            }
        })
    }
}
