//! A node with a handful of services.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::fleet::MachineHints;
use stillmetal_join::{
    Caller, Controller, JoinOptions, JoinStatus, Joiner, Phase, Quiet, Resolve, Resolving,
    Services, Serving,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tunnel::{Backoff, Stream};

use crate::controller::World;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Waits until it holds. For what cannot be waited for otherwise.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Where a test's node keeps what it keeps.
#[derive(Debug)]
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.path().join("join-token")
    }

    /// Whether any file below says this.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        fn search(dir: &Path, text: &str) -> bool {
            std::fs::read_dir(dir).unwrap().any(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    search(&path, text)
                } else {
                    std::fs::read_to_string(path).unwrap().contains(text)
                }
            })
        }
        search(self.dir.path(), text)
    }
}

/// Options for a node of this name, impatient as tests are.
pub(crate) fn options(name: &str, home: &Home, world: &World, port: u16) -> JoinOptions {
    let controller = Controller {
        host: "127.0.0.1".into(),
        port,
    };
    let machine = MachineHints {
        hostname: name.into(),
        ..MachineHints::default()
    };
    let mut options = JoinOptions::new(controller, world.pin(), home.state(), machine);
    options.backoff = Backoff {
        base: Duration::from_millis(5),
        cap: Duration::from_millis(20),
        settled: Duration::from_secs(60),
    };
    options
}

/// A node at work.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) status: watch::Receiver<JoinStatus>,
    pub(crate) quiet: Quiet,
    pub(crate) seen: Arc<Seen>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What its services have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) callers: Mutex<Vec<Caller>>,
}

impl Node {
    pub(crate) fn start(options: JoinOptions) -> Self {
        let first = JoinStatus::new(&options.controller);
        let quiet = options.quiet.clone();
        let (sender, status) = watch::channel(first);
        let (stop, seen) = (CancellationToken::new(), Arc::<Seen>::default());
        let services = Arc::new(Tester(Arc::clone(&seen)));
        let joiner = Joiner::open(options).unwrap();
        let task = tokio::spawn(joiner.run(services, stop.clone(), sender));
        Self {
            status,
            quiet,
            seen,
            stop,
            task,
        }
    }

    /// Waits until its status is such.
    pub(crate) async fn phase(&mut self, what: &str, wanted: impl Fn(&Phase) -> bool) -> Phase {
        let reached = self.status.wait_for(|status| wanted(&status.phase));
        let last = soon(what, reached).await;
        last.unwrap().phase.clone()
    }

    pub(crate) async fn connected(&mut self) {
        let connected = |phase: &Phase| matches!(phase, Phase::Connected { .. });
        self.phase("connected", connected).await;
    }

    /// Waits until it waits, and returns why.
    pub(crate) async fn waiting(&mut self) -> String {
        let waits = |phase: &Phase| matches!(phase, Phase::Waiting { .. });
        match self.phase("waiting", waits).await {
            Phase::Waiting { why, .. } => why,
            _ => unreachable!(),
        }
    }

    /// Waits until it was refused, and returns why.
    pub(crate) async fn refused(&mut self) -> String {
        let refused = |phase: &Phase| matches!(phase, Phase::Refused { .. });
        match self.phase("refused", refused).await {
            Phase::Refused { why, .. } => why,
            _ => unreachable!(),
        }
    }

    /// Waits until somebody has to approve, and returns the fingerprint.
    pub(crate) async fn pending(&mut self) -> String {
        let pending = |phase: &Phase| matches!(phase, Phase::Pending { .. });
        match self.phase("pending", pending).await {
            Phase::Pending { fingerprint } => fingerprint,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("stopped", self.task).await.unwrap();
        assert_eq!(self.status.borrow().phase, Phase::Stopped);
    }
}

/// Its services.
#[derive(Debug)]
struct Tester(Arc<Seen>);

impl Services for Tester {
    /// Says nothing and ends with the stream.
    fn control(&self, mut stream: Stream) -> Serving {
        Box::pin(async move {
            let mut byte = [0];
            while let Ok(1..) = stream.read(&mut byte).await {}
        })
    }

    /// Sends back what it gets.
    fn router(&self, stream: Stream, caller: Caller) -> Serving {
        self.0.callers.lock().unwrap().push(caller);
        Box::pin(async move {
            let (mut read, mut write) = split(stream);
            if copy(&mut read, &mut write).await.is_ok() {
                // The peer is gone, or has its end.
                drop(write.shutdown().await);
            }
        })
    }
}

/// Leads wherever the test says, whatever the name.
#[derive(Debug, Default)]
pub(crate) struct Signpost {
    pub(crate) to: Mutex<Vec<std::net::SocketAddr>>,
    pub(crate) asked: Mutex<Vec<(String, u16)>>,
}

impl Resolve for Signpost {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        self.asked.lock().unwrap().push((host.to_owned(), port));
        let to = self.to.lock().unwrap().clone();
        Box::pin(async move { Ok(to) })
    }
}
