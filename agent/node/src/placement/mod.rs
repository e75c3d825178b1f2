//! Placement: which container runs on which isolated CPU, made true with cpuset partitions.
//!
//! The engine cannot place into a partition itself (it refuses CPUs that a partition took,
//! quiet.md §2.3), so a pinned container gets `CgroupParent=/stillmetal-<token>` at create; the
//! partition of that name is made right before it starts and goes away when it ended. Decisions
//! are the [`ledger`]'s; this module keeps ledger, records, partitions and engine in agreement.

pub mod containers;
pub mod ledger;
mod reconcile;
pub mod records;
pub mod spread;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use cpulist::CpuSet;
use futures_util::future::BoxFuture;
use host::Tree;
use policy::{Certify, CpuChoice, Denial, NodeFacts, Pin};
use quiet::Action;
use stillmetal_proxy::{Claimed, Placement};

use crate::certify::RUNTIME;
use crate::cgroups;
use containers::{Containers, ContainersError};
use ledger::{Holder, Ledger, Pool, Refusal, Token, Wish};
use records::{Asked, Record, RecordError, Records};

/// Notes kept of all claims together.
const NOTES: usize = 1024;

/// Keeps the promises of the ledger.
pub struct Placer {
    books: Mutex<Books>,
    facts: RwLock<NodeFacts>,
    tree: Arc<dyn Tree>,
    engine: Arc<dyn Containers>,
    /// Time since boot; a seam for tests.
    clock: fn() -> Duration,
    /// Names the next claim; a seam for tests.
    name: fn() -> Token,
    /// Claims become cpuset partitions; if not, they are only kept account of.
    partitions: bool,
}

/// What changes together.
struct Books {
    ledger: Ledger,
    records: Records,
    asked: HashMap<Token, Asked>,
    /// When each claim last changed: a list of containers older than that says nothing about it.
    touched: HashMap<Token, Duration>,
    /// Claims that stay as they are when their container ends, and for how many reasons: its run is
    /// still being measured, another of its series is to follow.
    kept: HashMap<Token, usize>,
    /// What the node did on a claim's CPUs while it held them, newest last.
    notes: VecDeque<(Token, Action)>,
}

impl std::fmt::Debug for Placer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placer")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Placer {
    /// Reads back the claims that an earlier agent kept in `records_dir`.
    ///
    /// # Errors
    /// [`RecordError`] when the directory cannot be made or listed.
    pub fn open(
        records_dir: &Path,
        tree: Arc<dyn Tree>,
        engine: Arc<dyn Containers>,
        clock: fn() -> Duration,
        name: fn() -> Token,
    ) -> Result<Self, RecordError> {
        let records = Records::open(records_dir)?;
        let mut books = Books {
            ledger: Ledger::default(),
            asked: HashMap::new(),
            touched: HashMap::new(),
            kept: HashMap::new(),
            notes: VecDeque::new(),
            records,
        };
        for (token, record) in books.records.load()? {
            books.asked.insert(token.clone(), record.asked);
            books.ledger.readopt(token, record.claim);
        }
        Ok(Self {
            books: Mutex::new(books),
            facts: RwLock::new(NodeFacts::default()),
            tree,
            engine,
            clock,
            name,
            partitions: true,
        })
    }

    /// On a host where no CPU is set apart: claims are kept account of, and nothing else.
    #[must_use]
    pub fn without_partitions(self) -> Self {
        Self {
            partitions: false,
            ..self
        }
    }

    /// Sets what there is to hand out, once tuning knows it.
    pub fn set_facts(&self, facts: NodeFacts, pool: Pool) {
        *self.facts.write().unwrap_or_else(PoisonError::into_inner) = facts;
        self.books().ledger.set_pool(pool);
    }

    /// Takes CPUs for a host process and makes its partition.
    ///
    /// # Errors
    /// A [`Denial`] that names the holder or the reason.
    pub async fn claim_process(&self, wish: Wish, id: &str) -> Result<(Token, CpuSet), Denial> {
        self.claim_own(wish, Holder::Process { id: id.to_owned() })
            .await
    }

    /// Takes CPUs for something that the agent itself runs, and makes their partition.
    ///
    /// # Errors
    /// A [`Denial`] that names the holder or the reason.
    pub(crate) async fn claim_own(
        &self,
        wish: Wish,
        holder: Holder,
    ) -> Result<(Token, CpuSet), Denial> {
        self.refuse_if_unfit()?;
        let token = self
            .open_claim(wish, None, holder, Asked::default(), None)
            .await?;
        let cpus = match self.make_partition(&token) {
            Ok(cpus) => cpus,
            Err(denial) => {
                self.release(&token);
                return Err(denial);
            }
        };
        self.books().change(&token, (self.clock)(), |ledger| {
            ledger.set_hold(&token, ledger::Hold::Running);
        });
        Ok((token, cpus))
    }

    /// Ends a claim and its partition; what still runs in it is killed.
    pub fn release(&self, token: &Token) {
        let mut books = self.books();
        books.forget(token);
        self.drop_partition(token);
    }

    /// Begins the reservation of a claim anew whose container was made and not started.
    pub fn renew(&self, token: &Token) {
        let now = (self.clock)();
        self.books().change(token, now, |ledger| {
            let reserved = ledger.claims().get(token).map(|claim| claim.hold);
            if let Some(ledger::Hold::Reserved { .. }) = reserved {
                ledger.set_hold(token, ledger::Hold::Reserved { since: now });
            }
        });
    }

    /// Keeps a claim and its partition even when its container ends, until [`Placer::let_go`] was
    /// called as often as this.
    pub fn keep(&self, token: &Token) {
        *self.books().kept.entry(token.clone()).or_default() += 1;
    }

    /// Ends one [`Placer::keep`], and frees the CPUs if it was the last and the container has ended.
    pub async fn let_go(&self, token: &Token) {
        self.books().let_go(token);
        self.reconcile().await;
    }

    /// A claim for a container, in place of an earlier one whose container has ended: nobody else
    /// gets the CPUs in between.
    ///
    /// # Errors
    /// A [`Denial`] that names the holder or the reason; `earlier` is gone all the same.
    pub async fn claim_container(
        &self,
        pin: &Pin,
        name: Option<&str>,
        earlier: Option<&Token>,
    ) -> Result<Claimed, Denial> {
        self.refuse_if_unfit()?;
        let wish = match &pin.cpus {
            CpuChoice::Exact(cpus) => Wish::Exact(cpus.clone()),
            CpuChoice::Count(count) => Wish::Count(*count),
        };
        let holder = Holder::Container {
            id: None,
            name: name.map(str::to_owned),
        };
        let asked = Asked {
            cpuset_cpus: pin.asked_cpuset_cpus.clone(),
            cpuset_mems: pin.asked_cpuset_mems.clone(),
            certify: pin.certify.clone(),
        };
        let mems = pin.mems.clone();
        let token = self.open_claim(wish, mems, holder, asked, earlier).await?;
        let cgroup_parent = format!("/{}", cgroups::partition_name(&token));
        Ok(Claimed {
            cgroup_parent,
            runtime: pin.certify.as_ref().map(|_| RUNTIME),
            token: token.0,
        })
    }

    /// CPUs for a container on a host where none is set apart, in place of an earlier claim.
    ///
    /// # Errors
    /// A [`Denial`] that names the holder or the reason; `earlier` is gone all the same.
    pub(crate) async fn claim_unproven(
        &self,
        wish: Wish,
        name: &str,
        earlier: Option<&Token>,
    ) -> Result<(Token, CpuSet), Denial> {
        let holder = Holder::Container {
            id: None,
            name: Some(name.to_owned()),
        };
        let opened = self.open_claim(wish, None, holder, Asked::default(), earlier);
        let token = opened.await?;
        let own = self.claims().into_iter().find(|(other, _)| *other == token);
        Ok((token, own.map(|(_, claim)| claim.cpus).unwrap_or_default()))
    }

    /// Whether no run is being measured, besides that of `token` if there is one.
    #[must_use]
    pub fn measures_only(&self, token: Option<&Token>) -> bool {
        self.books().kept.keys().all(|kept| Some(kept) == token)
    }

    /// Keeps account of something that the node did on a claim's CPUs.
    pub fn note(&self, token: &Token, what: String) {
        tracing::info!(%what, "done on a claim's CPUs");
        let mut books = self.books();
        if books.notes.len() == NOTES {
            books.notes.pop_front();
        }
        let at_ns = crate::certify::raw_ns();
        let action = Action { at_ns, what };
        books.notes.push_back((token.clone(), action));
    }

    /// [`Placer::note`], for each claim that holds one of these CPUs.
    pub fn note_on(&self, cpus: &CpuSet, what: &str) {
        for (token, claim) in self.claims() {
            if claim.holds() && !claim.cpus.is_disjoint(cpus) {
                self.note(&token, what.to_owned());
            }
        }
    }

    /// All of those, of one claim.
    #[must_use]
    pub fn notes(&self, token: &Token) -> Vec<Action> {
        let books = self.books();
        let own = books.notes.iter().filter(|(other, _)| other == token);
        own.map(|(_, action)| action.clone()).collect()
    }

    /// How runs of a claim's container are measured; `None`: they are not.
    #[must_use]
    pub fn certify(&self, token: &Token) -> Option<Certify> {
        self.books().asked.get(token)?.certify.clone()
    }

    /// Whether there is any container whose runs are measured.
    #[must_use]
    pub fn certifies(&self) -> bool {
        let books = self.books();
        books.asked.values().any(|asked| asked.certify.is_some())
    }

    /// The claim that a container was created with, and the container's id.
    pub async fn claim_of(&self, id_or_name: &str) -> Option<(Token, String)> {
        let seen = self.engine.inspect(id_or_name).await.ok()?;
        Some((seen.token()?, seen.id))
    }

    /// Claims as they are, for the node's report.
    #[must_use]
    pub fn claims(&self) -> Vec<(Token, ledger::Claim)> {
        let books = self.books();
        books
            .ledger
            .claims()
            .iter()
            .map(|(token, claim)| (token.clone(), claim.clone()))
            .collect()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every critical section leaves the books consistent at each step, so a panic in one does
        // not make them unusable.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Then no container can be one of a claim, and the engine need not be asked.
    fn nobody_claims(&self) -> bool {
        self.books().ledger.claims().is_empty()
    }

    fn refuse_if_unfit(&self) -> Result<(), Denial> {
        let facts = self.facts.read().unwrap_or_else(PoisonError::into_inner);
        match &facts.unfit {
            Some(reason) => Err(Denial {
                status: 409,
                message: format!("node unfit: {reason}: pinned work is refused"),
            }),
            None => Ok(()),
        }
    }

    /// Opens a claim in place of an earlier one; on a conflict asks the engine whether the holder
    /// still runs, once.
    async fn open_claim(
        &self,
        wish: Wish,
        mems: Option<CpuSet>,
        holder: Holder,
        asked: Asked,
        earlier: Option<&Token>,
    ) -> Result<Token, Denial> {
        let attempt = || {
            let now = (self.clock)();
            let token = (self.name)();
            let mut books = self.books();
            if let Some(earlier) = earlier {
                books.forget(earlier);
                self.drop_partition(earlier);
            }
            books.open(
                token,
                wish.clone(),
                mems.clone(),
                holder.clone(),
                asked.clone(),
                now,
            )
        };
        let first = attempt();
        if matches!(first, Err(Refusal::Taken { .. } | Refusal::TooFew { .. })) {
            self.reconcile().await;
            return attempt().map_err(|refusal| denial(&refusal));
        }
        first.map_err(|refusal| denial(&refusal))
    }

    async fn take_for_start(&self, token: &Token) -> Result<(), Denial> {
        if self.books().kept.contains_key(token) {
            return Err(Denial {
                status: 409,
                message:
                    "the container's last run is not over (it runs, or the canary after it does): \
                          wait until its certificate is there, then start it again"
                        .into(),
            });
        }
        let attempt = || {
            let now = (self.clock)();
            self.books().change(token, now, |ledger| {
                ledger.take(token, now).map(|_claim| ())
            })
        };
        let mut taken = attempt();
        if matches!(taken, Err(Refusal::Taken { .. } | Refusal::TooFew { .. })) {
            self.reconcile().await;
            taken = attempt();
        }
        taken.map_err(|refusal| denial(&refusal))?;
        self.make_partition(token).map(|_cpus| ())
    }

    fn make_partition(&self, token: &Token) -> Result<CpuSet, Denial> {
        let books = self.books();
        let Some(claim) = books.ledger.claims().get(token) else {
            return Err(denial(&Refusal::Unknown(token.0.clone())));
        };
        if !self.partitions {
            return Ok(claim.cpus.clone());
        }
        let name = cgroups::partition_name(token);
        let made = if books.ledger.boot_isolated(&claim.cpus) {
            cgroups::make_member(&*self.tree, &name, &claim.cpus, &claim.mems)
        } else {
            cgroups::make_partition(&*self.tree, &name, &claim.cpus, &claim.mems)
        };
        made.map_err(|error| {
            tracing::error!(%name, error = %crate::chain(&error), "partition");
            Denial {
                status: 500,
                message: format!(
                    "CPUs {} could not be set apart: {}; the container was not started",
                    claim.cpus,
                    crate::chain(&error)
                ),
            }
        })?;
        Ok(claim.cpus.clone())
    }

    fn drop_partition(&self, token: &Token) {
        if !self.partitions {
            return;
        }
        let name = cgroups::partition_name(token);
        if let Err(error) = cgroups::remove_partition(&*self.tree, &name) {
            tracing::warn!(%name, error = %crate::chain(&error), "partition stays for now");
        }
    }
}

impl Books {
    fn open(
        &mut self,
        token: Token,
        wish: Wish,
        mems: Option<CpuSet>,
        holder: Holder,
        asked: Asked,
        now: Duration,
    ) -> Result<Token, Refusal> {
        self.ledger.open(token.clone(), wish, mems, holder, now)?;
        self.asked.insert(token.clone(), asked);
        self.keep(&token, now);
        Ok(token)
    }

    /// Changes a claim and keeps it on disk.
    fn change<T>(&mut self, token: &Token, now: Duration, act: impl FnOnce(&mut Ledger) -> T) -> T {
        let result = act(&mut self.ledger);
        self.keep(token, now);
        result
    }

    fn keep(&mut self, token: &Token, now: Duration) {
        self.touched.insert(token.clone(), now);
        let Some(claim) = self.ledger.claims().get(token) else {
            return;
        };
        let record = Record {
            claim: claim.clone(),
            asked: self.asked.get(token).cloned().unwrap_or_default(),
        };
        if let Err(error) = self.records.save(token, &record) {
            // The claim still holds in this process; only a killed agent would forget it, and
            // then finds the container again through its cgroup.
            tracing::error!(error = %crate::chain(&error), "a claim could not be kept");
        }
    }

    fn let_go(&mut self, token: &Token) {
        if let Some(reasons) = self.kept.get_mut(token) {
            *reasons -= 1;
            if *reasons == 0 {
                self.kept.remove(token);
            }
        }
    }

    fn forget(&mut self, token: &Token) {
        self.kept.remove(token);
        self.ledger.close(token);
        self.asked.remove(token);
        self.touched.remove(token);
        self.records.remove(token);
    }
}

impl Placement for Placer {
    fn facts(&self) -> NodeFacts {
        self.facts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn claim<'a>(
        &'a self,
        pin: &'a Pin,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Claimed, Denial>> {
        Box::pin(self.claim_container(pin, name, None))
    }

    fn created<'a>(&'a self, token: &'a str, container_id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let token = Token(token.to_owned());
            self.books().change(&token, (self.clock)(), |ledger| {
                ledger.set_container(&token, container_id);
            });
        })
    }

    fn abandoned<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // If the engine made the container after all, reconciling finds it by its cgroup.
            self.release(&Token(token.to_owned()));
        })
    }

    fn starting<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<(), Denial>> {
        Box::pin(async move {
            if self.nobody_claims() {
                return Ok(());
            }
            let seen = match self.engine.inspect(id_or_name).await {
                Ok(seen) => seen,
                // the engine answers the start itself, with its own words
                Err(ContainersError::NoSuch { .. }) => return Ok(()),
                Err(error) => {
                    return Err(Denial {
                        status: 503,
                        message: crate::chain(&error),
                    });
                }
            };
            let Some(token) = seen.token() else {
                return Ok(());
            };
            self.take_for_start(&token).await
        })
    }

    fn started<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.nobody_claims() {
                return;
            }
            if let Ok(seen) = self.engine.inspect(id_or_name).await
                && let Some(token) = seen.token()
            {
                self.books().change(&token, (self.clock)(), |ledger| {
                    ledger.set_hold(&token, ledger::Hold::Running);
                });
            }
            // it may have ended already, or never have started: then the CPUs are free again
            self.reconcile().await;
        })
    }

    fn restore_view(&self, inspect: &mut serde_json::Value) {
        let Some(host_config) = inspect
            .get_mut("HostConfig")
            .and_then(|h| h.as_object_mut())
        else {
            return;
        };
        let Some(token) = host_config
            .get("CgroupParent")
            .and_then(serde_json::Value::as_str)
            .and_then(cgroups::token_of)
        else {
            return;
        };
        let asked = self.books().asked.get(&token).cloned().unwrap_or_default();
        for (key, value) in [
            ("CgroupParent", String::new()),
            ("CpusetCpus", asked.cpuset_cpus),
            ("CpusetMems", asked.cpuset_mems),
            ("Runtime", "runc".to_owned()),
        ] {
            host_config.insert(key.into(), value.into());
        }
    }
}

fn denial(refusal: &Refusal) -> Denial {
    let status = match refusal {
        Refusal::Taken { .. } | Refusal::TooFew { .. } | Refusal::NotSpread { .. } => 409,
        Refusal::NotIsolated { .. } | Refusal::NoSuchNode { .. } => 400,
        Refusal::Unknown(_) => 500,
    };
    Denial {
        status,
        message: refusal.to_string(),
    }
}

#[cfg(test)]
mod tests;
