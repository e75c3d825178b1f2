//! The one task that writes: calls that wait together become one transaction.

mod call;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use call::{Call, Claim, Counters, LeaseCall};
use transaction::{Applied, Attempt, Transaction};

use crate::apply::Applier;
use crate::database::{Database, Fault, Link};
use crate::error::{failed, refused};
use crate::{CommitError, LeadError, Lease, Term, Unavailable};

/// Calls of one transaction at most.
const CALLS: usize = 256;
/// No more calls are added to a transaction of so many changes.
const CHANGES: usize = 8_192;
/// How long calls wait for others to come along, when there are others at all.
const LINGER: Duration = Duration::from_millis(2);
/// Between two tries to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// What comes to the writer.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) leases: mpsc::Receiver<LeaseCall>,
    pub(crate) stop: CancellationToken,
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Writer {
    database: Database,
    seen: watch::Sender<u64>,
    counters: Arc<Counters>,
    /// How long a call may take.
    patience: Duration,
    applier: Applier,
    link: Option<Link>,
    /// Calls of the last transaction.
    last_calls: usize,
}

impl Writer {
    pub(crate) fn new(
        database: Database,
        seen: watch::Sender<u64>,
        counters: Arc<Counters>,
        patience: Duration,
    ) -> Self {
        Self {
            applier: Applier::new(database.dialect()),
            database,
            seen,
            counters,
            patience,
            link: None,
            last_calls: 0,
        }
    }

    /// Until all handles are gone, or it is stopped and nothing waits any more.
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        loop {
            tokio::select! {
                biased;
                // a lease must not run out behind a queue of commits
                Some(call) = inbox.leases.recv() => self.lease(call).await,
                call = inbox.calls.recv() => match call {
                    Some(call) => self.commits(call, &mut inbox.calls).await,
                    None => break,
                },
                () = inbox.stop.cancelled(), if !inbox.calls.is_closed() => {
                    inbox.calls.close();
                    inbox.leases.close();
                }
            }
        }
        if let Some(link) = self.link.take()
            && let Err(error) = link.close().await
        {
            debug!(%error, "the writer's connection was not closed in good order");
        }
        self.database.close().await;
    }

    /// Serves a call, and those that wait with it.
    async fn commits(&mut self, first: Call, more: &mut mpsc::Receiver<Call>) {
        let group = gather(first, more, self.last_calls).await;
        self.last_calls = group.len();
        // the newest leader's: those of an older one are too late
        let Some(term) = group.iter().map(|call| call.term).max() else {
            return;
        };
        let (group, stale): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|call| call.term == term);
        for call in stale {
            let term = call.term;
            self.answer(call, Err(CommitError::NotLeader { term }));
        }
        let began = Instant::now();
        self.commit(term, group, began + self.patience).await;
        self.counters.busy(began.elapsed());
    }

    /// Answers all of them, at the deadline at the latest; when in doubt a little later.
    async fn commit(&mut self, term: Term, mut group: Vec<Call>, deadline: Instant) {
        let mut singly = false;
        while !group.is_empty() {
            match self.attempt(term, &group, singly, deadline).await {
                Attempt::Done(applied) => return self.done(group, applied),
                Attempt::NotLeader => {
                    return self.fail(group, || CommitError::NotLeader { term });
                }
                Attempt::Refused(refusal) if group.len() == 1 => {
                    let call = group.remove(0);
                    self.answer(call, Err(refused(refusal)));
                }
                Attempt::Refused(_) => singly = true,
                Attempt::InDoubt(reason) => {
                    warn!(%term, calls = group.len(), "a commit is in doubt");
                    return self.fail(group, || CommitError::InDoubt {
                        source: reason.clone(),
                    });
                }
                Attempt::Late => {
                    let source = Unavailable::Late(self.patience);
                    return self.fail(group, || CommitError::Unavailable {
                        source: source.clone(),
                    });
                }
                Attempt::Failed(Fault::Away(error)) if Instant::now() + PAUSE < deadline => {
                    debug!(%error, "the store is away: trying again");
                    sleep(PAUSE).await;
                }
                Attempt::Failed(fault) => return self.fail(group, || failed(fault.clone())),
            }
        }
    }

    async fn attempt(
        &mut self,
        term: Term,
        calls: &[Call],
        singly: bool,
        deadline: Instant,
    ) -> Attempt {
        let transaction = Transaction {
            database: &self.database,
            term,
            calls,
            singly,
            deadline,
            patience: self.patience,
        };
        let attempt = transaction.run(&mut self.link, &mut self.applier).await;
        if let Attempt::Done(_) = attempt {
            self.counters.transaction();
        }
        attempt
    }

    fn done(&self, group: Vec<Call>, applied: Applied) {
        let last = applied.last_event.unsigned_abs();
        self.seen.send_if_modified(|seen| {
            let news = last > *seen;
            *seen = last.max(*seen);
            news
        });
        for (call, outcome) in group.into_iter().zip(applied.outcomes) {
            self.answer(call, outcome);
        }
    }

    fn fail(&self, group: Vec<Call>, error: impl Fn() -> CommitError) {
        for call in group {
            self.answer(call, Err(error()));
        }
    }

    fn answer(&self, call: Call, outcome: Result<u64, CommitError>) {
        match &outcome {
            Ok(_) => self.counters.done(call.prepared.changes),
            Err(_) => self.counters.failed(),
        }
        // who does not wait any more is not told
        drop(call.reply.send(outcome));
    }

    async fn lease(&mut self, call: LeaseCall) {
        let deadline = Instant::now() + self.patience;
        let outcome = loop {
            let asked = self.ask(&call, deadline).await;
            match asked {
                Ok(outcome) => break outcome,
                Err(Fault::Away(_)) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Err(fault) => {
                    break Err(LeadError::Unavailable {
                        source: Unavailable::Database {
                            source: fault.into_error(),
                        },
                    });
                }
            }
        };
        // who does not wait any more is not told
        drop(call.reply.send(outcome));
    }

    async fn ask(
        &mut self,
        call: &LeaseCall,
        deadline: Instant,
    ) -> Result<Result<Lease, LeadError>, Fault> {
        let asking = async {
            let link = match &mut self.link {
                Some(link) => link,
                slot => slot.insert(self.database.connect().await?),
            };
            call.wish.ask(link, self.database.dialect()).await
        };
        let outcome = timeout_at(deadline, asking).await;
        if !matches!(outcome, Ok(Ok(_))) {
            self.link = None;
        }
        match outcome {
            Ok(outcome) => outcome.map_err(Fault::from),
            Err(_) => Ok(Err(LeadError::Unavailable {
                source: Unavailable::Late(self.patience),
            })),
        }
    }
}

/// The calls of the next transaction.
///
/// Who waits alone does not wait for company. Otherwise as many as the last time are given a moment to
/// come: who was answered together asks again together, and would else meet half of the others only.
async fn gather(first: Call, more: &mut mpsc::Receiver<Call>, last_calls: usize) -> Vec<Call> {
    let until = Instant::now() + LINGER;
    let mut changes = 0;
    let mut group = Vec::new();
    let mut next = Some(first);
    while let Some(call) = next {
        if call.claim.take() {
            changes += call.prepared.changes;
            group.push(call);
        }
        if group.len() >= CALLS || changes >= CHANGES {
            break;
        }
        next = match more.try_recv() {
            Ok(call) => Some(call),
            Err(_) if group.len() > 1 && group.len() < last_calls => {
                timeout_at(until, more.recv()).await.unwrap_or(None)
            }
            Err(_) => None,
        };
    }
    group
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::prepare::Prepared;

    fn sized(changes: usize) -> Arc<Prepared> {
        Arc::new(Prepared {
            changes,
            ..Prepared::default()
        })
    }

    fn call() -> Call {
        Call {
            term: Term(1),
            prepared: sized(1),
            reply: oneshot::channel().0,
            claim: Claim::default(),
        }
    }

    /// How many are served together, and after how long, of `waiting` behind the first one.
    async fn gathered(waiting: usize, last_calls: usize) -> (usize, Duration) {
        let (sender, mut calls) = mpsc::channel(1024);
        for _ in 0..waiting {
            sender.send(call()).await.expect("fits");
        }
        let began = Instant::now();
        let group = gather(call(), &mut calls, last_calls).await;
        (group.len(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_does_not_wait() {
        assert_eq!(gathered(0, 0).await, (1, Duration::ZERO));
        assert_eq!(gathered(0, 200).await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn company_waits_a_moment_for_the_rest() {
        assert_eq!(gathered(4, 5).await, (5, Duration::ZERO));
        assert_eq!(gathered(4, 0).await, (5, Duration::ZERO));
        let (calls, time) = gathered(4, 6).await;
        assert_eq!(calls, 5);
        assert!(time >= LINGER && time < 2 * LINGER, "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_meanwhile_is_taken_along() {
        let (sender, mut calls) = mpsc::channel(1024);
        sender.send(call()).await.expect("fits");
        let late = async {
            sleep(Duration::from_millis(1)).await;
            sender.send(call()).await.expect("fits");
        };
        let (group, ()) = tokio::join!(gather(call(), &mut calls, 3), late);
        assert_eq!(group.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_it() {
        assert_eq!(gathered(700, 700).await, (CALLS, Duration::ZERO));
        let (sender, mut calls) = mpsc::channel(1024);
        sender.send(call()).await.expect("fits");
        let mut large = call();
        large.prepared = sized(CHANGES);
        assert_eq!(gather(large, &mut calls, 9).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_withdrawn_is_left_out() {
        let (sender, mut calls) = mpsc::channel(1024);
        let withdrawn = call();
        assert!(withdrawn.claim.take());
        sender.send(call()).await.expect("fits");
        assert_eq!(gather(withdrawn, &mut calls, 0).await.len(), 1);
    }
}
