//! Brings claims and partitions in line with what the engine says exists and runs.
//!
//! It runs at start (re-adoption after the agent was killed), when a container ends, now and then,
//! and before a conflict is reported, so that nobody is refused because of a container that is
//! gone. It only ever acts on claims that did not change since the list was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Placer;
use super::containers::Seen;
use super::ledger::{Claim, Hold, Holder, RESERVATION, Token, Wish};
use super::records::Asked;
use crate::cgroups;

/// What to do about one claim: decided without touching anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Keep,
    MarkRunning,
    /// It ended: the CPUs are free, the partition goes.
    Stop,
    /// The container is gone: the claim goes too.
    Forget,
}

/// Pure: one claim against what the engine shows of its container.
pub(super) fn decide(claim: &Claim, seen: Option<&Seen>, now: Duration) -> Act {
    if matches!(claim.holder, Holder::Process { .. } | Holder::SelfTest) {
        return Act::Keep;
    }
    let created = matches!(&claim.holder, Holder::Container { id: Some(_), .. });
    match (claim.hold, seen) {
        (Hold::Reserved { .. }, None) if created => Act::Forget,
        // being created or about to (re)start: the proxy says when that is over
        (Hold::Reserved { since }, _) if now.saturating_sub(since) <= RESERVATION => Act::Keep,
        (_, None) => Act::Forget,
        (Hold::Running, Some(seen)) if seen.alive => Act::Keep,
        (_, Some(seen)) if seen.alive => Act::MarkRunning,
        (Hold::Stopped, Some(_)) => Act::Keep,
        (_, Some(_)) => Act::Stop,
    }
}

impl Placer {
    /// [`Placer::reconcile`], when there is anything to reconcile: a node without claims leaves
    /// the engine in peace.
    pub async fn reconcile_if_claimed(&self) {
        if !self.claims().is_empty() {
            self.reconcile().await;
        }
    }

    /// See the module's documentation. An engine that does not answer changes nothing.
    pub async fn reconcile(&self) {
        let asked_at = (self.clock)();
        let seen = match self.engine.list().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "claims could not be reconciled");
                return;
            }
        };
        let by_token: BTreeMap<Token, Seen> = seen
            .into_iter()
            .filter_map(|seen| Some((seen.token()?, seen)))
            .collect();
        for id in self.settle(&by_token, asked_at) {
            tracing::error!(container = %id, "started by itself on CPUs that others hold: killed");
            if let Err(error) = self.engine.kill(&id).await {
                tracing::error!(error = %crate::chain(&error), "it could not be killed");
            }
        }
    }

    /// Applies the decisions; returns containers that run on CPUs that are not theirs.
    fn settle(&self, by_token: &BTreeMap<Token, Seen>, asked_at: Duration) -> Vec<String> {
        let now = (self.clock)();
        let mut intruders = Vec::new();
        let mut books = self.books();
        for (token, seen) in by_token {
            // without partitions it is another agent's at the same engine
            if self.partitions && seen.alive && !books.ledger.claims().contains_key(token) {
                self.readopt_from_cgroup(&mut books, token, seen, now);
            }
        }
        let claims: Vec<(Token, Claim)> = books
            .ledger
            .claims()
            .iter()
            .map(|(t, c)| (t.clone(), c.clone()))
            .collect();
        for (token, claim) in claims {
            let changed_since = books.touched.get(&token).is_some_and(|at| *at >= asked_at);
            if changed_since || books.kept.contains_key(&token) {
                continue;
            }
            match decide(&claim, by_token.get(&token), now) {
                Act::Keep => {}
                Act::MarkRunning => {
                    let taken = books.change(&token, now, |ledger| {
                        let taken = ledger.take(&token, now).map(|_claim| ());
                        if taken.is_ok() {
                            ledger.set_hold(&token, Hold::Running);
                        }
                        taken
                    });
                    if taken.is_err() {
                        intruders.extend(by_token.get(&token).map(|seen| seen.id.clone()));
                    }
                }
                Act::Stop => {
                    books.change(&token, now, |ledger| ledger.set_hold(&token, Hold::Stopped));
                    self.drop_partition(&token);
                }
                Act::Forget => {
                    books.forget(&token);
                    self.drop_partition(&token);
                }
            }
        }
        if !self.partitions {
            return intruders;
        }
        for token in cgroups::partitions(&*self.tree) {
            if books
                .ledger
                .claims()
                .get(&token)
                .is_none_or(|claim| !claim.holds())
            {
                self.drop_partition(&token);
            }
        }
        intruders
    }

    /// A running container of ours whose record is lost: its cgroup still says what it holds.
    fn readopt_from_cgroup(
        &self,
        books: &mut super::Books,
        token: &Token,
        seen: &Seen,
        now: Duration,
    ) {
        let name = cgroups::partition_name(token);
        let Some((cpus, mems)) = cgroups::partition_sets(&*self.tree, &name) else {
            tracing::error!(container = %seen.name, "its partition is gone");
            return;
        };
        let claim = Claim {
            wish: Wish::Exact(cpus.clone()),
            wish_mems: None,
            holder: Holder::Container {
                id: Some(seen.id.clone()),
                name: Some(seen.name.clone()),
            },
            hold: Hold::Running,
            cpus: cpus.clone(),
            mems,
        };
        books.asked.insert(
            token.clone(),
            Asked {
                cpuset_cpus: cpus.to_string(),
                ..Asked::default()
            },
        );
        books.ledger.readopt(token.clone(), claim);
        books.keep(token, now);
    }
}
