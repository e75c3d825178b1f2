//! One assignment: where it stands, and why it is being ended.

use std::sync::Arc;
use std::time::Duration;

use api::work::{Assignment, Ending, Key, PartOutcome, PartView, Stage};

use crate::journal::Record;

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being written down.
    Taking,
    /// Written down by an earlier agent, which began nothing; nobody does it yet.
    Kept,
    /// Being prepared.
    Preparing,
    /// Waits for the order to begin.
    Ready,
    /// That it begins is being written down.
    Beginning,
    /// Begun: preparing, measuring or packing.
    Running(Stage),
    /// Wants to measure, which the controller is told first.
    Asking,
    /// Over. Not `durable`: only known to this agent.
    Ended { ending: Arc<Ending>, durable: bool },
}

/// Why it is ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    Order(String),
    Lease(u32),
    Total(u32),
    Output(u32),
    Superseded(u64),
    Disowned,
    /// That it begins could not be written down.
    Journal(String),
}

impl Cause {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Order(why) => why.clone(),
            Self::Lease(seconds) => format!("its lease of {seconds} s on the node ended"),
            Self::Total(seconds) => {
                format!("its limit of {seconds} s in all (total_seconds) ended")
            }
            Self::Output(seconds) => {
                format!("its program wrote nothing for {seconds} s (output_seconds)")
            }
            Self::Superseded(fence) => format!("a newer attempt (fence {fence}) took its place"),
            Self::Disowned => "the controller does not know it any more".into(),
            Self::Journal(why) => format!("the node could not write down that it begins: {why}"),
        }
    }

    fn outcome(&self) -> PartOutcome {
        match self {
            Self::Order(_) | Self::Superseded(_) | Self::Disowned => PartOutcome::Cancelled,
            Self::Lease(_) | Self::Total(_) | Self::Output(_) => PartOutcome::TimedOut,
            Self::Journal(_) => PartOutcome::Error,
        }
    }

    /// The ending of something that was ended for this reason. If it ended by itself before it was
    /// told to, then that counts.
    pub(super) fn judge(&self, ending: &mut Ending) {
        if ending.outcome == PartOutcome::Cancelled {
            ending.outcome = self.outcome();
            ending.reason = Some(self.text());
        }
    }
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) record: Record,
    pub(super) phase: Phase,
    pub(super) cause: Option<Cause>,
    pub(super) disowned: bool,
    /// The order to begin has come, or none is needed.
    pub(super) begin: bool,
    /// The controller waits for an answer to its assignment.
    pub(super) owed: bool,
    /// The controller was told that it is here.
    pub(super) known: bool,
    /// What the controller was told last on the present stream.
    pub(super) told: Stage,
    pub(super) detail: Option<String>,
    /// When its program last wrote, or began; `None`: none runs that would have to.
    pub(super) wrote_at: Option<Duration>,
}

impl Part {
    pub(super) fn new(record: Record, phase: Phase) -> Self {
        let begin = !record.assignment.wait_for_begin;
        Self {
            record,
            phase,
            cause: None,
            disowned: false,
            begin,
            owed: false,
            known: false,
            told: Stage::Accepted,
            detail: None,
            wrote_at: None,
        }
    }

    pub(super) fn assignment(&self) -> &Arc<Assignment> {
        &self.record.assignment
    }

    pub(super) fn key(&self) -> Key {
        self.record.assignment.key
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// In the controller's words.
    pub(super) fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Taking | Phase::Kept | Phase::Preparing | Phase::Ready | Phase::Beginning => {
                Stage::Accepted
            }
            Phase::Running(stage) => *stage,
            Phase::Asking => Stage::Measuring,
            Phase::Ended { .. } => Stage::Ended,
        }
    }

    /// Nothing may be sent because of it. What shares its node with others has agreed to more than
    /// a few packets.
    pub(super) fn needs_silence(&self) -> bool {
        self.phase == Phase::Running(Stage::Measuring) && !self.assignment().request.place.share
    }

    /// When it is ended if nothing happens before; `None`: it is over or being ended.
    pub(super) fn deadline(&self) -> Option<(Duration, Cause)> {
        if self.is_over() || self.cause.is_some() {
            return None;
        }
        let assignment = self.assignment();
        let limits = &assignment.request.limits;
        let after =
            |from: Duration, seconds: u32| from.saturating_add(Duration::from_secs(seconds.into()));
        let taken = self.record.taken_at;
        let lease = assignment.lease_seconds;
        let total = limits.total_seconds;
        let silence = self.wrote_at.zip(limits.output_seconds);
        [
            Some((after(taken, lease), Cause::Lease(lease))),
            total.map(|seconds| (after(taken, seconds), Cause::Total(seconds))),
            silence.map(|(since, seconds)| (after(since, seconds), Cause::Output(seconds))),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    pub(super) fn view(&self) -> PartView {
        let assignment = self.assignment();
        PartView {
            key: assignment.key,
            stage: self.stage(),
            user: assignment.user.clone(),
            cpus: assignment.cpus.clone(),
            ending_because: match self.is_over() {
                true => None,
                false => self.cause.as_ref().map(Cause::text),
            },
            disowned: self.disowned,
            ending: match &self.phase {
                Phase::Ended { ending, .. } => Some(Ending::clone(ending)),
                _ => None,
            },
        }
    }
}
