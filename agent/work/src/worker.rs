//! The task that owns all work of a node: it keeps the journal, has the work done, and speaks with
//! the controller on one stream at a time.
//!
//! Silence: [`Worker::silent`] turns true after the controller was told that something is measured
//! and before that is let go. Until it turns false again no message is sent on the stream unasked,
//! heartbeats included. What the controller asks meanwhile is answered: it broke the silence itself.

mod keeper;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeFacts;
use api::work::{Key, Order, PartView, Report, WorkView};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::executor::Executor;
use crate::folder::{Content, FolderError};
use crate::journal::{Journal, JournalError};
use keeper::Keeper;

/// Messages that wait for the owner.
const QUEUE: usize = 16;

/// Time since boot: goes on while the machine sleeps and while the agent is restarted.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What a worker is made of.
pub struct Parts {
    /// What the node is; told in the greeting and whenever it changes.
    pub facts: watch::Receiver<NodeFacts>,
    /// What it remembers.
    pub journal: Arc<dyn Journal>,
    /// Who does the work.
    pub executor: Arc<dyn Executor>,
    /// For leases.
    pub clock: Clock,
    /// Where its tasks are counted.
    pub tasks: TaskTracker,
    /// The agent is going down: nothing is written or sent from then on, so that the next agent finds
    /// everything as it stands.
    pub stop: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Why a control stream was left.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A newer stream took its place.
    #[error("a newer control stream took its place")]
    Replaced,
    /// The agent is going down.
    #[error("the agent is going down")]
    Stopped,
    /// The controller did not answer the greeting.
    #[error("the controller did not answer the greeting within {within:?}")]
    NoWelcome {
        /// The deadline.
        within: Duration,
    },
    /// It took no message.
    #[error("the controller took no message within {within:?}")]
    Stalled {
        /// The deadline.
        within: Duration,
    },
    /// The stream, or what came on it.
    #[error("the control stream")]
    Frame(#[from] crate::frame::FrameError),
}

/// What the owner is told.
enum Message {
    Open(session::Line),
    /// The report of the session with this number is on its way.
    Sent(u64, Report),
    Rejected(u64),
    Overview(oneshot::Sender<WorkView>),
    Detail(u64, u32, oneshot::Sender<Option<PartView>>),
}

/// A hold on the owner. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    messages: mpsc::Sender<Message>,
    orders: mpsc::Sender<(u64, Order)>,
    silent: watch::Receiver<bool>,
    journal: Arc<dyn Journal>,
    stop: CancellationToken,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("silent", &*self.silent.borrow())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Reads the journal, has what an earlier agent had begun adopted, and starts the owner.
    ///
    /// # Errors
    /// [`JournalError`] when the journal cannot be read.
    pub async fn start(parts: Parts) -> Result<Self, JournalError> {
        let contents = parts.journal.load().await?;
        let (messages, inbox) = mpsc::channel(QUEUE);
        let (orders, inbox_orders) = mpsc::channel(QUEUE);
        let (silence, silent) = watch::channel(false);
        let worker = Self {
            messages,
            orders,
            silent,
            journal: Arc::clone(&parts.journal),
            stop: parts.stop.clone(),
        };
        let tasks = parts.tasks.clone();
        let keeper = Keeper::new(parts, silence);
        tasks.spawn(keeper.keep(contents, inbox, inbox_orders));
        Ok(worker)
    }

    /// Speaks with the controller on a fresh `control` stream until that ends or another one is
    /// served.
    ///
    /// # Errors
    /// [`SessionError`]; the end of the stream by the controller is none.
    pub async fn serve<S>(&self, stream: S) -> Result<(), SessionError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        session::serve(self, stream).await
    }

    /// Whether nothing may be sent to the controller unasked, by anybody: something is measured.
    #[must_use]
    pub fn silent(&self) -> watch::Receiver<bool> {
        self.silent.clone()
    }

    /// What the node holds; `None`: the agent is going down.
    pub async fn overview(&self) -> Option<WorkView> {
        let (sender, answer) = oneshot::channel();
        self.messages.send(Message::Overview(sender)).await.ok()?;
        answer.await.ok()
    }

    /// One attempt; `None`: it is not here.
    pub async fn detail(&self, job: u64, attempt: u32) -> Option<PartView> {
        let (sender, answer) = oneshot::channel();
        let question = Message::Detail(job, attempt, sender);
        self.messages.send(question).await.ok()?;
        answer.await.ok()?
    }

    /// A document that an ended attempt has told of.
    ///
    /// # Errors
    /// [`FolderError`].
    pub async fn document(&self, key: Key, name: &str) -> Result<Content, FolderError> {
        self.journal.folder(key).open(name).await
    }
}
