//! What the controller's orders do to the machine.

use std::sync::Arc;
use std::time::Duration;

use api::work::{Assignment, Key, Order, Report, Stage};

use super::part::{Cause, Part, Phase};
use super::{Effect, Session, State, WAITING};
use crate::executor::Refused;
use crate::fences::Standing;
use crate::journal::{Change, Record};

impl State {
    /// Does what the controller says, or says why not.
    pub(crate) fn order(&mut self, order: Order, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match order {
            Order::Welcome {
                keep,
                heartbeat_seconds,
            } => {
                self.heartbeat = Duration::from_secs(heartbeat_seconds.into());
                self.welcome(&keep, now, &mut effects);
            }
            Order::Assign(assignment) => self.assign(assignment, now, &mut effects),
            Order::Begin { key } => self.begin(key, &mut effects),
            Order::Cancel { key, why } => self.cancel_on_order(key, why, &mut effects),
            Order::Acknowledge { key } => self.acknowledge(key, &mut effects),
        }
        effects
    }

    fn welcome(&mut self, keep: &[Key], now: Duration, effects: &mut Vec<Effect>) {
        if self.session != Session::Greeted {
            tracing::warn!("an answer to no greeting: ignored");
            return;
        }
        self.session = Session::Welcomed;
        let keys: Vec<Key> = self.parts.keys().copied().collect();
        for key in keys {
            if !keep.contains(&key) {
                self.disown(key, effects);
            }
        }
        self.take_waiting(now, effects);
    }

    fn disown(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        tracing::warn!(
            job = %key.job, attempt = key.attempt, fence = key.fence, stage = ?part.stage(),
            "the controller does not want it any more: ended and forgotten"
        );
        part.disowned = true;
        if part.is_over() || part.phase == Phase::Kept {
            self.forget(key, effects);
        } else {
            self.cancel(key, Cause::Disowned, effects);
        }
    }

    fn assign(&mut self, assignment: Box<Assignment>, now: Duration, effects: &mut Vec<Effect>) {
        let key = assignment.key;
        if let Some(part) = self.parts.get_mut(&key) {
            if part.disowned {
                self.refuse(key, Refused::here("it was disowned and is being ended"));
                return;
            }
            match part.phase {
                Phase::Taking | Phase::Kept | Phase::Preparing => part.owed = true,
                Phase::Ready | Phase::Beginning | Phase::Running(_) | Phase::Asking => {
                    self.answers.push_back(Report::Accepted { key });
                }
                Phase::Ended { .. } => {
                    self.answers.push_back(Report::Accepted { key });
                    part.told = Stage::Packing; // its ending again
                }
            }
            return;
        }
        if let Some(why) = self.out_of_date(key) {
            self.refuse(key, Refused::here(why));
            return;
        }
        let known = |waiting: &Assignment| waiting.key == key;
        if self.waiting.iter().any(|waiting| known(waiting)) {
            return;
        }
        // before it, its own older attempts have to end
        let older: Vec<Key> = self
            .parts
            .keys()
            .filter(|other| other.job == key.job)
            .copied()
            .collect();
        for older in older {
            self.cancel(older, Cause::Superseded(key.fence), effects);
        }
        if !self.is_blocked(&assignment) {
            self.take(assignment, now, effects);
        } else if self.waiting.len() < WAITING {
            self.see(key, effects);
            self.overtake(key);
            self.waiting.push_back(assignment);
        } else {
            let why = format!("{WAITING} others wait already for what has to end before them");
            self.close_unknown(key, why, effects);
        }
    }

    fn begin(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if let Some(why) = self.out_of_date(key) {
            // one that is here is not what this is about: it was overtaken
            self.refuse(key, Refused::here(why));
        } else if let Some(part) = self.parts.get_mut(&key) {
            part.begin = true;
            self.begin_if_due(key, effects);
        } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.key == key) {
            waiting.wait_for_begin = false;
        } else {
            self.close_unknown(key, "it is not on this node".into(), effects);
        }
    }

    fn cancel_on_order(&mut self, key: Key, why: String, effects: &mut Vec<Effect>) {
        let waiting = self.waiting.len();
        self.waiting.retain(|waiting| waiting.key != key);
        if self.parts.contains_key(&key) {
            self.cancel(key, Cause::Order(super::short(why)), effects);
        } else if self.waiting.len() < waiting {
            self.close_unknown(key, "it was cancelled before it was taken".into(), effects);
        } else {
            self.close_unknown(key, "it is not on this node".into(), effects);
        }
    }

    fn acknowledge(&mut self, key: Key, effects: &mut Vec<Effect>) {
        match self.parts.get(&key) {
            Some(part) if part.is_over() => self.forget(key, effects),
            Some(part) => tracing::warn!(
                job = %key.job, attempt = key.attempt, stage = ?part.stage(),
                "acknowledged before its end: ignored"
            ),
            // acknowledged before
            None => {}
        }
    }

    /// Refuses an attempt that is not here, so that it will not be either.
    fn close_unknown(&mut self, key: Key, why: String, effects: &mut Vec<Effect>) {
        self.refuse(key, Refused::here(why));
        if self.fences.close(key) {
            effects.push(Effect::Write(Change::Fences(self.fences.clone())));
        }
    }

    fn see(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.fences.see(key) {
            effects.push(Effect::Write(Change::Fences(self.fences.clone())));
        }
    }

    /// Why an attempt is not to be taken or begun; `None`: it may be.
    fn out_of_date(&self, key: Key) -> Option<String> {
        match self.fences.standing(key) {
            Standing::Open => None,
            Standing::Older(newest) => Some(format!(
                "its fence {} is lower than {newest}, which this node has seen",
                key.fence
            )),
            Standing::Forgotten(_) if self.parts.contains_key(&key) => None,
            Standing::Forgotten(floor) => Some(format!(
                "its fence {} is not higher than {floor}, up to which this node does not remember \
                 what it has done",
                key.fence
            )),
            Standing::Closed => Some("this attempt is over on this node".into()),
        }
    }

    /// Whether something has to end before it is taken.
    fn is_blocked(&self, assignment: &Assignment) -> bool {
        let key = assignment.key;
        let ends_first = |part: &Part| {
            let other = part.key().job == key.job && part.key() != key;
            !part.is_over() && (part.disowned || other)
        };
        !self.welcomed() || self.parts.values().any(ends_first)
    }

    /// Refuses what waits and is older.
    fn overtake(&mut self, key: Key) {
        let of_job = |waiting: &Assignment| waiting.key.job == key.job;
        let older = self.waiting.iter().filter(|waiting| of_job(waiting));
        for older in older.map(|waiting| waiting.key).collect::<Vec<_>>() {
            let why = Cause::Superseded(key.fence).text();
            self.refuse(older, Refused::here(why));
        }
        self.waiting.retain(|waiting| !of_job(waiting));
    }

    /// Takes what has waited long enough: first what an earlier agent had taken and not begun.
    pub(super) fn take_waiting(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let kept = self.parts.values().filter(|part| part.phase == Phase::Kept);
        let kept: Vec<Arc<Assignment>> = kept.map(|part| Arc::clone(part.assignment())).collect();
        for assignment in kept {
            if !self.is_blocked(&assignment)
                && let Some(part) = self.parts.get_mut(&assignment.key)
            {
                part.phase = Phase::Preparing;
                effects.push(Effect::Run(assignment));
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(assignment) = self.waiting.pop_front() else {
                return;
            };
            if self.is_blocked(&assignment) {
                self.waiting.push_back(assignment);
            } else if let Some(why) = self.out_of_date(assignment.key) {
                // overtaken while it waited
                self.refuse(assignment.key, Refused::here(why));
            } else {
                self.take(assignment, now, effects);
            }
        }
    }

    fn take(&mut self, assignment: Box<Assignment>, now: Duration, effects: &mut Vec<Effect>) {
        let key = assignment.key;
        self.fences.see(key);
        let record = Record {
            assignment: Arc::new(*assignment),
            taken_at: now,
        };
        let mut part = Part::new(record.clone(), Phase::Taking);
        part.owed = true;
        self.parts.insert(key, part);
        effects.push(Effect::Write(Change::Take(record)));
    }
}
