//! One transaction for the calls of a group.

use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::PAUSE;
use super::call::Call;
use crate::apply::{Applier, ApplyError};
use crate::database::{Arg, Database, Dialect, Fault, Link};
use crate::error::refused;
use crate::prepare::Prepared;
use crate::{CommitError, Refusal, Term, Unavailable};

/// What became of it.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Committed. What each call gets.
    Done(Applied),
    /// Nothing was done; nor will it ever be in this term.
    NotLeader,
    /// Nothing was done, because of one call at least.
    Refused(Refusal),
    /// Nothing was done.
    Failed(Fault),
    /// Nothing was done in time.
    Late,
    /// It was done or not.
    InDoubt(Unavailable),
}

#[derive(Debug)]
pub(super) struct Applied {
    pub(super) outcomes: Vec<Result<u64, CommitError>>,
    pub(super) last_event: i64,
}

/// What is wanted.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    pub(super) database: &'a Database,
    pub(super) term: Term,
    pub(super) calls: &'a [Call],
    /// Each call stands or falls by itself, at the price of more statements.
    pub(super) singly: bool,
    pub(super) deadline: Instant,
    /// How long to look for the outcome of a commit whose connection was lost.
    pub(super) patience: Duration,
}

/// How an attempt ends early.
#[derive(Debug)]
enum Stop {
    NotLeader,
    Refused(Refusal),
    Failed(Fault),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(refusal) => Self::Refused(refusal),
            ApplyError::Failed(Fault::Refused(source)) => Self::Refused(Refusal::Rule { source }),
            ApplyError::Failed(fault) => Self::Failed(fault),
        }
    }
}

/// A commit that was sent: the number of its transaction, and what is to be said if it was done.
#[derive(Debug)]
struct Sent {
    number: i64,
    applied: Applied,
}

impl Transaction<'_> {
    /// Uses the connection in `slot`, or makes one; leaves it there if it can be used again.
    pub(super) async fn run(&self, slot: &mut Option<Link>, applier: &mut Applier) -> Attempt {
        let mut sent = None;
        let work = self.work(slot, applier, &mut sent);
        let outcome = match self.database.dialect() {
            // a statement of SQLite cannot be cut off: it ends when the disk lets it
            Dialect::Sqlite => Some(work.await),
            Dialect::Postgres => timeout_at(self.deadline, work).await.ok(),
        };
        match (outcome, sent) {
            (Some(Ok(())), Some(sent)) => Attempt::Done(sent.applied),
            (None | Some(Ok(())), None) => {
                *slot = None;
                Attempt::Late
            }
            (Some(Err(stop)), None) => {
                self.undo(slot, &stop).await;
                match stop {
                    Stop::NotLeader => Attempt::NotLeader,
                    Stop::Refused(refusal) => Attempt::Refused(refusal),
                    Stop::Failed(fault) => Attempt::Failed(fault),
                }
            }
            (Some(Err(Stop::Failed(Fault::Full(error)))), Some(_)) => {
                let fault = Fault::Full(error);
                self.undo(slot, &Stop::Failed(fault.clone())).await;
                Attempt::Failed(fault)
            }
            (outcome, Some(sent)) => {
                *slot = None;
                let reason = match outcome {
                    Some(Err(Stop::Failed(fault))) => Some(fault),
                    _ => None,
                };
                self.find_out(slot, sent, reason).await
            }
        }
    }

    /// All of it. `sent` is set from when the commit is sent.
    async fn work(
        &self,
        slot: &mut Option<Link>,
        applier: &mut Applier,
        sent: &mut Option<Sent>,
    ) -> Result<(), Stop> {
        let link = match slot {
            Some(link) => link,
            None => slot.insert(self.database.connect().await?),
        };
        link.plain(self.database.dialect().begin()).await?;
        *sent = Some(if self.singly {
            self.each(link, applier).await?
        } else {
            self.together(link, applier).await?
        });
        link.plain("COMMIT").await?;
        Ok(())
    }

    /// All calls at once: all are done, or none.
    async fn together(&self, link: &mut Link, applier: &mut Applier) -> Result<Sent, Stop> {
        let calls: Vec<&Prepared> = self.calls.iter().map(|call| &*call.prepared).collect();
        let events = calls.iter().map(|call| events_of(call)).sum();
        let (number, last_event) = self.begin_as_leader(link, &calls, events).await?;
        let mut seq = last_event - events;
        applier.apply(link, &calls, seq).await?;
        let outcomes = calls.iter().map(|call| {
            seq += events_of(call);
            Ok(seq.unsigned_abs())
        });
        Ok(Sent {
            number,
            applied: Applied {
                outcomes: outcomes.collect(),
                last_event,
            },
        })
    }

    /// One call after the other: who is refused is left out.
    async fn each(&self, link: &mut Link, applier: &mut Applier) -> Result<Sent, Stop> {
        let (number, mut last_event) = self.begin_as_leader(link, &[], 0).await?;
        let mut outcomes = Vec::new();
        let mut done = Vec::new();
        for call in self.calls {
            let prepared = &*call.prepared;
            link.plain("SAVEPOINT one_call").await?;
            match applier.apply(link, &[prepared], last_event).await {
                Ok(()) => {
                    last_event += events_of(prepared);
                    done.push(prepared);
                    outcomes.push(Ok(last_event.unsigned_abs()));
                }
                Err(error) => match Stop::from(error) {
                    Stop::Refused(refusal) => {
                        link.plain("ROLLBACK TO SAVEPOINT one_call").await?;
                        outcomes.push(Err(refused(refusal)));
                    }
                    stop => return Err(stop),
                },
            }
            link.plain("RELEASE SAVEPOINT one_call").await?;
        }
        let sql = "UPDATE leadership SET last_event = $1, \
                   highest_job = CASE WHEN highest_job < $2 THEN $2 ELSE highest_job END, \
                   highest_fence = CASE WHEN highest_fence < $3 THEN $3 ELSE highest_fence END";
        let (job, fence) = highest(&done);
        let args = [Arg::Int(last_event), Arg::Int(job), Arg::Int(fence)];
        link.run(sql, &args).await?;
        Ok(Sent {
            number,
            applied: Applied {
                outcomes,
                last_event,
            },
        })
    }

    /// Makes sure of the term for the rest of the transaction: on PostgreSQL the row stays locked, so
    /// that nobody can be elected until it is over; on SQLite nobody else writes anyway. That also
    /// makes event numbers become visible in their order.
    ///
    /// Returns the transaction's number and the last event's, with `events` more.
    async fn begin_as_leader(
        &self,
        link: &mut Link,
        calls: &[&Prepared],
        events: i64,
    ) -> Result<(i64, i64), Stop> {
        let sql = "UPDATE leadership SET transactions = transactions + 1, \
                   last_event = last_event + $1, \
                   highest_job = CASE WHEN highest_job < $2 THEN $2 ELSE highest_job END, \
                   highest_fence = CASE WHEN highest_fence < $3 THEN $3 ELSE highest_fence END \
                   WHERE term = $4 RETURNING transactions, last_event";
        let (job, fence) = highest(calls);
        let args = [
            Arg::Int(events),
            Arg::Int(job),
            Arg::Int(fence),
            Arg::Int(self.term.as_stored()),
        ];
        let row = link.row(sql, &args).await?.ok_or(Stop::NotLeader)?;
        Ok((row.int(0)?, row.int(1)?))
    }

    /// Takes back what was not committed, or drops the connection.
    async fn undo(&self, slot: &mut Option<Link>, stop: &Stop) {
        let Some(link) = slot else { return };
        let usable = !matches!(stop, Stop::Failed(Fault::Away(_) | Fault::Broken(_)));
        let limit = Instant::now() + self.patience;
        // SQLite may have rolled back by itself: then this fails, and the connection is made anew
        if !usable || !matches!(timeout_at(limit, link.plain("ROLLBACK")).await, Ok(Ok(()))) {
            *slot = None;
        }
    }

    /// The connection was lost, or the time was up, after the commit had been sent.
    async fn find_out(
        &self,
        slot: &mut Option<Link>,
        sent: Sent,
        reason: Option<Fault>,
    ) -> Attempt {
        let deadline = Instant::now() + self.patience;
        let late = || Unavailable::Late(self.patience);
        let in_doubt = |fault: Option<Fault>| {
            let reason = fault.map(|fault| Unavailable::Database {
                source: fault.into_error(),
            });
            Attempt::InDoubt(reason.unwrap_or_else(late))
        };
        loop {
            let Ok(found) = timeout_at(deadline, self.look(slot)).await else {
                *slot = None;
                return in_doubt(reason);
            };
            match found {
                Ok((term, number)) if term == self.term && number == sent.number => {
                    return Attempt::Done(sent.applied);
                }
                Ok((_, number)) if number == sent.number - 1 => {
                    return match reason {
                        Some(fault) if self.leaves_doubt(&fault) => in_doubt(Some(fault)),
                        Some(fault) => Attempt::Failed(fault),
                        None => Attempt::Late,
                    };
                }
                // another leader has written since
                Ok(_) => return in_doubt(reason),
                Err(_) if Instant::now() + PAUSE >= deadline => return in_doubt(reason),
                Err(_) => {
                    *slot = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn leaves_doubt(&self, fault: &Fault) -> bool {
        self.database.dialect() == Dialect::Sqlite && fault.may_be_on_disk()
    }

    /// The present term, and the number of the last transaction, after anything that is still under way
    /// has ended.
    async fn look(&self, slot: &mut Option<Link>) -> Result<(Term, i64), sqlx::Error> {
        let link = match slot {
            Some(link) => link,
            None => slot.insert(self.database.connect().await?),
        };
        link.plain(self.database.dialect().begin()).await?;
        let sql = match self.database.dialect() {
            Dialect::Sqlite => "SELECT term, transactions FROM leadership",
            Dialect::Postgres => "SELECT term, transactions FROM leadership FOR UPDATE",
        };
        let row = link.row(sql, &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
        let found = (Term(row.int(0)?.unsigned_abs()), row.int(1)?);
        link.plain("ROLLBACK").await?;
        Ok(found)
    }
}

fn highest(calls: &[&Prepared]) -> (i64, i64) {
    let job = calls.iter().map(|call| call.highest_job).max();
    let fence = calls.iter().map(|call| call.highest_fence).max();
    (job.unwrap_or(0), fence.unwrap_or(0))
}

fn events_of(call: &Prepared) -> i64 {
    i64::try_from(call.events.len()).expect("no more than changes of a call")
}
