//! Who really does the work, as seen by the one that keeps account of it.
//!
//! Each assignment is one future. Through its [`Task`] it says where it stands and learns when to
//! begin and when to stop:
//!
//! ```text
//! run:    everything that can fail early → Task::ready → … Task::measuring … → an ending
//! adopt:  what an earlier agent had begun is found again, or it is not → an ending
//! ```
//! When the future is over, whatever it ran has ended, and its CPUs are free.

use std::fmt;
use std::sync::{Arc, OnceLock};

use api::work::{Assignment, Ending, Key, PartOutcome, Stage};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::folder::Folder;

/// Why an assignment is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words for its submitter.
    pub why: String,
    /// Another node, or this one later, may take it; false: what it asks for is at fault.
    pub elsewhere: bool,
}

impl Refused {
    /// Something here is in its way.
    pub fn here(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            elsewhere: true,
        }
    }

    /// No node would take it as it is.
    pub fn anywhere(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            elsewhere: false,
        }
    }
}

/// It is to stop: see [`Task::why`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

/// Does work.
pub trait Executor: Send + Sync + 'static {
    /// Called once, before anything else, with the attempts that are adopted: what else an earlier
    /// agent left belongs to nobody.
    fn start(&self, _adopted: &[Key]) {}

    /// Does all of it. A refusal counts only before [`Task::ready`].
    fn run(self: Arc<Self>, task: Task) -> BoxFuture<'static, Result<Ending, Refused>>;

    /// Takes over what an earlier agent left at this stage: its program may be running, may have
    /// ended, or may not have been started at all. It must not be started a second time.
    fn adopt(self: Arc<Self>, task: Task, stage: Stage) -> BoxFuture<'static, Ending>;
}

/// What a program that has to write does (see `JobLimits::output_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It runs from now on.
    Expected,
    /// It wrote something.
    Seen,
    /// It does not run any more, or not yet.
    Over,
}

/// What a task says of itself.
#[derive(Debug)]
pub(crate) enum Event {
    Prepared,
    Stage(Stage, Option<String>),
    /// Answered as soon as nothing is sent any more.
    Measuring(oneshot::Sender<()>),
    Output(Output),
    Over(Box<Result<Ending, Refused>>),
}

/// What has been said to a task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reins {
    pub(crate) begin: watch::Sender<bool>,
    pub(crate) cancel: CancellationToken,
    pub(crate) why: Arc<OnceLock<String>>,
}

/// One assignment, for whoever does it.
pub struct Task {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) folder: Folder,
    pub(crate) events: mpsc::Sender<(Key, Event)>,
    pub(crate) begin: watch::Receiver<bool>,
    pub(crate) cancel: CancellationToken,
    pub(crate) why: Arc<OnceLock<String>>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

impl Task {
    /// Which attempt it is.
    #[must_use]
    pub fn key(&self) -> Key {
        self.assignment.key
    }

    /// What is to be done.
    #[must_use]
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Where its documents go.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Says that nothing can fail early any more, and waits until it is to begin. Nothing of the
    /// user's may run before.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub async fn ready(&self) -> Result<(), Cancelled> {
        self.say(Event::Prepared).await;
        let mut begin = self.begin.clone();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Cancelled),
            begun = begin.wait_for(|begin| *begin) => begun.map(drop).map_err(|_| Cancelled),
        }
    }

    /// Says that what counts begins, and waits until nothing is sent to the controller any more.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub async fn measuring(&self) -> Result<(), Cancelled> {
        let (sender, silent) = oneshot::channel();
        self.say(Event::Measuring(sender)).await;
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Cancelled),
            silent = silent => silent.map_err(|_| Cancelled),
        }
    }

    /// Says how far the preparations are.
    pub async fn preparing(&self, detail: &str) {
        let detail = Some(detail.to_owned());
        self.say(Event::Stage(Stage::Preparing, detail)).await;
    }

    /// Says that nothing is measured any more and its documents are being written.
    pub async fn packing(&self) {
        self.say(Event::Stage(Stage::Packing, None)).await;
    }

    /// Says what its program writes. Once a second is enough; only if it has such a limit.
    pub async fn output(&self, output: Output) {
        self.say(Event::Output(output)).await;
    }

    /// Done when it is to stop.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Why it is to stop.
    #[must_use]
    pub fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_default()
    }

    /// An ending without documents.
    #[must_use]
    pub fn ending(outcome: PartOutcome, reason: Option<String>) -> Ending {
        Ending {
            outcome,
            reason,
            exit_code: None,
            signal: None,
            verdict: None,
            started_ms: None,
            ended_ms: None,
            documents: Vec::new(),
            figures: std::collections::BTreeMap::new(),
        }
    }

    async fn say(&self, event: Event) {
        // the agent is going down: nobody listens any more, and what was written down counts
        drop(self.events.send((self.key(), event)).await);
    }
}
