//! A lab that is simulated: the core, a disk that has what was committed, and nodes that do what
//! nodes do, with what is on its way between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::fleet::{Domain, MachineHints, NodeFacts, NodeId};
use api::job::{JobId, JobRequest, JobState};
use api::queue::QueueSettings;
use api::work::{Ending, Held, Key, Order, PartOutcome, Report, Stage};

use crate::lifecycle::{
    BOOKINGS, Bookings, Certificate, Collect, Core, HEALTH_CHECK, Inheritance, Job, Millis,
    NodeRow, Orphan, Settings, Step, Wanted,
};

/// What a job asks for, if nothing else is said.
pub(super) fn request() -> JobRequest {
    serde_json::from_value(serde_json::json!({ "image": "busybox" })).unwrap()
}

pub(super) fn id(number: usize) -> NodeId {
    NodeId::try_from(format!("n{number}")).unwrap()
}

pub(super) fn certificate(number: usize) -> Certificate {
    Certificate {
        serial: format!("{number:02x}"),
        until_ms: Millis::MAX,
    }
}

pub(super) fn ending(outcome: PartOutcome) -> Ending {
    Ending {
        outcome,
        reason: (outcome != PartOutcome::Done).then(|| format!("{outcome:?}")),
        exit_code: None,
        signal: None,
        verdict: None,
        started_ms: None,
        ended_ms: None,
        documents: vec![api::work::Document {
            name: "result.json".into(),
            bytes: 2,
            sha256: "00".into(),
        }],
        figures: BTreeMap::new(),
    }
}

/// What the store would have.
#[derive(Debug, Default, Clone)]
pub(super) struct Disk {
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) nodes: BTreeMap<NodeId, NodeRow>,
    pub(super) queues: BTreeMap<String, QueueSettings>,
    pub(super) settings: BTreeMap<&'static str, serde_json::Value>,
    pub(super) orphans: Vec<Orphan>,
    pub(super) last_fence: u64,
}

/// Work on a node.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) stage: Stage,
    cpus: cpulist::CpuSet,
    waits: bool,
    ending: Option<Ending>,
}

/// A node and its two directions.
#[derive(Debug, Default)]
pub(super) struct SimNode {
    pub(super) connected: bool,
    session: u64,
    pub(super) held: BTreeMap<Key, Work>,
    highest: BTreeMap<JobId, u64>,
    pub(super) inbox: VecDeque<Order>,
    pub(super) outbox: VecDeque<Report>,
    /// Keys that were ever begun: none is begun twice.
    begun: BTreeSet<Key>,
    /// How often the measured part of each job was run here.
    pub(super) boots: u32,
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) disk: Disk,
    pub(super) now: Millis,
    pub(super) nodes: Vec<SimNode>,
    /// Decided, not committed.
    pub(super) steps: VecDeque<Step>,
    pub(super) collecting: Vec<Collect>,
    pub(super) settings: Settings,
    sessions: u64,
    /// Whoever submitted was told.
    pub(super) acknowledged: BTreeSet<JobId>,
}

fn facts(number: usize, boots: u32) -> NodeFacts {
    NodeFacts {
        hostname: format!("bench{number}"),
        boot_id: Some(format!("{number}-{boots}")),
        domains: vec![Domain {
            cpus: "1-4".parse().unwrap(),
            memory_bytes: 1 << 30,
        }],
        isolated: true,
        share: true,
        ..NodeFacts::default()
    }
}

/// A lab all of whose nodes are there.
pub(super) fn connected(nodes: usize) -> World {
    let mut world = World::new(nodes);
    for number in 0..nodes {
        world.connect(number);
    }
    world.settle(PartOutcome::Done);
    world
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
        let settings = Settings::default();
        let mut core = Core::new(settings, Inheritance::default(), 0);
        core.set_queue(0, "admin", "default", QueueSettings::default());
        for number in 0..nodes {
            let machine = MachineHints {
                hostname: format!("bench{number}"),
                ..MachineHints::default()
            };
            let former = core.admit(0, &id(number), machine, certificate(number));
            assert!(former.is_empty());
        }
        let mut world = Self {
            core,
            disk: Disk::default(),
            now: 1,
            nodes: (0..nodes).map(|_| SimNode::default()).collect(),
            steps: VecDeque::new(),
            collecting: Vec::new(),
            settings,
            sessions: 0,
            acknowledged: BTreeSet::new(),
        };
        world.decide();
        world.commit();
        world
    }

    /// What a dispatcher does after each input.
    pub(super) fn decide(&mut self) {
        self.core.passed(self.now);
        let step = self.core.take_step();
        if !step.is_empty() {
            self.steps.push_back(step);
        }
    }

    /// The oldest step reaches the disk and is acted on.
    pub(super) fn commit(&mut self) {
        let Some(step) = self.steps.pop_front() else {
            return;
        };
        for (id, job) in step.jobs {
            let known = self.disk.jobs.get(&id).map(|job| job.status.state);
            assert!(
                known.is_none_or(|state| !state.is_over()),
                "job {id} was over as {known:?} and is {:?} now",
                job.status.state
            );
            self.disk.last_fence = self.disk.last_fence.max(job.status.fence.unwrap_or(0));
            if job.status.state == JobState::Queued {
                self.acknowledged.insert(id);
            }
            self.disk.jobs.insert(id, job);
        }
        self.disk.nodes.extend(step.nodes);
        self.disk.settings.extend(step.settings);
        for (name, settings) in step.queues {
            self.disk
                .queues
                .extend(settings.map(|settings| (name, settings)));
        }
        for instruction in step.orders {
            let node = self.at(&instruction.node);
            if node.connected && node.session == instruction.session {
                node.inbox.push_back(instruction.order);
            }
        }
        self.collecting.extend(step.collect);
        for late in step.orphans {
            let job = self.disk.jobs.get(&late.key.job);
            let repeated = job.is_some_and(|job| job.counts(&late.node, late.key));
            let order = Order::Acknowledge { key: late.key };
            let node = late.node.clone();
            if !repeated {
                self.disk.orphans.push(late);
            }
            let node = self.at(&node);
            if node.connected {
                node.inbox.push_back(order);
            }
        }
    }

    pub(super) fn at(&mut self, node: &NodeId) -> &mut SimNode {
        let number: usize = node.as_str()[1..].parse().unwrap();
        &mut self.nodes[number]
    }

    pub(super) fn submit(&mut self, request: JobRequest) -> JobId {
        let taken = self
            .core
            .submit(
                self.now,
                "u",
                "user",
                vec![Wanted {
                    request,
                    image: None,
                }],
            )
            .unwrap();
        self.decide();
        taken[0].id
    }

    /// A controller that was killed and started again: what was not committed never was.
    pub(super) fn restart_controller(&mut self) {
        self.steps.clear();
        self.collecting.clear();
        for node in &mut self.nodes {
            node.connected = false;
            node.inbox.clear();
            node.outbox.clear();
        }
        let jobs = self
            .disk
            .jobs
            .values()
            .filter(|job| !job.status.state.is_over());
        let setting = |name| self.disk.settings.get(name).cloned().unwrap_or_default();
        let bookings: Option<Bookings> = serde_json::from_value(setting(BOOKINGS)).unwrap();
        let left = Inheritance {
            bookings: bookings.unwrap_or_default(),
            health: serde_json::from_value(setting(HEALTH_CHECK)).unwrap(),
            jobs: jobs.cloned().collect(),
            nodes: self.disk.nodes.values().cloned().collect(),
            queues: self.disk.queues.clone(),
            last_job: self.disk.jobs.keys().next_back().map_or(0, |id| id.0),
            last_fence: self.disk.last_fence,
        };
        self.core = Core::new(self.settings, left, self.now);
        self.decide();
    }

    pub(super) fn connect(&mut self, number: usize) {
        self.sessions += 1;
        let node = &mut self.nodes[number];
        if node.connected {
            return;
        }
        node.connected = true;
        node.session = self.sessions;
        node.inbox.clear();
        node.outbox.clear();
        let held = node.held.iter();
        let held = held.map(|(key, work)| Held {
            key: *key,
            stage: work.stage,
        });
        let hello = Report::Hello {
            facts: Box::new(facts(number, node.boots)),
            held: held.collect(),
        };
        node.outbox.push_back(hello);
        let ended = node
            .held
            .iter()
            .filter_map(|(key, work)| Some((*key, work.ending.clone()?)));
        let ended: Vec<_> = ended.collect();
        for (key, ending) in ended {
            let ending = Box::new(ending);
            node.outbox.push_back(Report::Ended { key, ending });
        }
    }

    pub(super) fn disconnect(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.connected {
            return;
        }
        node.connected = false;
        node.inbox.clear();
        node.outbox.clear();
        let session = node.session;
        self.core
            .disconnected(self.now, &id(number), session, "cut");
        self.decide();
    }

    /// Its power fails: whatever it held is gone.
    pub(super) fn reboot(&mut self, number: usize) {
        self.disconnect(number);
        let node = &mut self.nodes[number];
        node.held.clear();
        node.highest.clear();
        node.boots += 1;
    }

    /// The node's oldest report reaches the core.
    pub(super) fn hear(&mut self, number: usize) {
        if let Some(report) = self.nodes[number].outbox.pop_front() {
            let session = self.nodes[number].session;
            match report {
                Report::Hello { facts, held } => {
                    self.core
                        .connected(self.now, &id(number), session, *facts, &held);
                }
                report => self.core.reported(self.now, &id(number), session, report),
            }
            self.decide();
        }
    }

    /// The node acts on the oldest order.
    pub(super) fn obey(&mut self, number: usize, refuse: bool) {
        let node = &mut self.nodes[number];
        let Some(order) = node.inbox.pop_front() else {
            return;
        };
        match order {
            Order::Welcome { keep, .. } => {
                node.held.retain(|key, _| keep.contains(key));
            }
            Order::Assign(assignment) => {
                let key = assignment.key;
                let highest = node.highest.entry(key.job).or_default();
                if key.fence < *highest {
                    let why = "an older fence".into();
                    node.outbox.push_back(Report::Refused {
                        key,
                        why,
                        elsewhere: true,
                    });
                    return;
                }
                *highest = key.fence;
                if !node.held.contains_key(&key) {
                    if refuse {
                        let why = "not today".into();
                        node.outbox.push_back(Report::Refused {
                            key,
                            why,
                            elsewhere: true,
                        });
                        return;
                    }
                    for (other, work) in &node.held {
                        let both = work.cpus.intersection(&assignment.cpus);
                        let runs = work.stage < Stage::Packing;
                        assert!(
                            !runs || both.is_empty(),
                            "{other:?} and {key:?} share {both}"
                        );
                    }
                    assert!(node.begun.insert(key), "{key:?} is begun twice");
                    let work = Work {
                        stage: Stage::Accepted,
                        cpus: assignment.cpus.clone(),
                        waits: assignment.wait_for_begin,
                        ending: None,
                    };
                    node.held.insert(key, work);
                }
                node.outbox.push_back(Report::Accepted { key });
            }
            Order::Begin { key } => {
                if let Some(work) = node.held.get_mut(&key) {
                    work.waits = false;
                }
            }
            Order::Cancel { key, .. } => {
                if node
                    .held
                    .get(&key)
                    .is_some_and(|work| work.ending.is_none())
                {
                    self.end(number, key, PartOutcome::Cancelled);
                }
            }
            Order::Acknowledge { key } => {
                let work = node.held.remove(&key);
                assert!(
                    work.is_none_or(|work| work.ending.is_some()),
                    "{key:?} runs"
                );
            }
        }
    }

    fn end(&mut self, number: usize, key: Key, outcome: PartOutcome) {
        let node = &mut self.nodes[number];
        let Some(work) = node.held.get_mut(&key) else {
            return;
        };
        work.stage = Stage::Ended;
        work.ending = Some(ending(outcome));
        if node.connected {
            let ending = Box::new(ending(outcome));
            node.outbox.push_back(Report::Ended { key, ending });
        }
    }

    /// The node's work goes on by one stage, connected or not.
    pub(super) fn work(&mut self, number: usize, outcome: PartOutcome) {
        let node = &mut self.nodes[number];
        let running = node
            .held
            .iter_mut()
            .find(|(_, work)| work.ending.is_none() && !work.waits);
        let Some((key, work)) = running else {
            return;
        };
        let (key, stage) = match work.stage {
            Stage::Accepted => (*key, Stage::Preparing),
            Stage::Preparing => (*key, Stage::Measuring),
            Stage::Measuring => (*key, Stage::Packing),
            Stage::Packing | Stage::Ended => {
                let key = *key;
                self.end(number, key, outcome);
                return;
            }
        };
        work.stage = stage;
        if node.connected {
            let detail = None;
            node.outbox.push_back(Report::Stage { key, stage, detail });
        }
    }

    /// The documents that were asked for first are here, if their node still is.
    pub(super) fn collect(&mut self) {
        if self.collecting.is_empty() {
            return;
        }
        let Collect {
            node,
            key,
            documents,
        } = self.collecting.remove(0);
        if self.at(&node).connected {
            self.core.collected(self.now, &node, key, documents);
            self.decide();
        }
    }

    pub(super) fn wait(&mut self, millis: Millis) {
        self.now += millis;
        self.decide();
    }

    /// Everything that is on its way arrives, and whoever can goes on.
    pub(super) fn settle(&mut self, outcome: PartOutcome) {
        for _ in 0..200 {
            while !self.steps.is_empty() {
                self.commit();
            }
            self.collect();
            for number in 0..self.nodes.len() {
                self.obey(number, false);
                self.work(number, outcome);
                self.hear(number);
            }
            self.wait(1);
        }
    }

    pub(super) fn state(&self, id: JobId) -> JobState {
        self.disk.jobs[&id].status.state
    }
}
