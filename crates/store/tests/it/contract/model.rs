//! Any sequence of commits leaves what a few maps would hold after them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::event::Event;
use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::queue::QueueSettings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use store::{
    Change, CommitError, EventFilter, JobFilter, JobRecord, Loaded, NodeRecord, Order,
    OrphanRecord, Revocation, Submission, TokenRecord,
};

use crate::place::{Backend, Place, block_on_two};
use crate::records::{
    FAR, event, job, job_change, node, node_change, node_id, orphan, orphan_change, placed,
    revocation, submission, token,
};

#[test]
fn sqlite() {
    equal_to_the_model(Backend::Sqlite, 32);
}

#[test]
fn postgres() {
    equal_to_the_model(Backend::Postgres, 8);
}

fn equal_to_the_model(backend: Backend, cases: u32) {
    let config = Config {
        cases,
        ..Config::with_source_file(file!())
    };
    let outcome = TestRunner::new(config).run(&calls(), |calls| {
        let place = Place::new(backend);
        block_on_two(check(&place, calls));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn check(place: &Place, calls: Vec<Vec<Change>>) {
    let (store, lease) = place.led().await;
    let mut model = Model::default();
    for changes in calls {
        let outcome = store.commit(lease.term, changes.clone()).await;
        let mut after = model.clone();
        match after.apply(changes) {
            Ok(()) => {
                assert_eq!(
                    outcome.expect("the model takes it"),
                    after.events.len() as u64
                );
                model = after;
            }
            Err(Contradiction) => {
                assert!(
                    matches!(outcome, Err(CommitError::Conflict { .. })),
                    "{outcome:?}"
                );
            }
        }
    }
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.load().await.expect("loads"), model.loaded());
    let all = JobFilter::default();
    let all = store.jobs(&all, None, 1_000, Order::OldestFirst);
    let jobs: Vec<JobRecord> = model.jobs.values().cloned().collect();
    assert_eq!(all.await.expect("reads"), jobs);
    let events = store.events(0, 1_000, &EventFilter::default()).await;
    assert_eq!(events.expect("reads"), model.events);
    for id in 1..=JOBS {
        let orphans = store.orphans(JobId(id)).await.expect("reads");
        let want = model.orphans.iter().filter(|((job, _), _)| *job == id);
        assert!(want.map(|(_, orphan)| orphan).eq(&orphans));
    }
    for (user, key) in USERS.iter().flat_map(|user| KEYS.map(|key| (*user, key))) {
        let made = store.submission(user, key).await.expect("reads");
        let want = model.submissions.get(&(user.to_string(), key.to_string()));
        assert_eq!(made.as_ref(), want);
    }
    for node in NODES {
        let filter = JobFilter {
            node: Some(node_id(node)),
            ..JobFilter::default()
        };
        let found = store.jobs(&filter, None, 1_000, Order::OldestFirst).await;
        let found = found.expect("reads").into_iter().map(|job| job.status.id.0);
        let want = model.visits.iter().filter(|(name, _)| name == node);
        assert!(want.map(|(_, job)| *job).eq(found));
    }
}

const JOBS: u64 = 6;
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const USERS: [&str; 2] = ["ann", "bob"];
const KEYS: [&str; 3] = ["k1", "k2", "k3"];

#[derive(Debug)]
struct Contradiction;

/// What the store holds, without any of its means.
#[derive(Debug, Clone, Default)]
struct Model {
    jobs: BTreeMap<u64, JobRecord>,
    visits: BTreeSet<(String, u64)>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    queues: BTreeMap<String, QueueSettings>,
    tokens: BTreeMap<String, TokenRecord>,
    revoked: BTreeMap<String, Revocation>,
    settings: BTreeMap<String, Value>,
    submissions: BTreeMap<(String, String), Submission>,
    orphans: BTreeMap<(u64, u32), OrphanRecord>,
    events: Vec<Event>,
    highest_job: u64,
    highest_fence: u64,
}

impl Model {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Contradiction> {
        let (jobs, others): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| matches!(change, Change::Job(_)));
        let (submissions, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|change| matches!(change, Change::Submission(_)));
        for change in jobs.into_iter().chain(others).chain(submissions) {
            self.one(change)?;
        }
        Ok(())
    }

    fn one(&mut self, change: Change) -> Result<(), Contradiction> {
        match change {
            Change::Job(record) => {
                let id = record.status.id.0;
                for part in &record.status.parts {
                    self.visits.insert((part.node.to_string(), id));
                }
                self.highest_job = self.highest_job.max(id);
                self.saw(record.status.fence.unwrap_or(0));
                self.jobs.insert(id, Arc::unwrap_or_clone(record));
            }
            Change::Submission(made) => {
                let key = (made.user.clone(), made.key.clone());
                if self.submissions.insert(key, made).is_some() {
                    return Err(Contradiction);
                }
            }
            Change::ForgetSubmissions { before_ms } => {
                self.submissions.retain(|_, made| made.at_ms >= before_ms);
            }
            Change::Node(record) => {
                self.saw(record.highest_fence);
                let others = || self.nodes.values().filter(|other| other.id != record.id);
                if others().any(|other| {
                    other.name == record.name
                        || (other.serial.is_some() && other.serial == record.serial)
                }) {
                    return Err(Contradiction);
                }
                self.nodes.insert(record.id.clone(), *record);
            }
            Change::NodeRemoved(id) => drop(self.nodes.remove(&id)),
            Change::Queue { name, settings } => drop(self.queues.insert(name, settings)),
            Change::QueueRemoved { name } => drop(self.queues.remove(&name)),
            Change::Token(record) => {
                let before = self.tokens.insert(record.id.clone(), record.clone());
                let before = before.and_then(|before| before.used_by);
                if before.is_some() && before != record.used_by {
                    return Err(Contradiction);
                }
            }
            Change::TokenRemoved { id } => drop(self.tokens.remove(&id)),
            Change::ForgetTokens { before_ms } => {
                self.tokens.retain(|_, token| token.expires_ms >= before_ms);
            }
            Change::Revoked(made) => {
                self.revoked.entry(made.serial.clone()).or_insert(made);
            }
            Change::ForgetRevocations { before_ms } => {
                self.revoked.retain(|_, made| made.expires_ms >= before_ms);
            }
            Change::Setting { name, value } => {
                if value.is_null() {
                    self.settings.remove(&name);
                } else {
                    self.settings.insert(name, value);
                }
            }
            Change::Event(made) => self.events.push(Event {
                seq: self.events.len() as u64 + 1,
                at_ms: made.at_ms,
                kind: made.kind,
                job: made.job,
                node: made.node,
                user: made.user,
                data: made.data,
            }),
            Change::Orphan(record) => {
                if !self.jobs.contains_key(&record.key.job.0) {
                    return Err(Contradiction);
                }
                self.saw(record.key.fence);
                let key = (record.key.job.0, record.key.attempt);
                self.orphans.insert(key, *record);
            }
        }
        Ok(())
    }

    fn saw(&mut self, fence: u64) {
        self.highest_fence = self.highest_fence.max(fence);
    }

    fn loaded(&self) -> Loaded {
        let jobs = self.jobs.values();
        Loaded {
            jobs: jobs
                .filter(|job| !job.status.state.is_over())
                .cloned()
                .collect(),
            nodes: self.nodes.values().cloned().collect(),
            queues: self.queues.clone(),
            tokens: self.tokens.values().cloned().collect(),
            revoked: self.revoked.values().cloned().collect(),
            settings: self.settings.clone(),
            highest_job: self.highest_job,
            highest_fence: self.highest_fence,
            last_event: self.events.len() as u64,
        }
    }
}

fn calls() -> impl Strategy<Value = Vec<Vec<Change>>> {
    proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..16)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any_job().prop_map(job_change),
        2 => any_node().prop_map(node_change),
        3 => any_event().prop_map(Change::Event),
        2 => any_submission().prop_map(Change::Submission),
        1 => (1..=JOBS, 1..4_u32).prop_map(|(job, attempt)| orphan_change(orphan(job, attempt))),
        1 => any_token().prop_map(Change::Token),
        1 => (any_text(), any_json()).prop_map(|(name, value)| Change::Setting { name, value }),
        1 => ("q[12]", any::<i32>()).prop_map(|(name, priority)| Change::Queue {
            name,
            settings: QueueSettings { priority, ..QueueSettings::default() },
        }),
        1 => "s[12]".prop_map(|serial| Change::Revoked(revocation(&serial))),
        1 => any_removal(),
    ]
}

fn any_removal() -> impl Strategy<Value = Change> {
    prop_oneof![
        proptest::sample::select(&NODES[..]).prop_map(|name| Change::NodeRemoved(node_id(name))),
        "q[12]".prop_map(|name| Change::QueueRemoved { name }),
        "t[12]".prop_map(|id| Change::TokenRemoved { id }),
        (0..10_u64).prop_map(|before_ms| Change::ForgetSubmissions { before_ms }),
        (FAR..FAR + 3).prop_map(|before_ms| Change::ForgetTokens { before_ms }),
        (49..52_u64).prop_map(|before_ms| Change::ForgetRevocations { before_ms }),
    ]
}

fn any_job() -> impl Strategy<Value = JobRecord> {
    let state = proptest::sample::select(&JobState::ALL[..]);
    let nodes = proptest::sample::subsequence(&NODES[..], 0..=3);
    (1..=JOBS, state, nodes, 0..100_u64, any_text(), any_json()).prop_map(
        |(id, state, nodes, fence, queue, extra)| {
            let mut record = match nodes.is_empty() {
                true => job(id, state),
                false => placed(id, fence, &nodes),
            };
            record.status.state = state;
            record.status.request.queue = queue;
            record.extra = extra;
            record
        },
    )
}

fn any_node() -> impl Strategy<Value = NodeRecord> {
    let name = proptest::sample::select(&NODES[..]);
    (name, 1..5_u8, proptest::option::of(1..5_u8), any_json()).prop_map(
        |(id, name, serial, extra)| {
            let mut record = node(id);
            record.name = format!("name{name}");
            record.serial = serial.map(|serial| serial.to_string());
            record.extra = extra;
            record
        },
    )
}

fn any_event() -> impl Strategy<Value = store::NewEvent> {
    let job = proptest::option::of(1..=JOBS);
    let user = proptest::option::of(any_text());
    (any_text(), job, user, any_json()).prop_map(|(kind, job, user, data)| {
        let mut made = event(&kind);
        made.job = job.map(JobId);
        made.user = user;
        made.data = data;
        made
    })
}

fn any_submission() -> impl Strategy<Value = Submission> {
    let user = proptest::sample::select(&USERS[..]);
    let key = proptest::sample::select(&KEYS[..]);
    let jobs = proptest::collection::vec(any::<u64>(), 0..3);
    (user, key, jobs, 0..10_u64).prop_map(|(user, key, jobs, at_ms)| {
        let mut made = submission(user, key, &jobs);
        made.at_ms = at_ms;
        made
    })
}

fn any_token() -> impl Strategy<Value = TokenRecord> {
    let user = proptest::option::of(proptest::sample::select(&NODES[..]));
    ("t[12]", user, FAR..FAR + 3).prop_map(|(id, used_by, expires_ms)| {
        let mut made = token(&id);
        made.used_by = used_by.map(node_id);
        made.expires_ms = expires_ms;
        made
    })
}

/// Any, but without NUL, which is refused.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,2}", "[^\u{0}]{0,6}", "['\"\\\\%_;$?-]{0,6}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            (any::<String>(), inner).prop_map(|(key, value)| json!({ key: value })),
        ]
    })
}
