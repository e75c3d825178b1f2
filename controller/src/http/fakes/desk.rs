//! What people may ask of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use api::booking::{BookingRequest, BookingView};
use api::fleet::{
    EnrolAnswer, EnrolRequest, NodeChange, NodeId, NodeState, NodeView, PendingNode, RenewAnswer,
    TokenRequest, TokenView,
};
use api::health::{HealthCheck, HealthCheckView, NodeHealth};
use api::job::{JobId, JobRequest, JobState, JobStatus};
use api::queue::{QueueSettings, QueueView};
use policy::Role;
use sha2::{Digest as _, Sha256};

use super::{FakeController, State, named};
use crate::desk::{Caller, Desk, Explanation};
use crate::refusal::{Kind, Refusal};

fn admin(caller: &Caller) -> Result<(), Refusal> {
    match caller.role {
        Role::Admin => Ok(()),
        Role::User => Err(Refusal::new(Kind::Forbidden, "for role admin only")),
    }
}

impl State {
    fn node_mut(&mut self, id: &NodeId) -> Result<&mut NodeView, Refusal> {
        let node = self.nodes.get_mut(id);
        node.ok_or_else(|| Refusal::new(Kind::NoSuchNode, format!("there is no node {id}")))
    }

    fn health_view(&self) -> HealthCheckView {
        let nodes = self.nodes.values().map(|node| NodeHealth {
            node: node.id.clone(),
            name: node.name.clone(),
            state: node.state.clone(),
            passed_ms: None,
            job: None,
        });
        HealthCheckView {
            check: self.health.clone(),
            nodes: nodes.collect(),
        }
    }

    fn queue_view(&self, name: &str, settings: &QueueSettings) -> QueueView {
        QueueView {
            name: name.to_owned(),
            settings: settings.clone(),
            waiting: self.count(name, true),
            running: self.count(name, false),
        }
    }

    fn may_submit(&self, caller: &Caller, requests: &[JobRequest]) -> Result<(), Refusal> {
        for (index, request) in requests.iter().enumerate() {
            let at = match requests.len() {
                1 => "/queue".to_owned(),
                _ => format!("/{index}/queue"),
            };
            let name = &request.queue;
            let Some(queue) = self.queues.get(name) else {
                let text = format!("there is no queue {name}");
                return Err(Refusal::new(Kind::NoSuchQueue, text).at(at));
            };
            if queue.draining {
                let text = format!("queue {name} takes nothing new");
                return Err(Refusal::new(Kind::QueueDraining, text).at(at));
            }
            if queue
                .users
                .as_ref()
                .is_some_and(|users| !users.contains(&caller.user))
            {
                let text = format!("queue {name} is not for {}", caller.user);
                return Err(Refusal::new(Kind::Forbidden, text).at(at));
            }
        }
        for (name, queue) in &self.queues {
            let more = requests.iter().filter(|r| r.queue == *name).count();
            if more > 0 && self.count(name, true) + more > queue.capacity {
                let text = format!("queue {name} holds {} jobs at most", queue.capacity);
                return Err(Refusal::new(Kind::QueueFull, text).at("/queue"));
            }
        }
        Ok(())
    }

    fn submit(&mut self, user: &str, request: JobRequest) -> JobStatus {
        let last = self.jobs.keys().next_back().map_or(0, |id| id.0);
        let job = JobStatus {
            id: JobId(last + 1),
            user: user.to_owned(),
            request,
            state: JobState::Queued,
            submitted_ms: self.tick(),
            started_ms: None,
            ended_ms: None,
            attempts: 0,
            fence: None,
            parts: Vec::new(),
            reason: None,
            cancelling: false,
        };
        self.jobs.insert(job.id, job.clone());
        self.event("job.queued", Some(job.id), None, Some(user));
        job
    }
}

impl Desk for FakeController {
    async fn submit(
        &self,
        caller: &Caller,
        key: Option<String>,
        requests: Vec<JobRequest>,
    ) -> Result<Vec<JobStatus>, Refusal> {
        self.trouble().await?;
        let key = key.map(|key| (caller.user.clone(), key));
        self.change(|state| {
            if let Some(before) = key.as_ref().and_then(|key| state.submitted.get(key)) {
                if before.0 != requests {
                    let text = "this key was used for another submission";
                    return Err(Refusal::new(Kind::KeyReused, text));
                }
                let jobs = before.1.iter().filter_map(|id| state.jobs.get(id).cloned());
                return Ok(jobs.collect());
            }
            state.may_submit(caller, &requests)?;
            let jobs = requests.iter().cloned();
            let jobs: Vec<_> = jobs.map(|r| state.submit(&caller.user, r)).collect();
            if let Some(key) = key {
                let ids = jobs.iter().map(|job| job.id).collect();
                state.submitted.insert(key, (requests, ids));
            }
            Ok(jobs)
        })
    }

    async fn cancel(
        &self,
        caller: &Caller,
        id: JobId,
        reason: Option<String>,
    ) -> Result<JobStatus, Refusal> {
        self.trouble().await?;
        self.change(|state| {
            let job = state.job(id)?;
            if caller.role == Role::User && job.user != caller.user {
                let text = format!("job {id} is {}'s", job.user);
                return Err(Refusal::new(Kind::Forbidden, text));
            }
            if job.state.is_over() {
                let text = format!("job {id} is over: {}", job.state);
                return Err(Refusal::new(Kind::Conflict, text));
            }
            job.state = JobState::Cancelled;
            job.cancelling = true;
            job.reason = reason;
            let job = job.clone();
            state.event("job.cancelled", Some(id), None, Some(&caller.user));
            Ok(job)
        })
    }

    async fn job(&self, id: JobId) -> Result<JobStatus, Refusal> {
        self.trouble().await?;
        self.state().job(id).cloned()
    }

    async fn why(&self, id: JobId) -> Result<Explanation, Refusal> {
        self.trouble().await?;
        let state = self.state().job(id)?.state;
        let (reason, text) = match state {
            JobState::Queued => (sched::Reason::CanStart, "it can start at the next look"),
            _ => (sched::Reason::Placed, "it has its place"),
        };
        Ok(Explanation {
            state,
            reasons: vec![reason],
            could_start_ms: None,
            text: vec![text.to_owned()],
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Refusal> {
        self.trouble().await?;
        Ok(self.state().nodes.values().cloned().collect())
    }

    async fn node(&self, name: &str) -> Result<NodeView, Refusal> {
        self.trouble().await?;
        let state = self.state();
        let mut nodes = state.nodes.values();
        let found = nodes.find(|node| node.id.as_str() == name || node.name == name);
        found.cloned().ok_or_else(|| {
            let text = format!("there is no node {}", name.escape_debug());
            Refusal::new(Kind::NoSuchNode, text)
        })
    }

    async fn change_node(
        &self,
        caller: &Caller,
        id: &NodeId,
        change: NodeChange,
    ) -> Result<NodeView, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            let node = state.node_mut(id)?;
            match change.draining {
                Some(true) => node.state = NodeState::Draining,
                Some(false) if node.state == NodeState::Draining => node.state = NodeState::Ready,
                _ => {}
            }
            if change.healthy == Some(true) && matches!(node.state, NodeState::Quarantined { .. }) {
                node.state = NodeState::Ready;
            }
            for (label, value) in change.labels {
                if value.is_empty() {
                    node.labels.remove(&label);
                } else {
                    node.labels.insert(label, value);
                }
            }
            let node = node.clone();
            state.event("node.changed", None, Some(id.clone()), Some(&caller.user));
            Ok(node)
        })
    }

    async fn revoke(&self, caller: &Caller, id: &NodeId) -> Result<NodeView, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            let node = state.node_mut(id)?;
            node.state = NodeState::Offline;
            node.connected_ms = None;
            let node = node.clone();
            state.event("node.revoked", None, Some(id.clone()), Some(&caller.user));
            Ok(node)
        })
    }

    async fn pending(&self) -> Result<Vec<PendingNode>, Refusal> {
        self.trouble().await?;
        Ok(self.state().pending.values().cloned().collect())
    }

    async fn approve(&self, caller: &Caller, fingerprint: &str) -> Result<PendingNode, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            let Some(node) = state.pending.get(fingerprint).cloned() else {
                let text = "no machine with this fingerprint waits";
                return Err(Refusal::new(Kind::NoSuchNode, text).at("/fingerprint"));
            };
            state.approved.insert(fingerprint.to_owned());
            state.event("node.approved", None, None, Some(&caller.user));
            Ok(node)
        })
    }

    async fn enrol(
        &self,
        address: SocketAddr,
        request: EnrolRequest,
    ) -> Result<EnrolAnswer, Refusal> {
        self.trouble().await?;
        if !request
            .csr_pem
            .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        {
            return Err(Refusal::new(Kind::Invalid, "not a PKCS#10 request").at("/csr_pem"));
        }
        let digest = Sha256::digest(request.csr_pem.as_bytes());
        let digits = digest.iter().take(4).map(|byte| format!("{byte:02x}"));
        let fingerprint: String = digits.collect();
        self.change(|state| {
            let admitted = match &request.token {
                None => state.approved.contains(&fingerprint),
                Some(text) => {
                    let now = state.now_ms;
                    let mut tokens = state.tokens.values_mut();
                    let token = tokens.find(|token| {
                        let fresh = token.used_by.is_none() && token.expires_ms > now;
                        fresh && token.token.as_deref() == Some(text)
                    });
                    let Some(token) = token else {
                        let text = "the token is used, late or nobody's";
                        return Err(Refusal::new(Kind::Forbidden, text).at("/token"));
                    };
                    token.used_by = Some(named(&fingerprint));
                    true
                }
            };
            if admitted {
                state.pending.remove(&fingerprint);
                return Ok(EnrolAnswer::Admitted {
                    id: named(&fingerprint),
                    cert_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
                    ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
                });
            }
            let now = state.tick();
            let first_ms = state.pending.get(&fingerprint).map_or(now, |p| p.first_ms);
            let pending = PendingNode {
                fingerprint: fingerprint.clone(),
                machine: request.machine,
                address: address.to_string(),
                first_ms,
                last_ms: now,
            };
            state.pending.insert(fingerprint.clone(), pending);
            Ok(EnrolAnswer::Pending {
                fingerprint,
                ask_again_seconds: 5,
            })
        })
    }

    async fn renew(&self, _node: &NodeId, csr_pem: &str) -> Result<RenewAnswer, Refusal> {
        self.trouble().await?;
        if !csr_pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----") {
            return Err(Refusal::new(Kind::Invalid, "not a PKCS#10 request").at("/csr_pem"));
        }
        Ok(RenewAnswer {
            cert_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
        })
    }

    async fn queues(&self) -> Result<Vec<QueueView>, Refusal> {
        self.trouble().await?;
        let state = self.state();
        let queues = state.queues.iter();
        Ok(queues
            .map(|(name, settings)| state.queue_view(name, settings))
            .collect())
    }

    async fn set_queue(
        &self,
        caller: &Caller,
        name: &str,
        settings: QueueSettings,
    ) -> Result<QueueView, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            state.queues.insert(name.to_owned(), settings.clone());
            state.event("queue.set", None, None, Some(&caller.user));
            Ok(state.queue_view(name, &settings))
        })
    }

    async fn remove_queue(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            if !state.queues.contains_key(name) {
                let text = format!("there is no queue {name}");
                return Err(Refusal::new(Kind::NoSuchQueue, text));
            }
            if state.count(name, true) > 0 {
                let text = format!("jobs wait in queue {name}");
                return Err(Refusal::new(Kind::Conflict, text));
            }
            state.queues.remove(name);
            state.event("queue.removed", None, None, Some(&caller.user));
            Ok(())
        })
    }

    async fn bookings(&self) -> Result<Vec<BookingView>, Refusal> {
        self.trouble().await?;
        Ok(self.state().bookings.values().cloned().collect())
    }

    async fn book(&self, caller: &Caller, request: BookingRequest) -> Result<BookingView, Refusal> {
        self.trouble().await?;
        self.change(|state| {
            let mut nodes = BTreeSet::new();
            for name in &request.nodes {
                let known = state
                    .nodes
                    .values()
                    .find(|node| node.name == *name || node.id.as_str() == name);
                let none = || Refusal::new(Kind::NoSuchNode, format!("there is no node {name}"));
                nodes.insert(known.ok_or_else(none)?.id.clone());
            }
            let from_ms = state.now_ms + request.in_seconds * 1000;
            let until_ms = from_ms + request.for_seconds * 1000;
            let meets = |it: &&BookingView| {
                it.from_ms < until_ms && from_ms < it.until_ms && !it.nodes.is_disjoint(&nodes)
            };
            if let Some(other) = state.bookings.values().find(meets) {
                let text = format!("booked already, as number {}", other.id);
                return Err(Refusal::new(Kind::Conflict, text));
            }
            let mut users = request.users.clone();
            if users.is_empty() {
                users.insert(caller.user.clone());
            }
            let name = |id: &NodeId| state.nodes[id].name.clone();
            state.last_booking += 1;
            let booking = BookingView {
                id: state.last_booking,
                node_names: nodes.iter().map(name).collect(),
                nodes,
                users,
                from_ms,
                until_ms,
                made_by: caller.user.clone(),
            };
            state.bookings.insert(booking.id, booking.clone());
            state.event("booking.made", None, None, Some(&caller.user));
            Ok(booking)
        })
    }

    async fn unbook(&self, caller: &Caller, id: u64) -> Result<(), Refusal> {
        self.trouble().await?;
        self.change(|state| {
            let Some(booking) = state.bookings.get(&id) else {
                let text = format!("there is no booking {id}");
                return Err(Refusal::new(Kind::NoSuchBooking, text));
            };
            if caller.role != Role::Admin && booking.made_by != caller.user {
                return Err(Refusal::new(Kind::Forbidden, "it is somebody else's"));
            }
            state.bookings.remove(&id);
            state.event("booking.cancelled", None, None, Some(&caller.user));
            Ok(())
        })
    }

    async fn health_check(&self) -> Result<HealthCheckView, Refusal> {
        self.trouble().await?;
        Ok(self.state().health_view())
    }

    async fn set_health_check(
        &self,
        caller: &Caller,
        check: Option<HealthCheck>,
    ) -> Result<HealthCheckView, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            state.health = check;
            state.event("health-check.set", None, None, Some(&caller.user));
            Ok(state.health_view())
        })
    }

    async fn tokens(&self, caller: &Caller) -> Result<Vec<TokenView>, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        let state = self.state();
        let tokens = state.tokens.values().cloned();
        Ok(tokens
            .map(|token| TokenView {
                token: None,
                ..token
            })
            .collect())
    }

    async fn make_token(
        &self,
        caller: &Caller,
        request: TokenRequest,
    ) -> Result<TokenView, Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| {
            let now = state.tick();
            let id = format!("t{}", state.tokens.len() + 1);
            let token = TokenView {
                token: Some(format!("{id}.secret-of-{now}")),
                id: id.clone(),
                machine: request.machine,
                expires_ms: now + u64::from(request.valid_seconds) * 1000,
                used_by: None,
            };
            state.tokens.insert(id, token.clone());
            state.event("token.made", None, None, Some(&caller.user));
            Ok(token)
        })
    }

    async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        self.trouble().await?;
        admin(caller)?;
        self.change(|state| match state.tokens.remove(id) {
            Some(_) => {
                state.event("token.revoked", None, None, Some(&caller.user));
                Ok(())
            }
            None => {
                let text = format!("there is no token {id}");
                Err(Refusal::new(Kind::NoSuchToken, text))
            }
        })
    }
}
