//! Nodes: who they are, whether they are there, and what of that the scheduler has to know.

use std::collections::{BTreeMap, BTreeSet};

use api::fleet::{MachineHints, NodeChange, NodeFacts, NodeId, NodeState, NodeView};
use api::job::JobId;
use api::work::{Held, Key, Order, Stage};
use sched::Health;
use serde::{Deserialize, Serialize};

use super::attempt::Progress;
use super::health::Checkup;
use super::settings::millis;
use super::step::Instruction;
use super::{Core, Millis};

/// One that was issued to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its number, in hexadecimal.
    pub serial: String,
    pub until_ms: Millis,
}

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: NodeId,
    pub name: String,
    pub enrolled_ms: Millis,
    pub machine: MachineHints,
    pub certificate: Option<Certificate>,
    /// Earlier ones that have not ended.
    pub former: Vec<Certificate>,
    pub revoked: bool,
    pub labels: BTreeMap<String, String>,
    pub draining: bool,
    /// Why nobody is sent there until an operator says that it is healthy.
    pub quarantine: Option<String>,
    pub facts: Option<NodeFacts>,
    pub checkup: Checkup,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) row: Row,
    pub(super) seat: sched::NodeId,
    pub(super) link: Link,
    /// Not asked until then, and why.
    pub(super) hold_off: Option<(Millis, String)>,
    /// Jobs that failed here by the node's fault, since the last one that did not.
    strikes: BTreeSet<JobId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up { since: Millis, session: u64 },
    Down { since: Millis },
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    pub(super) fn state(&self) -> NodeState {
        if !self.is_up() {
            return NodeState::Offline;
        }
        if let Some(cause) = &self.row.quarantine {
            return NodeState::Quarantined {
                cause: cause.clone(),
            };
        }
        if let Some((_, cause)) = &self.hold_off {
            return NodeState::Quarantined {
                cause: cause.clone(),
            };
        }
        if self.row.draining {
            return NodeState::Draining;
        }
        let unfit = self
            .row
            .facts
            .as_ref()
            .and_then(|facts| facts.unfit.clone());
        unfit.map_or(NodeState::Ready, |reason| NodeState::Unfit { reason })
    }

    fn as_scheduled(&self) -> sched::Node {
        let facts = self.row.facts.clone().unwrap_or_default();
        let mut labels = facts.labels;
        labels.extend(self.row.labels.clone());
        sched::Node {
            name: self.row.name.clone(),
            health: match self.state() {
                NodeState::Ready => Health::Ready,
                NodeState::Draining => Health::Draining,
                NodeState::Offline => Health::Lost,
                NodeState::Quarantined { cause } => Health::Quarantined { cause },
                NodeState::Unfit { reason } => Health::Quarantined { cause: reason },
            },
            class: facts.class,
            labels,
            domains: facts
                .domains
                .into_iter()
                .map(|domain| sched::Domain {
                    cpus: domain.cpus,
                    memory: domain.memory_bytes,
                })
                .collect(),
            devices: facts.devices,
            isolated: facts.isolated,
            tick: facts.tick,
            share: facts.share,
        }
    }
}

impl Core {
    pub(super) fn add_node(&mut self, row: Row, now: Millis) {
        let mut node = Node {
            row,
            seat: sched::NodeId::default(),
            link: Link::Down { since: now },
            hold_off: None,
            strikes: BTreeSet::new(),
        };
        node.seat = self.sched.add_node(node.as_scheduled());
        self.seats.push(node.row.id.clone());
        self.nodes.insert(node.row.id.clone(), node);
    }

    /// The scheduler gets to know a node as it is now.
    pub(super) fn reseat(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get(id) {
            // every node that is here was added there
            self.sched
                .set_node(node.seat, node.as_scheduled())
                .unwrap_or_default();
            self.stirred = true;
        }
    }

    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Row> {
        self.nodes.get(id).map(|node| &node.row)
    }

    /// By id, or else by name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<&Row> {
        let mut all = self.nodes.values();
        let by_id = NodeId::try_from(name.to_owned()).ok();
        let by_id = by_id.and_then(|id| self.nodes.get(&id));
        by_id
            .or_else(|| all.find(|node| node.row.name == name))
            .map(|node| &node.row)
    }

    /// By the scheduler's number.
    #[must_use]
    pub fn seated(&self, seat: sched::NodeId) -> Option<&Row> {
        let index = usize::try_from(seat.0).ok()?;
        self.node(self.seats.get(index)?)
    }

    /// All of them; what only a connection knows is left out.
    #[must_use]
    pub fn node_views(&self) -> Vec<NodeView> {
        let mut jobs: BTreeMap<&NodeId, Vec<JobId>> = BTreeMap::new();
        for id in &self.placed {
            let attempt = self.jobs.get(id).and_then(|job| job.attempt.as_ref());
            for node in attempt.iter().flat_map(|attempt| attempt.parts.keys()) {
                jobs.entry(node).or_default().push(*id);
            }
        }
        let view = |node: &Node| NodeView {
            id: node.row.id.clone(),
            name: node.row.name.clone(),
            state: node.state(),
            facts: node.row.facts.clone(),
            enrolled_ms: node.row.enrolled_ms,
            connected_ms: match node.link {
                Link::Up { since, .. } => Some(since),
                Link::Down { .. } => None,
            },
            seen_ms: None,
            jobs: jobs.get(&node.row.id).cloned().unwrap_or_default(),
            labels: node.row.labels.clone(),
            received: 0,
            sent: 0,
        };
        self.nodes.values().map(view).collect()
    }

    /// The state of each node, for whoever only counts them: views of thousands cost too much for that.
    #[must_use]
    pub fn node_states(&self) -> Vec<NodeState> {
        self.nodes.values().map(Node::state).collect()
    }

    /// A machine that was let in: a new node, or one that is known with another key. Its earlier
    /// certificates are to be revoked.
    #[must_use]
    pub fn admit(
        &mut self,
        now: Millis,
        id: &NodeId,
        machine: MachineHints,
        certificate: Certificate,
    ) -> Vec<Certificate> {
        if !self.nodes.contains_key(id) {
            let row = Row {
                id: id.clone(),
                name: self.free_name(&machine.hostname),
                enrolled_ms: now,
                machine: MachineHints::default(),
                certificate: None,
                former: Vec::new(),
                revoked: false,
                labels: BTreeMap::new(),
                draining: false,
                quarantine: None,
                facts: None,
                checkup: Checkup::default(),
            };
            self.add_node(row, now);
        }
        let Some(node) = self.nodes.get_mut(id) else {
            return Vec::new();
        };
        let mut former = std::mem::take(&mut node.row.former);
        former.extend(node.row.certificate.replace(certificate));
        node.row.machine = machine;
        node.row.revoked = false;
        let row = node.row.clone();
        let data = serde_json::json!({
            "name": row.name, "machine": row.machine, "certificate": row.certificate,
        });
        self.node_event(now, id, "node.enrolled", data);
        self.step.nodes.insert(id.clone(), row);
        former
    }

    /// A node's next certificate. False: it is not known, or revoked.
    pub fn renew(&mut self, now: Millis, id: &NodeId, certificate: Certificate) -> bool {
        let Some(node) = self.nodes.get_mut(id).filter(|node| !node.row.revoked) else {
            return false;
        };
        let serial = certificate.serial.clone();
        let former = node.row.certificate.replace(certificate);
        node.row.former.extend(former);
        node.row
            .former
            .retain(|certificate| certificate.until_ms > now);
        let row = node.row.clone();
        self.step.nodes.insert(id.clone(), row);
        self.node_event(
            now,
            id,
            "node.renewed",
            serde_json::json!({ "serial": serial }),
        );
        true
    }

    /// What each node's machine was when it was let in.
    pub fn machines(&self) -> impl Iterator<Item = (&NodeId, &MachineHints)> {
        let all = self.nodes.iter();
        all.map(|(id, node)| (id, &node.row.machine))
    }

    /// Whether a machine may take this node's place without anybody's saying so again: the node is
    /// away, and was not sent away.
    #[must_use]
    pub fn may_return(&self, id: &NodeId) -> bool {
        let node = self.nodes.get(id);
        node.is_some_and(|node| !node.is_up() && !node.row.revoked)
    }

    fn free_name(&self, hostname: &str) -> String {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let plain: String = hostname.chars().filter(|c| known(*c)).take(64).collect();
        let plain = if plain.is_empty() {
            "node".to_owned()
        } else {
            plain
        };
        let taken: BTreeSet<&str> = self.nodes.values().map(|it| it.row.name.as_str()).collect();
        let numbered = (2..).map(|number| format!("{plain}-{number}"));
        std::iter::once(plain.clone())
            .chain(numbered)
            .find(|name| !taken.contains(name.as_str()))
            .unwrap_or(plain)
    }

    pub(super) fn node_event(
        &mut self,
        now: Millis,
        id: &NodeId,
        kind: &str,
        data: serde_json::Value,
    ) {
        self.event(now, kind, |event| {
            event.node = Some(id.clone());
            event.data = data;
        });
    }

    /// A node's certificates are worth nothing any more; these are they. `None`: there is no such node.
    pub fn revoke(&mut self, now: Millis, user: &str, id: &NodeId) -> Option<Vec<Certificate>> {
        let node = self.nodes.get_mut(id)?;
        node.row.revoked = true;
        let mut all = std::mem::take(&mut node.row.former);
        all.extend(node.row.certificate.take());
        let row = node.row.clone();
        let serials: Vec<_> = all.iter().map(|it| it.serial.clone()).collect();
        self.event(now, "node.revoked", |event| {
            event.node = Some(id.clone());
            event.user = Some(user.to_owned());
            event.data = serde_json::json!({ "serials": serials });
        });
        self.step.nodes.insert(id.clone(), row);
        let why = "its certificate was revoked".to_owned();
        self.step.dismiss.push((id.clone(), why));
        Some(all)
    }

    /// What an operator changes. False: there is no such node.
    pub fn change_node(
        &mut self,
        now: Millis,
        user: &str,
        id: &NodeId,
        change: &NodeChange,
    ) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return false;
        };
        if let Some(draining) = change.draining {
            node.row.draining = draining;
        }
        match change.healthy {
            Some(true) => {
                (node.row.quarantine, node.hold_off) = (None, None);
                node.strikes.clear();
                node.row.checkup.passed_ms = None;
            }
            Some(false) => node.row.quarantine = Some(format!("by {user}")),
            None => {}
        }
        for (label, value) in &change.labels {
            if value.is_empty() {
                node.row.labels.remove(label);
            } else {
                node.row.labels.insert(label.clone(), value.clone());
            }
        }
        let row = node.row.clone();
        self.step.nodes.insert(id.clone(), row);
        self.event(now, "node.changed", |event| {
            event.node = Some(id.clone());
            event.user = Some(user.to_owned());
            event.data = serde_json::json!(change);
        });
        self.reseat(id);
        true
    }

    pub(super) fn quarantine(&mut self, now: Millis, id: &NodeId, cause: String) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.row.quarantine = Some(cause.clone());
            let row = node.row.clone();
            self.step.nodes.insert(id.clone(), row);
            self.node_event(
                now,
                id,
                "node.quarantined",
                serde_json::json!({ "cause": cause }),
            );
            self.reseat(id);
        }
    }

    /// A job failed here by the node's fault. Often enough, by different jobs, and it is in quarantine.
    pub(super) fn strike(&mut self, now: Millis, id: &NodeId, job: JobId, cause: String) {
        let allowed = self.settings.strikes;
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.strikes.insert(job);
        if node.strikes.len() >= allowed && node.row.quarantine.is_none() {
            let cause = format!("{allowed} jobs in a row failed by its fault; the last: {cause}");
            self.quarantine(now, id, cause);
        }
    }

    /// It ran a job to its end.
    pub(super) fn served(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.strikes.clear();
        }
    }

    /// Not asked again for a while.
    pub(super) fn hold_off(&mut self, now: Millis, id: &NodeId, job: JobId, cause: String) {
        let until = now.saturating_add(millis(self.settings.hold_off));
        if let Some(node) = self.nodes.get_mut(id) {
            node.hold_off = Some((until, cause.clone()));
            self.held_off.insert(id.clone());
            self.node_event(
                now,
                id,
                "node.held-off",
                serde_json::json!({ "cause": cause }),
            );
            self.strike(now, id, job, cause);
            self.reseat(id);
        }
    }

    /// A node that is connected and told what it is and what it holds. `session` is another number for
    /// each connection: what is meant for one is never sent on the next. It is answered with
    /// [`Order::Welcome`]; what it was told before and does not know is told again.
    pub fn connected(
        &mut self,
        now: Millis,
        id: &NodeId,
        session: u64,
        facts: NodeFacts,
        held: &[Held],
    ) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if node.row.revoked {
            // revoked between its handshake and its hello
            let why = "its certificate was revoked".to_owned();
            self.step.dismiss.push((id.clone(), why));
            return;
        }
        node.link = Link::Up {
            since: now,
            session,
        };
        let before = node.row.facts.as_ref().and_then(|it| it.boot_id.as_ref());
        let rebooted = before.is_none() || before != facts.boot_id.as_ref();
        let other = node.row.facts.as_ref() != Some(&facts);
        if rebooted {
            node.row.checkup.passed_ms = None;
        }
        node.row.facts = Some(facts);
        if other {
            let row = node.row.clone();
            self.step.nodes.insert(id.clone(), row);
        }
        self.node_event(
            now,
            id,
            "node.connected",
            serde_json::json!({ "new_boot": rebooted }),
        );
        self.reseat(id);

        let keep = held
            .iter()
            .filter(|it| it.stage == Stage::Ended || self.wants(id, it.key));
        let keep = keep.map(|it| it.key).collect();
        let heartbeat_seconds = u32::try_from(self.settings.heartbeat.as_secs()).unwrap_or(10);
        self.order(
            id,
            Order::Welcome {
                keep,
                heartbeat_seconds,
            },
        );
        self.resume(now, id, held, rebooted);
    }

    /// Whether the node's work under this key is still wanted.
    fn wants(&self, node: &NodeId, key: Key) -> bool {
        let attempt = self.jobs.get(&key.job).and_then(|job| job.attempt.as_ref());
        attempt.is_some_and(|attempt| {
            let part = attempt.parts.get(node);
            attempt.key == key && part.is_some_and(|part| part.progress < Progress::Settled)
        })
    }

    /// A connection that ended.
    pub fn disconnected(&mut self, now: Millis, id: &NodeId, session: u64, why: &str) {
        if self.session(id) != Some(session) {
            return;
        }
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.link = Link::Down { since: now };
        self.node_event(
            now,
            id,
            "node.disconnected",
            serde_json::json!({ "why": why }),
        );
        self.reseat(id);
        self.left(now, id);
    }

    /// A second machine came with a node's identity, and was sent away.
    pub fn cloned(&mut self, now: Millis, id: &NodeId, first: &str, second: &str) {
        self.node_event(
            now,
            id,
            "node.cloned",
            serde_json::json!({ "connected": first, "refused": second }),
        );
    }

    /// Somebody made a call to a node that may have changed something there. `name` is as they gave it.
    pub fn called(&mut self, now: Millis, name: &str, user: &str, data: serde_json::Value) {
        let node = self.node_named(name).map(|row| row.id.clone());
        self.event(now, "node.called", |event| {
            (event.node, event.user) = (node, Some(user.to_owned()));
            event.data = data;
        });
    }

    /// So many calls were not written down.
    pub fn calls_lost(&mut self, now: Millis, calls: u64) {
        self.event(now, "node.calls-lost", |event| {
            event.data = serde_json::json!({ "calls": calls });
        });
    }

    /// What a node is has changed.
    pub fn facts(&mut self, now: Millis, id: &NodeId, facts: NodeFacts) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if node.row.facts.as_ref() == Some(&facts) {
            return;
        }
        node.row.facts = Some(facts);
        let row = node.row.clone();
        self.node_event(
            now,
            id,
            "node.facts",
            serde_json::json!({
                "unfit": row.facts.as_ref().and_then(|facts| facts.unfit.clone()),
            }),
        );
        self.step.nodes.insert(id.clone(), row);
        self.reseat(id);
    }

    /// Of its present connection.
    pub(super) fn session(&self, id: &NodeId) -> Option<u64> {
        match self.nodes.get(id)?.link {
            Link::Up { session, .. } => Some(session),
            Link::Down { .. } => None,
        }
    }

    pub(super) fn order(&mut self, node: &NodeId, order: Order) {
        if let Some(session) = self.session(node) {
            let node = node.clone();
            self.step.orders.push(Instruction {
                node,
                session,
                order,
            });
        }
    }
}
