//! The owner: it alone has the state, writes the journal and speaks to tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeFacts;
use api::work::{Assignment, Key, Order, PartOutcome, Report, Stage, WorkView};
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::{Line, WELCOME};
use super::{Message, Parts, SessionError};
use crate::executor::{Event, Reins, Task};
use crate::journal::Contents;
use crate::state::{Effect, Say, State};

/// Events of tasks that wait for the owner.
const EVENTS: usize = 64;
/// The next look, when nothing is due: timers cannot be set for ever.
const FAR: Duration = Duration::from_secs(3600);

/// The owner.
pub(super) struct Keeper {
    parts: Parts,
    silence: watch::Sender<bool>,
    events: mpsc::Sender<(Key, Event)>,
    happened: mpsc::Receiver<(Key, Event)>,
    tasks: HashMap<Key, Doing>,
    session: Option<Session>,
    /// Facts as they were told last on the present stream.
    told: Option<NodeFacts>,
    counts: Counts,
}

/// Somebody who does an assignment.
struct Doing {
    reins: Reins,
    measure: Option<oneshot::Sender<()>>,
}

/// The present stream.
struct Session {
    number: u64,
    reports: mpsc::Sender<Report>,
    end: CancellationToken,
    why: oneshot::Sender<SessionError>,
    opened: Instant,
    /// When the last message went.
    sent: Instant,
    /// One is being sent.
    busy: bool,
}

#[derive(Debug, Default)]
struct Counts {
    streams: u64,
    sent: u64,
    received: u64,
    rejected: u64,
}

impl Keeper {
    pub(super) fn new(parts: Parts, silence: watch::Sender<bool>) -> Self {
        let (events, happened) = mpsc::channel(EVENTS);
        Self {
            parts,
            silence,
            events,
            happened,
            tasks: HashMap::new(),
            session: None,
            told: None,
            counts: Counts::default(),
        }
    }

    pub(super) async fn keep(
        mut self,
        contents: Contents,
        mut messages: mpsc::Receiver<Message>,
        mut orders: mpsc::Receiver<(u64, Order)>,
    ) {
        let (mut state, effects) = State::restore(contents, (self.parts.clock)());
        let adopted: Vec<Key> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Adopt(assignment, _) => Some(assignment.key),
                _ => None,
            })
            .collect();
        self.parts.executor.start(&adopted);
        self.carry_out(&mut state, effects).await;
        let stop = self.parts.stop.clone();
        let mut facts_end = false;
        loop {
            self.silence.send_if_modified(|silent| {
                let now = state.silent();
                std::mem::replace(silent, now) != now
            });
            self.speak(&mut state);
            let wake = self.wake(&state);
            let ended = self.ended();
            let effects = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = self.happened.recv() => match event {
                    Some((key, event)) => self.happen(&mut state, key, event),
                    None => return,
                },
                message = messages.recv() => match message {
                    Some(message) => self.hear(&mut state, message),
                    None => return,
                },
                order = orders.recv(), if state.takes_orders() => match order {
                    Some((number, order)) => self.obey(&mut state, number, order),
                    None => return,
                },
                changed = self.parts.facts.changed(), if !facts_end => {
                    facts_end = changed.is_err();
                    Vec::new()
                }
                () = ended => {
                    self.session = None;
                    state.disconnected()
                }
                () = tokio::time::sleep_until(wake) => {
                    let mut effects = state.tick((self.parts.clock)());
                    if self.expire(&state) {
                        effects.extend(state.disconnected());
                    }
                    effects
                }
            };
            self.carry_out(&mut state, effects).await;
        }
    }

    /// Does what the state wants, in order; what a write comes to is told before the next.
    async fn carry_out(&mut self, state: &mut State, effects: Vec<Effect>) {
        let mut left: std::collections::VecDeque<Effect> = effects.into();
        while let Some(effect) = left.pop_front() {
            match effect {
                Effect::Write(change) => {
                    let written = self.parts.journal.write(change.clone()).await;
                    let written = written.map_err(|error| crate::chain(&error));
                    let now = (self.parts.clock)();
                    let then = state.wrote(&change, written, now);
                    for effect in then.into_iter().rev() {
                        left.push_front(effect);
                    }
                }
                Effect::Run(assignment) => self.run(assignment, None),
                Effect::Adopt(assignment, stage) => self.run(assignment, Some(stage)),
                Effect::Begin(key) => {
                    if let Some(doing) = self.tasks.get(&key) {
                        doing.reins.begin.send_replace(true);
                    }
                }
                Effect::Measure(key) => {
                    // before anybody relies on it
                    self.silence.send_replace(state.silent());
                    let doing = self.tasks.get_mut(&key);
                    if let Some(waiting) = doing.and_then(|doing| doing.measure.take()) {
                        // it was cancelled meanwhile
                        waiting.send(()).ok();
                    }
                }
                Effect::Cancel(key, why) => {
                    if let Some(doing) = self.tasks.get(&key) {
                        drop(doing.reins.why.set(why));
                        doing.reins.cancel.cancel();
                    }
                }
            }
        }
    }

    fn run(&mut self, assignment: Arc<Assignment>, adopted: Option<Stage>) {
        let key = assignment.key;
        let reins = Reins::default();
        let task = Task {
            folder: self.parts.journal.folder(key),
            events: self.events.clone(),
            begin: reins.begin.subscribe(),
            cancel: reins.cancel.clone(),
            why: Arc::clone(&reins.why),
            assignment,
        };
        let doing = Doing {
            reins,
            measure: None,
        };
        self.tasks.insert(key, doing);
        let executor = Arc::clone(&self.parts.executor);
        let events = self.events.clone();
        self.parts.tasks.spawn(async move {
            let work = async {
                match adopted {
                    None => executor.run(task).await,
                    Some(stage) => Ok(executor.adopt(task, stage).await),
                }
            };
            let result = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            let result = result.unwrap_or_else(|_panic| {
                let why = "the node's executor died: see its log".to_owned();
                Ok(Task::ending(PartOutcome::Error, Some(why)))
            });
            // the agent is going down: the next one adopts it
            drop(events.send((key, Event::Over(Box::new(result)))).await);
        });
    }

    fn happen(&mut self, state: &mut State, key: Key, event: Event) -> Vec<Effect> {
        match event {
            Event::Prepared => state.prepared(key),
            Event::Stage(stage, detail) => state.stage(key, stage, detail),
            Event::Measuring(waiting) => {
                if let Some(doing) = self.tasks.get_mut(&key) {
                    doing.measure = Some(waiting);
                }
                state.measuring(key)
            }
            Event::Output(output) => {
                state.output(key, output, (self.parts.clock)());
                Vec::new()
            }
            Event::Over(result) => {
                self.tasks.remove(&key);
                state.over(key, *result)
            }
        }
    }

    fn hear(&mut self, state: &mut State, message: Message) -> Vec<Effect> {
        match message {
            Message::Open(line) => {
                self.open(line);
                return state.connected();
            }
            Message::Sent(number, report) => {
                if let Some(session) = self.present(number) {
                    session.busy = false;
                    session.sent = Instant::now();
                    self.counts.sent += 1;
                    return state.said(&report);
                }
            }
            Message::Rejected(number) => {
                if self.present(number).is_some() {
                    self.counts.rejected += 1;
                }
            }
            // whoever asked may have left
            Message::Overview(answer) => drop(answer.send(self.overview(state))),
            Message::Detail(job, attempt, answer) => drop(answer.send(state.view(job, attempt))),
        }
        Vec::new()
    }

    fn overview(&self, state: &State) -> WorkView {
        WorkView {
            connected: state.welcomed(),
            streams: self.counts.streams,
            sent: self.counts.sent,
            received: self.counts.received,
            rejected: self.counts.rejected,
            silent: state.silent(),
            parts: state.views().collect(),
        }
    }

    fn obey(&mut self, state: &mut State, number: u64, order: Order) -> Vec<Effect> {
        if self.present(number).is_none() {
            return Vec::new(); // of a stream that was left
        }
        self.counts.received += 1;
        state.order(order, (self.parts.clock)())
    }

    fn open(&mut self, line: Line) {
        self.leave(SessionError::Replaced);
        self.counts.streams += 1;
        let number = self.counts.streams;
        self.told = None;
        let now = Instant::now();
        self.session = Some(Session {
            number,
            reports: line.reports,
            end: line.end,
            why: line.why,
            opened: now,
            sent: now,
            busy: false,
        });
        // it has left already: its line says so
        line.number.send(number).ok();
    }

    /// Ends the present session.
    fn leave(&mut self, why: SessionError) {
        if let Some(session) = self.session.take() {
            // it may have left by itself
            drop(session.why.send(why));
        }
    }

    fn present(&mut self, number: u64) -> Option<&mut Session> {
        let session = self.session.as_mut();
        session.filter(|session| session.number == number)
    }

    /// Done when the present session has ended by itself.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let end = self.session.as_ref().map(|session| session.end.clone());
        async move {
            match end {
                Some(end) => end.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Has the next message sent, if there is one and the last one is gone.
    fn speak(&mut self, state: &mut State) {
        let Some(session) = self.session.as_mut().filter(|session| !session.busy) else {
            return;
        };
        let facts = &mut self.parts.facts;
        let report = match state.say() {
            Some(Say::Hello(held)) => {
                let current = facts.borrow_and_update().clone();
                self.told = Some(current.clone());
                Some(Report::Hello {
                    facts: Box::new(current),
                    held,
                })
            }
            Some(Say::Report(report)) => Some(report),
            None if !state.welcomed() || state.silent() => None,
            None => {
                let current = facts.borrow();
                if self.told.as_ref() == Some(&*current) {
                    let due = state.heartbeat();
                    due.filter(|every| session.sent + *every <= Instant::now())
                        .map(|_| Report::Heartbeat {})
                } else {
                    let facts = Box::new(current.clone());
                    self.told = Some(NodeFacts::clone(&facts));
                    Some(Report::Facts { facts })
                }
            }
        };
        if let Some(report) = report {
            // there is room for one; a session that has ended says so by its line
            session.busy = session.reports.try_send(report).is_ok();
        }
    }

    /// When something is due, whatever it is.
    fn wake(&self, state: &State) -> Instant {
        let now = Instant::now();
        let limit = state.due().map(|at| {
            let left = at.saturating_sub((self.parts.clock)());
            now + left.min(FAR)
        });
        let session = self.session.as_ref();
        let beat = session
            .filter(|session| !session.busy)
            .zip(state.heartbeat())
            .map(|(session, every)| session.sent + every.min(FAR));
        let welcome = session
            .filter(|_| !state.welcomed())
            .map(|session| session.opened + WELCOME);
        [limit, beat, welcome]
            .into_iter()
            .flatten()
            .fold(now + FAR, Instant::min)
    }

    /// Leaves a controller that does not answer; false: it has answered, or has time left.
    fn expire(&mut self, state: &State) -> bool {
        let late = |session: &Session| session.opened + WELCOME <= Instant::now();
        let expired = !state.welcomed() && self.session.as_ref().is_some_and(late);
        if expired {
            self.leave(SessionError::NoWelcome { within: WELCOME });
        }
        expired
    }
}
