//! Who holds which isolated CPU: pure bookkeeping, no file, no clock, no engine.
//!
//! Invariant: no CPU is held by two claims at once ([`Ledger::take`] is the only way to hold one).
//! A claim belongs to one container (or host process). It *holds* CPUs while that runs, and from
//! its creation to its start, so that `docker run` (create, then start) finds at start what it
//! was promised at create. A stopped container holds nothing. Time passes outside: it is the
//! reconciliation that ends a reservation nobody used.

use std::collections::BTreeMap;
use std::time::Duration;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

/// How long a created container that does not start keeps its CPUs. `docker run` starts within
/// milliseconds; two minutes cover a slow client without letting forgotten containers block CPUs.
pub const RESERVATION: Duration = Duration::from_secs(120);

/// Names a claim; also the last part of its cgroup's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// A name nobody can guess, 128 random bits in hexadecimal: whoever finds a way to name a
    /// cgroup past the proxy still cannot name a partition.
    ///
    /// # Panics
    /// When the kernel has no random bytes, which getrandom(2) excludes once a machine has booted.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("getrandom(2) works on every Linux since 3.17");
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Exactly these CPUs.
    Exact(CpuSet),
    /// That many, the ledger chooses.
    Count(u32),
}

/// Who runs under a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Holder {
    Container {
        id: Option<String>,
        name: Option<String>,
    },
    Process {
        id: String,
    },
    /// The node itself, trying whether it sees what disturbs a CPU.
    SelfTest,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container { id, name } => {
                let id = id.as_deref().map(|id| id.get(..12).unwrap_or(id));
                match (name, id) {
                    (Some(name), Some(id)) => write!(f, "container {name} ({id})"),
                    (Some(name), None) => write!(f, "container {name} (being created)"),
                    (None, Some(id)) => write!(f, "container {id}"),
                    (None, None) => write!(f, "a container being created"),
                }
            }
            Self::Process { id } => write!(f, "host process {id}"),
            Self::SelfTest => f.write_str("the node's self-test"),
        }
    }
}

/// Whether a claim holds its CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Created or about to start, since this time since boot; ended by reconciliation when it
    /// lasts longer than [`RESERVATION`].
    Reserved {
        since: Duration,
    },
    Running,
    Stopped,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub wish: Wish,
    /// NUMA nodes asked for; `None`: those of the CPUs.
    pub wish_mems: Option<CpuSet>,
    pub holder: Holder,
    pub hold: Hold,
    /// The CPUs held now, or last.
    pub cpus: CpuSet,
    /// The NUMA nodes memory comes from.
    pub mems: CpuSet,
}

/// Why CPUs cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "CPU {cpus} is held by {holder}: a claim is exclusive; wait for it to end, stop it, or choose among the free isolated CPUs ({free})"
    )]
    Taken {
        cpus: CpuSet,
        holder: Holder,
        free: String,
    },
    #[error(
        "{asked} isolated CPUs were asked for and {free_count} are free ({free}); held: {held}; wait for a container to end or ask for fewer"
    )]
    TooFew {
        asked: u32,
        free_count: usize,
        free: String,
        held: String,
    },
    #[error("CPUs {cpus} are not isolated on this node (isolated: {isolated})")]
    NotIsolated { cpus: CpuSet, isolated: CpuSet },
    #[error(
        "CPUs {cpus} are isolated by isolcpus=, where the kernel never spreads threads over several CPUs: pin one CPU per container, or boot with nohz_full= and without isolcpus=domain"
    )]
    NotSpread { cpus: CpuSet },
    #[error("NUMA nodes {mems} are not all present on this node (present: {present})")]
    NoSuchNode { mems: CpuSet, present: CpuSet },
    #[error("claim {0} is not known")]
    Unknown(String),
}

/// What the ledger hands out from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    pub isolated: CpuSet,
    /// Those of them that the kernel took out of load balancing at boot (`isolcpus=domain`): good
    /// for one CPU at a time.
    pub boot_isolated: CpuSet,
    /// CPUs of each NUMA node.
    pub nodes: BTreeMap<u32, CpuSet>,
}

/// All claims of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    pool: Pool,
    claims: BTreeMap<Token, Claim>,
}

impl Ledger {
    /// Replaces the pool (after tuning changed it); existing claims stay.
    pub fn set_pool(&mut self, pool: Pool) {
        self.pool = pool;
    }

    /// Whether CPUs are outside of load balancing since boot.
    #[must_use]
    pub fn boot_isolated(&self, cpus: &CpuSet) -> bool {
        !cpus.is_disjoint(&self.pool.boot_isolated)
    }

    #[must_use]
    pub fn claims(&self) -> &BTreeMap<Token, Claim> {
        &self.claims
    }

    /// Puts back a claim read from disk, as it was.
    pub fn readopt(&mut self, token: Token, claim: Claim) {
        self.claims.insert(token, claim);
    }

    /// Makes a claim and takes its CPUs.
    ///
    /// # Errors
    /// [`Refusal`]; nothing changes then.
    pub fn open(
        &mut self,
        token: Token,
        wish: Wish,
        wish_mems: Option<CpuSet>,
        holder: Holder,
        now: Duration,
    ) -> Result<&Claim, Refusal> {
        let hold = Hold::Stopped;
        let (cpus, mems) = (CpuSet::new(), CpuSet::new());
        let claim = Claim {
            wish,
            wish_mems,
            holder,
            hold,
            cpus,
            mems,
        };
        self.claims.insert(token.clone(), claim);
        if let Err(refusal) = self.take(&token, now) {
            self.claims.remove(&token);
            return Err(refusal);
        }
        Ok(&self.claims[&token])
    }

    /// Takes the CPUs of an existing claim (again), before its container starts or restarts.
    ///
    /// # Errors
    /// [`Refusal`]; the claim is unchanged then.
    pub fn take(&mut self, token: &Token, now: Duration) -> Result<&Claim, Refusal> {
        let claim = self
            .claims
            .get(token)
            .ok_or_else(|| Refusal::Unknown(token.0.clone()))?;
        let keeps = claim.holds();
        let cpus = if keeps {
            claim.cpus.clone()
        } else {
            self.choose(token, &claim.wish)?
        };
        let mems = self.mems_for(&cpus, claim.wish_mems.as_ref())?;
        let claim = self
            .claims
            .get_mut(token)
            .expect("looked up above, under the same &mut");
        claim.cpus = cpus;
        claim.mems = mems;
        // also when it runs: a restart is a stop and a start, and nobody may come in between
        claim.hold = Hold::Reserved { since: now };
        Ok(claim)
    }

    pub fn set_hold(&mut self, token: &Token, hold: Hold) {
        if let Some(claim) = self.claims.get_mut(token) {
            claim.hold = hold;
        }
    }

    pub fn set_container(&mut self, token: &Token, container: &str) {
        if let Some(Claim {
            holder: Holder::Container { id, .. },
            ..
        }) = self.claims.get_mut(token)
        {
            *id = Some(container.to_owned());
        }
    }

    pub fn close(&mut self, token: &Token) -> Option<Claim> {
        self.claims.remove(token)
    }

    /// Isolated CPUs that nobody holds, leaving out `except`'s own.
    fn free(&self, except: &Token) -> CpuSet {
        self.claims
            .iter()
            .filter(|(token, claim)| *token != except && claim.holds())
            .fold(self.pool.isolated.clone(), |free, (_, claim)| {
                free.difference(&claim.cpus)
            })
    }

    fn choose(&self, token: &Token, wish: &Wish) -> Result<CpuSet, Refusal> {
        let free = self.free(token);
        match wish {
            Wish::Exact(cpus) => {
                if cpus.is_empty() || !cpus.is_subset(&self.pool.isolated) {
                    return Err(Refusal::NotIsolated {
                        cpus: cpus.difference(&self.pool.isolated),
                        isolated: self.pool.isolated.clone(),
                    });
                }
                if cpus.len() > 1 && self.boot_isolated(cpus) {
                    return Err(Refusal::NotSpread {
                        cpus: cpus.intersection(&self.pool.boot_isolated),
                    });
                }
                let taken = cpus.difference(&free);
                let Some(first) = taken.first() else {
                    return Ok(cpus.clone());
                };
                let holder = self
                    .claims
                    .iter()
                    .find(|(other, claim)| {
                        *other != token && claim.holds() && claim.cpus.contains(first)
                    })
                    .map(|(_, claim)| claim.holder.clone())
                    .expect("a CPU that is not free is held by some claim");
                Err(Refusal::Taken {
                    cpus: taken,
                    holder,
                    free: listed(&free),
                })
            }
            Wish::Count(count) => {
                let spread = self.pool.isolated.difference(&self.pool.boot_isolated);
                if *count > 1 && spread.len() < *count as usize && self.boot_isolated(&free) {
                    return Err(Refusal::NotSpread {
                        cpus: self.pool.boot_isolated.clone(),
                    });
                }
                let usable = if *count > 1 {
                    free.intersection(&spread)
                } else {
                    free
                };
                self.pick(&usable, *count).ok_or_else(|| Refusal::TooFew {
                    asked: *count,
                    free_count: usable.len(),
                    free: listed(&usable),
                    held: self.held_text(),
                })
            }
        }
    }

    /// `count` CPUs of one NUMA node if one has them (the node with the fewest free ones that
    /// suffice, so that large gaps stay whole), else the lowest free ones.
    fn pick(&self, free: &CpuSet, count: u32) -> Option<CpuSet> {
        let count = count as usize;
        if count == 0 || free.len() < count {
            return None;
        }
        let local = self
            .pool
            .nodes
            .values()
            .map(|cpus| cpus.intersection(free))
            .filter(|cpus| cpus.len() >= count)
            .min_by_key(CpuSet::len);
        Some(local.as_ref().unwrap_or(free).iter().take(count).collect())
    }

    fn mems_for(&self, cpus: &CpuSet, wish: Option<&CpuSet>) -> Result<CpuSet, Refusal> {
        let present: CpuSet = self.pool.nodes.keys().copied().collect();
        if let Some(mems) = wish {
            if mems.is_empty() || !mems.is_subset(&present) {
                return Err(Refusal::NoSuchNode {
                    mems: mems.clone(),
                    present,
                });
            }
            return Ok(mems.clone());
        }
        Ok(self
            .pool
            .nodes
            .iter()
            .filter(|(_, node)| !node.is_disjoint(cpus))
            .map(|(node, _)| *node)
            .collect())
    }

    fn held_text(&self) -> String {
        let held: Vec<String> = self
            .claims
            .values()
            .filter(|claim| claim.holds())
            .map(|claim| format!("{} by {}", claim.cpus, claim.holder))
            .collect();
        if held.is_empty() {
            "none".into()
        } else {
            held.join(", ")
        }
    }
}

impl Claim {
    /// Whether the CPUs belong to this claim.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.hold != Hold::Stopped
    }
}

fn listed(cpus: &CpuSet) -> String {
    if cpus.is_empty() {
        "none".into()
    } else {
        cpus.to_string()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
