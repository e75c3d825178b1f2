//! Images: what `docker save` wrote, by the digest that the engines know them by.
//!
//! A name is looked up when a job is submitted, once for all of its runs. Before a node is told of a
//! job, it is given the job's image if it has not got it, so nothing is loaded while something is
//! measured.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::image::ImageView;
use api::work::{Order, Report};
use bytes::Bytes;
use futures_util::Stream;
use serde_json::Value;
use store::{Change, Digest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::desk::Caller;
use crate::dispatch::Dispatch;
use crate::fleet::Fleet;
use crate::lifecycle::{Core, Instruction};
use crate::refusal::{Kind, Refusal};
use crate::relay::Relay;
use crate::vault::{Ensured, ImageIndex, ImageRecord, PushError, PutError, Vault};

/// The store's name for the list of images.
pub const SETTING: &str = "images";
/// Longest archive, bytes.
const LONGEST: u64 = 64 << 30;
/// A node that is being sent an image is not late; so often that is said.
const STILL: Duration = Duration::from_secs(5);

/// All images, and how they get to nodes.
pub struct Stock {
    index: Mutex<ImageIndex>,
    vault: Vault,
    relay: Relay,
    dispatch: Dispatch,
    fleet: Arc<Fleet>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock").finish_non_exhaustive()
    }
}

/// What a stock works with.
#[derive(Debug)]
pub struct Parts {
    pub vault: Vault,
    pub relay: Relay,
    pub dispatch: Dispatch,
    pub fleet: Arc<Fleet>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl Stock {
    /// With the list that the store has.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn new(parts: Parts, kept: Option<&Value>) -> Result<Arc<Self>, serde_json::Error> {
        let kept = kept
            .cloned()
            .map(serde_json::from_value::<Vec<ImageRecord>>);
        let index = kept.transpose()?.unwrap_or_default().into_iter().collect();
        let Parts {
            vault,
            relay,
            dispatch,
            fleet,
            tasks,
            stop,
        } = parts;
        Ok(Arc::new(Self {
            index: Mutex::new(index),
            vault,
            relay,
            dispatch,
            fleet,
            tasks,
            stop,
        }))
    }

    fn index(&self) -> MutexGuard<'_, ImageIndex> {
        self.index.lock().expect("nothing panics while it holds it")
    }

    /// The id that a name or id stands for now; `None`: it is not here, and nodes may have their own.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<String> {
        self.index().resolve(name).map(|image| image.id.clone())
    }

    /// What the vault must keep for them.
    #[must_use]
    pub fn objects(&self) -> HashSet<Digest> {
        self.index().objects()
    }

    #[must_use]
    pub fn list(&self) -> Vec<ImageView> {
        self.index().iter().flat_map(ImageRecord::views).collect()
    }

    /// Takes an archive in; shows the first of its images.
    ///
    /// # Errors
    /// Invalid, too large, no space, store.
    pub async fn push(
        &self,
        caller: &Caller,
        archive: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<ImageView, Refusal> {
        let now = self.dispatch.clock().now();
        let pushed = self
            .vault
            .push_images(LONGEST, archive, &caller.user, now)
            .await;
        let records = pushed.map_err(|error| not_taken(&error))?;
        let first = records
            .first()
            .and_then(|record| record.views().into_iter().next());
        let list = {
            let mut index = self.index();
            for record in records {
                index.add(record);
            }
            serde_json::json!(index.iter().collect::<Vec<_>>())
        };
        let change = Change::Setting {
            name: SETTING.into(),
            value: list,
        };
        self.dispatch
            .ask_with(move |_core, _now| ((), vec![change]))
            .await?;
        first.ok_or_else(|| Refusal::new(Kind::Invalid, "the archive holds no image"))
    }

    /// Gives a node what it needs for an order, then the order.
    pub fn deliver(self: &Arc<Self>, instruction: Instruction) {
        let image = match &instruction.order {
            Order::Assign(assignment) => assignment.request.image.clone(),
            _ => None,
        };
        let image = image.and_then(|image| self.index().resolve(&image).cloned());
        let Some(image) = image else {
            self.fleet.deliver(instruction);
            return;
        };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.clone().load_then_deliver(&image, instruction) => {}
            }
        });
    }

    async fn load_then_deliver(self: Arc<Self>, image: &ImageRecord, instruction: Instruction) {
        let Order::Assign(assignment) = &instruction.order else {
            return;
        };
        let (node, key) = (instruction.node.clone(), assignment.key);
        let loaded = {
            let load = self.vault.ensure_image(&self.relay, &node, image);
            tokio::pin!(load);
            loop {
                tokio::select! {
                    loaded = &mut load => break loaded,
                    () = tokio::time::sleep(STILL) => {
                        let node = node.clone();
                        let still = move |core: &mut Core, now| core.still_sending(now, &node, key);
                        self.dispatch.tell(still).await;
                    }
                }
            }
        };
        match loaded {
            Ok(Ensured::AlreadyThere) => self.fleet.deliver(instruction),
            Ok(Ensured::Loaded { bytes, spared }) => {
                let data = serde_json::json!({
                    "image": image.id, "bytes": bytes, "of": image.bytes, "layers_there": spared,
                });
                let told = node.clone();
                let tell = move |core: &mut Core, now| core.image_sent(now, &told, key.job, data);
                self.dispatch.tell(tell).await;
                self.fleet.deliver(instruction);
            }
            Err(error) => {
                let why = format!("its image could not be loaded: {}", crate::chain(&error));
                tracing::warn!(%node, job = %key.job, why, "assignment not sent");
                let session = instruction.session;
                let refused = Report::Refused {
                    key,
                    why,
                    elsewhere: true,
                };
                let tell = move |core: &mut Core, now| core.reported(now, &node, session, refused);
                self.dispatch.tell(tell).await;
            }
        }
    }
}

fn not_taken(error: &PushError) -> Refusal {
    let (kind, next) = match error {
        PushError::Archive(_) => (Kind::Invalid, "send what `docker save NAME` writes"),
        PushError::Put(PutError::Source(_)) => (Kind::Invalid, "send it again, to its end"),
        PushError::Put(PutError::TooLong { .. }) => (Kind::TooLarge, "send a smaller image"),
        PushError::Put(error) if error.is_full() => (
            Kind::StoreFull,
            "free space where the controller keeps its state",
        ),
        PushError::Put(_) => (Kind::Internal, "see the controller's log"),
    };
    Refusal::new(kind, crate::chain(error)).next(next)
}
