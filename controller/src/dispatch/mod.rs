//! The one owner of the lifecycle: what is asked and reported comes in one after the other, what
//! follows is committed, and only then it is acted on and answered.
//!
//! While one commit is on its way to the disk the next step is being decided. If the store takes
//! nothing, nothing is acted on: steps wait, new requests are refused at once with the reason, and
//! everything goes on where it stopped when the store is back.

mod clock;
mod commit;
mod records;

use std::sync::Arc;
use std::time::Duration;

use store::{Change, Lease, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use clock::Clock;
pub use commit::{Deeds, Fatal};
pub use records::{inheritance, node_record};

use crate::lifecycle::{Core, Millis};
use crate::metrics::Metrics;
use crate::refusal::{Kind, Refusal};
use commit::Batch;

/// Tasks that wait to be looked at.
const WAITING: usize = 4_096;
/// Tasks of one step.
const AT_ONCE: usize = 1_024;
/// Steps that wait for their commit.
const STEPS: usize = 4;
/// Deadlines are looked at so often.
const LOOK: Duration = Duration::from_millis(200);
/// A request waits so long until it is looked at, and so long for its commit.
const ENTRY: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// Tells whoever asked, after the commit or instead of it.
type Done = Box<dyn FnOnce(Result<(), Refusal>) + Send>;
type Task = Box<dyn FnOnce(&mut Core, Millis) -> (Vec<Change>, Done) + Send>;

/// Asks the owner. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    tasks: mpsc::Sender<Task>,
    trouble: watch::Receiver<Option<Refusal>>,
    clock: Clock,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

impl Dispatch {
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Has `act` look at or change the lifecycle; its answer comes when everything that it changed is
    /// durable.
    ///
    /// # Errors
    /// The store's trouble (nothing was done), or [`Kind::Unknown`].
    pub async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Core, Millis) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ask_with(|core, now| (act(core, now), Vec::new()))
            .await
    }

    /// As [`Dispatch::ask`], with changes that only the store knows of.
    ///
    /// # Errors
    /// As there.
    pub async fn ask_with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Core, Millis) -> (T, Vec<Change>) + Send + 'static,
    ) -> Result<T, Refusal> {
        if let Some(refusal) = self.trouble.borrow().clone() {
            return Err(refusal);
        }
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |core, now| {
            let (value, changes) = act(core, now);
            let done: Done = Box::new(move |result| {
                // whoever asked may have left
                drop(answer.send(result.map(|()| value)));
            });
            (changes, done)
        });
        match timeout(ENTRY, self.tasks.send(task)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(stopping()),
            Err(_elapsed) => {
                let detail = format!("the controller had no time to look at it within {ENTRY:?}");
                return Err(Refusal::new(Kind::StoreUnavailable, detail).next("try again later"));
            }
        }
        match timeout(ANSWER, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unknown("the controller stopped before it was durable")),
            Err(_elapsed) => {
                let trouble = self.trouble.borrow().as_ref().map(|it| it.detail.clone());
                let why = trouble.unwrap_or_else(|| format!("it took longer than {ANSWER:?}"));
                Err(unknown(&why))
            }
        }
    }

    /// Tells what happened. Nobody waits for what follows.
    pub async fn tell(&self, act: impl FnOnce(&mut Core, Millis) + Send + 'static) {
        let task: Task = Box::new(move |core, now| {
            act(core, now);
            (Vec::new(), Box::new(|_| {}))
        });
        // an owner that is gone wants to know nothing any more
        drop(self.tasks.send(task).await);
    }
}

fn stopping() -> Refusal {
    Refusal::new(Kind::StoreUnavailable, "the controller is stopping").next("try again in a moment")
}

fn unknown(why: &str) -> Refusal {
    Refusal::new(Kind::Unknown, format!("{why}: it may still be done"))
        .next("ask again; a submission with the same Idempotency-Key is never done twice")
}

/// The owner and its committer, ready to run.
pub struct Dispatcher {
    core: Core,
    clock: Clock,
    tasks: mpsc::Receiver<Task>,
    batches: mpsc::Sender<Batch>,
    committer: commit::Committer,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// `act` is called with what is to be done after each commit, and must not wait.
    #[must_use]
    pub fn new(
        core: Core,
        clock: Clock,
        store: Store,
        lease: watch::Receiver<Lease>,
        metrics: Arc<Metrics>,
        act: Arc<dyn Fn(Deeds) + Send + Sync>,
    ) -> (Self, Dispatch) {
        let (tasks, receiver) = mpsc::channel(WAITING);
        let (batches, queued) = mpsc::channel(STEPS);
        let (trouble, troubles) = watch::channel(None);
        let dispatcher = Self {
            core,
            clock,
            tasks: receiver,
            batches,
            committer: commit::Committer {
                store,
                lease,
                queued,
                trouble,
                act,
                metrics,
            },
        };
        let dispatch = Dispatch {
            tasks,
            trouble: troubles,
            clock,
        };
        (dispatcher, dispatch)
    }

    /// Until `stop`, or until the store says that somebody else leads.
    ///
    /// # Errors
    /// When this process must not go on with what it knows: it has to start again from the store.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Fatal> {
        let Self {
            core,
            clock,
            tasks,
            batches,
            committer,
        } = self;
        // a task of its own: the next step is decided while the last one is put into rows. It ends when
        // the owner has, with everything that was decided
        let committer = AbortOnDropHandle::new(tokio::spawn(committer.run()));
        let own = own(core, clock, tasks, batches, stop);
        let ((), committed) = tokio::join!(own, committer);
        committed.map_err(|_panicked| Fatal::Died)?
    }
}

async fn own(
    mut core: Core,
    clock: Clock,
    mut tasks: mpsc::Receiver<Task>,
    batches: mpsc::Sender<Batch>,
    stop: CancellationToken,
) {
    loop {
        let soon = tokio::time::Instant::now() + LOOK;
        let first = tokio::select! {
            () = stop.cancelled() => return,
            () = batches.closed() => return,
            task = tasks.recv() => match task {
                Some(task) => Some(task),
                None => return,
            },
            () = sleep_until(soon) => None,
        };
        let now = clock.now();
        let mut extra = Vec::new();
        let mut dones = Vec::new();
        let mut run = |task: Task, core: &mut Core| {
            let (changes, done) = task(core, now);
            extra.extend(changes);
            dones.push(done);
        };
        if let Some(task) = first {
            run(task, &mut core);
        }
        for _ in 1..AT_ONCE {
            match tasks.try_recv() {
                Ok(task) => run(task, &mut core),
                Err(_) => break,
            }
        }
        core.passed(now);
        let step = core.take_step();
        if step.is_empty() && extra.is_empty() && dones.is_empty() {
            continue;
        }
        // a committer that is gone has said why; the answers say that nothing is known
        if batches.send(Batch { step, extra, dones }).await.is_err() {
            return;
        }
    }
}
