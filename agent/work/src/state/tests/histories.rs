//! Random histories with crashes: an agent that is killed anywhere, a controller that says anything.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::journal::{Journal, Memory};

/// What somebody who does an assignment is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Preparing,
    Waiting,
    Running,
    Asking,
    Measuring,
}

/// The agent, its machine, and what has to be true of them.
struct History {
    journal: Memory,
    state: State,
    now: Duration,
    tasks: BTreeMap<Key, Doing>,
    cancelled: BTreeSet<Key>,
    /// How often each was begun; a program goes on when its agent is killed.
    begun: BTreeMap<Key, u32>,
    /// Effects that are left until the agent is killed.
    patience: Option<usize>,
    connected: bool,
    /// The highest fence answered for each job, and what is over, as far as it must be remembered.
    answered: BTreeMap<u64, u64>,
    closed: BTreeSet<Key>,
    /// What the controller does not want any more.
    given_up: BTreeSet<Key>,
    reported: BTreeSet<Key>,
    known: Vec<Key>,
    fence: u64,
}

impl History {
    fn new() -> Self {
        let journal = Memory::new();
        let (state, _) = State::restore(Contents::default(), Duration::ZERO);
        Self {
            journal,
            state,
            now: Duration::ZERO,
            tasks: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            begun: BTreeMap::new(),
            patience: None,
            connected: false,
            answered: BTreeMap::new(),
            closed: BTreeSet::new(),
            given_up: BTreeSet::new(),
            reported: BTreeSet::new(),
            known: Vec::new(),
            fence: 0,
        }
    }

    /// Does what the machine wants, unless the agent is killed on the way.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut left: VecDeque<Effect> = effects.into();
        while let Some(effect) = left.pop_front() {
            if self.is_killed() {
                return;
            }
            match effect {
                Effect::Write(change) => {
                    if let Change::Take(record) = &change {
                        self.check_take(record.assignment.key);
                    }
                    let written = self.journal.write(change.clone()).now_or_never().unwrap();
                    if let (Change::Forget(key, _), Ok(())) = (&change, &written) {
                        self.closed.insert(*key);
                    }
                    // between a write and what it comes to
                    if self.is_killed() {
                        return;
                    }
                    let written = written.map_err(|error| error.to_string());
                    let then = self.state.wrote(&change, written, self.now);
                    then.into_iter().rev().for_each(|one| left.push_front(one));
                }
                Effect::Run(assignment) => {
                    let before = self.tasks.insert(assignment.key, Doing::Preparing);
                    assert_eq!(before, None, "done twice at a time");
                    let key = assignment.key;
                    for other in self.tasks.keys().filter(|other| **other != key) {
                        assert!(other.job != key.job, "{other:?} has not ended");
                        assert!(!self.given_up.contains(other), "{other:?} has not ended");
                    }
                }
                Effect::Adopt(assignment, _) => {
                    self.tasks.insert(assignment.key, Doing::Measuring);
                }
                Effect::Begin(key) => {
                    assert_eq!(self.tasks.get(&key), Some(&Doing::Waiting));
                    self.tasks.insert(key, Doing::Running);
                    *self.begun.entry(key).or_default() += 1;
                    assert_eq!(self.begun[&key], 1, "{key:?} was begun twice");
                }
                Effect::Measure(key) => {
                    assert_eq!(self.tasks.get(&key), Some(&Doing::Asking));
                    self.tasks.insert(key, Doing::Measuring);
                }
                Effect::Cancel(key, _) => {
                    assert!(self.tasks.contains_key(&key), "nobody does {key:?}");
                    self.cancelled.insert(key);
                }
            }
        }
    }

    fn check_take(&self, key: Key) {
        assert!(!self.closed.contains(&key), "{key:?} was over");
        let highest = self.answered.get(&key.job.0).copied().unwrap_or(0);
        assert!(key.fence >= highest, "{key:?} is older than {highest}");
        assert!(!self.begun.contains_key(&key), "{key:?} was begun before");
    }

    fn is_killed(&mut self) -> bool {
        match &mut self.patience {
            None => false,
            Some(0) => {
                self.restart();
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    fn restart(&mut self) {
        self.patience = None;
        self.connected = false;
        self.tasks.clear();
        self.cancelled.clear();
        let contents = self.journal.load().now_or_never().unwrap().unwrap();
        let held: BTreeSet<Key> = contents
            .attempts
            .iter()
            .map(|found| found.record.assignment.key)
            .collect();
        for key in self.begun.keys() {
            assert!(
                held.contains(key) || self.closed.contains(key) || self.given_up.contains(key),
                "{key:?} was begun and is forgotten"
            );
        }
        let (state, effects) = State::restore(contents, self.now);
        self.state = state;
        self.carry_out(effects);
    }

    /// Sends one message, if there is one.
    fn say(&mut self) -> bool {
        let silent = self.state.silent();
        let Some(say) = self.state.say() else {
            return false;
        };
        assert!(self.connected);
        match say {
            Say::Hello(_) => {}
            Say::Report(report) => {
                match &report {
                    Report::Refused { key, .. } => {
                        let highest = self.answered.entry(key.job.0).or_default();
                        *highest = (*highest).max(key.fence);
                    }
                    Report::Accepted { key } => {
                        let highest = self.answered.entry(key.job.0).or_default();
                        *highest = (*highest).max(key.fence);
                    }
                    Report::Ended { key, .. } => {
                        self.reported.insert(*key);
                        assert!(!silent, "an ending was told while something is measured");
                    }
                    _ => assert!(!silent, "{report:?} while something is measured"),
                }
                let effects = self.state.said(&report);
                self.carry_out(effects);
            }
        }
        true
    }

    fn order(&mut self, order: Order) {
        if self.connected && self.state.takes_orders() {
            let effects = self.state.order(order, self.now);
            self.carry_out(effects);
        }
    }

    fn welcome(&mut self, keep: impl Fn(Key) -> bool) {
        let keep: Vec<Key> = self
            .known
            .iter()
            .copied()
            .filter(|key| keep(*key) && !self.given_up.contains(key))
            .collect();
        if self.connected && self.state.session == Session::Greeted {
            for key in self.state.parts.keys() {
                if !keep.contains(key) {
                    self.given_up.insert(*key);
                }
            }
            self.order(Order::Welcome {
                keep,
                heartbeat_seconds: 5,
            });
        }
    }

    fn any(&self, choice: u8) -> Key {
        let len = self.known.len();
        self.known[usize::from(choice) % len]
    }

    fn act(&mut self, action: u8, choice: u8, more: u8) {
        match action % 18 {
            0 => {
                self.connected = true;
                let effects = self.state.connected();
                self.carry_out(effects);
            }
            1 => {
                self.connected = false;
                let effects = self.state.disconnected();
                self.carry_out(effects);
            }
            2 => self.welcome(|key| !(key.fence + u64::from(more)).is_multiple_of(5)),
            3 | 4 => {
                self.fence += 1;
                let attempt = u32::try_from(self.fence).unwrap();
                let key = key(u64::from(choice % 4), attempt, self.fence);
                self.known.push(key);
                self.order(Order::Assign(Box::new(Assignment {
                    wait_for_begin: more.is_multiple_of(2),
                    lease_seconds: 40 + u32::from(more),
                    ..assignment(key)
                })));
            }
            5 | 6 if !self.known.is_empty() => {
                let key = self.any(choice);
                self.order(Order::Assign(Box::new(assignment(key))));
            }
            7 if !self.known.is_empty() => {
                let key = self.any(choice);
                self.order(Order::Begin { key });
            }
            8 if !self.known.is_empty() => {
                let key = self.any(choice);
                let why = String::new();
                self.order(Order::Cancel { key, why });
            }
            9 if !self.known.is_empty() => {
                let key = self.any(choice);
                if !self.reported.contains(&key) {
                    if !more.is_multiple_of(8) {
                        return;
                    }
                    // a controller that acknowledges what it was not told does not want it
                    if self.state.parts.get(&key).is_some_and(Part::is_over) {
                        self.given_up.insert(key);
                    }
                }
                self.order(Order::Acknowledge { key });
            }
            10 => drop(self.say()),
            11 => while self.say() {},
            12..=14 => {
                let tasks: Vec<(Key, Doing)> = self.tasks.iter().map(|(k, d)| (*k, *d)).collect();
                if !tasks.is_empty() {
                    let (key, doing) = tasks[usize::from(choice) % tasks.len()];
                    self.work(key, doing, more);
                }
            }
            15 => {
                self.now += Duration::from_secs(u64::from(more) % 30);
                let effects = self.state.tick(self.now);
                self.carry_out(effects);
            }
            16 => self.patience = Some(usize::from(more) % 6),
            17 => self.restart(),
            _ => {}
        }
    }

    /// One step of somebody who does an assignment.
    fn work(&mut self, key: Key, doing: Doing, more: u8) {
        let effects = match doing {
            _ if self.cancelled.contains(&key) => self.end(key, Ok(cancelled())),
            Doing::Preparing if more.is_multiple_of(7) => self.end(key, Err(Refused::here("no"))),
            Doing::Preparing => {
                self.tasks.insert(key, Doing::Waiting);
                self.state.prepared(key)
            }
            Doing::Waiting | Doing::Asking => return,
            Doing::Running => {
                self.tasks.insert(key, Doing::Asking);
                self.state.measuring(key)
            }
            Doing::Measuring if more.is_multiple_of(3) => {
                self.state.stage(key, Stage::Packing, None)
            }
            Doing::Measuring => self.end(key, Ok(done())),
        };
        self.carry_out(effects);
    }

    fn end(&mut self, key: Key, result: Result<Ending, Refused>) -> Vec<Effect> {
        self.tasks.remove(&key);
        self.cancelled.remove(&key);
        self.state.over(key, result)
    }

    /// Everybody does what he should from here on: all comes to its end and is told.
    fn drain(&mut self) {
        self.patience = None;
        self.act(1, 0, 0);
        self.act(0, 0, 0);
        assert!(self.say(), "no greeting");
        self.welcome(|_| true);
        for _ in 0..1000 {
            while self.say() {}
            let waiting: Vec<Key> = self.state.parts.keys().copied().collect();
            for key in waiting {
                self.order(Order::Begin { key });
            }
            let Some((key, doing)) = self.tasks.iter().map(|(k, d)| (*k, *d)).next() else {
                break;
            };
            while self.say() {}
            if matches!(doing, Doing::Waiting) {
                // the order to begin was refused: it was overtaken
                self.cancelled.insert(key);
            }
            self.work(key, doing, 1);
        }
        while self.say() {}
        assert!(self.tasks.is_empty(), "{:?}", self.tasks);
        assert!(self.state.waiting.is_empty());
        for (key, part) in &self.state.parts {
            assert!(part.is_over(), "{key:?} did not come to its end: {part:?}");
        }
        for key in self.begun.keys() {
            assert!(
                self.reported.contains(key) || self.given_up.contains(key),
                "the result of {key:?} is lost"
            );
        }
        // and what is acknowledged is forgotten
        let ended: Vec<Key> = self.state.parts.keys().copied().collect();
        for key in ended {
            self.order(Order::Acknowledge { key });
        }
        let left = self.journal.load().now_or_never().unwrap().unwrap();
        assert_eq!(left.attempts, []);
    }
}

proptest! {
    // histories are cheap, and the telling ones rare; PROPTEST_CASES multiplies
    #![proptest_config(ProptestConfig::with_cases(6 * ProptestConfig::default().cases))]

    #[test]
    fn nothing_is_begun_twice_lost_or_taken_back(
        actions in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..120),
    ) {
        let mut history = History::new();
        for (action, choice, more) in actions {
            history.act(action, choice, more);
        }
        history.drain();
    }
}
