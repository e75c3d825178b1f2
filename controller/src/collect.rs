//! Fetches what nodes keep for their results, and has it written down.
//!
//! A node forgets nothing before it is told that its documents are here, so nothing is lost if this
//! is cut short anywhere: the node says again what it has when it is back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::fleet::NodeId;
use api::work::{Document, Key, Order};
use store::{Change, OrphanRecord, Store};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::Backoff;

use crate::dispatch::Dispatch;
use crate::fleet::Fleet;
use crate::lifecycle::{Collect, Core, Orphan, counts};
use crate::relay::Relay;
use crate::vault::Vault;

/// Results that are fetched at the same time.
const AT_ONCE: usize = 16;
/// Between tries of a document that could not be fetched from a node that is there.
const AGAIN: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
    settled: Duration::from_secs(60),
};

/// Fetches in the background.
#[derive(Clone)]
pub struct Collector {
    pub relay: Relay,
    pub vault: Vault,
    pub store: Store,
    pub dispatch: Dispatch,
    pub fleet: Arc<Fleet>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    under_way: Arc<Mutex<HashSet<(NodeId, Key)>>>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Collector {
    #[must_use]
    pub fn new(
        relay: Relay,
        vault: Vault,
        store: Store,
        dispatch: Dispatch,
        fleet: Arc<Fleet>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            relay,
            vault,
            store,
            dispatch,
            fleet,
            tasks,
            stop,
            under_way: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Begins, unless it is under way already.
    pub fn collect(&self, collect: Collect) {
        let Collect {
            node,
            key,
            documents,
        } = collect;
        let this = self.clone();
        self.begin(node.clone(), key, async move {
            if this.fetch(&node, key, &documents).await {
                let stored = move |core: &mut Core, now| core.collected(now, &node, key, documents);
                this.dispatch.tell(stored).await;
            }
        });
    }

    /// A result that came when it was not waited for any more.
    pub fn late(&self, orphan: Orphan) {
        let this = self.clone();
        self.begin(orphan.node.clone(), orphan.key, async move {
            if let Some((node, key)) = this.keep(orphan).await {
                let order = Order::Acknowledge { key };
                let tell = move |core: &mut Core, _now| core.tell(&node, order);
                this.dispatch.tell(tell).await;
            }
        });
    }

    fn begin(&self, node: NodeId, key: Key, work: impl Future<Output = ()> + Send + 'static) {
        let own = (node, key);
        if !self.under_way().insert(own.clone()) {
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let stop = this.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    // the semaphore is never closed
                    let _place = this.places.acquire().await;
                    work.await;
                } => {}
            }
            this.under_way().remove(&own);
        });
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<(NodeId, Key)>> {
        self.under_way
            .lock()
            .expect("nothing panics while it holds it")
    }

    /// All of them, or false: the node has left, and will say again what it has.
    async fn fetch(&self, node: &NodeId, key: Key, documents: &[Document]) -> bool {
        for document in documents {
            let mut failures = 0;
            loop {
                let fetched = self
                    .vault
                    .fetch_document(&self.relay, node, key, document)
                    .await;
                let Err(error) = fetched else { break };
                let error = crate::chain(&error);
                tracing::warn!(%node, job = %key.job, document = document.name, error, "not fetched");
                if self.fleet.session(node).is_none() {
                    return false;
                }
                failures = AGAIN.failures(failures, Duration::ZERO);
                tokio::time::sleep(AGAIN.wait(failures, key.fence)).await;
            }
        }
        true
    }

    /// The node may forget it: it is kept here as evidence, or it is part of the result already.
    async fn keep(&self, orphan: Orphan) -> Option<(NodeId, Key)> {
        let Orphan {
            node,
            key,
            at_ms,
            ending,
        } = orphan;
        let known = match self.store.job(key.job).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(
                    error = crate::chain(&error),
                    "a late result is not kept yet"
                );
                return None;
            }
        };
        let Some(known) = known else {
            // of another controller's life: nobody here can say what it belongs to
            tracing::warn!(%node, job = %key.job, "a result of a job that is not known here");
            return Some((node, key));
        };
        if counts(&known.status, &node, key) {
            return Some((node, key));
        }
        if !self.fetch(&node, key, &ending.documents).await {
            return None;
        }
        tracing::warn!(%node, job = %key.job, attempt = key.attempt, "a late result is kept as evidence");
        let record = OrphanRecord {
            key,
            node: node.clone(),
            at_ms,
            why: "its attempt had been given up".into(),
            documents: ending.documents.clone(),
            ending,
        };
        let change = Change::Orphan(Box::new(record));
        let job = key.job;
        let own = node.clone();
        let written = self.dispatch.ask_with(move |core, now| {
            core.late(now, &own, job);
            ((), vec![change])
        });
        match written.await {
            Ok(()) => Some((node, key)),
            Err(refusal) => {
                tracing::warn!(%refusal, "a late result is not kept yet");
                None
            }
        }
    }
}
