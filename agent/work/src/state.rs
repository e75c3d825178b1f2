//! All assignments of a node, as a machine without clock, files or streams: what happens goes in,
//! what is to be done comes out.
//!
//! What holds, whatever comes in and wherever the agent is killed:
//! - No program is begun twice. What may have been begun is adopted, never begun again.
//! - An ending is told after each greeting until it is acknowledged, however often that takes.
//! - An attempt is taken only if its fence is higher than all that were seen of its job.
//! - While something is measured nothing is said unasked.
//!
//! [`Effect::Write`] is to be done, and its result told by [`State::wrote`], before anything else
//! happens to the machine.

mod orders;
mod part;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::work::{Assignment, Ending, Held, Key, PartOutcome, PartView, Report, Stage};

use crate::executor::{Output, Refused, Task};
use crate::fences::Fences;
use crate::journal::{Change, Contents, Record};
use part::{Cause, Part, Phase};

/// Assignments that wait for others to end, at most. More are refused.
const WAITING: usize = 64;
/// Answers that wait to be sent. The orders behind them wait at the peer.
const ANSWERS: usize = 64;
/// How soon an ending that could not be written down is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Longest text that is taken over into a report, bytes.
const TEXT: usize = 4096;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write it down; what comes of it is for [`State::wrote`].
    Write(Change),
    /// Start doing it.
    Run(Arc<Assignment>),
    /// Take over what an earlier agent had begun.
    Adopt(Arc<Assignment>, Stage),
    /// Let it begin.
    Begin(Key),
    /// Let it measure: whoever is to know has been told.
    Measure(Key),
    /// Have it end.
    Cancel(Key, String),
}

/// What to say to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Say {
    /// The first message on a stream, with what the node is.
    Hello(Vec<Held>),
    Report(Report),
}

/// The stream to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Closed,
    /// Nothing has been said.
    Fresh,
    /// The greeting was said, and the answer is missing.
    Greeted,
    Welcomed,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct State {
    parts: BTreeMap<Key, Part>,
    fences: Fences,
    /// Not taken before others have ended.
    waiting: VecDeque<Box<Assignment>>,
    session: Session,
    heartbeat: Duration,
    answers: VecDeque<Report>,
    retry_at: Option<Duration>,
}

impl State {
    /// Goes on where an earlier agent left off.
    pub(crate) fn restore(contents: Contents, now: Duration) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        let mut parts = BTreeMap::new();
        for found in contents.attempts {
            let assignment = Arc::clone(&found.record.assignment);
            let phase = match (found.ending, found.stage) {
                (Some(ending), _) => Phase::Ended {
                    ending,
                    durable: true,
                },
                (None, Some(stage)) => {
                    effects.push(Effect::Adopt(Arc::clone(&assignment), stage));
                    Phase::Running(stage)
                }
                (None, None) => Phase::Kept,
            };
            // a time that is still to come is one of before the node's reboot
            let taken_at = found.record.taken_at.min(now);
            let record = Record {
                taken_at,
                ..found.record
            };
            parts.insert(assignment.key, Part::new(record, phase));
        }
        let state = Self {
            parts,
            fences: contents.fences,
            waiting: VecDeque::new(),
            session: Session::Closed,
            heartbeat: Duration::ZERO,
            answers: VecDeque::new(),
            retry_at: None,
        };
        (state, effects)
    }

    /// Whether nothing may be said unasked.
    pub(crate) fn silent(&self) -> bool {
        self.parts.values().any(Part::needs_silence)
    }

    /// Whether the controller has answered the greeting.
    pub(crate) fn welcomed(&self) -> bool {
        self.session == Session::Welcomed
    }

    /// Between heartbeats; `None`: none is due as things stand.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        let beats = self.welcomed() && !self.silent() && !self.heartbeat.is_zero();
        beats.then_some(self.heartbeat)
    }

    /// Whether there is room for the answer to another order.
    pub(crate) fn takes_orders(&self) -> bool {
        self.answers.len() < ANSWERS
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = PartView> {
        self.parts.values().map(Part::view)
    }

    /// The newest attempt of this number.
    pub(crate) fn view(&self, job: u64, attempt: u32) -> Option<PartView> {
        let of = |part: &&Part| part.key().job.0 == job && part.key().attempt == attempt;
        self.parts.values().rfind(of).map(Part::view)
    }

    /// When [`State::tick`] is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        let limits = self.parts.values().filter_map(Part::deadline);
        limits.map(|(at, _)| at).chain(self.retry_at).min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let over: Vec<(Key, Cause)> = self
            .parts
            .iter()
            .filter_map(|(key, part)| Some((*key, part.deadline()?)))
            .filter(|(_, (at, _))| *at <= now)
            .map(|(key, (_, cause))| (key, cause))
            .collect();
        for (key, cause) in over {
            self.cancel(key, cause, &mut effects);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for part in self.parts.values() {
                if let Phase::Ended {
                    ending,
                    durable: false,
                } = &part.phase
                {
                    let change = Change::End(part.key(), Arc::clone(ending));
                    effects.push(Effect::Write(change));
                }
            }
        }
        effects
    }

    /// A stream was opened. What was said on an earlier one is to be said again.
    pub(crate) fn connected(&mut self) -> Vec<Effect> {
        let effects = self.disconnected();
        self.session = Session::Fresh;
        effects
    }

    /// There is no stream any more.
    pub(crate) fn disconnected(&mut self) -> Vec<Effect> {
        self.session = Session::Closed;
        self.answers.clear();
        // never accepted: the controller gives them again
        self.waiting.clear();
        let mut effects = Vec::new();
        for part in self.parts.values_mut() {
            part.owed = false;
            // nobody is there to be told
            measure(part, &mut effects);
        }
        effects
    }

    /// What is to be said next; it counts as said, unless the stream ends.
    pub(crate) fn say(&mut self) -> Option<Say> {
        match self.session {
            Session::Closed => return None,
            Session::Fresh => {
                self.session = Session::Greeted;
                return Some(self.hello());
            }
            Session::Greeted | Session::Welcomed => {}
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(Say::Report(answer));
        }
        if !self.welcomed() || self.silent() {
            return None;
        }
        self.parts.values_mut().find_map(news).map(Say::Report)
    }

    /// Something that [`State::say`] gave has been sent.
    pub(crate) fn said(&mut self, report: &Report) -> Vec<Effect> {
        let Report::Stage {
            key,
            stage: Stage::Measuring,
            ..
        } = report
        else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        if let Some(part) = self.parts.get_mut(key) {
            measure(part, &mut effects);
        }
        self.settle_silence(&mut effects);
        effects
    }

    /// While nothing is said nobody can be told, and whoever asks would wait in vain.
    fn settle_silence(&mut self, effects: &mut Vec<Effect>) {
        if self.silent() {
            for part in self.parts.values_mut() {
                measure(part, effects);
            }
        }
    }

    fn hello(&mut self) -> Say {
        let held = self.parts.values_mut().map(|part| {
            part.known = true;
            part.told = match part.stage() {
                // told in full when the controller has answered
                Stage::Ended => Stage::Packing,
                // told again, so that it is known before the first window
                Stage::Measuring if part.phase == Phase::Asking => Stage::Preparing,
                stage => stage,
            };
            Held {
                key: part.key(),
                stage: part.stage(),
            }
        });
        Say::Hello(held.collect())
    }

    /// It can begin.
    pub(crate) fn prepared(&mut self, key: Key) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(part) = self.parts.get_mut(&key) else {
            return effects;
        };
        if part.phase != Phase::Preparing {
            return effects;
        }
        part.phase = Phase::Ready;
        if std::mem::take(&mut part.owed) {
            part.known = true;
            self.answers.push_back(Report::Accepted { key });
        }
        self.begin_if_due(key, &mut effects);
        effects
    }

    /// How far it is, unless it is over.
    pub(crate) fn stage(&mut self, key: Key, stage: Stage, detail: Option<String>) -> Vec<Effect> {
        match self.parts.get_mut(&key) {
            Some(part) if matches!(part.phase, Phase::Running(_) | Phase::Asking) => {
                part.detail = detail.map(short);
                if part.phase == Phase::Running(stage) {
                    return Vec::new();
                }
                part.phase = Phase::Running(stage);
                part.wrote_at = None;
                vec![Effect::Write(Change::Stage(key, stage))]
            }
            _ => Vec::new(),
        }
    }

    /// It wants to measure; [`Effect::Measure`] comes when it may.
    pub(crate) fn measuring(&mut self, key: Key) -> Vec<Effect> {
        let tell = self.session != Session::Closed && !self.silent();
        let Some(part) = self.parts.get_mut(&key) else {
            return Vec::new();
        };
        if !matches!(part.phase, Phase::Running(_)) {
            return Vec::new();
        }
        let write = Effect::Write(Change::Stage(key, Stage::Measuring));
        if tell && part.told < Stage::Measuring && !part.disowned {
            part.phase = Phase::Asking;
            return vec![write];
        }
        part.phase = Phase::Running(Stage::Measuring);
        let mut effects = vec![write, Effect::Measure(key)];
        self.settle_silence(&mut effects);
        effects
    }

    /// What its program writes.
    pub(crate) fn output(&mut self, key: Key, output: Output, now: Duration) {
        if let Some(part) = self.parts.get_mut(&key) {
            part.wrote_at = match (output, part.wrote_at) {
                (Output::Expected, _) | (Output::Seen, Some(_)) => Some(now),
                (Output::Seen, None) | (Output::Over, _) => None,
            };
        }
    }

    /// Whoever did it has come to an end.
    pub(crate) fn over(&mut self, key: Key, result: Result<Ending, Refused>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(part) = self.parts.get_mut(&key) else {
            return effects;
        };
        if part.is_over() {
            return effects;
        }
        let ending = match result {
            Ok(ending) => ending,
            Err(refused)
                if part.phase == Phase::Preparing && !part.known && part.cause.is_none() =>
            {
                self.refuse(key, refused);
                self.forget(key, &mut effects);
                return effects;
            }
            Err(Refused { why, .. }) => match &part.cause {
                Some(_) => Task::ending(PartOutcome::Cancelled, None),
                None => Task::ending(PartOutcome::Error, Some(why)),
            },
        };
        self.finish(key, ending, &mut effects);
        effects
    }

    /// What became of an [`Effect::Write`].
    pub(crate) fn wrote(
        &mut self,
        change: &Change,
        written: Result<(), String>,
        now: Duration,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match change {
            Change::Take(record) => self.taken(record.assignment.key, written, &mut effects),
            Change::Stage(key, Stage::Preparing) => self.begun(*key, written, &mut effects),
            Change::End(key, _) => {
                if let Err(why) = &written {
                    tracing::error!(%why, "an ending could not be written down: only told for now");
                    self.retry_at.get_or_insert(now + RETRY);
                } else if let Some(Part {
                    phase: Phase::Ended { durable, .. },
                    ..
                }) = self.parts.get_mut(key)
                {
                    *durable = true;
                }
            }
            Change::Stage(..) | Change::Forget(..) | Change::Fences(_) => {
                if let Err(why) = &written {
                    tracing::warn!(%why, "the journal is behind");
                }
            }
        }
        self.take_waiting(now, &mut effects);
        effects
    }

    fn taken(&mut self, key: Key, written: Result<(), String>, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        match written {
            Ok(()) => {
                part.phase = Phase::Preparing;
                effects.push(Effect::Run(Arc::clone(part.assignment())));
            }
            Err(why) => {
                self.parts.remove(&key);
                let why = format!("the node cannot write it down: {why}");
                self.refuse(key, Refused::here(why));
                self.fences.close(key);
                let change = Change::Fences(self.fences.clone());
                effects.push(Effect::Write(change));
            }
        }
    }

    fn begun(&mut self, key: Key, written: Result<(), String>, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        if part.phase != Phase::Beginning {
            return; // a later look at its preparations
        }
        match written {
            Ok(()) => {
                part.phase = Phase::Running(Stage::Preparing);
                effects.push(Effect::Begin(key));
            }
            Err(why) => {
                part.phase = Phase::Ready;
                part.begin = false;
                self.cancel(key, Cause::Journal(why), effects);
            }
        }
    }

    fn begin_if_due(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if let Some(part) = self.parts.get_mut(&key)
            && part.phase == Phase::Ready
            && part.begin
            && part.cause.is_none()
        {
            part.phase = Phase::Beginning;
            effects.push(Effect::Write(Change::Stage(key, Stage::Preparing)));
        }
    }

    /// Has it end, unless it is over or being ended.
    fn cancel(&mut self, key: Key, cause: Cause, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        if part.is_over() || part.cause.is_some() {
            return;
        }
        let text = cause.text();
        part.cause = Some(cause);
        part.wrote_at = None;
        if part.phase == Phase::Kept {
            // nobody does it
            let ending = Task::ending(PartOutcome::Cancelled, None);
            self.finish(key, ending, effects);
        } else {
            effects.push(Effect::Cancel(key, text));
        }
    }

    /// It is over: kept until acknowledged, or forgotten if the controller does not want it.
    fn finish(&mut self, key: Key, mut ending: Ending, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        if part.disowned {
            self.forget(key, effects);
            return;
        }
        if let Some(cause) = &part.cause {
            cause.judge(&mut ending);
        }
        ending.reason = ending.reason.map(short);
        let ending = Arc::new(fit(key, ending));
        part.wrote_at = None;
        part.phase = Phase::Ended {
            ending: Arc::clone(&ending),
            durable: false,
        };
        effects.push(Effect::Write(Change::End(key, ending)));
    }

    fn forget(&mut self, key: Key, effects: &mut Vec<Effect>) {
        self.parts.remove(&key);
        self.fences.close(key);
        let change = Change::Forget(key, self.fences.clone());
        effects.push(Effect::Write(change));
    }

    fn refuse(&mut self, key: Key, refused: Refused) {
        let Refused { why, elsewhere } = refused;
        tracing::info!(job = %key.job, attempt = key.attempt, %why, elsewhere, "refused");
        let why = short(why);
        self.answers.push_back(Report::Refused {
            key,
            why,
            elsewhere,
        });
    }
}

/// Lets it measure, if it asked.
fn measure(part: &mut Part, effects: &mut Vec<Effect>) {
    if part.phase == Phase::Asking {
        part.phase = Phase::Running(Stage::Measuring);
        effects.push(Effect::Measure(part.key()));
    }
}

/// What the controller does not know of it yet.
fn news(part: &mut Part) -> Option<Report> {
    if part.disowned || part.stage() <= part.told {
        return None;
    }
    let key = part.key();
    part.told = part.stage();
    part.known = true;
    match &part.phase {
        Phase::Ended { ending, .. } => Some(Report::Ended {
            key,
            ending: Box::new(Ending::clone(ending)),
        }),
        _ => Some(Report::Stage {
            key,
            stage: part.stage(),
            detail: part.detail.clone(),
        }),
    }
}

/// So that a frame holds it: what can never be told would be tried for ever.
fn fit(key: Key, ending: Ending) -> Ending {
    let documents = ending.documents.len();
    let report = Report::Ended {
        key,
        ending: Box::new(ending.clone()),
    };
    match crate::frame::encode(&report) {
        Ok(_) => ending,
        Err(error) => {
            let error = crate::chain(&error);
            let why = format!("its ending with {documents} documents cannot be told: {error}");
            Task::ending(PartOutcome::Error, Some(why))
        }
    }
}

/// So that a report stays one that people read.
fn short(text: String) -> String {
    if text.len() <= TEXT {
        return text;
    }
    format!("{}…", &text[..text.floor_char_boundary(TEXT)])
}

#[cfg(test)]
pub(crate) mod tests;
